//! Certificate files of every kind, good and bad: what is served of them, and what is said.

mod at_scale;

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use openssl::pkey::PKey;
use openssl::symm::Cipher;

use crate::support::{Ca, Gateway, KeyType, Pair, TlsClient, s_client, snigate, wait_for, within};

/// The fingerprint that `name` gets.
#[track_caller]
fn served(gateway: &Gateway, name: &str) -> String {
    fingerprint(&TlsClient::named(name).connect(gateway.https).certificate())
}

fn fingerprint(certificate: &openssl::x509::X509) -> String {
    let digest = certificate.digest(openssl::hash::MessageDigest::sha256());
    let digest = digest.expect("SHA-256");
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// How many lines of the log are errors that name this.
fn errors_with(gateway: &Gateway, text: &str) -> usize {
    let log = gateway.log();
    let errors = log.lines().filter(|line| line.contains("ERROR"));
    errors.filter(|line| line.contains(text)).count()
}

/// A site that answers with its name on every host given.
fn sites(hosts: &[&str]) -> String {
    format!(
        "sites: [{{ hosts: [{}], routes: [{{ respond: {{ body: here }} }}] }}]\n",
        hosts.join(", ")
    )
}

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
    // Better an expired certificate, which says what is wrong, than none; but it is told.
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
        "its intermediate is not at hand"
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
    // An address is no name to be asked for by SNI: who comes to it gets its certificate.
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
        "ended 2 d ago",
    ] {
        assert!(shown.stdout.contains(text), "{text}: {shown:?}");
    }
    gateway.wait_for_log("is served with an intermediate certificate (CN=Issuing CA) that expired");
    let end = gateway
        .metric("snigate_certificate_not_after_seconds{name=\"a.example\",source=\"directory\"}");
    let now = jiff::Timestamp::now().as_second();
    assert!(end.expect("shown") < now as f64, "{end:?}");
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
