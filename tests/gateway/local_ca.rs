//! The local CA from outside: its root, its certificates, and what happens when it is damaged.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use openssl::asn1::Asn1Time;
use openssl::bn::BigNum;
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::PKey;
use openssl::x509::extension::{BasicConstraints, KeyUsage};
use openssl::x509::{X509, X509Builder, X509NameBuilder};

use crate::support::{Ca, Gateway, Printed, TlsClient, check, snigate, wait_for};

const CONFIG: &str = r#"
issuers: { local: { local_ca: { name: "Test Local CA" } } }
sites:
  - hosts: [a.example, "*.wild.example"]
    routes: [{ respond: { body: "here" } }]
"#;

fn root_file(gateway: &Gateway) -> PathBuf {
    gateway.dir().join("data/local_ca/root.key")
}

/// `snigate ca WORDS --config FILE`.
fn ca(config: &Path, words: &[&str]) -> Printed {
    let mut arguments: Vec<&OsStr> = vec![OsStr::new("ca")];
    arguments.extend(words.iter().map(OsStr::new));
    arguments.extend([OsStr::new("--config"), config.as_os_str()]);
    snigate(&arguments)
}

/// The root as `snigate ca root` prints it, in a file.
#[track_caller]
fn root(gateway: &Gateway) -> PathBuf {
    let printed = ca(&gateway.config, &["root"]);
    assert_eq!((printed.code, printed.stderr.as_str()), (Some(0), ""));
    let path = gateway.dir().join("printed-root.pem");
    fs::write(&path, printed.stdout).expect("written");
    path
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("there").permissions().mode() & 0o7777
}

#[test]
fn clients_that_trust_the_printed_root_believe_every_site() {
    let gateway = Gateway::start(CONFIG);
    let root = root(&gateway);
    for host in ["a.example", "x.wild.example"] {
        let reply = gateway.curl(host, "/").cacert(&root).send();
        assert_eq!(
            (reply.status, reply.text().as_str()),
            (200, "here"),
            "{host}"
        );
    }
    let other = Ca::new("Another Root").write(gateway.dir());
    assert!(
        gateway
            .curl("a.example", "/")
            .cacert(&other)
            .try_send()
            .is_err()
    );

    let pem = fs::read(&root).expect("readable");
    let printed = X509::from_pem(&pem).expect("one certificate");
    let stream = TlsClient::named("a.example")
        .trusting(&printed)
        .connect(gateway.https);
    assert_eq!(stream.names(), ["a.example"]);
    let days = Asn1Time::days_from_now(0).expect("now");
    let left = days
        .diff(stream.certificate().not_after())
        .expect("times")
        .days;
    assert!(
        (6..=7).contains(&left),
        "leaves are short-lived: {left} days"
    );
    let left = days.diff(printed.not_after()).expect("times").days;
    assert!((3640..=3650).contains(&left), "roots are not: {left} days");
    let said = String::from_utf8_lossy(&pem).into_owned();
    assert!(!said.contains("PRIVATE KEY"), "the key stays: {said}");
}

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
fn the_root_persists_and_nobody_else_can_read_its_key() {
    let mut gateway = Gateway::start(CONFIG);
    let file = root_file(&gateway);
    assert_eq!(mode(&file), 0o600);
    assert_eq!(mode(file.parent().expect("a directory")), 0o700);
    assert_eq!(mode(&gateway.dir().join("data")), 0o700);
    let (before, stored) = (root(&gateway), fs::read(&file).expect("readable"));
    let before = fs::read(before).expect("readable");
    let leaf = TlsClient::named("a.example")
        .connect(gateway.https)
        .certificate();

    gateway.restart();
    assert_eq!(fs::read(root(&gateway)).expect("readable"), before);
    assert_eq!(fs::read(&file).expect("readable"), stored);
    let trusted = X509::from_pem(&before).expect("a certificate");
    let again = TlsClient::named("a.example")
        .trusting(&trusted)
        .connect(gateway.https);
    assert_ne!(
        again.certificate().serial_number().to_bn().ok(),
        leaf.serial_number().to_bn().ok()
    );

    // A mode that lets others in is mended and told.
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).expect("set");
    gateway.restart();
    assert_eq!(mode(&file), 0o600);
    let log = gateway.log();
    let told = log
        .lines()
        .any(|line| line.contains("WARN") && line.contains("root.key"));
    assert!(told, "{log}");
}

#[test]
fn each_local_ca_has_a_root_of_its_own() {
    let gateway = Gateway::start(
        r#"
issuers: { one: { local_ca: { name: One } }, two: { local_ca: { name: Two } } }
sites:
  - { hosts: [a.example], tls: one, routes: [{ respond: { body: a } }] }
  - { hosts: [b.example], tls: two, routes: [{ respond: { body: b } }] }
"#,
    );
    let printed = |words: &[&str]| ca(&gateway.config, words).stdout;
    let [one, two] = ["one", "two"].map(|issuer| printed(&["root", "--issuer", issuer]));
    assert_eq!(printed(&["root"]), format!("{one}{two}"));
    for (root, own, other) in [
        (one, "a.example", "b.example"),
        (two, "b.example", "a.example"),
    ] {
        let path = gateway.dir().join("root.pem");
        fs::write(&path, root).expect("written");
        assert_eq!(gateway.curl(own, "/").cacert(&path).send().status, 200);
        let reply = gateway.curl(other, "/").cacert(&path).try_send();
        assert!(reply.is_err(), "{other} with the root of {own}: {reply:?}");
    }
}

#[test]
fn on_demand_serves_what_is_allowed_and_nothing_else() {
    let gateway = Gateway::start(
        r#"
issuers: { local: { local_ca: { name: "Test Local CA" } } }
on_demand: { issuer: [local], allow: ["*.customers.example", "exact.example"] }
sites:
  - hosts: ["*.customers.example"]
    routes: [{ respond: { body: "customer" } }]
  - hosts: ["*"]
    routes: [{ respond: { body: "any" } }]
"#,
    );
    let root = root(&gateway);
    for (host, body) in [
        ("one.customers.example", "customer"),
        ("TWO.Customers.Example", "customer"),
        ("exact.example", "any"),
    ] {
        let reply = gateway.curl(host, "/").cacert(&root).send();
        assert_eq!((reply.status, reply.text().as_str()), (200, body), "{host}");
    }
    for host in [
        "customers.example",
        "a.b.customers.example",
        "other.example",
        "x.exact.example",
        "customers",
    ] {
        let refused = TlsClient::named(host).try_connect(gateway.https);
        let refused = refused.err().unwrap_or_default();
        assert!(refused.contains("unrecognized name"), "{host}: {refused}");
    }
    // One name is one certificate, however many ask for it at once.
    let serial = || {
        let stream = TlsClient::named("crowd.customers.example").connect(gateway.https);
        let serial = stream
            .certificate()
            .serial_number()
            .to_bn()
            .expect("a number");
        serial.to_hex_str().expect("a number").to_string()
    };
    let serials: std::collections::BTreeSet<String> = std::thread::scope(|scope| {
        let asking: Vec<_> = (0..16).map(|_| scope.spawn(serial)).collect();
        asking
            .into_iter()
            .map(|asked| asked.join().expect("served"))
            .collect()
    });
    assert_eq!(serials.len(), 1, "{serials:?}");
    // A reload keeps it.
    assert_eq!(gateway.reload().0, 200);
    assert!(serials.contains(&serial()));
}

#[test]
fn on_demand_without_a_policy_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("snigate.yaml");
    fs::write(&path, format!("{CONFIG}on_demand: {{ issuer: [local] }}\n")).expect("written");
    let printed = check(&path);
    assert_eq!(printed.code, Some(3));
    assert!(printed.stderr.contains("on_demand"), "{printed:?}");
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

#[test]
fn trust_says_what_it_would_do_and_does_nothing() {
    let gateway = Gateway::start(CONFIG);
    let printed = ca(&gateway.config, &["trust", "--dry-run"]);
    if Path::new("/usr/local/share/ca-certificates").is_dir() {
        assert_eq!(printed.code, Some(0), "{printed:?}");
        assert!(
            printed.stdout.contains("update-ca-certificates"),
            "{printed:?}"
        );
        assert!(
            printed.stdout.contains("/usr/local/share/ca-certificates/"),
            "{printed:?}"
        );
    }
    let system = Path::new("/usr/local/share/ca-certificates");
    let root = X509::from_pem(&fs::read(root(&gateway)).expect("readable")).expect("PEM");
    for entry in fs::read_dir(system).into_iter().flatten().flatten() {
        let there = fs::read(entry.path()).unwrap_or_default();
        assert!(
            X509::from_pem(&there).ok().as_ref() != Some(&root),
            "{entry:?}"
        );
    }
    let printed = ca(&gateway.config, &["trust", "--dry-run", "--uninstall"]);
    if system.is_dir() {
        assert_eq!(printed.code, Some(0), "{printed:?}");
        assert!(printed.stdout.contains("rm"), "{printed:?}");
    }
}
