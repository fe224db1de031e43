//! Which of several certificates serves a name.

use std::fs;

use super::{served, sites};
use crate::support::{Ca, Gateway, KeyType, Pair, TlsClient, s_client, wait_for};

#[test]
fn an_expired_certificate_serves_only_until_there_is_a_valid_one() {
    let builder = Gateway::builder();
    let ca = Ca::new("Time Root");
    let certs = builder.dir().join("certs");
    let expired = ca.leaf(&["a.example", "old.example"]).expired().make();
    let early = ca
        .leaf(&["a.example", "new.example"])
        .not_yet_valid()
        .make();
    expired.write(&certs, "expired");
    early.write(&certs, "early");
    let hosts = ["a.example", "old.example", "new.example"];
    let config = format!("certificates: [{{ directory: certs }}]\n{}", sites(&hosts));
    let gateway = builder.config(config).start();
    // Better an expired certificate, which says what is wrong, than none; but it is reported.
    assert_eq!(served(&gateway, "old.example"), expired.fingerprint());
    assert_eq!(served(&gateway, "new.example"), early.fingerprint());
    let log = gateway.log();
    for (file, words) in [
        ("expired.pem", "expired on"),
        ("early.pem", "not valid before"),
    ] {
        let told = log
            .lines()
            .any(|line| line.contains("WARN") && line.contains(file) && line.contains(words));
        assert!(told, "{file}: {log}");
    }

    let valid = ca.leaf(&["a.example"]).valid(-1, 5).make();
    valid.write(&certs, "valid");
    wait_for("the valid one", || {
        (served(&gateway, "a.example") == valid.fingerprint()).then_some(())
    });
    assert_eq!(served(&gateway, "old.example"), expired.fingerprint());
    let again = ca.leaf(&["a.example"]).expired().make();
    again.write(&certs, "again");
    gateway.wait_for_log("again.pem");
    assert_eq!(served(&gateway, "a.example"), valid.fingerprint());
}

#[test]
fn of_several_for_a_name_the_one_valid_longest_wins() {
    let ca = Ca::new("Several Root");
    let pairs: Vec<Pair> = [10, 40, 20]
        .map(|days| ca.leaf(&["a.example"]).valid(-1, days).make())
        .into();
    // In whatever order they are found.
    for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2]] {
        let builder = Gateway::builder();
        let certs = builder.dir().join("certs");
        for (name, index) in ["a", "b", "c"].iter().zip(order) {
            pairs[index].write(&certs, name);
        }
        let config = format!(
            "certificates: [{{ directory: certs }}]\n{}",
            sites(&["a.example"])
        );
        let gateway = builder.config(config).start();
        assert_eq!(
            served(&gateway, "a.example"),
            pairs[1].fingerprint(),
            "{order:?}"
        );
        // The next best takes over when it goes.
        let best = order.iter().position(|index| *index == 1).expect("there");
        let best = ["a", "b", "c"][best];
        fs::remove_file(certs.join(format!("{best}.pem"))).expect("removed");
        fs::remove_file(certs.join(format!("{best}.key"))).expect("removed");
        wait_for("the next best", || {
            (served(&gateway, "a.example") == pairs[2].fingerprint()).then_some(())
        });
    }
}

#[test]
fn rsa_and_ecdsa_for_one_name_are_picked_by_what_the_client_can() {
    let builder = Gateway::builder();
    let ca = Ca::new("Kinds Root").intermediate("Kinds Intermediate");
    let certs = builder.dir().join("certs");
    let rsa = ca.leaf(&["a.example"]).key(KeyType::Rsa).make();
    let ecdsa = ca.leaf(&["a.example"]).make();
    rsa.write(&certs, "a.example.rsa");
    ecdsa.write(&certs, "a.example.ecdsa");
    let config = format!(
        "certificates: [{{ directory: certs }}]\n{}",
        sites(&["a.example"])
    );
    let gateway = builder.config(config).start();
    for version in ["-tls1_2", "-tls1_3"] {
        for (algorithms, kind) in [
            ("RSA-PSS+SHA256:RSA+SHA256", "RSA"),
            ("ECDSA+SHA256", "ECDSA"),
            ("ECDSA+SHA256:RSA-PSS+SHA256", "ECDSA"),
        ] {
            let said = s_client(
                gateway.https,
                Some("a.example"),
                &[version, "-sigalgs", algorithms],
            );
            let line = said
                .lines()
                .find(|line| line.starts_with("Peer signature type"));
            let line = line.unwrap_or_else(|| panic!("{version} {algorithms}: {said}"));
            assert!(line.contains(kind), "{version} {algorithms}: {line}");
        }
    }
    assert_eq!(served(&gateway, "a.example"), ecdsa.fingerprint());
    // Where one kind goes the other serves everyone.
    fs::remove_file(certs.join("a.example.ecdsa.pem")).expect("removed");
    wait_for("RSA for all", || {
        (served(&gateway, "a.example") == rsa.fingerprint()).then_some(())
    });
}

#[test]
fn odd_names_are_served_or_told() {
    let builder = Gateway::builder();
    let ca = Ca::new("Names Root");
    let certs = builder.dir().join("certs");
    let label = "x".repeat(63);
    let longest = format!("{label}.{label}.{label}.{}", "x".repeat(61));
    assert_eq!(longest.len(), 253);
    let too_long = format!("{longest}x");
    let wide = format!("{}.example", "y".repeat(64));
    ca.leaf(&[&longest, &too_long, &wide, "ok.example"])
        .make()
        .write(&certs, "long");
    // A name as an IP address, an IP address as such, and one as a DNS name.
    let address = ca.leaf(&["127.0.0.1", "::1", "address.example"]).make();
    address.write(&certs, "address");
    let unicode = ca.leaf(&["xn--bcher-kva.example", "UPPER.Example"]).make();
    unicode.write(&certs, "unicode");
    let config = "certificates: [{ directory: certs }]\ntls: { unknown_sni: reject }\n\
                  sites: [{ hosts: [BÜCHER.example, Upper.EXAMPLE.], \
                  routes: [{ respond: { body: here } }] }]\n";
    let gateway = builder.config(config).start();

    assert_eq!(
        TlsClient::named(&longest)
            .connect(gateway.https)
            .names()
            .len(),
        4
    );
    let refused = |name: &str| {
        let refused = TlsClient::named(name).try_connect(gateway.https);
        refused
            .err()
            .is_some_and(|error| error.contains("unrecognized name"))
    };
    assert!(refused(&too_long) && refused(&wide));
    let log = gateway.log();
    let warned = |text: &str| {
        log.lines()
            .any(|line| line.contains("WARN") && line.contains("long.pem") && line.contains(text))
    };
    assert!(warned(&too_long) && warned(&wide), "{log}");
    // An address is no name to be asked for by SNI: whoever comes to it gets its certificate.
    assert_eq!(served(&gateway, "127.0.0.1"), address.fingerprint());
    assert_eq!(served(&gateway, "address.example"), address.fingerprint());
    // Names are compared in one form, wherever they come from.
    let said = s_client(gateway.https, Some("XN--BCHER-KVA.example"), &["-brief"]);
    assert!(said.contains("Protocol version: TLSv1.3"), "{said}");
    let root = ca.write(gateway.dir());
    let reply = gateway.curl("bücher.example", "/").cacert(&root).try_send();
    let reply = reply.or_else(|_| {
        gateway
            .curl("xn--bcher-kva.example", "/")
            .cacert(&root)
            .try_send()
    });
    assert_eq!(reply.map(|reply| reply.text()), Ok("here".to_owned()));
    let reply = gateway.curl("upper.example", "/").cacert(&root).send();
    assert_eq!(reply.text(), "here");
}

#[test]
fn a_certificate_for_the_wrong_name_is_told_and_the_name_is_missing() {
    let builder = Gateway::builder();
    let ca = Ca::new("Wrong Root");
    let certs = builder.dir().join("certs");
    ca.leaf(&["other.example"])
        .make()
        .write(&certs, "a.example");
    let config = format!(
        "certificates: [{{ directory: certs }}]\n{}",
        sites(&["a.example"])
    );
    let mut gateway = builder.config(config).spawn();
    gateway.wait_for_log("listening");
    let log = gateway.log();
    let told = log
        .lines()
        .any(|line| line.contains("WARN") && line.contains("a.example.pem"));
    assert!(told, "{log}");
    assert!(gateway.ask("GET", "/readyz").text().contains("a.example"));
    assert!(gateway.exited().is_none());
}
