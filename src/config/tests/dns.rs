//! Providers of DNS records: the resulting models, and warnings.

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::config::model::*;
use crate::secret::Secret;

fn dns(entry: &str) -> Arc<Dns> {
    let loaded = accept(&format!("dns: {{ main: {{ {entry} }} }}\n{GOOD}"));
    assert_eq!(loaded.warnings, []);
    Arc::clone(&loaded.config.dns["main"])
}

fn secret(text: &str) -> Secret {
    Secret::new(text.to_owned())
}

#[test]
fn propagation_is_seen_to_by_default() {
    let entry = dns("hetzner: { api_token: ${SECRET} }");
    assert_eq!(
        *entry,
        Dns {
            provider: DnsService::Hetzner(Hetzner {
                endpoint: "https://api.hetzner.cloud/v1".to_owned(),
                api_token: secret("hunter2"),
            }),
            ttl: 60,
            resolvers: Vec::new(),
            propagation: Some(Propagation {
                servers: Vec::new(),
                timeout: Duration::from_secs(120),
                interval: Duration::from_secs(2),
                wait: Duration::ZERO,
            }),
            ca_file: None,
            proxy: None,
        }
    );
    assert!(!format!("{entry:?}").contains("hunter2"));
    let off = dns("hetzner: { api_token: t }, propagation: off, proxy: \"http://a:1\"");
    assert_eq!(off.propagation, None);
    assert_eq!(off.proxy, Some("http://a:1".parse().unwrap()));
    let chosen = dns(
        "hetzner: { api_token: t }, ttl: 300, resolvers: [\"[::1]:53\"], \
         propagation: { servers: [\"10.0.0.1:53\"], timeout: 5m, interval: 500ms, wait: 10s }",
    );
    assert_eq!(chosen.ttl, 300);
    assert_eq!(chosen.resolvers, ["[::1]:53".parse().unwrap()]);
    assert_eq!(
        chosen.propagation,
        Some(Propagation {
            servers: vec!["10.0.0.1:53".parse().unwrap()],
            timeout: Duration::from_secs(300),
            interval: Duration::from_millis(500),
            wait: Duration::from_secs(10),
        })
    );
}

#[test]
fn every_provider_becomes_one() {
    let tsig = "rfc2136: { server: \"ns.example:53\", tsig_name: acme., \
                tsig_algorithm: hmac-sha512, tsig_secret: \"c2VjcmV0\" }";
    let account = "endpoint: \"https://a/\", username: u, password: p, subdomain: AB-c";
    for (entry, expected) in [
        (
            "rfc2136: { server: \"[::1]:53\" }",
            DnsService::Rfc2136(Rfc2136 {
                server: NameServer::Ip("[::1]:53".parse().unwrap()),
                tsig: None,
            }),
        ),
        (
            tsig,
            DnsService::Rfc2136(Rfc2136 {
                server: NameServer::Name {
                    host: "ns.example".parse().unwrap(),
                    port: 53,
                },
                tsig: Some(Tsig {
                    name: "acme".parse().unwrap(),
                    algorithm: TsigAlgorithm::HmacSha512,
                    secret: secret("c2VjcmV0"),
                }),
            }),
        ),
        (
            "cloudflare: { api_token: t }",
            DnsService::Cloudflare(Cloudflare {
                endpoint: "https://api.cloudflare.com/client/v4".to_owned(),
                api_token: secret("t"),
            }),
        ),
        (
            "route53: { access_key_id: AKIA, secret_access_key: \"s/+\" }",
            DnsService::Route53(Route53 {
                endpoint: "https://route53.amazonaws.com".to_owned(),
                region: "us-east-1".to_owned(),
                access_key_id: "AKIA".to_owned(),
                secret_access_key: secret("s/+"),
                session_token: None,
                hosted_zone_id: None,
            }),
        ),
        (
            "digitalocean: { api_token: t, endpoint: \"http://127.0.0.1:1/\" }",
            DnsService::DigitalOcean(DigitalOcean {
                endpoint: "http://127.0.0.1:1".to_owned(),
                api_token: secret("t"),
            }),
        ),
        (
            &format!("acme_dns: {{ {account} }}"),
            DnsService::AcmeDns(AcmeDns {
                endpoint: "https://a".to_owned(),
                accounts: AcmeDnsAccounts::One {
                    username: "u".to_owned(),
                    password: secret("p"),
                    subdomain: "ab-c".to_owned(),
                },
            }),
        ),
        (
            "acme_dns: { endpoint: \"https://a\", accounts: acme-dns.json }",
            DnsService::AcmeDns(AcmeDns {
                endpoint: "https://a".to_owned(),
                accounts: AcmeDnsAccounts::File("/base/acme-dns.json".into()),
            }),
        ),
        (
            "httpreq: { endpoint: \"http://hook.internal/dns/\" }",
            DnsService::HttpReq(HttpReq {
                endpoint: "http://hook.internal/dns".to_owned(),
                login: None,
            }),
        ),
        (
            "httpreq: { endpoint: \"https://hook.internal\", username: u, password: \"p w\" }",
            DnsService::HttpReq(HttpReq {
                endpoint: "https://hook.internal".to_owned(),
                login: Some(("u".to_owned(), secret("p w"))),
            }),
        ),
        (
            "exec: { command: [/bin/true, -v], timeout: 5s, env: { KEY: ${SECRET} } }",
            DnsService::Exec(DnsExec {
                program: "/bin/true".into(),
                arguments: vec!["-v".to_owned()],
                timeout: Duration::from_secs(5),
                env: vec![("KEY".to_owned(), secret("hunter2"))],
            }),
        ),
    ] {
        assert_eq!(dns(entry).provider, expected, "{entry}");
    }
}

#[test]
fn issuers_and_certificates_name_an_entry() {
    let entries = "dns: { one: { hetzner: { api_token: t } }, two: { hetzner: { api_token: t } }, \
                   three: { hetzner: { api_token: t } } }\n";
    let loaded = accept(&format!(
        "{entries}issuers: {{ a: {{ acme: {{ dns: two }} }} }}\n\
         certificates: [{{ names: [www.example.com], dns: one }}, {{ names: [example.com] }}]"
    ));
    let [warning] = loaded.warnings.as_slice() else {
        panic!("{:?}", loaded.warnings)
    };
    assert_eq!(warning.path, "dns.three");
    let named = |index: usize| match &loaded.config.certificates[index] {
        CertificateSource::Managed { dns, .. } => dns.as_deref(),
        other => panic!("{other:?}"),
    };
    assert_eq!((named(0), named(1)), (Some("one"), None));
    let Issuer::Acme(acme) = &loaded.config.issuers["a"] else {
        panic!("no issuer with ACME")
    };
    assert_eq!(acme.dns.as_deref(), Some("two"));
}

#[test]
fn secrets_in_the_clear_are_warned_of() {
    for (entry, warned) in [
        (
            "hetzner: { api_token: t, endpoint: \"http://a.internal/\" }",
            true,
        ),
        (
            "hetzner: { api_token: t, endpoint: \"http://localhost:1/\" }",
            false,
        ),
        ("httpreq: { endpoint: \"http://a.internal/\" }", false),
        (
            "httpreq: { endpoint: \"http://a.internal/\", username: u, password: p }",
            true,
        ),
    ] {
        let loaded = accept(&format!("dns: {{ main: {{ {entry} }} }}\n{GOOD}"));
        let paths: Vec<_> = loaded.warnings.iter().map(|one| &*one.path).collect();
        assert_eq!(!paths.is_empty(), warned, "{entry}");
        assert!(paths.iter().all(|path| path.ends_with(".endpoint")));
    }
}
