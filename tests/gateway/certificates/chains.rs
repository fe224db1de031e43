//! Chains that are incomplete, or whose issuer has expired.

use std::fs;

use super::sites;
use crate::support::{Ca, Gateway, Pair, s_client, snigate, wait_for};

#[test]
fn an_incomplete_chain_is_completed_from_the_directory() {
    let builder = Gateway::builder();
    let root = Ca::new("Chain Root");
    let (upper, other) = (root.intermediate("Upper"), root.intermediate("Other"));
    let lower = upper.intermediate("Lower");
    let certs = builder.dir().join("certs");
    let alone = |pair: Pair| Pair {
        chain: String::from_utf8(pair.certificate.to_pem().expect("PEM")).expect("text"),
        ..pair
    };
    let (a, b) = (
        lower.leaf(&["a.example"]).make(),
        other.leaf(&["b.example"]).with_place_of_issuer().make(),
    );
    alone(a).write(&certs, "a.example");
    alone(b).write(&certs, "b.example");
    // In no order, and with the root, which is not sent.
    let bundle = [root.pem(), upper.pem(), lower.pem()].concat();
    fs::write(certs.join("bundle.pem"), bundle).expect("written");
    let trusted = root.write(builder.dir());
    let hosts = ["a.example", "b.example"];
    let config = format!("certificates: [{{ directory: certs }}]\n{}", sites(&hosts));
    let gateway = builder.config(config).start();

    let verified = |name: &str| gateway.curl(name, "/").cacert(&trusted).try_send();
    assert_eq!(verified("a.example").map(|reply| reply.status), Ok(200));
    let said = s_client(gateway.https, Some("a.example"), &["-showcerts"]);
    assert_eq!(
        said.matches("BEGIN CERTIFICATE").count(),
        3,
        "without the root: {said}"
    );
    assert!(
        verified("b.example").is_err(),
        "its intermediate is missing"
    );
    let log = gateway.log();
    let told = log.lines().any(|line| {
        line.contains("WARN") && line.contains("b.example.pem") && line.contains("CN=Other")
    });
    assert!(told, "{log}");
    assert!(
        !log.contains("a.example.pem"),
        "nothing is odd about it: {log}"
    );

    // The missing one comes later.
    fs::write(certs.join("other.crt"), other.pem()).expect("written");
    wait_for("the completed chain", || verified("b.example").ok());
}

/// A CA has renewed its intermediate, and the old one is still in the file.
#[test]
fn clients_take_a_chain_with_an_issuer_that_has_ended_and_a_valid_one() {
    let builder = Gateway::builder();
    let (root, other) = (Ca::new("Old Root"), Ca::new("Other Root"));
    let issuer = root.intermediate("Issuing CA");
    let (ended, short) = (issuer.again_by(&root, -2), issuer.again_by(&root, 20));
    let crossed = issuer.again_by(&other, 10);
    let certs = builder.dir().join("certs");
    let write = |host: &str, above: &[&String]| {
        let leaf = issuer.leaf(&[host]).make();
        let own = String::from_utf8(leaf.certificate.to_pem().expect("PEM")).expect("text");
        let above: String = above.iter().map(|one| one.as_str()).collect();
        let chain = own + &above;
        Pair { chain, ..leaf }.write(&certs, host);
    };
    let valid = issuer.pem();
    write("renewed.example", &[&ended, &valid]);
    write("crossed.example", &[&short, &crossed]);
    let hosts = ["renewed.example", "crossed.example"];
    let trusted = root.write(builder.dir());
    let config = format!("certificates: [{{ directory: certs }}]\n{}", sites(&hosts));
    let gateway = builder.config(config).start();
    let trusted = trusted.to_str().expect("text");
    for (host, sent) in [("renewed.example", 2), ("crossed.example", 3)] {
        for version in ["-tls1_2", "-tls1_3"] {
            let arguments = [
                version,
                "-CAfile",
                trusted,
                "-verify_return_error",
                "-showcerts",
            ];
            let said = s_client(gateway.https, Some(host), &arguments);
            assert!(
                said.contains("Verify return code: 0 (ok)"),
                "{host}: {said}"
            );
            assert_eq!(
                said.matches("BEGIN CERTIFICATE").count(),
                sent,
                "{host}: {said}"
            );
        }
    }
    let log = gateway.log();
    let told = log.lines().filter(|line| line.contains("(CN=Issuing CA)"));
    let told: Vec<_> = told.collect();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(
        told[0].contains("renewed.example.pem") && told[0].contains("is sent instead"),
        "{told:?}"
    );
}

#[test]
fn a_chain_whose_only_issuer_has_ended_is_told_wherever_one_looks() {
    let builder = Gateway::builder();
    let root = Ca::new("Ended Root");
    let issuer = root.intermediate("Issuing CA");
    let leaf = issuer.leaf(&["a.example"]).make();
    let own = String::from_utf8(leaf.certificate.to_pem().expect("PEM")).expect("text");
    let pair = Pair {
        chain: own + &issuer.again_by(&root, -2),
        ..leaf
    };
    let certs = builder.dir().join("certs");
    pair.write(&certs, "a.example");
    let config = format!(
        "certificates: [{{ directory: certs }}]\n{}",
        sites(&["a.example"])
    );
    let gateway = builder.config(config).start();
    let path = gateway.dir().join("snigate.yaml");
    let checked = crate::support::check(&path);
    assert_eq!(checked.code, Some(0), "{checked:?}");
    for text in ["a.example.pem: ", "(CN=Issuing CA) expired on "] {
        assert!(checked.stderr.contains(text), "{checked:?}");
        gateway.wait_for_log(text);
    }
    let admin = gateway.admin.to_string();
    let shown = snigate(&["certs", "show", "a.example", "--admin", &admin]);
    assert_eq!(shown.code, Some(0), "{shown:?}");
    for text in [
        "clients refuse it",
        "that of CN=Issuing CA",
        "expired 2 d ago",
    ] {
        assert!(shown.stdout.contains(text), "{text}: {shown:?}");
    }
    gateway.wait_for_log("is served with an intermediate certificate (CN=Issuing CA) that expired");
    let end = gateway
        .metric("snigate_certificate_not_after_seconds{name=\"a.example\",source=\"directory\"}");
    let now = jiff::Timestamp::now().as_second();
    assert!(end.expect("shown") < now as f64, "{end:?}");
}
