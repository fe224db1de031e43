//! Programs and files that the configuration names, and that must be there.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;

use super::*;

/// The warnings about a key of a configuration.
fn warnings(text: &str, key: &str) -> Vec<String> {
    let warnings = accept(&format!("{text}\n{GOOD}")).warnings;
    let found = warnings.into_iter().filter(|one| one.path.starts_with(key));
    found.map(|one| one.message).collect()
}

#[test]
fn a_program_that_nobody_can_run_is_warned_of() {
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("notify");
    let shown = program.display().to_string();
    let event = format!("events: [{{ on: [\"*\"], exec: {{ command: [{shown:?}, a] }} }}]");
    let dns = format!("dns: {{ own: {{ exec: {{ command: [{shown:?}] }} }} }}");
    let all = || {
        let event = warnings(&event, "events[0].exec.command[0]");
        assert_eq!(event, warnings(&dns, "dns.own.exec.command[0]"));
        event
    };
    assert_eq!(all(), [format!("the program '{shown}' does not exist")]);
    fs::write(&program, "#!/bin/sh\n").unwrap();
    fs::set_permissions(&program, Permissions::from_mode(0o644)).unwrap();
    assert_eq!(all(), [format!("the program '{shown}' cannot be executed")]);
    fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
    assert_eq!(all(), [""; 0]);
    fs::remove_file(&program).unwrap();
    fs::create_dir(&program).unwrap();
    assert_eq!(all(), [format!("the program '{shown}' is not a file")]);
}

#[test]
fn what_a_start_cannot_open_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let key_log = |path: &Path| format!("tls: {{ key_log: {path:?} }}\n{GOOD}");
    let found = errors(&key_log(&dir.path().join("none/keys.log")));
    assert!(
        found.len() == 1 && found[0].contains("there is no directory"),
        "{found:?}"
    );
    let found = errors(&key_log(dir.path()));
    assert!(
        found.len() == 1 && found[0].contains("is a directory"),
        "{found:?}"
    );
    accept(&key_log(&dir.path().join("keys.log")));

    let roots = dir.path().join("roots.pem");
    let log = format!(
        "log: {{ target: \"tls://127.0.0.1:6514\", syslog: {{ ca_file: {roots:?} }} }}\n{GOOD}"
    );
    let found = errors(&log);
    assert!(
        found.len() == 1 && found[0].contains("log.syslog.ca_file"),
        "{found:?}"
    );
}
