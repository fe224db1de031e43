//! Resolvers that lie about the servers of one site.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use super::super::over;
use super::{beside, undisturbed, well};
use crate::support::{Act, Mood, Origin, Resolver, wait_for};

/// How resolvers lie.
const LIES: [(&str, Mood); 7] = [
    ("the answer to another question", Mood::WrongId),
    ("a question of its own", Mood::OtherQuestion),
    ("another name's addresses", Mood::OtherName),
    ("octets that are no message", Mood::Garbage),
    ("half of a message", Mood::Cut),
    ("no more than a part, over TCP too", Mood::AlwaysTruncating),
    ("an alias of itself", Mood::Lazy),
];

fn loopback(last: u8) -> IpAddr {
    Ipv4Addr::new(127, 0, 0, last).into()
}

#[test]
fn a_lie_is_noticed_and_changes_nothing() {
    const TTL: u32 = 1;
    let (well, resolver) = (well(), Resolver::start());
    let good = Origin::named("good");
    let port = good.address().port();
    let (good_address, evil_address) = (loopback(1), loopback(2));
    let _evil = Origin::start_at(SocketAddr::new(evil_address, port), |_| {
        vec![Act::respond(200, "evil")]
    });
    let name = |number: usize| format!("u{number}.internal");
    let (mut upstreams, mut routes) = (String::new(), String::new());
    for number in 0..=LIES.len() {
        let name = name(number);
        resolver.set_addresses(&name, TTL, &[good_address]);
        upstreams += &format!("  u{number}: {{ servers: [\"{name}:{port}\"] }}\n");
        routes += &format!("  - {{ path: /{number}, upstream: u{number} }}\n");
    }
    let gateway = beside(&well, &upstreams, &routes)
        .server(&format!("resolvers: [\"{}\"]", resolver.address()))
        .start();
    let text = |number: usize| {
        let reply = over("1.1", &gateway, "a.test", &format!("/{number}")).send();
        (reply.status, reply.text())
    };
    let good_text = (200, "good".to_owned());
    let line = |number: usize, text: &str| {
        let server = format!("{}:{port}", name(number));
        let log = gateway.log();
        log.lines()
            .any(|line| line.contains(text) && line.contains(&server))
    };
    undisturbed(&gateway, &["b.test"], || {
        let start = Instant::now();
        for (number, (_, mood)) in LIES.iter().enumerate() {
            let name = name(number);
            resolver.set_mood(&name, *mood);
            match mood {
                Mood::Lazy => resolver.set_alias(&name, TTL, &name),
                _ => resolver.set_addresses(&name, TTL, &[evil_address]),
            }
        }
        let mut noticed = vec![None; LIES.len()];
        wait_for("all lies to be noticed", || {
            for (number, at) in noticed.iter_mut().enumerate() {
                if at.is_none() && line(number, "its last addresses stay in use") {
                    *at = Some(start.elapsed());
                }
                assert_eq!(text(number), good_text, "{}", LIES[number].0);
            }
            noticed.iter().all(Option::is_some).then_some(())
        });
        for ((lie, _), at) in LIES.iter().zip(&noticed) {
            let at = at.expect("noticed");
            eprintln!("{lie} was noticed after {at:.1?}, with a TTL of {TTL} s");
            assert!(at < Duration::from_secs(12), "{lie}: {at:?}");
        }
        // A name about which the resolver says the truth changes as ever.
        let start = Instant::now();
        resolver.set_addresses(&name(LIES.len()), TTL, &[evil_address]);
        wait_for("an honest answer", || {
            (text(LIES.len()).1 == "evil").then_some(())
        });
        eprintln!("an honest answer was noticed after {:.1?}", start.elapsed());
        assert!(start.elapsed() < Duration::from_secs(4));
    });
}
