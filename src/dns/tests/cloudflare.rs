use serde_json::{Value, json};

use super::*;

/// Two records per page, so that lists have pages.
const PAGE: usize = 2;

struct Cloudflare {
    /// Identifier, name, content.
    records: Vec<(usize, String, String)>,
    made: usize,
}

impl Cloudflare {
    fn new() -> Self {
        let name = record("").name.to_string();
        let foreign = ("\"foreign\"".to_owned(), "\"elsewhere\"".to_owned());
        Self {
            records: vec![
                (1, "_acme-challenge.other.example.com".to_owned(), foreign.1),
                (2, name, foreign.0),
            ],
            made: 2,
        }
    }

    fn answer(&mut self, ask: &Ask) -> Reply {
        if ask.header("authorization") != format!("Bearer {TOKEN}") {
            return failure(403, 9109, "Invalid access token");
        }
        let records = "/client/v4/zones/z1/dns_records";
        match &*ask.method {
            "GET" if ask.path == "/client/v4/zones" => {
                let zones = json!([
                    { "id": "z0", "name": "example.com", "status": "moved" },
                    { "id": "z1", "name": "example.com", "status": "active" },
                ]);
                let known = ask.parameter("name") == Some("example.com");
                page(if known { zones } else { json!([]) }, 1)
            }
            "GET" if ask.path == records => {
                assert_eq!(ask.parameter("type"), Some("TXT"));
                let name = ask.parameter("name").expect("a name");
                let found = self.records.iter().filter(|(_, one, _)| one == name);
                let found: Vec<Value> = found
                    .map(|(id, name, content)| {
                        json!({ "id": id.to_string(), "name": name, "content": content })
                    })
                    .collect();
                let number: usize = ask.parameter("page").expect("a page").parse().expect("one");
                let shown = found.iter().skip((number - 1) * PAGE).take(PAGE);
                page(shown.cloned().collect(), found.len().div_ceil(PAGE))
            }
            "POST" if ask.path == records => {
                let body = ask.json();
                assert_eq!((&body["type"], &body["ttl"]), (&json!("TXT"), &json!(60)));
                let text = |key: &str| body[key].as_str().expect("a text").to_owned();
                let (name, content) = (text("name"), text("content"));
                assert!(
                    content.starts_with('"') && content.ends_with('"'),
                    "{content}"
                );
                let mut records = self.records.iter();
                if records.any(|(_, one, value)| *one == name && *value == content) {
                    return failure(400, 81058, "An identical record already exists.");
                }
                self.made += 1;
                self.records.push((self.made, name, content));
                Reply::json(200, &json!({ "success": true, "result": {} }))
            }
            "DELETE" => {
                let id = ask.path.rsplit('/').next().and_then(|id| id.parse().ok());
                let before = self.records.len();
                self.records.retain(|(one, ..)| Some(*one) != id);
                if self.records.len() == before {
                    return failure(404, 81044, "Record does not exist.");
                }
                Reply::json(200, &json!({ "success": true, "result": {} }))
            }
            _ => panic!("{ask:?}"),
        }
    }
}

fn page(result: Value, pages: usize) -> Reply {
    Reply::json(
        200,
        &json!({ "success": true, "result": result, "result_info": { "total_pages": pages } }),
    )
}

fn failure(status: u16, code: u64, message: &str) -> Reply {
    let errors = json!([{ "code": code, "message": message }]);
    Reply::json(status, &json!({ "success": false, "errors": errors }))
}

fn configured(url: &str, token: &str) -> Arc<dyn DnsProvider> {
    let endpoint = format!("{url}/client/v4/");
    let dns = entry(&format!(
        "cloudflare: {{ api_token: \"{token}\", endpoint: \"{endpoint}\" }}, ttl: 5"
    ));
    open_provider("main", &dns).expect("opened")
}

#[tokio::test]
async fn values_are_kept_one_by_one() {
    let mut cloudflare = Cloudflare::new();
    let stand_in = StandIn::start(move |ask| cloudflare.answer(ask));
    let provider = configured(&stand_in.url, TOKEN);
    keeps_each_value_by_itself(&*provider, "foreign").await;
    tells_trouble_from_refusal(&*provider, &stand_in).await;
}

#[tokio::test]
async fn a_zone_or_a_token_that_is_not_known_is_told() {
    let mut cloudflare = Cloudflare::new();
    let stand_in = StandIn::start(move |ask| cloudflare.answer(ask));
    let wrong = configured(&stand_in.url, "wrong");
    let error = wrong.add(&zone(), &record("a")).await;
    let text = error.expect_err("a wrong token").to_string();
    assert!(
        text.contains("Invalid access token") && text.contains("'api_token'"),
        "{text}"
    );
    let provider = configured(&stand_in.url, TOKEN);
    let error = provider.add(&name("example.org"), &record("a")).await;
    let error = error.expect_err("no such zone");
    assert!(
        matches!(&error, DnsError::Refused(what) if what.contains("no zone example.org")),
        "{error}"
    );
}
