use std::time::Duration;

use serde_json::json;

use super::*;
use crate::dns::hetzner::HetznerProvider;

const SET: &str = "/v1/zones/example.com/rrsets/_acme-challenge.www/TXT";

/// What Hetzner has: values with their quotes, and the state of the last change.
struct Hetzner {
    ttl: Option<u64>,
    values: Vec<String>,
    /// How many more times the last change appears to be running.
    running: u32,
}

impl Hetzner {
    fn answer(&mut self, ask: &Ask) -> Reply {
        if ask.header("authorization") != format!("Bearer {TOKEN}") {
            return failure(401, "unauthorized", "unable to authenticate");
        }
        let values = |ask: &Ask| -> Vec<String> {
            let body = ask.json();
            let records = body["records"].as_array().expect("a list");
            let value = |one: &serde_json::Value| one["value"].as_str().expect("a text").to_owned();
            records.iter().map(value).collect()
        };
        let change = |path: &str| ask.line() == format!("POST {SET}/actions/{path}");
        if ask.line() == "GET /v1/actions/7" {
            self.running = self.running.saturating_sub(1);
            let status = if self.running == 0 {
                "success"
            } else {
                "running"
            };
            return Reply::json(200, &json!({ "action": { "id": 7, "status": status } }));
        }
        if ask.line() == format!("GET {SET}") && !self.values.is_empty() {
            let records: Vec<_> = self
                .values
                .iter()
                .map(|one| json!({ "value": one }))
                .collect();
            let set = json!({ "name": "x", "type": "TXT", "ttl": self.ttl, "records": records });
            return Reply::json(200, &json!({ "rrset": set }));
        }
        if change("add_records") {
            let new = values(ask);
            let ttl = ask.json()["ttl"].as_u64();
            if ttl.is_some() && self.ttl.is_some() && ttl != self.ttl {
                return failure(422, "invalid_input", "ttl differs");
            }
            if self.values.iter().any(|one| new.contains(one)) {
                return failure(422, "invalid_input", "is there already");
            }
            self.ttl = self.ttl.or(ttl);
            self.values.extend(new);
        } else if change("remove_records") {
            let old = values(ask);
            self.values.retain(|one| !old.contains(one));
            self.ttl = self.ttl.filter(|_| !self.values.is_empty());
        } else {
            return failure(404, "not_found", "not found");
        }
        self.running = 3;
        Reply::json(201, &json!({ "action": { "id": 7, "status": "running" } }))
    }
}

fn failure(status: u16, code: &str, message: &str) -> Reply {
    let error = json!({ "code": code, "message": message });
    Reply::json(status, &json!({ "error": error }))
}

fn stand_in() -> StandIn {
    let mut hetzner = Hetzner {
        ttl: Some(3600),
        values: vec!["\"foreign\"".to_owned()],
        running: 0,
    };
    StandIn::start(move |ask| hetzner.answer(ask))
}

fn configured(url: &str) -> HetznerProvider {
    let dns = entry(&format!(
        "hetzner: {{ api_token: {TOKEN}, endpoint: \"{url}/v1\" }}"
    ));
    let DnsService::Hetzner(config) = &dns.provider else {
        panic!("another provider")
    };
    let provider = HetznerProvider::new("main", config, &dns).expect("opened");
    provider.with_pause(Duration::from_millis(5))
}

#[tokio::test]
async fn values_are_kept_one_by_one() {
    let stand_in = stand_in();
    let provider = configured(&stand_in.url);
    keeps_each_value_by_itself(&provider, "foreign").await;
    assert!(
        stand_in.count("GET /v1/actions/7") > 3,
        "changes are waited for"
    );
    tells_trouble_from_refusal(&provider, &stand_in).await;
}

#[tokio::test]
async fn a_change_waits_for_the_one_before() {
    let stand_in = stand_in();
    let provider = configured(&stand_in.url);
    // Removed, so that the first set has its own TTL.
    let foreign = provider.remove(&zone(), &record("foreign")).await;
    foreign.expect("removed");
    let begun = stand_in.asks().len();
    let none = failure(404, "not_found", "not found");
    stand_in.answer_with(none, 1);
    stand_in.answer_with(failure(423, "locked", "an action is running"), 2);
    let added = provider.add(&zone(), &record("ours")).await;
    added.expect("added in the end");
    let lines: Vec<String> = stand_in.asks().iter().skip(begun).map(Ask::line).collect();
    let add = format!("POST {SET}/actions/add_records");
    assert_eq!(
        lines.iter().filter(|line| **line == add).count(),
        3,
        "{lines:?}"
    );
    assert_eq!(listed(&provider).await, ["ours"]);
    // Two at once take turns.
    let (first, second) = (record("one"), record("two"));
    let zone = zone();
    let (one, two) = tokio::join!(provider.add(&zone, &first), provider.add(&zone, &second));
    assert_eq!((one, two), (Ok(()), Ok(())));
    assert_eq!(listed(&provider).await, ["one", "ours", "two"]);
}

#[tokio::test]
async fn a_change_that_fails_and_a_zone_that_is_not_known_are_told() {
    let stand_in = stand_in();
    let provider = configured(&stand_in.url);
    let begun = json!({ "action": { "id": 9, "status": "error",
        "error": { "code": "x", "message": "the zone is asleep" } } });
    stand_in.answer_with(failure(404, "not_found", "not found"), 1);
    stand_in.answer_with(Reply::json(201, &begun), 1);
    let error = provider.add(&zone(), &record("ours")).await;
    let text = error.expect_err("it failed").to_string();
    assert!(text.contains("the zone is asleep"), "{text}");
    let other = TxtRecord {
        name: name("_acme-challenge.example.org"),
        value: "a".to_owned(),
    };
    let error = provider.add(&name("example.org"), &other).await;
    let error = error.expect_err("no such zone");
    assert!(
        matches!(&error, DnsError::Refused(what) if what.contains("the zone example.org is in")),
        "{error}"
    );
}
