//! What is served from the first moment on, with and without a CA, with and without certificates.

mod https_optional;
mod stored;

use super::{
    RETRY, config, issuer, orders, pebble_for, pebble_issuer, presented, root, sites, store,
    try_served, wait_until_served,
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
    // Whoever looks sees that it is wrong, and a change is not taken.
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
