//! Sites whose connections are passed on.

use std::time::Duration;

use super::*;
use crate::config::model::{SiteTls, TunnelKind};

const REST: &str = "\
issuers: { local: { local_ca: { } } }
upstreams: { app: { servers: [\"127.0.0.1:3000\"] }, safe: { servers: [\"a:1\"], tls: on } }
";

fn loaded(site: &str) -> Loaded {
    accept(&format!(
        "{REST}sites: [{{ hosts: [a.example, \"*.b.example\"], {site} }}]\n"
    ))
}

#[test]
fn a_site_may_pass_connections_through() {
    let short = loaded("pass_through: app").config.sites;
    assert_eq!(short[0].tls, SiteTls::PassThrough);
    assert!(short[0].routes.is_empty() && short[0].tls_policy.is_none());
    let tunnel = short[0].tunnel.as_ref().expect("a tunnel");
    assert_eq!(tunnel.kind, TunnelKind::PassThrough);
    assert_eq!(&*tunnel.proxy.upstream.name, "app");
    assert_eq!(tunnel.idle, Duration::from_secs(600));
    assert_eq!(tunnel.proxy.connect_timeout, Duration::from_secs(5));
    assert_eq!(tunnel.proxy.total_timeout, None);
    let long =
        "pass_through: { upstream: app, connect: 1s, idle: 2s, total: 3s }, deny: [10.0.0.1]";
    let long = loaded(long).config.sites;
    let tunnel = long[0].tunnel.as_ref().expect("a tunnel");
    let proxy = &tunnel.proxy;
    assert_eq!(proxy.connect_timeout, Duration::from_secs(1));
    assert_eq!(tunnel.idle, Duration::from_secs(2));
    assert_eq!(proxy.total_timeout, Some(Duration::from_secs(3)));
    assert!(long[0].access.is_some());
}

#[test]
fn a_site_may_pass_on_what_is_within_tls() {
    for upstream in ["app", "safe"] {
        let sites = loaded(&format!("tcp: {upstream}")).config.sites;
        let policy = sites[0].tls_policy.as_ref().expect("a policy");
        let tunnel = policy.tunnel.as_ref().expect("a tunnel");
        assert_eq!(&*tunnel.site, "a.example");
        assert_eq!(tunnel.protocols, None);
        assert!(sites[0].tls.is_terminated());
        let tunnel = sites[0].tunnel.as_ref().expect("a tunnel");
        assert_eq!(tunnel.kind, TunnelKind::Tcp);
    }
    let sites = loaded("tcp: app, tls: { alpn: [mqtt, h2] }").config.sites;
    let policy = sites[0].tls_policy.as_ref().expect("a policy");
    let tunnel = policy.tunnel.as_ref().expect("a tunnel");
    let protocols = tunnel.protocols.as_deref().expect("protocols");
    assert_eq!(protocols, ["mqtt".into(), "h2".into()]);
}

#[test]
fn nobody_gets_tls_within_tls_or_relies_on_what_is_not_there() {
    let text = format!("{REST}sites: [{{ hosts: [a.example], pass_through: safe }}]\n");
    let found = errors(&text);
    let [error] = found.as_slice() else {
        panic!("{found:?}")
    };
    assert!(error.contains("TLS within TLS"), "{error}");
    let root = openssl_root();
    let text = format!(
        "tls: {{ client_auth: {{ mode: required, ca: {:?} }} }}\n{REST}\
         sites: [{{ hosts: [a.example], pass_through: app }}]\n",
        root.path()
    );
    let warnings: Vec<_> = accept(&text)
        .warnings
        .iter()
        .map(ToString::to_string)
        .collect();
    let is_named = |warning: &String| warning.contains("does not protect this site");
    assert!(warnings.iter().any(is_named), "{warnings:?}");
}

#[test]
fn servers_that_are_reached_past_rules_are_reported() {
    let warned = |other: &str| {
        let text = format!(
            "{REST}sites:\n- {{ hosts: [a.example], pass_through: app }}\n\
             - {{ hosts: [b.example], upstream: app{other} }}\n"
        );
        let warnings = accept(&text).warnings;
        let is_named = |warning: &String| warning.contains("past the access rules of sites[1]");
        warnings
            .iter()
            .map(ToString::to_string)
            .any(|warning| is_named(&warning))
    };
    assert!(!warned(""));
    assert!(warned(", deny: [192.0.2.1]"));
}

#[test]
fn nobody_is_passed_on_to_the_gateway_itself() {
    let rows = [
        ("[\"127.0.0.1:443\"]", "127.0.0.1:443", true),
        ("[\"0.0.0.0:443\"]", "127.0.0.1:443", true),
        ("[\"[::]:443\"]", "[::1]:443", true),
        ("[\"0.0.0.0:443\"]", "127.0.0.1:8443", false),
        ("[\"0.0.0.0:443\"]", "192.0.2.1:443", false),
        ("[\"127.0.0.1:443\"]", "127.0.0.2:443", false),
    ];
    for (https, server, is_refused) in rows {
        let text = format!(
            "server: {{ https: {https}, http: [] }}\n\
             upstreams: {{ app: {{ servers: [\"{server}\"] }} }}\n\
             sites: [{{ hosts: [a.example], pass_through: app }}]\n"
        );
        if is_refused {
            let found = errors(&text);
            let is_named = |error: &String| error.contains("leads back to the gateway");
            assert!(found.iter().any(is_named), "{https} {server}: {found:?}");
        } else {
            accept(&text);
        }
    }
}

#[test]
fn health_checks_that_servers_cannot_pass_are_reported() {
    for (probe, is_named) in [("path: /up", true), ("tcp: true", false)] {
        let text = format!(
            "upstreams: {{ app: {{ servers: [\"127.0.0.1:3000\"], health: {{ {probe} }} }} }}\n\
             sites: [{{ hosts: [a.example], pass_through: app }}]\n"
        );
        let warnings = accept(&text).warnings;
        let mut texts = warnings.iter().map(ToString::to_string);
        let found = texts.any(|warning| warning.contains("sends requests without TLS"));
        assert_eq!(found, is_named, "{probe}");
    }
}

#[test]
fn certificates_that_decide_nothing_are_reported() {
    let root = openssl_root();
    let warned = |mode: &str| {
        let text = format!(
            "{REST}sites: [{{ hosts: [a.example], tcp: app, \
             client_auth: {{ mode: {mode}, ca: {:?} }} }}]\n",
            root.path()
        );
        let warnings = accept(&text).warnings;
        let mut texts = warnings.iter().map(ToString::to_string);
        texts.any(|warning| warning.contains("protects nothing with 'tcp'"))
    };
    assert!(warned("optional"));
    assert!(!warned("required"));
}

#[test]
fn connections_at_a_time_may_be_limited() {
    let sites = loaded("tcp: app, max_requests: 7").config.sites;
    assert_eq!(sites[0].limits.max_requests, 7);
}

/// A file with a root.
fn openssl_root() -> tempfile::NamedTempFile {
    use openssl::asn1::Asn1Time;
    use openssl::hash::MessageDigest;
    use openssl::pkey::PKey;
    use openssl::x509::{X509Builder, X509NameBuilder};

    let key = PKey::generate_ed25519().expect("a key");
    let mut name = X509NameBuilder::new().expect("a name");
    name.append_entry_by_text("CN", "Root").expect("a name");
    let name = name.build();
    let mut root = X509Builder::new().expect("a certificate");
    root.set_version(2).expect("set");
    root.set_subject_name(&name).expect("set");
    root.set_issuer_name(&name).expect("set");
    root.set_pubkey(&key).expect("set");
    let (now, later) = (Asn1Time::days_from_now(0), Asn1Time::days_from_now(1));
    root.set_not_before(&now.expect("a time")).expect("set");
    root.set_not_after(&later.expect("a time")).expect("set");
    let ca = openssl::x509::extension::BasicConstraints::new()
        .critical()
        .ca()
        .build();
    root.append_extension(ca.expect("an extension"))
        .expect("set");
    root.sign(&key, MessageDigest::null()).expect("signed");
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), root.build().to_pem().expect("PEM")).expect("written");
    file
}
