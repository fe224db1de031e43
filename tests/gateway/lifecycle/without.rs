//! A machine that lacks something: IPv6, or watches of files.

use super::{SECOND, in_front_of};
use crate::support::{Ca, Gateway, Origin, TlsClient, within};

#[test]
fn without_ipv6_what_is_over_ipv4_too_is_served() {
    let origin = Origin::named("x");
    let unspecified = std::net::Ipv6Addr::UNSPECIFIED;
    let mut gateway = in_front_of(&origin)
        .also_at(unspecified)
        .without_ipv6()
        .start();
    let mut stream = TlsClient::named("a.test").connect(gateway.https);
    assert_eq!(stream.get("a.test", "/").status, 200);
    let log = gateway.log();
    let told: Vec<&str> = log.lines().filter(|line| line.contains("IPv6")).collect();
    assert_eq!(told.len(), 1, "{log}");
    assert!(
        told[0].contains("WARN") && told[0].contains("[::]:"),
        "{log}"
    );
    assert_eq!(gateway.stop().code(), Some(0));

    // An address that is meant is not left out.
    let mut gateway = in_front_of(&origin)
        .also_at(std::net::Ipv6Addr::LOCALHOST)
        .without_ipv6()
        .spawn();
    assert_eq!(gateway.wait().code(), Some(1));
    gateway.wait_for_log("cannot listen on [::1]:");
}

#[test]
fn a_change_is_seen_in_seconds_though_the_system_gives_no_more_watches() {
    let builder = Gateway::builder();
    let ca = Ca::new("Watched Root");
    for name in ["a", "b", "c"] {
        let host = format!("{name}.test");
        ca.leaf(&[&host])
            .make()
            .write(&builder.dir().join(name), name);
    }
    let gateway = builder
        .without_watches()
        .config(
            "certificates: [{ directory: a }, { directory: b }, { directory: c }]\n\
             sites: [{ hosts: [a.test, b.test, c.test], routes: [{ respond: { body: x } }] }]\n\
             log: { access: off }\n",
        )
        .start();
    gateway.wait_for_log("cannot be watched");
    let log = gateway.log();
    let warning = log.lines().find(|line| line.contains("cannot be watched"));
    let warning = warning.expect("a line");
    let directory = gateway.dir().to_string_lossy().into_owned();
    assert_eq!(warning.matches(&directory).count(), 1, "{warning}");
    for name in ["a", "b", "c"] {
        let host = format!("{name}.test");
        let served = || TlsClient::named(&host).connect(gateway.https).certificate();
        let before = served();
        ca.leaf(&[&host])
            .make()
            .write(&gateway.dir().join(name), name);
        within(SECOND * 30, "the new certificate", || {
            (served() != before).then_some(())
        });
    }
    let told = gateway.log().matches("cannot be watched").count();
    assert_eq!(told, 1, "not again at each look: {}", gateway.log());
}
