//! The local CA from outside: its root, its certificates, and what happens when it is damaged.

mod damage;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use openssl::asn1::Asn1Time;
use openssl::x509::X509;

use crate::support::{Ca, Gateway, Printed, TlsClient, check, snigate};

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
