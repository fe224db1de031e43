//! Records set by dynamic update, at a real name server.

use std::net::SocketAddr;

use futures::future::join_all;
use snigate::config::model::{self, NameServer, Tsig, TsigAlgorithm};
use snigate::dns::{DnsError, DnsProvider, Rfc2136Provider, TxtRecord};
use snigate::secret::Secret;

use super::name;
use crate::support::{Bind, Knot, Port, TSIG_KEY, TSIG_READER, TsigKey};

fn provider(server: SocketAddr, key: Option<TsigKey>) -> Rfc2136Provider {
    at(NameServer::Ip(server), key)
}

fn at(server: NameServer, key: Option<TsigKey>) -> Rfc2136Provider {
    let tsig = key.map(|key| Tsig {
        name: name(key.name),
        algorithm: match key.algorithm {
            "hmac-sha256" => TsigAlgorithm::HmacSha256,
            "hmac-sha384" => TsigAlgorithm::HmacSha384,
            _ => TsigAlgorithm::HmacSha512,
        },
        secret: Secret::new(key.secret.to_owned()),
    });
    Rfc2136Provider::new("main", &model::Rfc2136 { server, tsig }, 60).expect("a key")
}

fn record(value: &str) -> TxtRecord {
    TxtRecord {
        name: name("_acme-challenge.example.test"),
        value: value.to_owned(),
    }
}

fn server() -> Knot {
    Knot::builder().zone("example.test", "").start()
}

#[tokio::test]
async fn records_come_and_go_by_their_very_value() {
    let server = server();
    come_and_go(server.address(), || {
        server.txt("_acme-challenge.example.test")
    })
    .await;
}

#[tokio::test]
async fn records_come_and_go_at_bind_too() {
    let server = Bind::start(&[("example.test", "")]);
    come_and_go(server.address(), || {
        server.txt("_acme-challenge.example.test")
    })
    .await;
}

async fn come_and_go(server: SocketAddr, there: impl Fn() -> Vec<String>) {
    let dns = provider(server, Some(TSIG_KEY));
    assert_eq!(dns.name(), "main");
    let (zone, at) = (name("example.test"), record("").name);
    assert_eq!(dns.list(&zone, &at).await, Ok(Some(Vec::new())));
    for value in ["one", "two", "one"] {
        assert_eq!(dns.add(&zone, &record(value)).await, Ok(()));
    }
    assert_eq!(there(), ["one", "two"]);
    let mut listed = dns
        .list(&zone, &at)
        .await
        .expect("it tells")
        .expect("it can");
    listed.sort();
    assert_eq!(listed, ["one", "two"]);
    for _ in 0..2 {
        assert_eq!(dns.remove(&zone, &record("one")).await, Ok(()));
        assert_eq!(there(), ["two"]);
    }
    assert_eq!(dns.remove(&zone, &record("two")).await, Ok(()));
    assert_eq!(there(), [""; 0]);
}

#[tokio::test]
async fn many_values_are_set_at_once_and_all_listed() {
    let server = server();
    let host = NameServer::Name {
        host: name("localhost"),
        port: server.address().port(),
    };
    let dns = at(host, Some(TSIG_KEY));
    let zone = name("example.test");
    // So many that they fit into no datagram of 512 octets.
    let records: Vec<_> = (10..30)
        .map(|n| record(&format!("{n}").repeat(20)))
        .collect();
    let added = join_all(records.iter().map(|record| dns.add(&zone, record))).await;
    assert!(added.iter().all(Result::is_ok), "{added:?}");
    let mut listed = dns
        .list(&zone, &records[0].name)
        .await
        .expect("it tells")
        .expect("it can");
    listed.sort();
    let expected: Vec<_> = records.into_iter().map(|record| record.value).collect();
    assert_eq!(listed, expected);
}

#[tokio::test]
async fn a_refusal_says_what_to_change() {
    let server = server();
    let not_ours = "is not the primary server of the zone example.test, or does not let";
    refusals(
        server.address(),
        [
            &format!("{not_ours} us change it without a key (NOTAUTH): let 'server' be"),
            "knows no key 'reader' of this algorithm for the zone example.test (BADKEY)",
        ],
    )
    .await;
    assert_eq!(server.txt("_acme-challenge.example.test"), [""; 0]);
}

#[tokio::test]
async fn a_refusal_of_bind_says_so_too() {
    let server = Bind::start(&[("example.test", "")]);
    refusals(
        server.address(),
        [
            "does not let us change the zone example.test (REFUSED): give 'tsig_name'",
            "does not let the key 'reader' change the zone example.test (REFUSED): allow",
        ],
    )
    .await;
    assert_eq!(server.txt("_acme-challenge.example.test"), [""; 0]);
}

/// Asks for what is refused; the servers differ in what they say to those who may not.
async fn refusals(who: SocketAddr, [without_key, with_reader]: [&str; 2]) {
    let nobody = TsigKey {
        name: "nobody",
        ..TSIG_KEY
    };
    let wrong = TsigKey {
        secret: "d3Jvbmc=",
        ..TSIG_KEY
    };
    let below = "_acme-challenge.example.test";
    for (key, zone, said) in [
        (None, "example.test", without_key),
        (Some(TSIG_READER), "example.test", with_reader),
        (
            Some(nobody),
            "example.test",
            "knows no key 'nobody' of this algorithm for the zone example.test (BADKEY): correct",
        ),
        (
            Some(wrong),
            "example.test",
            "has another secret for the key 'acme' (BADSIG): correct 'tsig_secret'",
        ),
        (
            Some(TSIG_KEY),
            below,
            "is not the primary server of the zone _acme-challenge.example.test, or",
        ),
    ] {
        let dns = provider(who, key);
        let error = dns.add(&name(zone), &record("one")).await.unwrap_err();
        let DnsError::Refused(text) = &error else {
            panic!("later it may work: {error}");
        };
        let expected = format!("the name server {who} {said}");
        assert!(text.starts_with(&expected), "{text}\n{expected}");
        assert!(!text.contains(TSIG_KEY.secret), "{text}");
    }
}

#[tokio::test]
async fn what_no_server_could_take_is_not_sent() {
    let dns = provider(Port::take().address(), Some(TSIG_KEY));
    let zone = name("example.test");
    let outside = TxtRecord {
        name: name("www.other.test"),
        value: "x".to_owned(),
    };
    assert_eq!(
        dns.add(&zone, &outside).await,
        Err(DnsError::Refused(
            "www.other.test is not in the zone example.test".to_owned()
        ))
    );
    let long = dns.add(&zone, &record(&"x".repeat(256))).await.unwrap_err();
    assert!(long.to_string().contains("256 octets long"), "{long}");
}

#[tokio::test]
async fn a_server_that_is_gone_may_come_back() {
    let port = Port::take();
    let dns = provider(port.address(), Some(TSIG_KEY));
    let error = dns.add(&name("example.test"), &record("one")).await;
    assert_eq!(
        error,
        Err(DnsError::Unreachable(format!(
            "the name server {} cannot be reached: Connection refused (os error 111)",
            port.address()
        )))
    );
}
