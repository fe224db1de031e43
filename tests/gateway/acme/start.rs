//! What is served from the first moment on, with and without a CA, with and without certificates.

use openssl::x509::X509;

use super::{
    RETRY, config, insist, issuer, orders, pebble_for, pebble_issuer, plain, presented, root,
    serial, sites, store, stored_at, try_served, wait_until_served,
};
use crate::support::{
    Gateway, Pair, Pebble, Port, ROOT, Relay, Switch, TlsClient, snigate, wait_for, within,
};

/// A CA with a switch before it.
struct Switched {
    pebble: Pebble,
    way: Relay,
    directory: String,
}

impl Switched {
    fn new(builder: &super::Builder) -> Self {
        let pebble = pebble_for(builder).start();
        let address = pebble.directory();
        let address = address
            .trim_start_matches("https://")
            .trim_end_matches("/dir");
        let way = Relay::to(address.parse().expect("an address"), Switch::Gone);
        let directory = format!("https://{}/dir", way.address());
        Self {
            pebble,
            way,
            directory,
        }
    }

    fn issuer(&self) -> String {
        issuer("pebble", &self.directory, self.pebble.ca_file(), "")
    }
}

/// Stores a certificate in the gateway's data directory before it starts.
fn stored(builder: &super::Builder, ca: &Switched, host: &str, pair: &Pair) {
    store(&builder.dir().join("data"), &ca.directory, host, pair);
}

#[test]
fn an_issuer_without_its_roots_keeps_nobody_else_down() {
    let builder = Gateway::builder();
    let pebble = pebble_for(&builder).start();
    let roots = builder.dir().join("roots.pem");
    let files = ROOT.leaf(&["files.test"]).make();
    files.write(builder.dir(), "files");
    let issuer = issuer("pebble", &pebble.directory(), &roots, "");
    let gateway = builder
        .config(format!(
            "certificates: [{{ files: {{ cert: files.pem, key: files.key }} }}]\n{}",
            config(&issuer, &["a.test", "files.test"])
        ))
        .spawn();
    let reason = gateway.wait_until_waiting_for("a.test");
    assert!(!reason.contains("files.test"), "{reason}");
    presented(&gateway, "files.test");
    gateway.wait_for_log("roots.pem");
    // Whoever looks is told that it is wrong, and a change is not taken.
    let checked = snigate(&[
        "check".as_ref(),
        "--config".as_ref(),
        gateway.config.as_os_str(),
    ]);
    assert_eq!(checked.code, Some(3), "{}", checked.stdout);
    let told = checked.stdout + &checked.stderr;
    assert!(told.contains("issuers.pebble.acme.ca_file"), "{told}");
    assert_ne!(gateway.reload().0, 200);

    std::fs::copy(pebble.ca_file(), &roots).expect("ours");
    wait_until_served(&gateway, "a.test", &root(&pebble));
    assert_eq!(gateway.reload().0, 200);
}

#[test]
fn without_the_ca_all_other_sites_are_served() {
    let builder = Gateway::builder();
    let ca = Switched::new(&builder);
    ROOT.leaf(&["files.test"])
        .make()
        .write(builder.dir(), "files");
    let mut gateway = builder
        .config(format!(
            "certificates: [{{ files: {{ cert: files.pem, key: files.key }} }}]\n{}",
            config(&ca.issuer(), &["a.test", "files.test"])
        ))
        .spawn();
    let reason = gateway.wait_until_waiting_for("a.test");
    assert!(!reason.contains("files.test"), "{reason}");
    assert_eq!(gateway.ask("GET", "/readyz").status, 503);
    assert!(try_served(&gateway, "files.test", ROOT.certificate()).is_ok());
    let reply = gateway.curl("files.test", "/").arg("--insecure").send();
    assert_eq!(reply.text(), "files.test");
    let refused = TlsClient::named("a.test").try_connect(gateway.https);
    assert!(
        refused
            .err()
            .unwrap_or_default()
            .contains("unrecognized name")
    );

    let failed = gateway.wait_for_event("failed", |event| event.is("certificate_failed", "a.test"));
    assert_eq!(failed.issuer.as_deref(), Some("pebble"), "{failed:?}");
    assert_eq!(failed.attempt, Some(1), "{failed:?}");
    assert!(failed.next.is_some(), "{failed:?}");
    let host = ca.way.address().to_string();
    assert!(
        failed.message.contains("refused") && failed.message.contains(&host),
        "what is not reached, and why: {failed:?}"
    );
    // Why is at the probe too.
    let reason = within(RETRY, "the reason at /readyz", || {
        gateway
            .waiting()
            .into_iter()
            .find(|reason| reason.contains("a.test") && reason.contains("refused"))
    });
    assert!(
        reason.contains("pebble") || reason.contains(&host),
        "{reason}"
    );

    ca.way.turn(Switch::Pass);
    wait_until_served(&gateway, "a.test", &root(&ca.pebble));
    gateway.wait_until_ready();
    assert_eq!(gateway.count("certificate_obtained", "a.test"), 1);
}

/// Why it ended; events that come after it are none of it.
fn last_words(gateway: &Gateway) -> Option<String> {
    let log = gateway.log();
    let words = log.lines().find(|line| line.starts_with("error: "))?;
    Some(words.to_owned())
}

#[test]
fn required_at_start_refuses_to_start_without() {
    let builder = Gateway::builder();
    let ca = Switched::new(&builder);
    let yaml = config(&ca.issuer(), &["a.test"]).replace(
        "check_every: 1s",
        "check_every: 1s, required_at_start: true",
    );
    let mut gateway = builder.config(yaml).spawn();
    let status = within(RETRY, "the gateway to end", || gateway.exited());
    assert_eq!(status.code(), Some(1), "{}", gateway.log());
    let why = wait_for("a clear error", || last_words(&gateway));
    let ca_address = ca.way.address().to_string();
    for part in ["a.test", "required_at_start", &ca_address] {
        assert!(why.contains(part), "{part} in {why}");
    }

    // With the CA it starts, and is not ready before it has what it needs.
    ca.way.turn(Switch::Pass);
    gateway.restart_unready();
    let (root, trusted) = (root(&ca.pebble), ca.pebble.write_root());
    within(RETRY, "the start", || {
        // As a supervisor would, should the first start come before the next attempt is due.
        if gateway.exited().is_some() {
            gateway.restart_unready();
        }
        let request = gateway.curl("a.test", "/").cacert(&trusted);
        request.try_send().ok()
    });
    gateway.wait_until_ready();
    // And without the CA where it has all it needs.
    ca.way.turn(Switch::Gone);
    gateway.restart();
    assert!(try_served(&gateway, "a.test", &root).is_ok());
}

#[test]
fn required_at_start_is_required_of_files_too() {
    let builder = Gateway::builder();
    let yaml = format!(
        "certificates: [{{ files: {{ cert: late.pem, key: late.key }} }}]\n\
         renewal: {{ required_at_start: true }}\n{}",
        sites(&["files.test"])
    );
    let mut gateway = builder.config(yaml).spawn();
    let status = within(RETRY, "the gateway to end", || gateway.exited());
    assert_eq!(status.code(), Some(1), "{}", gateway.log());
    let why = wait_for("a clear error", || last_words(&gateway));
    for part in ["files.test", "required_at_start"] {
        assert!(why.contains(part), "{part} in {why}");
    }
    ROOT.leaf(&["files.test"])
        .make()
        .write(gateway.dir(), "late");
    gateway.restart();
}

#[test]
fn systemd_hears_how_far_a_start_is_that_has_to_wait() {
    let builder = Gateway::builder();
    let ca = Switched::new(&builder);
    ca.way.turn(Switch::Hold);
    let path = builder.dir().join("notify");
    let socket = std::os::unix::net::UnixDatagram::bind(&path).expect("a socket");
    let patience = Some(crate::support::PATIENCE);
    socket.set_read_timeout(patience).expect("a socket");
    let told = || {
        let mut text = [0; 1024];
        let length = socket.recv(&mut text).expect("a message in time");
        String::from_utf8_lossy(&text[..length]).into_owned()
    };
    let yaml = config(&ca.issuer(), &["a.test", "b.test"]).replace(
        "check_every: 1s",
        "check_every: 1s, required_at_start: true",
    );
    let mut gateway = builder
        .env("NOTIFY_SOCKET", &path.to_string_lossy())
        .config(yaml)
        .spawn();
    // Again and again.
    for _ in 0..2 {
        let starting = told();
        assert!(
            starting.contains("EXTEND_TIMEOUT_USEC=30000000"),
            "{starting}"
        );
        assert!(
            starting.contains("STATUS=waiting for 2 certificates"),
            "{starting}"
        );
    }
    ca.way.turn(Switch::Pass);
    let ready = within(RETRY, "the start", || {
        let told = told();
        told.contains("READY=1").then_some(told)
    });
    assert!(!ready.contains("waiting"), "{ready}");
    gateway.wait_until_ready();
}

#[test]
fn a_stored_certificate_is_served_without_the_ca() {
    let builder = Gateway::builder();
    let ca = Switched::new(&builder);
    let fresh = ROOT.leaf(&["fresh.test"]).valid(-1, 89).make();
    let due = ROOT.leaf(&["due.test"]).valid(-80, 10).make();
    stored(&builder, &ca, "fresh.test", &fresh);
    stored(&builder, &ca, "due.test", &due);
    let gateway = builder
        .config(config(&ca.issuer(), &["fresh.test", "due.test"]))
        .start();
    for (host, pair) in [("fresh.test", &fresh), ("due.test", &due)] {
        assert_eq!(
            serial(&presented(&gateway, host)),
            serial(&pair.certificate)
        );
        gateway.wait_for_event("loaded", |event| event.is("certificate_loaded", host));
    }
    let failed =
        gateway.wait_for_event("failed", |event| event.is("certificate_failed", "due.test"));
    assert_eq!(failed.severity, "warning", "{failed:?}");
    assert_eq!(gateway.count("certificate_failed", "fresh.test"), 0);
    assert_eq!(gateway.waiting(), Vec::<String>::new());

    ca.way.turn(Switch::Pass);
    insist(&gateway, "due.test", &root(&ca.pebble));
    assert_eq!(
        serial(&presented(&gateway, "fresh.test")),
        serial(&fresh.certificate)
    );
    assert_eq!(orders(&ca.pebble), 1);
}

#[test]
fn a_stored_certificate_that_has_expired_is_told() {
    let builder = Gateway::builder();
    let ca = Switched::new(&builder);
    let old = ROOT.leaf(&["a.test"]).expired().make();
    stored(&builder, &ca, "a.test", &old);
    let mut gateway = builder.config(config(&ca.issuer(), &["a.test"])).spawn();
    let reason = gateway.wait_until_waiting_for("a.test");
    assert!(
        reason.contains("expired") || reason.contains("ended"),
        "{reason}"
    );
    assert_eq!(gateway.ask("GET", "/readyz").status, 503);
    let expired =
        gateway.wait_for_event("expired", |event| event.is("certificate_expired", "a.test"));
    assert_eq!(expired.severity, "critical", "{expired:?}");
    gateway.wait_for_event("failed", |event| event.is("certificate_failed", "a.test"));
    if let Ok(stream) = TlsClient::named("a.test").try_connect(gateway.https) {
        assert_eq!(serial(&stream.certificate()), serial(&old.certificate));
    }
    assert_eq!(gateway.ask("GET", "/readyz").status, 503, "it stays so");
    ca.way.turn(Switch::Pass);
    insist(&gateway, "a.test", &root(&ca.pebble));
    gateway.wait_until_ready();
}

#[test]
fn a_stored_certificate_that_is_spoilt_is_replaced() {
    let good = ROOT.leaf(&["a.test"]).make();
    let torn = Pair {
        key: good.key[..good.key.len() / 2].to_owned(),
        ..good.clone()
    };
    let foreign = good.with_key_of(&ROOT.leaf(&["a.test"]).make());
    let other = ROOT.leaf(&["other.test"]).make();
    for (what, pair) in [
        ("torn", torn),
        ("foreign key", foreign),
        ("other name", other),
    ] {
        let builder = Gateway::builder();
        let ca = Switched::new(&builder);
        ca.way.turn(Switch::Pass);
        stored(&builder, &ca, "a.test", &pair);
        let gateway = builder.config(config(&ca.issuer(), &["a.test"])).spawn();
        wait_until_served(&gateway, "a.test", &root(&ca.pebble));
        let stored = stored_at(&gateway.dir().join("data"), &ca.directory, "a.test");
        let stored = std::fs::read(&stored).expect("stored");
        let stored = X509::from_pem(&stored).expect("a certificate");
        assert_ne!(serial(&stored), serial(&pair.certificate), "{what}");
        let told = gateway.log().lines().any(|line| {
            (line.contains("WARN") || line.contains("ERROR")) && line.contains("a.test")
        });
        assert!(told, "{what}: {}", gateway.log());
    }
}

#[test]
fn https_optional_serves_over_http_meanwhile() {
    let builder = Gateway::builder();
    let ca = Switched::new(&builder);
    let mut gateway = builder
        .server("https_optional: true")
        .config(config(&ca.issuer(), &["a.test", "b.test"]))
        .spawn();
    for host in ["a.test", "b.test"] {
        let reply = within(RETRY, "plain HTTP", || {
            std::net::TcpStream::connect(gateway.http).ok()?;
            plain(&gateway, host)
        });
        assert_eq!(reply, (200, host.to_owned()));
    }
    gateway.wait_for_event("failed", |event| event.is("certificate_failed", "a.test"));
    assert_eq!(plain(&gateway, "a.test"), Some((200, "a.test".to_owned())));
    ca.way.turn(Switch::Pass);
    let root = root(&ca.pebble);
    insist(&gateway, "a.test", &root);
    insist(&gateway, "b.test", &root);
    gateway.wait_until_ready();
    let (status, _) = plain(&gateway, "a.test").expect("a reply");
    assert_eq!(status / 100, 3, "from now on HTTP leads to HTTPS");
}

#[test]
fn https_optional_hides_no_certificate_that_has_expired() {
    let builder = Gateway::builder();
    let ca = Switched::new(&builder);
    let old = ROOT.leaf(&["old.test"]).expired().make();
    stored(&builder, &ca, "old.test", &old);
    let mut gateway = builder
        .server("https_optional: true")
        .config(config(&ca.issuer(), &["old.test", "none.test"]))
        .spawn();
    let reason = gateway.wait_until_waiting_for("old.test");
    assert!(reason.contains("expired"), "{reason}");
    wait_for("nothing else to be missing", || {
        (gateway.waiting().len() == 1).then_some(())
    });
    // Neither has a certificate that would be of use to a client.
    for host in ["old.test", "none.test"] {
        let reply = plain(&gateway, host);
        assert_eq!(reply, Some((200, host.to_owned())));
    }
    ca.way.turn(Switch::Pass);
    insist(&gateway, "old.test", &root(&ca.pebble));
    gateway.wait_until_ready();
    let (status, _) = plain(&gateway, "old.test").expect("a reply");
    assert_eq!(status / 100, 3, "from now on HTTP leads to HTTPS");
}

#[test]
fn https_is_not_optional_by_default() {
    let builder = Gateway::builder();
    let ca = Switched::new(&builder);
    let gateway = builder.config(config(&ca.issuer(), &["a.test"])).spawn();
    gateway.wait_until_waiting_for("a.test");
    let (status, body) = within(RETRY, "plain HTTP", || {
        std::net::TcpStream::connect(gateway.http).ok()?;
        plain(&gateway, "a.test")
    });
    assert!(status / 100 == 3 || status >= 500, "{status} {body}");
    assert_ne!(body, "a.test");
}

#[test]
fn a_start_does_not_wait_for_a_ca_that_never_answers() {
    let builder = Gateway::builder();
    let dead = Port::take();
    // It accepts, and says nothing.
    let silent = Relay::to(dead.address(), Switch::Hold);
    let file = crate::support::Ca::new("Any").write(builder.dir());
    let directory = format!("https://{}/dir", silent.address());
    ROOT.leaf(&["files.test"])
        .make()
        .write(builder.dir(), "files");
    let gateway = builder
        .config(format!(
            "certificates: [{{ files: {{ cert: files.pem, key: files.key }} }}]\n{}",
            config(
                &issuer("silent", &directory, &file, ""),
                &["a.test", "files.test"]
            )
        ))
        .spawn();
    within(super::SECOND * 10, "the other site", || {
        std::net::TcpStream::connect(gateway.https).ok()?;
        try_served(&gateway, "files.test", ROOT.certificate()).ok()
    });
    gateway.wait_until_waiting_for("a.test");
}

#[test]
fn check_asks_no_ca_for_anything() {
    let builder = Gateway::builder();
    let pebble = pebble_for(&builder).start();
    let text = format!(
        "issuers:\n{}{}",
        pebble_issuer(&pebble, ""),
        sites(&["a.test"])
    );
    let path = builder.dir().join("snigate.yaml");
    std::fs::write(&path, text).expect("ours");
    let printed = snigate(&["check".as_ref(), "--config".as_ref(), path.as_os_str()]);
    assert_eq!(printed.code, Some(0), "{printed:?}");
    assert_eq!((orders(&pebble), super::accounts_made(&pebble)), (0, 0));
}
