//! What is found out about names.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use snigate::dns::lookup::{LookupOptions, Lookups, Propagation};
use snigate::dns::{DnsError, TxtRecord};

use super::{lookups, name};
use crate::support::{Bind, Knot, in_own_network};

const ZONE: &str = "
www        A     192.0.2.1
www        AAAA  2001:db8::1
alias      CNAME www
one        CNAME two
two        CNAME one
far        CNAME acme.other.test.
gone       CNAME nowhere.other.test.
parts      TXT   \"first \" \"second\"
parts      TXT   \"another\"
*.wild     A     192.0.2.9
";

fn server() -> Knot {
    Knot::builder()
        .zone("example.test", ZONE)
        .zone("child.example.test", "deep A 192.0.2.3")
        .zone("other.test", "acme TXT \"token\"\nacme A 192.0.2.2")
        .start()
}

#[tokio::test]
async fn aliases_lead_to_the_name_they_stand_for() {
    let server = server();
    let dns = lookups(&[server.address()]);
    for (from, to) in [
        ("www.example.test", "www.example.test"),
        ("alias.example.test", "www.example.test"),
        ("far.example.test", "acme.other.test"),
        ("gone.example.test", "nowhere.other.test"),
        ("none.example.test", "none.example.test"),
    ] {
        assert_eq!(dns.target(&name(from)).await, Ok(name(to)), "{from}");
    }
    assert_eq!(
        dns.target(&name("one.example.test")).await,
        Err(DnsError::Refused(
            "the alias (CNAME) leads in a loop: one.example.test → two.example.test → \
             one.example.test"
                .to_owned()
        ))
    );
}

#[tokio::test]
async fn aliases_that_a_resolver_followed_are_followed() {
    let server = Bind::start(&[
        ("example.test", ZONE),
        ("other.test", "acme TXT \"token\"\nacme A 192.0.2.2"),
    ]);
    let dns = lookups(&[server.address()]);
    let (far, acme) = (name("far.example.test"), name("acme.other.test"));
    assert_eq!(dns.target(&far).await, Ok(acme));
    assert_eq!(dns.txt(&far).await, Ok(vec!["token".to_owned()]));
    assert_eq!(dns.zone(&far).await, Ok(name("example.test")));
    let gone = dns.target(&name("gone.example.test")).await;
    assert_eq!(gone, Ok(name("nowhere.other.test")));
}

#[tokio::test]
async fn eight_aliases_are_followed_and_no_more() {
    let aliases: String = (0..10)
        .map(|number| format!("a{number} CNAME a{}\n", number + 1))
        .collect();
    let server = Knot::builder().zone("example.test", &aliases).start();
    let dns = lookups(&[server.address()]);
    let end = dns.target(&name("a2.example.test")).await;
    assert_eq!(end, Ok(name("a10.example.test")));
    let error = dns.target(&name("a1.example.test")).await.unwrap_err();
    assert!(
        error.to_string().contains("over more than 8 aliases: a1."),
        "{error}"
    );
}

#[tokio::test]
async fn a_zone_is_the_nearest_name_with_an_soa_record() {
    let server = server();
    let dns = lookups(&[server.address()]);
    for (of, zone) in [
        ("example.test", "example.test"),
        ("_acme-challenge.www.example.test", "example.test"),
        ("a.deep.child.example.test", "child.example.test"),
        // The zone of an alias is not that of its target.
        ("far.example.test", "example.test"),
    ] {
        assert_eq!(dns.zone(&name(of)).await, Ok(name(zone)), "{of}");
    }
    let error = dns.zone(&name("www.unknown.invalid")).await;
    assert_eq!(
        error,
        Err(DnsError::Refused(
            "www.unknown.invalid is in no zone of the DNS: its last label does not exist there"
                .to_owned()
        ))
    );
}

#[tokio::test]
async fn texts_and_addresses_are_found_behind_aliases() {
    let server = server();
    let dns = lookups(&[server.address()]);
    let mut texts = dns.txt(&name("parts.example.test")).await.expect("texts");
    texts.sort();
    assert_eq!(texts, ["another", "first second"]);
    assert_eq!(
        dns.txt(&name("far.example.test")).await.expect("texts"),
        ["token"]
    );
    assert_eq!(dns.txt(&name("none.example.test")).await, Ok(Vec::new()));
    for (of, addresses) in [
        ("alias.example.test", &["192.0.2.1", "2001:db8::1"][..]),
        ("far.example.test", &["192.0.2.2"]),
        ("x.wild.example.test", &["192.0.2.9"]),
        ("gone.example.test", &[]),
        ("none.example.test", &[]),
    ] {
        let expected: Vec<IpAddr> = addresses.iter().map(|a| a.parse().expect("one")).collect();
        assert_eq!(dns.addresses(&name(of)).await, Ok(expected), "{of}");
    }
}

/// Three servers of one zone, each with its own copy: 127.0.0.1, which is the resolver and knows
/// where the others are, and the zone's servers 127.0.0.2 and 127.0.0.3.
fn zone_of_two() -> [Knot; 3] {
    let at = |last: u8| SocketAddr::from(([127, 0, 0, last], 53));
    let records = "@ NS ns1\n@ NS ns2\nns1 A 127.0.0.2\nns2 A 127.0.0.3\n";
    [1, 2, 3].map(|last| {
        Knot::builder()
            .address(at(last))
            .zone("example.test", records)
            .start()
    })
}

fn system() -> Lookups {
    Lookups::new(LookupOptions {
        patience: Duration::from_millis(500),
        ..LookupOptions::default()
    })
}

fn soon() -> Propagation {
    Propagation {
        timeout: Duration::from_millis(300),
        interval: Duration::from_millis(20),
        wait: Duration::ZERO,
    }
}

fn record() -> TxtRecord {
    TxtRecord {
        name: name("_acme-challenge.example.test"),
        value: "token".to_owned(),
    }
}

const ADD: &[&str] = &["add _acme-challenge.example.test. 60 TXT token"];

#[tokio::test]
async fn the_servers_of_a_zone_have_the_word_and_not_the_resolver() {
    if !in_own_network(the_servers_of_a_zone_have_the_word_and_not_the_resolver) {
        return;
    }
    let [_resolver, one, two] = zone_of_two();
    let dns = system();
    let mut servers: Vec<_> = dns
        .servers(&name("example.test"))
        .await
        .expect("two")
        .iter()
        .map(ToString::to_string)
        .collect();
    servers.sort();
    assert_eq!(
        servers,
        [
            "ns1.example.test (127.0.0.2)",
            "ns2.example.test (127.0.0.3)"
        ]
    );
    // The resolver knows nothing of this yet.
    one.update("example.test", ADD);
    two.update("example.test", ADD);
    assert_eq!(dns.txt(&record().name).await.expect("texts"), ["token"]);
}

#[tokio::test]
async fn a_record_is_waited_for_at_all_servers_of_its_zone() {
    if !in_own_network(a_record_is_waited_for_at_all_servers_of_its_zone) {
        return;
    }
    let [_resolver, mut one, two] = zone_of_two();
    let (dns, zone) = (system(), name("example.test"));
    one.update("example.test", ADD);
    two.update(
        "example.test",
        &["add _acme-challenge.example.test. 60 TXT old"],
    );
    let late = dns.wait_for(&zone, &record(), &soon()).await.unwrap_err();
    assert_eq!(
        late,
        DnsError::Unreachable(
            "the TXT record of _acme-challenge.example.test was not seen within 0.3 s: \
             ns2.example.test (127.0.0.3) has another value there"
                .to_owned()
        )
    );

    // It comes while it is waited for.
    let patient = Propagation {
        timeout: Duration::from_secs(30),
        ..soon()
    };
    let waiting = tokio::spawn({
        let (dns, zone) = (dns.clone(), zone.clone());
        async move { dns.wait_for(&zone, &record(), &patient).await }
    });
    let two = tokio::task::spawn_blocking(move || {
        two.update("example.test", ADD);
        two
    });
    let mut two = two.await.expect("the update");
    assert_eq!(waiting.await.expect("no panic"), Ok(()));

    // One that nobody can reach does not count, where another can be.
    two.stop();
    assert_eq!(dns.wait_for(&zone, &record(), &soon()).await, Ok(()));
    one.stop();
    let error = dns.wait_for(&zone, &record(), &soon()).await.unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("no name server of the zone example.test can be reached: ns")
            && text.contains("(127.0.0.2) cannot be reached: Connection refused")
            && text.contains("or `propagation: off`"),
        "{text}"
    );
}

#[tokio::test]
async fn configured_servers_are_asked_instead_and_waited_after() {
    let server = Knot::builder()
        .zone("example.test", "_acme-challenge TXT token")
        .start();
    let dns = Lookups::new(LookupOptions {
        servers: vec![server.address()],
        ..LookupOptions::default()
    });
    let (zone, wait) = (name("example.test"), Duration::from_millis(400));
    let start = Instant::now();
    let propagation = Propagation { wait, ..soon() };
    assert_eq!(dns.wait_for(&zone, &record(), &propagation).await, Ok(()));
    assert!(start.elapsed() >= wait, "{:?}", start.elapsed());
    let missing = TxtRecord {
        value: "other".to_owned(),
        ..record()
    };
    let error = dns.wait_for(&zone, &missing, &soon()).await.unwrap_err();
    let who = format!("{} has another value there", server.address());
    assert!(error.to_string().ends_with(&who), "{error}");
}

#[tokio::test]
async fn caa_records_are_those_of_the_nearest_name_that_has_any() {
    let zone = "
@        CAA 0 issue \"ca.example\"
own      CAA 0 issue \"other.example; validationmethods=dns-01\"
own      CAA 128 future \"x\"
alias    CNAME locked.other.test.
open     CNAME www.other.test.
";
    let server = Knot::builder()
        .zone("example.test", zone)
        .zone("other.test", "locked CAA 0 issue \";\"")
        .start();
    let dns = lookups(&[server.address()]);
    for (of, at, records) in [
        (
            "a.b.example.test",
            Some("example.test"),
            &["0 issue \"ca.example\""][..],
        ),
        (
            "x.own.example.test",
            Some("own.example.test"),
            &[
                "0 issue \"other.example; validationmethods=dns-01\"",
                "128 future \"x\"",
            ],
        ),
        // Those of an alias are those of its target, which is not climbed from (section 3).
        (
            "alias.example.test",
            Some("alias.example.test"),
            &["0 issue \";\""],
        ),
        (
            "open.example.test",
            Some("example.test"),
            &["0 issue \"ca.example\""],
        ),
        ("www.other.test", None, &[]),
        ("www.unknown.invalid", None, &[]),
    ] {
        let caa = dns.caa(&name(of)).await.expect("an answer");
        assert_eq!(caa.at, at.map(name), "{of}");
        let mut found: Vec<_> = caa.records.iter().map(ToString::to_string).collect();
        found.sort();
        assert_eq!(found, records, "{of}");
    }
}
