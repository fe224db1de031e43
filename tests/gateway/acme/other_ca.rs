//! Several CAs: the second where the first is of no use, and rehearsals at a staging CA.

use openssl::x509::X509;

use super::{
    RETRY, config, fake_issuer, insist, issued, issuer, orders, pebble_for, pebble_issuer,
    presented, press, root, serial, try_served, wait_until_served,
};
use crate::support::{
    Caddy, FakeCa, Gateway, NameServer, Pebble, Port, Relay, Switch, in_own_network, within,
};

/// Sites ask these issuers in turn.
fn in_turn(issuers: &str, turn: &str) -> String {
    format!(
        "{}certificates:\n  - {{ names: [a.test], issuer: [{turn}] }}\n",
        config(issuers, &["a.test"])
    )
}

/// `caddy` validates at the ports that the world knows, so this has a network of its own.
#[test]
fn caddy_takes_over_from_pebble() {
    if !in_own_network(caddy_takes_over_from_pebble) {
        return;
    }
    let local = |port: u16| ([127, 0, 0, 1], port).into();
    let _names = NameServer::start(local(53));
    let builder = Gateway::builder();
    let _http = Relay::at(local(80), builder.http());
    let _https = Relay::at(local(443), builder.https());
    let mut pebble = pebble_for(&builder).validity(16).start();
    let caddy = Caddy::start();
    let caddy_root = std::fs::read(caddy.root()).expect("a root");
    let caddy_root = X509::from_pem(&caddy_root).expect("a certificate");
    let issuers = format!(
        "{}{}",
        pebble_issuer(&pebble, ""),
        issuer("caddy", &caddy.directory(), &caddy.root(), "")
    );
    let gateway = builder.config(in_turn(&issuers, "pebble, caddy")).spawn();
    let first = wait_until_served(&gateway, "a.test", &root(&pebble));
    pebble.stop();
    // At the renewal the first is gone.
    let second = wait_until_served(&gateway, "a.test", &caddy_root);
    assert_ne!(serial(&first), serial(&second));
    let renewed =
        gateway.wait_for_event("renewed", |event| event.is("certificate_renewed", "a.test"));
    assert_eq!(renewed.issuer.as_deref(), Some("caddy"), "{renewed:?}");
    let failed = gateway.events().into_iter().find(|event| {
        event.is("certificate_failed", "a.test") && event.issuer.as_deref() == Some("pebble")
    });
    assert!(failed.is_some(), "why the first was of no use");
}

#[test]
fn the_second_ca_takes_over_within_one_attempt() {
    let builder = Gateway::builder();
    let gone = Port::take();
    let pebble = pebble_for(&builder).start();
    let nowhere = format!("https://{}/dir", gone.address());
    let issuers = format!(
        "{}{}",
        issuer("first", &nowhere, pebble.ca_file(), ""),
        pebble_issuer(&pebble, "")
    );
    let mut gateway = builder.config(in_turn(&issuers, "first, pebble")).spawn();
    within(super::SECOND * 20, "the second CA to take over", || {
        std::net::TcpStream::connect(gateway.https).ok()?;
        try_served(&gateway, "a.test", &root(&pebble)).ok()
    });
    gateway.wait_until_ready();
    let obtained = gateway.wait_for_event("obtained", |event| {
        event.is("certificate_obtained", "a.test")
    });
    assert_eq!(obtained.issuer.as_deref(), Some("pebble"), "{obtained:?}");
    gateway.restart();
    wait_until_served(&gateway, "a.test", &root(&pebble));
    assert_eq!(
        orders(&pebble),
        1,
        "what the second gave is good enough after a restart"
    );
}

#[test]
fn where_no_ca_is_of_use_each_says_why() {
    let builder = Gateway::builder();
    let (one, two) = (Port::take(), Port::take());
    let file = crate::support::Ca::new("Any").write(builder.dir());
    let directory = |port: &Port| format!("https://{}/dir", port.address());
    let issuers = format!(
        "{}{}",
        issuer("one", &directory(&one), &file, ""),
        issuer("two", &directory(&two), &file, "")
    );
    let gateway = builder.config(in_turn(&issuers, "one, two")).spawn();
    for name in ["one", "two"] {
        within(RETRY, name, || {
            let events = gateway.events();
            let failed = events.iter().find(|event| {
                event.is("certificate_failed", "a.test")
                    && (event.issuer.as_deref() == Some(name) || event.message.contains(name))
            });
            failed.map(|_| ())
        });
    }
}

/// After a failure the staging CA is asked first; what it gives is served to nobody.
#[test]
fn staging_is_asked_first_once_it_has_failed() {
    let builder = Gateway::builder();
    let looking = Relay::to(builder.https(), Switch::Gone);
    let production = Pebble::builder().tls_port(looking.port()).start();
    let staging = pebble_for(&builder).start();
    // Both are reached by the same roots.
    let roots = builder.dir().join("roots.pem");
    let both = [production.ca_file(), staging.ca_file()]
        .map(|file| std::fs::read_to_string(file).expect("a file"))
        .concat();
    std::fs::write(&roots, both).expect("ours");
    let issuer = issuer(
        "pebble",
        &production.directory(),
        &roots,
        &format!(
            "staging: {:?}, challenges: [tls-alpn-01]",
            staging.directory()
        ),
    );
    let mut gateway = builder.config(config(&issuer, &["a.test"])).spawn();
    gateway.wait_for_event("failed", |event| event.is("certificate_failed", "a.test"));
    assert_eq!((orders(&production), orders(&staging)), (1, 0));
    press(&gateway, "a.test");
    within(RETRY, "the rehearsal", || {
        (issued(&staging) > 0).then_some(())
    });
    within(RETRY, "production to fail again", || {
        (gateway.count("certificate_failed", "a.test") >= 2).then_some(())
    });
    let rehearsal = root(&staging);
    assert!(
        try_served(&gateway, "a.test", &rehearsal).is_err(),
        "never served"
    );
    looking.turn(Switch::Pass);
    let real = root(&production);
    insist(&gateway, "a.test", &real);
    gateway.wait_until_ready();
    assert!(try_served(&gateway, "a.test", &rehearsal).is_err());
    gateway.restart();
    assert!(
        try_served(&gateway, "a.test", &real).is_ok(),
        "nor after a restart"
    );
    assert_eq!(issued(&production), 1);
}

/// While the rehearsal fails, the production CA is left in peace.
#[test]
fn production_waits_for_the_rehearsal() {
    let builder = Gateway::builder();
    let looking = Relay::to(builder.https(), Switch::Gone);
    let production = Pebble::builder().tls_port(looking.port()).start();
    let staging = Pebble::builder().tls_port(looking.port()).start();
    let roots = builder.dir().join("roots.pem");
    let both = [production.ca_file(), staging.ca_file()]
        .map(|file| std::fs::read_to_string(file).expect("a file"))
        .concat();
    std::fs::write(&roots, both).expect("ours");
    let issuer = issuer(
        "pebble",
        &production.directory(),
        &roots,
        &format!(
            "staging: {:?}, challenges: [tls-alpn-01]",
            staging.directory()
        ),
    );
    let gateway = builder.config(config(&issuer, &["a.test"])).spawn();
    gateway.wait_for_event("failed", |event| event.is("certificate_failed", "a.test"));
    press(&gateway, "a.test");
    within(RETRY, "the rehearsal to fail", || {
        (gateway.count("certificate_failed", "a.test") >= 2).then_some(())
    });
    assert_eq!((orders(&production), orders(&staging)), (1, 1));
    looking.turn(Switch::Pass);
    insist(&gateway, "a.test", &root(&production));
}

/// An issuer's certificate is not thrown away when another comes first in the list.
#[test]
fn a_certificate_of_the_second_ca_is_kept_until_it_is_due() {
    let builder = Gateway::builder();
    let fake = FakeCa::start(|_| None);
    let pebble = pebble_for(&builder).start();
    let issuers = format!("{}{}", fake_issuer(&fake), pebble_issuer(&pebble, ""));
    let mut gateway = builder.config(in_turn(&issuers, "pebble")).spawn();
    let root = root(&pebble);
    let before = wait_until_served(&gateway, "a.test", &root);
    gateway.wait_until_ready();
    gateway.replace_config(in_turn(&issuers, "fake, pebble"));
    assert_eq!(gateway.reload().0, 200);
    within(RETRY, "the gateway to settle", || {
        gateway.waiting().is_empty().then_some(())
    });
    let after = presented(&gateway, "a.test");
    if serial(&after) == serial(&before) {
        assert_eq!(fake.asked("order").len(), 0);
    } else {
        let root = fake.root().certificate();
        assert!(try_served(&gateway, "a.test", root).is_ok());
    }
}
