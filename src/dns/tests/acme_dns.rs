use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::dns::acme_dns::AcmeDnsProvider;

/// A server that knows the account `me`, and registers others.
fn stand_in() -> StandIn {
    let mut made = 0;
    StandIn::start(move |ask| match &*ask.line() {
        "POST /register" => {
            made += 1;
            let account = json!({
                "username": format!("user-{made}"), "password": TOKEN,
                "fulldomain": format!("sub-{made}.auth.example"),
                "subdomain": format!("sub-{made}"), "allowfrom": [],
            });
            Reply::json(201, &account)
        }
        "POST /update" if ask.header("x-api-key") != TOKEN => {
            Reply::json(401, &json!({ "error": "forbidden" }))
        }
        "POST /update" => {
            let txt = ask.json()["txt"].clone();
            Reply::json(200, &json!({ "txt": txt }))
        }
        _ => panic!("{ask:?}"),
    })
}

fn configured(keys: &str) -> AcmeDnsProvider {
    let dns = entry(&format!("acme_dns: {{ {keys} }}"));
    let DnsService::AcmeDns(config) = &dns.provider else {
        panic!("another provider")
    };
    AcmeDnsProvider::new("main", config, &dns).expect("opened")
}

fn one_account(url: &str) -> AcmeDnsProvider {
    configured(&format!(
        "endpoint: \"{url}\", username: me, password: {TOKEN}, subdomain: SUB-1"
    ))
}

fn delegated(value: &str) -> TxtRecord {
    TxtRecord {
        name: name("sub-1.auth.example"),
        value: value.to_owned(),
    }
}

#[tokio::test]
async fn an_account_sets_its_subdomain() {
    let stand_in = stand_in();
    let provider = one_account(&stand_in.url);
    let zone = name("auth.example");
    for value in ["a", "b", "a"] {
        let added = provider.add(&zone, &delegated(value)).await;
        added.expect("set");
    }
    let asks = stand_in.asks();
    let bodies: Vec<Value> = asks.iter().map(Ask::json).collect();
    let body = |value: &str| json!({ "subdomain": "sub-1", "txt": value });
    assert_eq!(
        bodies,
        [body("a"), body("b")],
        "a value set twice would push one out"
    );
    assert!(asks.iter().all(|ask| ask.header("x-api-user") == "me"));
    assert_eq!(provider.list(&zone, &zone).await, Ok(None));
    // Names that do not lead there.
    let error = provider.add(&zone, &record("a")).await;
    let error = error.expect_err("not delegated");
    assert!(
        matches!(&error, DnsError::Refused(what) if what.contains("CNAME")),
        "{error}"
    );
}

#[tokio::test]
async fn a_third_value_waits_for_its_place() {
    let stand_in = stand_in();
    let zone = name("auth.example");
    let provider = one_account(&stand_in.url).with_wait(Duration::from_millis(50));
    for value in ["a", "b"] {
        let added = provider.add(&zone, &delegated(value)).await;
        added.expect("set");
    }
    let error = provider.add(&zone, &delegated("c")).await;
    let error = error.expect_err("no place");
    assert!(
        matches!(&error, DnsError::Unreachable(what) if what.contains("keeps two values")),
        "{error}"
    );
    let provider = provider.with_wait(Duration::from_secs(60));
    let (third, first) = (delegated("c"), delegated("a"));
    let adding = provider.add(&zone, &third);
    tokio::pin!(adding);
    let soon = tokio::time::timeout(Duration::from_millis(50), &mut adding).await;
    assert!(soon.is_err(), "it waits");
    let removed = provider.remove(&zone, &first).await;
    removed.expect("removed");
    adding.await.expect("set in the end");
    assert_eq!(stand_in.count("POST /update"), 3);
    // A slot is given back if setting fails.
    let removed = provider.remove(&zone, &third).await;
    removed.expect("removed");
    tells_trouble_of_an_account(&provider, &stand_in).await;
}

async fn tells_trouble_of_an_account(provider: &AcmeDnsProvider, stand_in: &StandIn) {
    let zone = name("auth.example");
    for value in ["d", "e", "f"] {
        stand_in.answer_with(Reply::json(401, &json!({ "error": "forbidden" })), 1);
        let error = provider.add(&zone, &delegated(value)).await;
        let error = error.expect_err("forbidden");
        assert!(
            matches!(&error, DnsError::Refused(what) if what.contains("forbidden")),
            "{error}"
        );
    }
    stand_in.answer_with(Reply::new(502, "<html>"), 1);
    let error = provider.add(&zone, &delegated("d")).await;
    let error = error.expect_err("in trouble");
    assert!(matches!(error, DnsError::Unreachable(_)), "{error}");
}

#[tokio::test]
async fn names_without_an_account_are_registered_once() {
    let stand_in = stand_in();
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("acme-dns.json");
    let keys = format!(
        "endpoint: \"{}\", accounts: \"{}\"",
        stand_in.url,
        file.display()
    );
    let provider = configured(&keys);
    let (www, other) = (record("a"), name("_acme-challenge.other.example.com"));
    let zone = zone();
    let (one, two) = tokio::join!(provider.add(&zone, &www), provider.add(&zone, &www));
    for error in [one, two] {
        let text = error.expect_err("not delegated yet").to_string();
        assert!(
            text.contains(
                "set a CNAME record at _acme-challenge.www.example.com that points to \
                 sub-1.auth.example"
            ),
            "{text}"
        );
    }
    let record = TxtRecord {
        name: other,
        value: "a".to_owned(),
    };
    let error = provider.add(&zone, &record).await;
    let text = error.expect_err("not delegated yet").to_string();
    assert!(text.contains("points to sub-2.auth.example"), "{text}");
    assert_eq!(stand_in.count("POST /register"), 2);
    let mode = fs::metadata(&file).expect("the file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let json: Value = serde_json::from_slice(&fs::read(&file).expect("read")).expect("JSON");
    assert_eq!(json["www.example.com"]["subdomain"], "sub-1");
    assert_eq!(json["www.example.com"]["server_url"], json!(stand_in.url));
    // Once the name is delegated, another process sets it with the account in the file.
    let added = configured(&keys)
        .add(&name("auth.example"), &delegated("a"))
        .await;
    added.expect("set");
    let last = stand_in.asks().pop().expect("one");
    assert_eq!(last.header("x-api-user"), "user-1");
}

#[tokio::test]
async fn a_file_that_is_not_one_of_accounts_is_left_alone() {
    let stand_in = stand_in();
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("acme-dns.json");
    fs::write(&file, format!("{{ \"a\": \"{TOKEN}\" }}")).expect("written");
    let provider = configured(&format!(
        "endpoint: \"{}\", accounts: \"{}\"",
        stand_in.url,
        file.display()
    ));
    let error = provider.add(&zone(), &record("a")).await;
    let text = error.expect_err("no accounts").to_string();
    assert!(text.contains("line 1") && !text.contains(TOKEN), "{text}");
    assert_eq!(stand_in.asks().len(), 0);
}
