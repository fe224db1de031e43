//! Certificate files that are bad, half written or in an unusual form.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use openssl::pkey::PKey;
use openssl::symm::Cipher;

use super::{errors_with, served, sites};
use crate::support::{Ca, Gateway, KeyType, Pair, TlsClient, snigate, wait_for, within};

#[test]
fn one_bad_certificate_does_not_keep_the_others_from_a_first_start() {
    let builder = Gateway::builder();
    let ca = Ca::new("First Root");
    let good = ca.leaf(&["good.example"]).make();
    good.write(builder.dir(), "good");
    let bad = ca.leaf(&["bad.example"]).make();
    bad.with_key_of(&good).write(builder.dir(), "bad");
    let root = ca.write(builder.dir());
    let config = "certificates:\n  - files: { cert: good.pem, key: good.key }\n  \
                  - files: { cert: bad.pem, key: bad.key }\n";
    let mut gateway = builder
        .config(format!(
            "{config}{}",
            sites(&["good.example", "bad.example"])
        ))
        .spawn();
    gateway.wait_for_log("listening");
    let reply = wait_for("the good site", || {
        gateway
            .curl("good.example", "/")
            .cacert(&root)
            .try_send()
            .ok()
    });
    assert_eq!((reply.status, reply.text().as_str()), (200, "here"));

    let readiness = gateway.ask("GET", "/readyz");
    assert_eq!(readiness.status, 503);
    let text = readiness.text();
    assert!(
        text.contains("bad.example") && !text.contains("good.example"),
        "{text}"
    );
    assert_eq!(gateway.ask("GET", "/healthz").status, 200);
    let entry = format!(
        "certificates[1]: {}",
        gateway.dir().join("bad.key").display()
    );
    assert_eq!(errors_with(&gateway, &entry), 1, "{}", gateway.log());
    let refused = TlsClient::named("bad.example").try_connect(gateway.https);
    let refused = refused.err().expect("no certificate, no handshake");
    assert!(refused.contains("unrecognized name"), "{refused}");

    // Mending it is enough.
    bad.write(gateway.dir(), "bad");
    gateway.wait_until_ready();
    assert_eq!(served(&gateway, "bad.example"), bad.fingerprint());
    // The files are not replaced at once: what is half written may be told too.
    let mismatch = format!("{entry}: the private key does not belong");
    assert_eq!(
        errors_with(&gateway, &mismatch),
        1,
        "told once, not at each look"
    );
}

#[test]
fn each_kind_of_bad_file_is_named_and_the_others_are_served() {
    let builder = Gateway::builder();
    let ca = Ca::new("Kinds Root");
    let certs = builder.dir().join("certs");
    let good = ca.leaf(&["good.example"]).make();
    good.write(&certs, "good.example");
    let key_of_good = good.key.clone();
    let file = |name: &str, bytes: &[u8]| fs::write(certs.join(name), bytes).expect("written");
    let pem = good.chain.as_bytes();
    file("torn.pem", &pem[..pem.len() / 2]);
    file("torn.key", key_of_good.as_bytes());
    file("half.pem", pem);
    file("half.key", &key_of_good.as_bytes()[..60]);
    file("empty.pem", b"");
    file("der.pem", &good.certificate.to_der().expect("DER"));
    file("der.key", key_of_good.as_bytes());
    let mut huge = pem.to_vec();
    huge.resize(10 << 20, b'\n');
    file("huge.pem", &huge);
    file("huge.key", key_of_good.as_bytes());
    file("keyless.pem", pem);
    let key = PKey::private_key_from_pem(key_of_good.as_bytes()).expect("a key");
    let locked = key.private_key_to_pem_pkcs8_passphrase(Cipher::aes_128_cbc(), b"open sesame");
    file("locked.pem", pem);
    file("locked.key", &locked.expect("encrypted"));
    fs::create_dir(certs.join("directory.pem")).expect("made");
    symlink("nowhere.pem", certs.join("dangling.pem")).expect("linked");
    symlink("loop.pem", certs.join("loop.pem")).expect("linked");
    nix::unistd::mkfifo(&certs.join("pipe.pem"), nix::sys::stat::Mode::S_IRWXU).expect("made");
    ca.leaf(&["mixed.example"])
        .make()
        .with_key_of(&good)
        .write(&certs, "mixed");
    file(".hidden.pem", b"not looked at");
    file("notes.txt", b"not looked at");

    let config = format!(
        "certificates: [{{ directory: certs }}]\n{}",
        sites(&["good.example"])
    );
    let gateway = builder.config(config).start();
    assert_eq!(served(&gateway, "good.example"), good.fingerprint());
    for (name, words) in [
        ("torn.pem", "half written"),
        ("half.key", "half written"),
        ("empty.pem", "is empty"),
        ("der.pem", "DER"),
        ("huge.pem", "10485760 bytes"),
        ("keyless.pem", "no private key"),
        ("locked.key", "encrypted"),
        ("directory.pem", "not a regular file"),
        ("dangling.pem", "No such file"),
        ("loop.pem", "symbolic links"),
        ("pipe.pem", "not a regular file"),
        ("mixed.key", "does not belong"),
    ] {
        let path = gateway.dir().join("certs").join(name).display().to_string();
        assert_eq!(errors_with(&gateway, &path), 1, "{name}\n{}", gateway.log());
        let log = gateway.log();
        let line = log
            .lines()
            .find(|line| line.contains(&path))
            .expect("a line");
        assert!(
            line.contains(words) && line.contains("certificates[0]"),
            "{line}"
        );
    }
    assert_eq!(errors_with(&gateway, ""), 12, "{}", gateway.log());
    let log = gateway.log();
    for secret in ["open sesame", "BEGIN", ".hidden", "notes.txt"] {
        assert!(!log.contains(secret), "{secret}: {log}");
    }
    let status = gateway.ask("GET", "/api/v1/certificates");
    assert!(!status.text().contains("PRIVATE KEY"));
}

#[test]
fn a_thousand_certificates_with_three_broken_are_997_served() {
    let builder = Gateway::builder();
    let ca = Ca::new("Thousand Root").intermediate("Thousand Intermediate");
    let certs = builder.dir().join("certs");
    // One key for all: making a thousand would be most of the test.
    let signer = ca.signer(KeyType::Ecdsa);
    let mut prints = Vec::new();
    for number in 0..1000 {
        let name = format!("site{number}.example");
        let pair = signer.leaf(&[&name]).make();
        prints.push(pair.fingerprint());
        pair.write(&certs, &name);
    }
    let stranger = ca.leaf(&["stranger.example"]).make();
    fs::write(certs.join("site100.example.key"), &stranger.key).expect("written");
    fs::write(
        certs.join("site500.example.pem"),
        "-----BEGIN CERTIFICATE-----\nMII",
    )
    .expect("written");
    fs::remove_file(certs.join("site900.example.key")).expect("removed");

    let gateway = builder
        .config("certificates: [{ directory: certs }]\ntls: { unknown_sni: reject }\n")
        .start();
    let loaded = gateway.metric("snigate_certificates{source=\"directory\"}");
    assert_eq!(loaded, Some(997.0));
    for broken in [
        "site100.example.key",
        "site500.example.pem",
        "site900.example.pem",
    ] {
        let path = certs.join(broken).display().to_string();
        assert_eq!(errors_with(&gateway, &path), 1, "{broken}");
    }
    assert_eq!(errors_with(&gateway, ""), 3, "{}", gateway.log());
    for number in [0, 1, 99, 101, 499, 501, 899, 901, 999] {
        let name = format!("site{number}.example");
        assert_eq!(served(&gateway, &name), prints[number], "{name}");
    }
    for number in [100, 500, 900] {
        let name = format!("site{number}.example");
        let refused = TlsClient::named(&name).try_connect(gateway.https);
        assert!(
            refused
                .err()
                .is_some_and(|error| error.contains("unrecognized name"))
        );
    }

    // Mending one is seen within seconds, and reads that one.
    signer
        .leaf(&["site500.example"])
        .make()
        .write(&certs, "site500.example");
    within(Duration::from_secs(10), "the mended one", || {
        TlsClient::named("site500.example")
            .try_connect(gateway.https)
            .ok()
    });
    let loaded = gateway.metric("snigate_certificates{source=\"directory\"}");
    assert_eq!(loaded, Some(998.0));
}

#[test]
fn chain_and_key_may_stand_in_any_order_and_form() {
    let builder = Gateway::builder();
    let root = Ca::new("Order Root");
    let ca = root.intermediate("Order Intermediate");
    let certs = builder.dir().join("certs");
    fs::create_dir(&certs).expect("made");
    let pem = |certificate: &openssl::x509::X509| {
        String::from_utf8(certificate.to_pem().expect("PEM")).expect("text")
    };
    let write = |name: &str, parts: &[&str]| {
        fs::write(certs.join(name), parts.concat()).expect("written");
    };
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    let key_of = |pair: &Pair| PKey::private_key_from_pem(pair.key.as_bytes()).expect("a key");

    // The key first, the intermediate before the leaf, remarks in between, and Windows' line ends.
    let one = ca.leaf(&["one.example"]).make();
    let leaf = pem(&one.certificate);
    let upside_down = [&one.key, "a remark\n", &ca.pem(), &leaf].concat();
    write("one.example.pem", &[&upside_down.replace('\n', "\r\n")]);
    // SEC 1.
    let two = ca.leaf(&["two.example"]).make();
    let sec1 = key_of(&two).ec_key().expect("EC").private_key_to_pem();
    write("two.example.crt", &[&two.chain]);
    write("two.example.key", &[&text(sec1.expect("PEM"))]);
    // PKCS #1.
    let three = ca.leaf(&["three.example"]).key(KeyType::Rsa).make();
    let pkcs1 = key_of(&three).rsa().expect("RSA").private_key_to_pem();
    write(
        "three.example.pem",
        &[&three.chain, &text(pkcs1.expect("PEM"))],
    );
    let four = ca.leaf(&["four.example"]).key(KeyType::Ed25519).make();
    write("four.example.pem", &[&four.chain, &four.key]);

    let trusted = root.write(builder.dir());
    let hosts = [
        "one.example",
        "two.example",
        "three.example",
        "four.example",
    ];
    let config = format!("certificates: [{{ directory: certs }}]\n{}", sites(&hosts));
    let gateway = builder.config(config).start();
    for host in hosts {
        let reply = gateway.curl(host, "/").cacert(&trusted).send();
        assert_eq!(reply.status, 200, "{host}");
    }
    assert_eq!(errors_with(&gateway, ""), 0, "{}", gateway.log());
}

/// A file that is being written has a beginning without an end: nothing of it is served, and
/// nothing that was served goes.
#[test]
fn a_file_that_is_being_written_is_not_served_before_its_end() {
    let builder = Gateway::builder();
    let ca = Ca::new("Slow Root");
    let certs = builder.dir().join("certs");
    let (old, new) = (
        ca.leaf(&["a.example"]).make(),
        ca.leaf(&["a.example"]).make(),
    );
    old.write(&certs, "a.example");
    let config = format!(
        "certificates: [{{ directory: certs }}]\n{}",
        sites(&["a.example"])
    );
    let gateway = builder.config(config).start();
    let rewrite = |path: &Path, text: &str, told: &str| {
        let mut file = fs::File::create(path).expect("a file");
        for chunk in text.as_bytes().chunks(text.len() / 3 + 1) {
            assert_eq!(served(&gateway, "a.example"), old.fingerprint());
            file.write_all(chunk).expect("written");
            file.sync_all().expect("written");
            // The gateway has looked at this half.
            if !told.is_empty() {
                gateway.wait_for_log(told);
            }
        }
    };
    rewrite(&certs.join("a.example.pem"), &new.chain, "half written");
    gateway.wait_for_log("does not belong to the certificate");
    assert_eq!(served(&gateway, "a.example"), old.fingerprint());
    rewrite(&certs.join("a.example.key"), &new.key, "");
    wait_for("the new pair", || {
        (served(&gateway, "a.example") == new.fingerprint()).then_some(())
    });
}

#[test]
fn a_file_may_have_a_name_that_is_no_utf8() {
    use std::os::unix::ffi::OsStrExt as _;
    let builder = Gateway::builder();
    let pair = Ca::new("Odd Root").leaf(&["a.example"]).make();
    let certs = builder.dir().join("certs");
    fs::create_dir_all(&certs).expect("made");
    let name = std::ffi::OsStr::from_bytes(b"\xff\xfe.PEM");
    fs::write(certs.join(name), pair.chain.clone() + &pair.key).expect("written");
    let config = format!(
        "certificates: [{{ directory: certs }}]\n{}",
        sites(&["a.example"])
    );
    let gateway = builder.config(config).start();
    assert_eq!(served(&gateway, "a.example"), pair.fingerprint());
    let admin = gateway.admin.to_string();
    let listed = snigate(&["certs", "list", "--json", "--admin", &admin]);
    assert_eq!(listed.code, Some(0), "{listed:?}");
    assert!(listed.stdout.contains("a.example"), "{listed:?}");
}
