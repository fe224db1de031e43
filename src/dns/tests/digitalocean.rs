use serde_json::{Value, json};

use super::*;

/// Identifier, name in the zone, text.
type Records = Vec<(usize, String, String)>;

const RECORDS: &str = "/v2/domains/example.com/records";

fn answer(records: &mut Records, ask: &Ask) -> Reply {
    if ask.header("authorization") != format!("Bearer {TOKEN}") {
        let body = json!({ "id": "unauthorized", "message": "Unable to authenticate you" });
        return Reply::json(401, &body);
    }
    match &*ask.method {
        _ if !ask.path.starts_with(RECORDS) => {
            let body = json!({ "id": "not_found", "message": "not found" });
            Reply::json(404, &body)
        }
        "GET" => {
            assert_eq!(ask.parameter("type"), Some("TXT"));
            let full = ask.parameter("name").expect("a name");
            let label = full.strip_suffix(".example.com").unwrap_or("@");
            // A page for each record.
            let found: Vec<_> = records.iter().filter(|(_, one, _)| one == label).collect();
            let page: usize = ask.parameter("page").expect("a page").parse().expect("one");
            let shown: Vec<Value> = found
                .iter()
                .skip(page - 1)
                .take(1)
                .map(|(id, name, data)| {
                    json!({ "id": id, "type": "TXT", "name": name, "data": data, "ttl": 60 })
                })
                .collect();
            let links = if page < found.len() {
                json!({ "pages": { "next": "https://elsewhere/?page=2" } })
            } else {
                json!({})
            };
            Reply::json(200, &json!({ "domain_records": shown, "links": links }))
        }
        "POST" => {
            let body = ask.json();
            assert_eq!((&body["type"], &body["ttl"]), (&json!("TXT"), &json!(30)));
            let text = |key: &str| body[key].as_str().expect("a text").to_owned();
            let id = records.iter().map(|(id, ..)| id + 1).max().unwrap_or(1);
            records.push((id, text("name"), text("data")));
            Reply::json(201, &json!({ "domain_record": {} }))
        }
        "DELETE" => {
            let id: usize = ask
                .path
                .rsplit('/')
                .next()
                .expect("one")
                .parse()
                .expect("one");
            records.retain(|(one, ..)| *one != id);
            Reply::new(204, "")
        }
        _ => panic!("{ask:?}"),
    }
}

fn stand_in() -> StandIn {
    let mut records = vec![
        (
            1,
            "_acme-challenge.other".to_owned(),
            "elsewhere".to_owned(),
        ),
        (2, "_acme-challenge.www".to_owned(), "foreign".to_owned()),
    ];
    StandIn::start(move |ask| answer(&mut records, ask))
}

fn configured(url: &str, token: &str) -> Arc<dyn DnsProvider> {
    let dns = entry(&format!(
        "digitalocean: {{ api_token: \"{token}\", endpoint: \"{url}\" }}, ttl: 1"
    ));
    open_provider("main", &dns).expect("opened")
}

#[tokio::test]
async fn values_are_kept_one_by_one() {
    let stand_in = stand_in();
    let provider = configured(&stand_in.url, TOKEN);
    keeps_each_value_by_itself(&*provider, "foreign").await;
    let set = format!("POST {RECORDS}");
    assert_eq!(stand_in.count(&set), 2, "none is set twice");
    tells_trouble_from_refusal(&*provider, &stand_in).await;
}

#[tokio::test]
async fn a_domain_or_a_token_that_is_not_known_is_told() {
    let stand_in = stand_in();
    let wrong = configured(&stand_in.url, "wrong");
    let error = wrong.remove(&zone(), &record("a")).await;
    let text = error.expect_err("a wrong token").to_string();
    assert!(text.contains("Unable to authenticate you"), "{text}");
    let provider = configured(&stand_in.url, TOKEN);
    let other = name("_acme-challenge.example.org");
    let error = provider.list(&name("example.org"), &other).await;
    let text = error.expect_err("no such domain").to_string();
    assert!(text.contains("no domain example.org"), "{text}");
    let error = provider.list(&zone(), &other).await;
    let text = error.expect_err("not in that zone").to_string();
    assert!(text.contains("is not in the zone example.com"), "{text}");
}
