//! Very many certificates in files: a start serves before all are loaded, and the next one reads only
//! what has changed.

use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::support::{Ca, Gateway, KeyType, TlsClient, wait_for};

/// So many that loading them takes a while.
const MANY: usize = 3_000;

fn name(number: usize) -> String {
    format!("site-{number:04}.example")
}

/// Makes the certificates of so many sites, all with one key.
fn write_many(ca: &Ca, directory: &Path, many: usize) {
    let signer = ca.signer(KeyType::Ecdsa);
    for number in 0..many {
        let name = name(number);
        signer.leaf(&[&name]).make().write(directory, &name);
    }
}

fn config() -> &'static str {
    "certificates: [{ directory: certs }]\n\
     sites: [{ hosts: [\"*\"], routes: [{ respond: { body: served } }] }]\n"
}

/// Waits until connections are accepted.
#[track_caller]
fn wait_until_accepting(gateway: &Gateway) {
    wait_for("connections to be accepted", || {
        let stream = TcpStream::connect(gateway.https).ok()?;
        drop(stream);
        Some(())
    });
}

fn is_ready(gateway: &Gateway) -> bool {
    gateway.ask("GET", "/readyz").status == 200
}

#[test]
fn names_are_served_before_the_last_file_is_loaded() {
    let ca = Ca::new("Many Root").intermediate("Many CA");
    let builder = Gateway::builder();
    let certs = builder.dir().join("certs");
    write_many(&ca, &certs, MANY);
    let better = ca.leaf(&["x.wild.example"]).make();
    better.write(&certs, "x.wild.example");
    ca.leaf(&["*.wild.example"])
        .make()
        .write(&certs, "_wildcard.wild.example");
    // Nothing says that this one is there but what is in it.
    ca.leaf(&["hidden.example"]).make().write(&certs, "site1");
    let gateway = builder.config(config()).spawn();
    wait_until_accepting(&gateway);

    // Whatever the order in which the directory gives them, some of these come late.
    let mut early = 0;
    for number in (0..MANY).step_by(MANY / 24).chain([MANY - 1]) {
        let name = name(number);
        let stream = TlsClient::named(&name).connect(gateway.https);
        assert_eq!(stream.names(), [name.as_str()]);
        early += usize::from(!is_ready(&gateway));
    }
    eprintln!("{early} of 25 were early");
    let mut stream = TlsClient::named("x.wild.example").connect(gateway.https);
    assert_eq!(stream.names(), ["x.wild.example"], "the better one");
    assert_eq!(stream.get("x.wild.example", "/").text(), "served");
    let stream = TlsClient::named("y.wild.example").connect(gateway.https);
    assert_eq!(stream.names(), ["*.wild.example"]);
    let stream = TlsClient::named("hidden.example").connect(gateway.https);
    assert_eq!(stream.names(), ["hidden.example"]);
    assert!(early > 3, "{early}: {}", gateway.log());
}

/// How many certificates' files it has read since it was started.
fn read(gateway: &Gateway) -> usize {
    let read = gateway.metric("snigate_certificate_files_read_total");
    format!("{:.0}", read.expect("a metric"))
        .parse()
        .expect("a number")
}

/// Waits until the times of all that was written say so if it is written again.
#[track_caller]
fn wait_until_settled() {
    let written = Instant::now();
    wait_for("the clock to advance", || {
        (written.elapsed() > Duration::from_secs(4)).then_some(())
    });
}

#[track_caller]
fn serves(gateway: &Gateway, host: &str) -> Vec<u8> {
    let mut stream = TlsClient::named(host).connect(gateway.https);
    assert_eq!(stream.names(), [host]);
    assert_eq!(stream.get(host, "/").text(), "served");
    stream.certificate().to_der().expect("DER")
}

/// A gateway that has an index of so many sites, stopped, and what signs its certificates.
fn indexed(more: &str, many: usize) -> (Gateway, Ca) {
    let ca = Ca::new("Many Root").intermediate("Many CA");
    let builder = Gateway::builder();
    write_many(&ca, &builder.dir().join("certs"), many);
    wait_until_settled();
    let mut gateway = builder.config(format!("{more}{}", config())).start();
    assert_eq!(read(&gateway), many);
    assert!(gateway.stop().success());
    (gateway, ca)
}

#[test]
fn a_restart_reads_only_what_has_changed() {
    let many = 1_100;
    let (mut gateway, ca) = indexed("", many);
    let certs = gateway.dir().join("certs");
    let secret = fs::read_to_string(certs.join(format!("{}.key", name(0)))).expect("a key");
    let line = secret.lines().nth(1).expect("a line of the key");
    let index = fs::read(gateway.dir().join("data/.index/certificates")).expect("an index");
    let holds = |what: &[u8]| index.windows(what.len()).any(|part| part == what);
    assert!(holds(name(7).as_bytes()));
    let key = openssl::pkey::PKey::private_key_from_pem(secret.as_bytes()).expect("a key");
    let scalar = key.ec_key().expect("EC").private_key().to_vec();
    assert!(
        !holds(&scalar) && !holds(line.as_bytes()),
        "no key is in it"
    );

    gateway.restart();
    assert_eq!(read(&gateway), 0, "{}", gateway.log());
    let served = gateway.metric("snigate_certificates{source=\"directory\"}");
    assert_eq!(served, Some(1_100.0));
    let before = serves(&gateway, &name(0));
    serves(&gateway, &name(many - 1));
    assert!(gateway.stop().success());

    // One is renewed, one goes, one comes, one is broken.
    let renewed = ca.leaf(&[&name(0)]).serial(77).make();
    renewed.write(&certs, &name(0));
    for suffix in ["pem", "key"] {
        fs::remove_file(certs.join(format!("{}.{suffix}", name(1)))).expect("removed");
    }
    ca.leaf(&["new.example"])
        .make()
        .write(&certs, "new.example");
    fs::write(certs.join(format!("{}.pem", name(2))), "no PEM").expect("written");
    wait_until_settled();
    gateway.restart();
    assert_eq!(read(&gateway), 3, "{}", gateway.log());
    assert_ne!(serves(&gateway, &name(0)), before);
    serves(&gateway, "new.example");
    serves(&gateway, &name(3));
    for gone in [1, 2] {
        let refused = TlsClient::named(&name(gone)).try_connect(gateway.https);
        assert!(refused.is_err(), "{gone}");
    }
    gateway.wait_for_log(&format!("{}.pem: is not PEM", name(2)));

    // The index is the same after a crash.
    gateway.kill();
    gateway.restart();
    serves(&gateway, &name(0));
    let reads = read(&gateway);
    assert!(reads <= 3, "{reads}");
}

#[test]
fn whatever_is_wrong_with_the_index_a_start_goes_on_without_it() {
    let many = 1_050;
    let (mut gateway, _) = indexed("", many);
    let index = gateway.dir().join("data/.index");
    let file = index.join("certificates");
    let whole = fs::read(&file).expect("an index");
    let begins = |gateway: &mut Gateway, least: usize| {
        gateway.restart();
        let read = read(gateway);
        assert!(read >= least, "{read} of {least} read: {}", gateway.log());
        serves(gateway, &name(0));
        serves(gateway, &name(many - 1));
        assert!(gateway.stop().success());
    };

    // Of another version, damaged in the middle, cut off, of something else.
    let mut other = whole.clone();
    *other.get_mut(14).expect("a version") = b'9';
    let middle = whole.len() / 2;
    let mut damaged = whole.clone();
    *damaged.get_mut(middle).expect("a middle") ^= 1;
    let cut = whole.get(..middle).expect("half").to_vec();
    let head = "certificates octets=5000";
    for (content, least, told) in [
        (other, many, "certificates octets="),
        (damaged, many / 3, ""),
        (cut, many / 3, ""),
        (vec![7; 5_000], many, head),
        (Vec::new(), many, ""),
    ] {
        fs::write(&file, content).expect("written");
        begins(&mut gateway, least);
        let log = gateway.log();
        let mut lines = log.lines().filter(|line| line.contains("is damaged"));
        assert!(
            told.is_empty() || lines.any(|line| line.contains(told)),
            "{log}"
        );
        // It is whole again.
        gateway.restart();
        assert_eq!(read(&gateway), 0, "{}", gateway.log());
        assert!(gateway.stop().success());
    }

    // In use by another process.
    let lock = fs::File::open(index.join("lock")).expect("there");
    lock.lock().expect("locked");
    begins(&mut gateway, many);
    gateway.wait_for_log("no certificate index");
    drop(lock);

    // Not to be written: there is something else in its place.
    fs::remove_dir_all(&index).expect("removed");
    fs::write(&index, "a file").expect("written");
    begins(&mut gateway, many);
}

#[test]
fn a_kill_at_any_time_costs_nothing_but_time() {
    let ca = Ca::new("Many Root").intermediate("Many CA");
    let builder = Gateway::builder();
    write_many(&ca, &builder.dir().join("certs"), 1_500);
    wait_until_settled();
    let mut gateway = builder.config(config()).spawn();
    for round in 0..4 {
        wait_until_accepting(&gateway);
        serves(&gateway, &name(round));
        gateway.restart_unready();
    }
    gateway.wait_until_ready();
    let served = gateway.metric("snigate_certificates{source=\"directory\"}");
    assert_eq!(served, Some(1_500.0));
    for number in (0..1_500).step_by(300) {
        serves(&gateway, &name(number));
    }
}

#[test]
fn certificates_left_in_their_files_are_served_from_there() {
    let (mut gateway, ca) = indexed("certificates_in_memory: cache\n", 1_010);
    gateway.restart();
    assert_eq!(read(&gateway), 0, "{}", gateway.log());
    let certs = gateway.dir().join("certs");
    let before = serves(&gateway, &name(0));
    // What was fetched stays while there is room; what was not is read now.
    let renewed = ca.leaf(&[&name(1)]).serial(4_711).make();
    renewed.write(&certs, &name(1));
    wait_for("the renewed certificate", || {
        let stream = TlsClient::named(&name(1)).try_connect(gateway.https).ok()?;
        (stream.certificate() == renewed.certificate).then_some(())
    });
    fs::write(certs.join(format!("{}.pem", name(2))), "no PEM").expect("written");
    wait_for("the handshake to fail", || {
        let refused = TlsClient::named(&name(2)).try_connect(gateway.https);
        refused.is_err().then_some(())
    });
    gateway.wait_for_log("cannot present a certificate");
    assert_eq!(serves(&gateway, &name(0)), before);
}

#[test]
fn nothing_is_issued_for_a_name_before_all_files_are_known() {
    let ca = Ca::new("Many Root").intermediate("Many CA");
    let builder = Gateway::builder();
    let certs = builder.dir().join("certs");
    write_many(&ca, &certs, 2_000);
    ca.leaf(&["hidden.example"]).make().write(&certs, "site1");
    let text = format!(
        "issuers: {{ local: {{ local_ca: }} }}\n\
         on_demand: {{ allow: [\"*.example\"], issuer: local }}\n{}",
        config()
    );
    let gateway = builder.config(text).spawn();
    wait_until_accepting(&gateway);
    // The local CA could make one at once.
    let stream = TlsClient::named("hidden.example").connect(gateway.https);
    let issuer = format!("{:?}", stream.certificate().issuer_name());
    assert!(issuer.contains("Many CA"), "{issuer}");
    let stream = TlsClient::named("fresh.example").connect(gateway.https);
    let issuer = format!("{:?}", stream.certificate().issuer_name());
    assert!(!issuer.contains("Many CA"), "{issuer}");
}
