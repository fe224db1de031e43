//! What `check` says about certificates and their files.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::{SERVER, configured, refused};
use crate::support::{Ca, KeyType, Pair, check, check_json, snigate};

#[test]
fn certificates_by_acme_are_judged_without_asking_the_ca() {
    let listen = "server: { https: [\"127.0.0.1:0\"], http: [\"127.0.0.1:0\"], admin: off }\n";
    // Nobody answers at this directory.
    let issuers = "issuers:\n  own: { acme: { directory: \"https://127.0.0.1:1/dir\" } }\n  \
                   public: { acme: { email: ops@example.com } }\n";
    let rest = "certificates: [{ names: [b.example.com], issuer: [public, own] }]\n\
                sites: [{ hosts: [a.internal, b.example.com], routes: [{ respond: {} }] }]\n";
    let (_dir, path) = configured(&format!("{listen}{issuers}{rest}"));
    let printed = check(&path);
    assert_eq!(printed.code, Some(0), "{printed:?}");
    assert!(printed.stdout.contains("valid (1 site"), "{printed:?}");
    assert_eq!(printed.stderr, "", "{printed:?}");

    let wrong = "issuers: { own: { acme: { directory: \"http://ca.corp/dir\", eab: { key_id: k, \
                 hmac_key: \"a+b\" }, ca_file: root.pem } } }\n\
                 sites: [{ hosts: [\"*.example.com\"], tls: own, routes: [{ respond: {} }] }]\n";
    let (_dir, path) = configured(&format!("{listen}{wrong}"));
    let lines = refused(&path);
    for (line, wanted) in lines.iter().zip([
        "2:38: issuers.own.acme.directory: ",
        "2:88: issuers.own.acme.eab.hmac_key: ",
        "2:106: issuers.own.acme.ca_file: ",
        "3:19: sites[0].hosts[0]: the wildcard ",
    ]) {
        assert!(line.starts_with(wanted), "{wanted}\n{lines:#?}");
    }
    assert_eq!(lines.len(), 4, "{lines:#?}");
}

#[test]
fn each_certificate_problem_names_its_entry_and_its_file() {
    let (dir, path) = configured(&format!(
        r#"{SERVER}certificates:
  - files: {{ cert: missing.pem, key: good.key }}
  - files: {{ cert: torn.pem, key: good.key }}
  - files: {{ cert: good.pem, key: other.key }}
  - files: {{ cert: good.pem, key: locked.key }}
  - files: {{ cert: der.pem, key: good.key }}
  - files: {{ cert: directory.pem, key: good.key }}
  - files: {{ cert: dangling.pem, key: good.key }}
  - files: {{ cert: huge.pem, key: good.key }}
  - files: {{ cert: empty.pem, key: good.key }}
  - files: {{ cert: good.key, key: good.pem }}
  - files: {{ cert: nameless.pem, key: nameless.key }}
  - files: {{ cert: garbage.pem, key: good.key }}
  - files: {{ cert: good.pem, key: good.key }}
  - directory: nowhere
sites: [{{ hosts: [a.example], routes: [{{ respond: {{}} }}] }}]
"#
    ));
    let ca = Ca::new("Check Root");
    let good = ca.leaf(&["a.example"]).make();
    let other = ca.leaf(&["a.example"]).make();
    good.write(dir.path(), "good");
    other.write(dir.path(), "other");
    ca.leaf(&[]).make().write(dir.path(), "nameless");
    let file = |name: &str, bytes: &[u8]| fs::write(dir.path().join(name), bytes).expect("written");
    file("torn.pem", &good.chain.as_bytes()[..good.chain.len() / 2]);
    file("der.pem", &good.certificate.to_der().expect("DER"));
    file("huge.pem", &vec![b'#'; 10 << 20]);
    file("empty.pem", b"");
    let key = openssl::pkey::PKey::private_key_from_pem(good.key.as_bytes()).expect("a key");
    let cipher = openssl::symm::Cipher::aes_128_cbc();
    let locked = key.private_key_to_pem_pkcs8_passphrase(cipher, b"secret");
    file("locked.key", &locked.expect("encrypted"));
    let body = "A".repeat(64);
    let garbage = format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n");
    file("garbage.pem", garbage.as_bytes());
    fs::create_dir(dir.path().join("directory.pem")).expect("made");
    symlink("gone.pem", dir.path().join("dangling.pem")).expect("linked");

    let lines = refused(&path);
    for (line, name, words) in [
        (3, "missing.pem", "No such file"),
        (4, "torn.pem", "half written"),
        (5, "other.key", "does not belong to the certificate"),
        (6, "locked.key", "encrypted with a pass phrase"),
        (7, "der.pem", "in DER (binary) form"),
        (8, "directory.pem", "not a regular file"),
        (9, "dangling.pem", "No such file"),
        (10, "huge.pem", "10485760 bytes"),
        (11, "empty.pem", "is empty"),
        (12, "good.key", "holds no certificate, only a private key"),
        (13, "nameless.pem", "no DNS name"),
        (14, "garbage.pem", "cannot be read"),
        (16, "nowhere", "cannot be listed"),
    ] {
        let file = dir.path().join(name);
        let wanted = format!("{line}:5: certificates[{}]: {}: ", line - 3, file.display());
        let of_it: Vec<_> = lines
            .iter()
            .filter(|told| told.starts_with(&wanted))
            .collect();
        assert!(
            matches!(of_it[..], [told] if told.contains(words)),
            "{wanted}{words}\n{lines:#?}"
        );
    }
    assert_eq!(lines.len(), 13, "{lines:#?}");
    assert!(!lines.concat().contains("secret"), "{lines:#?}");
}

#[test]
fn what_is_odd_about_a_certificate_is_a_warning() {
    let (dir, path) = configured(&format!(
        r#"{SERVER}certificates:
  - directory: certs
sites: [{{ hosts: [expired.example], routes: [{{ respond: {{}} }}] }}]
"#
    ));
    let certs = dir.path().join("certs");
    let ca = Ca::new("Warn Root");
    let leaf = |name: &'static str| ca.leaf(std::slice::from_ref(Box::leak(Box::new(name))));
    leaf("expired.example")
        .expired()
        .make()
        .write(&certs, "expired.example");
    leaf("early.example")
        .not_yet_valid()
        .make()
        .write(&certs, "early.example");
    leaf("c.example")
        .key(KeyType::Ed25519)
        .make()
        .write(&certs, "b.example");
    ca.leaf(&["d.example", "über.example", "*.*.example", "127.0.0.1"])
        .make()
        .write(&certs, "d.example");
    fs::write(certs.join("lone.key"), "").expect("written");

    let printed = check(&path);
    assert_eq!(printed.code, Some(0), "{printed:?}");
    assert!(
        printed.stdout.contains("valid (1 site, 4 certificates)"),
        "{printed:?}"
    );
    for (name, words) in [
        ("expired.example.pem", "expired on "),
        ("early.example.pem", "is not valid before "),
        (
            "b.example.pem",
            "named after a host that its certificate does not cover",
        ),
        ("d.example.pem", "*.*.example"),
        ("lone.key", "without a certificate"),
    ] {
        let file = certs.join(name).display().to_string();
        let told = printed
            .stderr
            .lines()
            .any(|line| line.contains("warning") && line.contains(&file) && line.contains(words));
        assert!(told, "{name}: {words}\n{}", printed.stderr);
    }
    let path = path.to_str().expect("text");
    let strict = snigate(&["check", "--strict", "--config", path]);
    assert_eq!(strict.code, Some(3), "{strict:?}");
    let (code, report) = check_json(Path::new(path));
    assert_eq!((code, &report["valid"]), (Some(0), &true.into()));
    assert!(
        report["warnings"]
            .as_array()
            .is_some_and(|all| all.len() >= 5)
    );
}

#[test]
fn a_host_without_certificate_is_a_warning_as_it_is_at_a_reload() {
    let tls = "tls: { default_certificate: c.example }\n";
    let (dir, path) = configured(&format!(
        "{SERVER}{tls}certificates: [{{ files: {{ cert: a.pem, key: a.key }} }}]\nsites:\n  \
         - {{ hosts: [a.example, b.example], routes: [{{ respond: {{}} }}] }}\n"
    ));
    let ca = Ca::new("Root");
    ca.leaf(&["a.example"]).make().write(dir.path(), "a");
    let printed = check(&path);
    assert_eq!(printed.code, Some(0), "{printed:?}");
    for wanted in [
        "2:29: warning: tls.default_certificate: no certificate covers c.example",
        "5:5: warning: sites[0]: no certificate covers b.example",
    ] {
        assert!(printed.stderr.contains(wanted), "{wanted}\n{printed:?}");
    }
    let path = path.to_str().expect("text");
    let strict = snigate(&["check", "--strict", "--config", path]);
    assert_eq!(strict.code, Some(3), "{strict:?}");
}

#[test]
fn a_directory_that_yields_nothing_is_told() {
    let yaml = "certificates:\n  - directory: archive\n  - directory: live\n\
                sites: [{ hosts: [a.example], routes: [{ respond: {} }] }]\n";
    let (dir, path) = configured(&format!("{SERVER}{yaml}"));
    let pair = Ca::new("Layout Root").leaf(&["a.example"]).make();
    let at = |name: &str| dir.path().join(name);
    fs::create_dir_all(at("archive/a.example")).expect("made");
    fs::create_dir_all(at("live/a.example")).expect("made");
    for (name, text) in [("fullchain", &pair.chain), ("privkey", &pair.key)] {
        fs::write(at(&format!("archive/a.example/{name}1.pem")), text).expect("written");
        let target = format!("../../archive/a.example/{name}1.pem");
        symlink(target, at(&format!("live/a.example/{name}.pem"))).expect("linked");
    }
    let printed = check(&path);
    assert_eq!(printed.code, Some(0), "{printed:?}");
    assert!(printed.stdout.contains("1 certificate"), "{printed:?}");
    let told: Vec<_> = printed.stderr.lines().collect();
    assert_eq!(told.len(), 1, "{told:?}");
    let folder = at("archive/a.example").display().to_string();
    for part in [
        "certificates[0]",
        "one entry was skipped",
        &folder,
        "fullchain.pem",
    ] {
        assert!(told[0].contains(part), "{part}: {told:?}");
    }
}

#[test]
fn ends_that_are_near_are_warned_of() {
    let (root, ca) = (Ca::new("Root"), Ca::new("Other"));
    let short = root.intermediate("Short CA");
    let pair = short.leaf(&["chain.example"]).make();
    let own = String::from_utf8(pair.certificate.to_pem().expect("PEM")).expect("text");
    let chain = Pair {
        chain: own + &short.again_by(&root, 4),
        ..pair
    };
    let (dir, path) = configured(&format!(
        "{SERVER}certificates: [{{ directory: certs }}]\n\
         sites: [{{ hosts: [long.example], routes: [{{ respond: {{}} }}] }}]\n"
    ));
    let certs = dir.path().join("certs");
    fs::create_dir(&certs).expect("created");
    chain.write(&certs, "chain.example");
    ca.leaf(&["long.example"])
        .make()
        .write(&certs, "long.example");
    ca.leaf(&["soon.example"])
        .valid(-80, 10)
        .make()
        .write(&certs, "soon.example");
    let printed = check(&path);
    assert_eq!(printed.code, Some(0), "{printed:?}");
    let lines: Vec<&str> = printed.stderr.lines().collect();
    let about = |name: &str| {
        let mut lines = lines.iter().filter(|line| line.contains(name));
        lines
            .next()
            .unwrap_or_else(|| panic!("{name}: {printed:?}"))
    };
    let chain = about("chain.example.pem");
    assert!(chain.contains("intermediate certificate"), "{chain}");
    assert!(chain.contains("Short CA) that expires at"), "{chain}");
    let soon = about("soon.example.pem");
    assert!(soon.contains("the certificate expires at"), "{soon}");
    assert_eq!(
        lines
            .iter()
            .filter(|line| line.contains("long.example"))
            .count(),
        0
    );

    let config = fs::read_to_string(&path).expect("readable");
    let later = "validity: { warn_before: 5d }\n";
    fs::write(&path, format!("{config}{later}")).expect("written");
    let printed = check(&path);
    assert!(printed.stderr.contains("chain.example.pem"), "{printed:?}");
    assert!(!printed.stderr.contains("soon.example"), "{printed:?}");
}
