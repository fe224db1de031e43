//! Accounts at CAs, and what must stay secret.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::{
    RETRY, accounts_made, config, issuer, orders, pebble_for, pebble_issuer, root, try_served,
    wait_until_served,
};
use crate::support::{Gateway, Pebble, wait_for, within};

/// 32 octets, base64url.
const MAC_KEY: &str = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W";

fn eab(key: &str) -> String {
    format!("eab: {{ key_id: kid-1, hmac_key: {key:?} }}")
}

fn bound(builder: &super::Builder) -> Pebble {
    pebble_for(builder).eab("kid-1", MAC_KEY).start()
}

#[test]
fn an_account_is_bound_to_an_external_one() {
    let builder = Gateway::builder();
    let pebble = bound(&builder);
    let issuer = pebble_issuer(&pebble, &eab(MAC_KEY));
    let gateway = builder.config(config(&issuer, &["a.test"])).spawn();
    wait_until_served(&gateway, "a.test", &root(&pebble));
    assert!(!gateway.log().contains(MAC_KEY));
}

#[test]
fn a_wrong_or_missing_binding_is_explained() {
    for keys in [eab(&MAC_KEY.replace('z', "A")), String::new()] {
        let builder = Gateway::builder();
        let pebble = bound(&builder);
        let issuer = pebble_issuer(&pebble, &keys);
        let gateway = builder.config(config(&issuer, &["a.test"])).spawn();
        let failed =
            gateway.wait_for_event("failed", |event| event.is("certificate_failed", "a.test"));
        let message = failed.message.to_lowercase();
        assert!(
            message.contains("eab") || message.contains("external account"),
            "{failed:?}"
        );
        let until = failed
            .next
            .map(|next| next.duration_since(jiff::Timestamp::now()));
        assert!(
            until.is_none_or(|until| until.as_secs() >= 300),
            "a person has to act first, so there is no haste: {failed:?}"
        );
        within(RETRY, "the reason at /readyz", || {
            let waiting = gateway.waiting();
            let explains = |reason: &String| {
                reason.contains("a.test")
                    && (reason.to_lowercase().contains("external account")
                        || reason.contains("eab"))
            };
            waiting.iter().any(explains).then_some(())
        });
        assert_eq!(orders(&pebble), 0);
        assert!(!gateway.log().contains(MAC_KEY));
    }
}

#[test]
fn an_account_is_made_once() {
    let builder = Gateway::builder();
    let pebble = pebble_for(&builder).start();
    let hosts = ["a.test", "b.test", "c.test", "d.test", "e.test", "f.test"];
    let issuer = pebble_issuer(&pebble, "email: ops@example.com");
    let mut gateway = builder.config(config(&issuer, &hosts)).spawn();
    let root = root(&pebble);
    for host in hosts {
        wait_until_served(&gateway, host, &root);
    }
    assert_eq!(accounts_made(&pebble), 1, "six orders at once");
    gateway.wait_until_ready();
    gateway.replace_config(config(&issuer, &["a.test", "new.test"]));
    gateway.kill();
    gateway.restart_unready();
    wait_until_served(&gateway, "new.test", &root);
    assert_eq!(accounts_made(&pebble), 1, "a restart finds it");
    let kept = fs::read_dir(gateway.dir().join("data/accounts"))
        .expect("a directory")
        .flatten()
        .flat_map(|ca| fs::read_dir(ca.path()).expect("a directory").flatten())
        .map(|account| account.file_name().to_string_lossy().into_owned())
        .filter(|name| name.ends_with(".json"))
        .collect::<Vec<_>>();
    assert_eq!(kept, ["ops-example.com.json"]);
}

#[test]
fn an_account_that_the_ca_lost_is_made_again() {
    let builder = Gateway::builder();
    let mut pebble = pebble_for(&builder).start();
    let issuer = pebble_issuer(&pebble, "");
    let mut gateway = builder.config(config(&issuer, &["a.test"])).spawn();
    wait_until_served(&gateway, "a.test", &root(&pebble));
    gateway.wait_until_ready();
    pebble.restart();
    gateway.replace_config(config(&issuer, &["a.test", "b.test", "c.test"]));
    assert_eq!(gateway.reload().0, 200);
    let root = root(&pebble);
    wait_until_served(&gateway, "b.test", &root);
    wait_until_served(&gateway, "c.test", &root);
    assert_eq!(
        accounts_made(&pebble),
        2,
        "one each time, for two orders at once too"
    );
    assert_eq!(gateway.count("certificate_failed", "b.test"), 0);
}

/// Every file under a directory, with the mode of each and of the directories on the way.
/// All that is in `directory` and below, itself first, each with its mode and, of a file, its text.
/// What vanishes meanwhile, as locks do, is left out; nothing else is.
fn walk(directory: &Path, found: &mut Vec<(PathBuf, u32, Option<String>)>) {
    let Some(mode) = mode(directory) else {
        return;
    };
    let Some(entries) = unless_vanished(fs::read_dir(directory)) else {
        return;
    };
    found.push((directory.to_owned(), mode, None));
    for entry in entries {
        let path = entry.expect("readable").path();
        if path.is_dir() {
            walk(&path, found);
        } else if let (Some(mode), Some(text)) = (
            self::mode(&path),
            unless_vanished(fs::read_to_string(&path)),
        ) {
            found.push((path, mode, Some(text)));
        }
    }
}

fn mode(path: &Path) -> Option<u32> {
    let metadata = unless_vanished(fs::metadata(path))?;
    Some(metadata.permissions().mode() & 0o7777)
}

fn unless_vanished<T>(result: io::Result<T>) -> Option<T> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        result => Some(result.expect("readable")),
    }
}

#[test]
fn a_walk_bears_what_vanishes_and_nothing_else() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut found = Vec::new();
    walk(&directory.path().join("gone"), &mut found);
    assert!(found.is_empty());
    let text = directory.path().join("a.json");
    fs::write(&text, "{}").expect("writable");
    // It is listed, and not there.
    std::os::unix::fs::symlink("nowhere", directory.path().join("lock")).expect("writable");
    walk(directory.path(), &mut found);
    let paths: Vec<&Path> = found.iter().map(|(path, ..)| &**path).collect();
    assert_eq!(paths, [directory.path(), &text]);
    fs::write(&text, b"\xff").expect("writable");
    let read = std::panic::catch_unwind(|| walk(directory.path(), &mut Vec::new()));
    assert!(read.is_err(), "what cannot be read is an error");
}

#[test]
fn keys_are_for_nobody_else_and_never_told() {
    let builder = Gateway::builder();
    let pebble = bound(&builder);
    let issuer = pebble_issuer(&pebble, &eab(MAC_KEY));
    let yaml = config(&issuer, &["a.test", "b.test"])
        .replace("format: json", "format: json, level: trace");
    let mut gateway = builder.config(yaml).spawn();
    let root = root(&pebble);
    wait_until_served(&gateway, "a.test", &root);
    wait_until_served(&gateway, "b.test", &root);
    gateway.wait_until_ready();
    let data = gateway.dir().join("data");
    let mut found = Vec::new();
    walk(&data, &mut found);
    let mut secrets = vec![MAC_KEY.to_owned()];
    for (path, mode, text) in &found {
        let wanted = if text.is_none() { 0o700 } else { 0o600 };
        assert_eq!(mode, &wanted, "{}", path.display());
        let text = text.as_deref().unwrap_or_default();
        let key = text.split("PRIVATE KEY-----").nth(1).unwrap_or_default();
        secrets.extend(
            key.lines()
                .filter(|line| line.len() > 40)
                .map(str::to_owned),
        );
        if path.starts_with(data.join("accounts")) {
            // The longest strings of it are the key and the URL.
            let strings = text
                .split('"')
                .filter(|word| word.len() > 40 && !word.contains("://") && !word.contains(' '));
            secrets.extend(strings.map(str::to_owned));
        }
    }
    assert!(
        secrets.len() >= 4,
        "two certificates, an account, a MAC key: {}",
        secrets.len()
    );
    let shown = [
        "/api/v1/certificates",
        "/api/v1/certificates/a.test",
        "/api/v1/status",
        "/metrics",
        "/readyz",
    ]
    .map(|path| gateway.ask("GET", path).text())
    .join("\n");
    let log = gateway.log();
    for secret in &secrets {
        assert!(!log.contains(secret.as_str()), "the log has a secret");
        assert!(!shown.contains(secret.as_str()), "the API has a secret");
    }
    assert!(!log.contains("PRIVATE KEY") && !shown.contains("PRIVATE KEY"));

    // What an older version or a person left readable is mended and told.
    let file = found.iter().find(|(path, ..)| path.ends_with("a.test.pem"));
    let file = &file.expect("a stored certificate").0;
    fs::set_permissions(file, fs::Permissions::from_mode(0o644)).expect("set");
    gateway.restart();
    wait_for("the mode to be mended", || {
        let mode = fs::metadata(file).expect("there").permissions().mode();
        (mode & 0o7777 == 0o600).then_some(())
    });
    let told = gateway
        .log()
        .lines()
        .any(|line| line.contains("WARN") && line.contains("a.test"));
    assert!(told);
    assert!(try_served(&gateway, "a.test", &root).is_ok());
}

#[test]
fn the_same_ca_under_another_name_keeps_its_certificates() {
    let builder = Gateway::builder();
    let pebble = pebble_for(&builder).start();
    let named = |name: &str| issuer(name, &pebble.directory(), pebble.ca_file(), "");
    let mut gateway = builder.config(config(&named("one"), &["a.test"])).spawn();
    let root = root(&pebble);
    let before = wait_until_served(&gateway, "a.test", &root);
    gateway.wait_until_ready();
    gateway.replace_config(config(&named("two"), &["a.test"]));
    assert_eq!(gateway.reload().0, 200);
    within(RETRY, "the gateway to be ready", || {
        gateway.waiting().is_empty().then_some(())
    });
    gateway.restart();
    let after = wait_until_served(&gateway, "a.test", &root);
    assert_eq!(super::serial(&before), super::serial(&after));
    assert_eq!(orders(&pebble), 1);
}
