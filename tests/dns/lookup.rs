//! What is found out about names.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use snigate::dns::lookup::{LookupOptions, Lookups, Propagation};
use snigate::dns::{DnsError, TxtRecord};

use crate::support::{Knot, in_own_network};
use crate::{lookups, name};

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
            "the alias (CNAME) leads in a circle: one.example.test → two.example.test → \
             one.example.test"
                .to_owned()
        ))
    );
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
