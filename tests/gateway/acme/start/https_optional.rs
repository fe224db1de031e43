//! Sites that may be served over plain HTTP as long as they have no certificate.

use super::{Switched, stored};
use crate::acme::{RETRY, config, insist, plain, root};
use crate::support::{Gateway, ROOT, Switch, wait_for, within};

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
