//! `snigate certs` against a running gateway and a CA.

use serde_json::Value;

use super::{RETRY, config, pebble_for, pebble_issuer, presented, root, serial, wait_until_served};
use crate::support::{Gateway, Printed, snigate, within};

/// `snigate certs` with these arguments, at the gateway's admin interface.
fn certs(gateway: &Gateway, arguments: &[&str]) -> Printed {
    let admin = gateway.admin.to_string();
    let mut all = vec!["certs"];
    all.extend(arguments);
    all.extend(["--admin", &admin]);
    snigate(&all)
}

/// All messages that are kept for whoever begins to listen, as far as they come at once.
fn told(gateway: &Gateway) -> String {
    let url = format!("http://{}/api/v1/events", gateway.admin);
    let output = std::process::Command::new("curl")
        .args(["--silent", "--no-buffer", "--max-time", "1", &url])
        .output()
        .expect("curl runs");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn renewing_shows_each_step_and_the_outcome() {
    let builder = Gateway::builder();
    let pebble = pebble_for(&builder).start();
    let issuer = pebble_issuer(&pebble, "");
    let gateway = builder.config(config(&issuer, &["a.test"])).spawn();
    let root = root(&pebble);
    let first = serial(&wait_until_served(&gateway, "a.test", &root));

    let renewed = certs(&gateway, &["renew", "a.test"]);
    assert_eq!(renewed.code, Some(0), "{renewed:?}");
    let shown = format!("{}{}", renewed.stdout, renewed.stderr);
    for step in [
        "requested a certificate for a.test",
        "renewing",
        "order",
        "valid until",
    ] {
        assert!(shown.contains(step), "{step:?} in: {shown}");
    }
    let second = within(RETRY, "the new certificate", || {
        let now = serial(&presented(&gateway, "a.test"));
        (now != first).then_some(now)
    });

    let listed = certs(&gateway, &["list", "--json"]);
    assert_eq!(listed.code, Some(0), "{listed:?}");
    let views: Value = serde_json::from_str(&listed.stdout).expect("JSON");
    let [view] = &**views.as_array().expect("a list") else {
        panic!("{views}");
    };
    assert_eq!(
        (&view["name"], &view["state"]),
        (&"a.test".into(), &"valid".into())
    );
    let listed = view["serial"].as_str().expect("a serial").to_lowercase();
    assert_eq!(
        listed.trim_start_matches('0'),
        second.trim_start_matches('0')
    );

    // Nothing is asked for where there is a valid one.
    let obtained = certs(&gateway, &["obtain", "a.test"]);
    assert_eq!(obtained.code, Some(0), "{obtained:?}");
    assert!(obtained.stderr.contains("nothing to do"), "{obtained:?}");
    assert_eq!(serial(&presented(&gateway, "a.test")), second);

    let events = told(&gateway);
    for kind in ["certificate_obtained", "certificate_renewed"] {
        assert!(events.contains(kind), "{kind} in: {events}");
    }
}
