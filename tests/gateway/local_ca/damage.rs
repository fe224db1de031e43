//! A local CA that is damaged: no new root takes the place of the old one, and other sites are served.

use std::fs;

use openssl::asn1::Asn1Time;
use openssl::bn::BigNum;
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::PKey;
use openssl::x509::extension::{BasicConstraints, KeyUsage};
use openssl::x509::{X509Builder, X509NameBuilder};

use super::{CONFIG, ca, root, root_file};
use crate::support::{Ca, Gateway, TlsClient, check, snigate, wait_for};

#[test]
fn a_torn_owner_has_no_other_root_made() {
    let mut gateway = Gateway::start(CONFIG);
    let before = fs::read(root(&gateway)).expect("readable");
    let owner = gateway.dir().join("data/local_ca/owner");
    for torn in ["", "loc"] {
        assert!(gateway.stop().success());
        fs::write(&owner, torn).expect("ours");
        let checked = check(&gateway.config);
        assert_eq!(checked.code, Some(0), "{}", checked.stdout);
        assert_eq!(fs::read_to_string(&owner).expect("there"), torn);
        gateway.restart();
        assert_eq!(fs::read(root(&gateway)).expect("readable"), before);
        assert_eq!(fs::read_to_string(&owner).expect("there"), "local");
        gateway.wait_for_log(&owner.display().to_string());
        let issuers = gateway.dir().join("data/local_ca/issuers");
        assert!(!issuers.exists(), "no other root");
    }
    let aside = owner.with_extension("damaged-2");
    assert_eq!(fs::read_to_string(aside).expect("kept"), "loc");
}

/// A root as it is stored, valid from so many days from now on.
fn root_from(days: u32) -> String {
    let key = PKey::from_ec_key(
        EcKey::generate(&EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).expect("a curve"))
            .expect("a key"),
    )
    .expect("a key");
    let mut name = X509NameBuilder::new().expect("a name");
    name.append_entry_by_text("CN", "Early Root")
        .expect("a name");
    let name = name.build();
    let mut root = X509Builder::new().expect("a builder");
    root.set_version(2).expect("version 3");
    root.set_subject_name(&name).expect("a subject");
    root.set_issuer_name(&name).expect("an issuer");
    root.set_pubkey(&key).expect("a key");
    let serial = BigNum::from_u32(1).and_then(|one| one.to_asn1_integer());
    root.set_serial_number(&serial.expect("a number"))
        .expect("a number");
    let at = |days| Asn1Time::days_from_now(days).expect("a time");
    root.set_not_before(&at(days)).expect("a time");
    root.set_not_after(&at(days + 3650)).expect("a time");
    let ca = BasicConstraints::new().critical().ca().pathlen(1).build();
    root.append_extension(ca.expect("an extension"))
        .expect("appended");
    let usage = KeyUsage::new()
        .critical()
        .key_cert_sign()
        .crl_sign()
        .build();
    root.append_extension(usage.expect("an extension"))
        .expect("appended");
    root.sign(&key, MessageDigest::sha256()).expect("signed");
    let mut pem = key.private_key_to_pem_pkcs8().expect("PEM");
    pem.extend(root.build().to_pem().expect("PEM"));
    String::from_utf8(pem).expect("text")
}

#[test]
fn a_root_that_was_made_by_a_clock_ahead_of_time_is_told_and_kept() {
    let builder = Gateway::builder();
    let place = builder.dir().join("data/local_ca");
    fs::create_dir_all(&place).expect("ours");
    let early = root_from(3 * 365);
    fs::write(place.join("root.key"), &early).expect("ours");
    fs::write(place.join("owner"), "local").expect("ours");
    let gateway = builder.config(CONFIG).spawn();
    let reason = gateway.wait_until_waiting_for("a.example");
    assert!(reason.contains("is not valid before"), "{reason}");
    gateway.wait_for_log("set the clock");
    let file = root_file(&gateway);
    gateway.wait_for_log(&file.display().to_string());
    let admin = gateway.admin.to_string();
    let listed = snigate(&["certs", "list", "--admin", &admin]);
    let line = listed
        .stdout
        .lines()
        .find(|line| line.contains("a.example"));
    assert!(
        line.is_some_and(|line| line.contains("failed")),
        "{}",
        listed.stdout
    );
    assert_eq!(
        fs::read_to_string(&file).expect("there"),
        early,
        "it is kept"
    );
    // It is served, for whoever has a clock as slow.
    TlsClient::named("a.example").connect(gateway.https);
}

#[test]
fn a_damaged_ca_is_told_and_takes_no_other_site_with_it() {
    let builder = Gateway::builder();
    let own = Ca::new("Own Root");
    own.leaf(&["files.example"])
        .make()
        .write(builder.dir(), "files");
    let trusted = own.write(builder.dir());
    let mut gateway = builder
        .config(format!(
            "certificates: [{{ files: {{ cert: files.pem, key: files.key }} }}]\n{CONFIG}  \
             - hosts: [files.example]\n    routes: [{{ respond: {{ body: files }} }}]\n"
        ))
        .start();
    let file = root_file(&gateway);
    let good = fs::read(&file).expect("readable");
    let torn = good.get(..good.len() / 2).expect("half of it").to_vec();
    let flipped = String::from_utf8_lossy(&good)
        .replacen("BEGIN", "BEGLN", 1)
        .into_bytes();
    for damaged in [torn, flipped, b"garbage".to_vec(), Vec::new()] {
        fs::write(&file, &damaged).expect("written");
        let printed = check(&gateway.config);
        assert_eq!(printed.code, Some(3), "{printed:?}");
        assert!(printed.stderr.contains("local_ca/root.key"), "{printed:?}");
        let printed = ca(&gateway.config, &["root"]);
        assert_eq!((printed.code, printed.stdout.as_str()), (Some(1), ""));
        assert!(printed.stderr.contains("damaged"), "{printed:?}");
    }
    gateway.kill();
    let before = gateway.log().len();
    gateway.restart_unready();
    let reply = wait_for("the site from files", || {
        gateway
            .curl("files.example", "/")
            .cacert(&trusted)
            .try_send()
            .ok()
    });
    assert_eq!(reply.text(), "files");
    assert!(
        TlsClient::named("a.example")
            .try_connect(gateway.https)
            .is_err()
    );
    let readiness = gateway.ask("GET", "/readyz");
    assert_eq!(readiness.status, 503);
    let text = readiness.text();
    assert!(
        text.contains("a.example") && !text.contains("files.example"),
        "{text}"
    );
    let log = gateway.log().split_off(before);
    let told = log.lines().any(|line| {
        line.contains("ERROR") && line.contains("local_ca/root.key") && line.contains("damaged")
    });
    assert!(told, "{log}");
    assert_eq!(
        fs::read(&file).expect("readable"),
        b"",
        "it is not replaced behind your back"
    );

    // Put back from a backup, and found by the next reload.
    fs::write(&file, &good).expect("written");
    assert_eq!(gateway.reload().0, 200);
    let root = root(&gateway);
    let reply = gateway.curl("a.example", "/").cacert(&root).send();
    assert_eq!(reply.text(), "here");
    gateway.wait_until_ready();
}

#[test]
fn damage_while_it_runs_changes_nothing() {
    let gateway = Gateway::start(CONFIG);
    let root = root(&gateway);
    fs::write(root_file(&gateway), "garbage").expect("written");
    assert_eq!(gateway.reload().0, 200);
    let reply = gateway.curl("a.example", "/").cacert(&root).send();
    assert_eq!(reply.text(), "here");
}
