use serde_json::json;

use super::*;

#[tokio::test]
async fn the_server_is_told_in_legos_words() {
    // "me:" and the token.
    const BASIC: &str = "Basic bWU6dG9rLTNuLW9mLXRoZS10ZXN0cw==";
    let stand_in = StandIn::start(|ask| match ask.header("authorization") {
        BASIC => Reply::new(200, ""),
        _ => Reply::new(401, "who are you?"),
    });
    let url = &stand_in.url;
    let dns = entry(&format!(
        "httpreq: {{ endpoint: \"{url}/hook/\", username: me, password: {TOKEN} }}"
    ));
    let provider = open_provider("main", &dns).expect("opened");
    provider.add(&zone(), &record("value")).await.expect("set");
    let removed = provider.remove(&zone(), &record("value")).await;
    removed.expect("removed");
    let asks = stand_in.asks();
    let lines: Vec<String> = asks.iter().map(Ask::line).collect();
    assert_eq!(lines, ["POST /hook/present", "POST /hook/cleanup"]);
    for ask in asks {
        let expected = json!({ "fqdn": "_acme-challenge.www.example.com.", "value": "value" });
        assert_eq!(ask.json(), expected);
    }
    assert_eq!(provider.list(&zone(), &zone()).await, Ok(None));
    tells_trouble_from_refusal(&*provider, &stand_in).await;
    let dns = entry(&format!("httpreq: {{ endpoint: \"{url}\" }}"));
    let provider = open_provider("main", &dns).expect("opened");
    let error = provider.add(&zone(), &record("value")).await;
    let text = error.expect_err("nobody").to_string();
    assert!(
        text.contains("who are you?") && text.contains("'username' and 'password'"),
        "{text}"
    );
    let last = stand_in.asks().pop().expect("one");
    assert_eq!(last.line(), "POST /present");
    assert_eq!(last.header("authorization"), "", "none is configured");
}

#[tokio::test]
async fn a_password_that_is_empty_garbles_no_message() {
    let stand_in = StandIn::start(|_| Reply::new(401, "who are you?"));
    let url = &stand_in.url;
    let dns = entry(&format!(
        "httpreq: {{ endpoint: \"{url}\", username: me, password: \"\" }}"
    ));
    let provider = open_provider("main", &dns).expect("opened");
    let error = provider.add(&zone(), &record("value")).await;
    let text = error.expect_err("nobody").to_string();
    assert!(text.starts_with("dns.main: "), "{text}");
    assert!(text.contains("who are you?"), "{text}");
    assert!(!text.contains("[redacted]"), "{text}");
}
