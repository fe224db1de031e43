//! `tls.key_log`: the secrets of connections, for those who look into what was sent.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex};

use openssl::ssl::SslVersion;

use crate::support::{Gateway, TlsClient, serving, wait_for};

const SITES: &str = "sites: [{ hosts: [a.test], routes: [{ respond: { body: x } }] }]\n";

/// What the client of a new connection knows of its secrets.
fn secrets_of_client(gateway: &Gateway, version: SslVersion) -> Vec<String> {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&lines);
    let client = TlsClient::named("a.test").version(version).with(|builder| {
        builder.set_keylog_callback(move |_, line| {
            seen.lock().expect("no panic").push(line.to_owned());
        });
    });
    let mut stream = client.connect(gateway.https);
    assert_eq!(stream.get("a.test", "/").status, 200);
    let lines = lines.lock().expect("no panic").clone();
    assert!(!lines.is_empty());
    lines
}

fn lines(path: &Path) -> HashSet<String> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn secrets_are_written_only_if_the_configuration_asks_for_it() {
    let builder = serving(&[&["a.test"]], SITES);
    let variable = builder.dir().join("variable.log");
    let path = builder.dir().join("keys.log");
    let mut gateway = builder
        .env("SSLKEYLOGFILE", &variable.to_string_lossy())
        .start();
    secrets_of_client(&gateway, SslVersion::TLS1_3);
    assert!(!variable.exists() && !path.exists());
    assert!(!gateway.log().contains("key_log"));

    gateway.write_config("tls: { key_log: keys.log }\n");
    assert_eq!(gateway.reload().0, 200);
    let warned = |gateway: &Gateway| {
        let log = gateway.log();
        let warnings = log
            .lines()
            .filter(|line| line.contains("warning: tls.key_log"));
        warnings.count()
    };
    // The change of the file may be noticed as well.
    let wait_for_more = |gateway: &Gateway, than: usize| {
        wait_for("another warning", || {
            Some(warned(gateway)).filter(|count| *count > than)
        })
    };
    let after_change = wait_for_more(&gateway, 0);
    for version in [SslVersion::TLS1_2, SslVersion::TLS1_3] {
        for secret in secrets_of_client(&gateway, version) {
            assert!(lines(&path).contains(&secret), "{secret}");
        }
    }
    let mode = fs::metadata(&path).expect("a file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(gateway.reload().0, 200);
    let after_reload = wait_for_more(&gateway, after_change);
    gateway.restart();
    gateway.wait_until_ready();
    wait_for_more(&gateway, after_reload);

    // What cannot be written is refused, and the old configuration stays.
    fs::create_dir(gateway.dir().join("folder")).expect("a folder");
    gateway.write_config("tls: { key_log: folder }\n");
    let (status, refused) = gateway.reload();
    assert_ne!(status, 200, "{refused}");
    assert!(refused.to_string().contains("tls.key_log"), "{refused}");
    for secret in secrets_of_client(&gateway, SslVersion::TLS1_3) {
        assert!(lines(&path).contains(&secret), "{secret}");
    }

    gateway.write_config("");
    assert_eq!(gateway.reload().0, 200);
    let before = lines(&path);
    secrets_of_client(&gateway, SslVersion::TLS1_3);
    assert_eq!(lines(&path), before);
    assert!(!variable.exists());
}
