//! Certificates on demand: the defaults.

use std::time::Duration;

use super::*;
use crate::config::model::NameQuota;

#[test]
fn limits_on_demand_go_by_who_issues() {
    let with = |issuer: &str, rest: &str| {
        let text = format!(
            "issuers: {{ ca: {{ acme: {{ email: a@b.example }} }}, own: {{ local_ca: }} }}\n\
             on_demand: {{ issuer: [{issuer}], allow: [\"*.e.example.com\"], {rest} }}\n\
             sites: [{{ hosts: [a.b], tls: off, routes: [{{ respond: {{}} }}] }}]\n"
        );
        accept(&text).config.on_demand.unwrap()
    };
    let quota = |names, hours: u64| {
        Some(NameQuota {
            names,
            per: Duration::from_secs(hours * 3600),
        })
    };
    let (ca, own) = (with("\"own\", ca", ""), with("own", ""));
    assert!(ca.public && !own.public && ca.ask.is_none());
    assert_eq!((ca.limits.per_minute, own.limits.per_minute), (10, 6000));
    let (domain, client) = (ca.limits.per_domain, ca.limits.per_client);
    assert_eq!((domain, client), (quota(50, 1), quota(20, 1)));
    assert_eq!((own.limits.per_domain, own.limits.per_client), (None, None));
    assert_eq!(own.limits.max_wait, Duration::from_secs(20));
    assert_eq!(own.unused, Duration::from_secs(30 * 86_400));
    let said = with(
        "ca",
        "ask: { url: \"https://a.example/?k=${SECRET}\", timeout: 2s, cache_refused: 0s }, \
         unused: 1d, limits: { max_wait: 1m, max_waiting: 7, per_minute: 3, per_domain: off, \
         per_client: { names: 5, per: 2h } }",
    );
    let ask = said.ask.unwrap();
    assert_eq!(ask.url.unwrap().expose(), "https://a.example/?k=hunter2");
    assert_eq!(
        (ask.timeout, ask.cache_refused),
        (Duration::from_secs(2), Duration::ZERO)
    );
    assert_eq!((said.limits.max_waiting, said.limits.per_minute), (7, 3));
    assert_eq!(
        (said.limits.per_domain, said.limits.per_client),
        (None, quota(5, 2))
    );
    // Both the short form and alone.
    let text = "issuers: { ca: { acme: { email: a@b.example } } }\n\
                on_demand: { ask: \"http://127.0.0.1:5555/check\" }\n\
                sites: [{ hosts: [\"*\"], tls: off, routes: [{ respond: {} }] }]\n";
    let alone = accept(text).config.on_demand.unwrap();
    assert!(alone.allow.is_empty() && alone.ask.is_some());
}
