//! CAs that go away and come back.

use super::{
    RETRY, config, insist, issued, issuer, orders, pebble_for, pebble_issuer, press, root,
    wait_until_served,
};
use crate::support::{Gateway, Pebble, Relay, Switch, within};

const HOSTS: [&str; 8] = [
    "a.test", "b.test", "c.test", "d.test", "e.test", "f.test", "g.test", "h.test",
];

/// Where the CA's API is.
fn api(pebble: &Pebble) -> std::net::SocketAddr {
    let directory = pebble.directory();
    let address = directory
        .trim_start_matches("https://")
        .trim_end_matches("/dir");
    address.parse().expect("an address")
}

/// The way to the CA is cut while it looks at the names, and mended: no order is made twice.
#[test]
fn a_ca_that_is_away_in_the_middle_of_orders() {
    let builder = Gateway::builder();
    let looking = Relay::to(builder.http(), Switch::Hold);
    let pebble = Pebble::builder().http_port(looking.port()).start();
    let way = Relay::to(api(&pebble), Switch::Pass);
    let directory = format!("https://{}/dir", way.address());
    let issuer = issuer(
        "pebble",
        &directory,
        pebble.ca_file(),
        "challenges: [http-01]",
    );
    let gateway = builder.config(config(&issuer, &HOSTS)).spawn();
    within(RETRY, "all orders", || {
        (orders(&pebble) == HOSTS.len() && looking.connections() >= HOSTS.len()).then_some(())
    });
    way.turn(Switch::Gone);
    for host in HOSTS {
        gateway.wait_for_event("failed", |event| event.is("certificate_failed", host));
    }
    way.turn(Switch::Pass);
    for host in HOSTS {
        press(&gateway, host);
    }
    // The CA continues to look at all of them, once all are answered again.
    let proofs = gateway.dir().join("data/challenges/http-01");
    within(RETRY, "the proofs", || {
        let there = std::fs::read_dir(&proofs).map_or(0, Iterator::count);
        (there == HOSTS.len()).then_some(())
    });
    looking.turn(Switch::Pass);
    let root = root(&pebble);
    for host in HOSTS {
        wait_until_served(&gateway, host, &root);
    }
    assert_eq!(
        orders(&pebble),
        HOSTS.len(),
        "each order is finished, none made again"
    );
    assert_eq!(issued(&pebble), HOSTS.len());
}

/// The CA dies in the middle of orders, and comes back without a memory of anything.
#[test]
fn a_ca_that_dies_in_the_middle_of_orders() {
    let builder = Gateway::builder();
    let looking = Relay::to(builder.https(), Switch::Hold);
    let mut pebble = Pebble::builder().tls_port(looking.port()).start();
    let issuer = pebble_issuer(&pebble, "challenges: [tls-alpn-01]");
    let mut gateway = builder.config(config(&issuer, &HOSTS)).spawn();
    within(RETRY, "all orders", || {
        (orders(&pebble) == HOSTS.len() && looking.connections() > 0).then_some(())
    });
    pebble.stop();
    for host in HOSTS {
        gateway.wait_for_event("failed", |event| event.is("certificate_failed", host));
    }
    looking.turn(Switch::Pass);
    pebble.restart();
    let root = root(&pebble);
    for host in HOSTS {
        insist(&gateway, host, &root);
    }
    gateway.wait_until_ready();
}

/// The same, at moments of chance: it is killed again and again while it issues.
#[test]
fn a_ca_that_dies_again_and_again() {
    let builder = Gateway::builder();
    let mut pebble = pebble_for(&builder).start();
    let issuer = pebble_issuer(&pebble, "");
    let mut gateway = builder.config(config(&issuer, &HOSTS)).spawn();
    for round in 0..3 {
        let log = pebble.log().len();
        for host in HOSTS {
            if gateway.count("certificate_failed", host) > 0 {
                press(&gateway, host);
            }
        }
        within(RETRY, "the CA to be asked", || {
            (pebble.log().len() > log).then_some(())
        });
        std::thread::sleep(std::time::Duration::from_millis(fastrand::u64(0..150)));
        pebble.restart();
        eprintln!("round {round}: {} issued", issued(&pebble));
        if gateway.waiting().is_empty() {
            break;
        }
    }
    for host in HOSTS {
        let failed = gateway.count("certificate_failed", host);
        let mut pressed = 0;
        within(RETRY, "a certificate", || {
            // The schedule would have minutes between the attempts.
            let now = gateway.count("certificate_failed", host);
            if now > pressed && now >= failed {
                pressed = now;
                press(&gateway, host);
            }
            gateway
                .curl(host, "/")
                .arg("--insecure")
                .try_send()
                .ok()
                .filter(|reply| reply.text() == host)
        });
    }
    gateway.wait_until_ready();
}
