//! Providers against stand-ins for their APIs, which check requests and keep what is set.

mod acme_dns;
mod cloudflare;
mod digitalocean;
mod docs;
mod exec;
mod hetzner;
mod httpreq;
mod route53;
mod stand_in;

use std::io::Write as _;
use std::path::Path;
use std::sync::LazyLock;

use super::*;
use stand_in::{Ask, Reply, StandIn};

/// The token that the stand-ins accept.
const TOKEN: &str = "tok-3n-of-the-tests";

/// Roots, so that those of the machine do not matter.
static ROOTS: LazyLock<tempfile::NamedTempFile> = LazyLock::new(|| {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]);
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    let pem = made.expect("a certificate").cert.pem();
    file.write_all(pem.as_bytes()).expect("written");
    file
});

/// The entry `main` with this provider, as it is configured.
fn entry(provider: &str) -> Dns {
    let text = format!(
        "dns: {{ main: {{ {provider} }} }}\nsites: [{{ hosts: [a.example], routes: [{{ respond: {{}} }}] }}]"
    );
    let loaded = crate::config::load_str(&text, Path::new("/")).expect("a good configuration");
    let mut dns = Dns::clone(loaded.config.dns.get("main").expect("the entry"));
    if !matches!(dns.provider, DnsService::Exec(_) | DnsService::Rfc2136(_)) {
        dns.ca_file = Some(ROOTS.path().to_owned());
    }
    dns
}

fn name(text: &str) -> HostName {
    text.parse().expect("a name")
}

fn zone() -> HostName {
    name("example.com")
}

fn record(value: &str) -> TxtRecord {
    TxtRecord {
        name: name("_acme-challenge.www.example.com"),
        value: value.to_owned(),
    }
}

/// The values set at the name of the tests, in order.
async fn listed(provider: &dyn DnsProvider) -> Vec<String> {
    let values = provider.list(&zone(), &record("").name).await;
    let mut values = values.expect("listed").expect("it can tell");
    values.sort();
    values
}

/// What every provider with a list does: others' records stay, each of ours is added and removed by
/// its exact value, and nothing is an error the second time. `foreign` exists already.
async fn keeps_each_value_by_itself(provider: &dyn DnsProvider, foreign: &str) {
    let zone = zone();
    assert_eq!(provider.name(), "main");
    assert_eq!(listed(provider).await, [foreign]);
    for value in ["ours-1", "ours-2", "ours-1"] {
        provider.add(&zone, &record(value)).await.expect("added");
    }
    assert_eq!(listed(provider).await, [foreign, "ours-1", "ours-2"]);
    let other = name("_acme-challenge.example.com");
    let values = provider.list(&zone, &other).await;
    assert_eq!(values, Ok(Some(Vec::new())));
    for (value, left) in [
        ("ours-1", &[foreign, "ours-2"][..]),
        ("ours-1", &[foreign, "ours-2"]),
        ("ours", &[foreign, "ours-2"]),
        ("ours-2", &[foreign]),
    ] {
        let removed = provider.remove(&zone, &record(value)).await;
        removed.unwrap_or_else(|error| panic!("{value}: {error}"));
        assert_eq!(listed(provider).await, left, "without {value}");
    }
}

/// How every provider reports problems.
async fn tells_trouble_from_refusal(provider: &dyn DnsProvider, stand_in: &StandIn) {
    let body = |text: &str| text.replace("TOKEN", TOKEN);
    for (reply, passing, words) in [
        (Reply::new(503, "<html>busy</html>"), true, "503"),
        (
            Reply::new(429, "{}").with("retry-after", "17"),
            true,
            "a retry after 17",
        ),
        (
            Reply::new(401, &body("{\"error\":\"TOKEN is not known\"}")),
            false,
            "check ",
        ),
        (Reply::new(403, "no"), false, "check "),
    ] {
        stand_in.answer_with(reply, 1);
        let error = provider.add(&zone(), &record("value")).await;
        let error = error.expect_err("the stand-in is in trouble");
        let text = error.to_string();
        assert_eq!(matches!(error, DnsError::Unreachable(_)), passing, "{text}");
        assert!(text.starts_with("dns.main: "), "{text}");
        assert!(text.contains(words) && !text.contains(TOKEN), "{text}");
    }
}

#[test]
fn entries_are_opened() {
    for provider in [
        "rfc2136: { server: \"127.0.0.1:53\", tsig_name: k, tsig_secret: \"c2VjcmV0\" }",
        "cloudflare: { api_token: t }",
        "route53: { access_key_id: a, secret_access_key: s }",
        "digitalocean: { api_token: t }",
        "hetzner: { api_token: t }",
        "acme_dns: { endpoint: \"https://a\", accounts: /nowhere/accounts.json }",
        "httpreq: { endpoint: \"https://a\", username: u, password: p }",
        "exec: { command: [/bin/true] }",
    ] {
        let opened = open_provider("main", &entry(provider)).map(|one| one.name().to_owned());
        assert_eq!(opened.as_deref(), Ok("main"), "{provider}");
    }
    let mut dns = entry("hetzner: { api_token: t }");
    dns.ca_file = Some("/nowhere/roots.pem".into());
    let error = open_provider("main", &dns).err().expect("no roots");
    assert!(matches!(&error, DnsError::Refused(what) if what.contains("/nowhere/roots.pem")));
}

#[tokio::test]
async fn a_server_that_is_not_there_may_come() {
    let endpoint = StandIn::nobody();
    let dns = entry(&format!(
        "hetzner: {{ api_token: {TOKEN}, endpoint: \"{endpoint}\" }}"
    ));
    let provider = open_provider("main", &dns).expect("opened");
    let error = provider.list(&zone(), &zone()).await.expect_err("nobody");
    assert!(
        matches!(&error, DnsError::Unreachable(what) if what.contains(&endpoint)),
        "{error}"
    );
}
