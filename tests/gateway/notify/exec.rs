//! `exec`: programs of any kind.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::*;
use crate::support::Builder;

/// A gateway to be, with a program of these lines that is run for reloads, with `$HERE` for its
/// directory.
fn program(lines: &str, more: &str) -> (Builder, PathBuf) {
    let builder = Gateway::builder();
    let here = builder.dir().to_owned();
    let path = here.join("notify");
    let script = lines.replace("$HERE", &here.display().to_string());
    fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("written");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("executable");
    let events = format!(
        "- {{ on: [config_reloaded], digest: 0s, exec: {{ command: [\"{}\", \"an argument\"]{more} }} }}",
        path.display()
    );
    (builder.config(config(&events)), here)
}

fn read(here: &Path, name: &str) -> Option<String> {
    fs::read_to_string(here.join(name)).ok()
}

#[test]
fn a_program_gets_the_facts_and_nothing_else() {
    let (builder, here) = program(
        "echo \"$@\" >$HERE/arguments; env >$HERE/env; ls /proc/self/fd >$HERE/fds; cat >$HERE/input; \
         echo said with $KEY",
        ", env: { KEY: s3cret }",
    );
    let gateway = builder.env("UNRELATED", "1").start();
    gateway.reload();
    wait_for_deliveries(&gateway, "exec", 1.0);
    assert_eq!(read(&here, "arguments").as_deref(), Some("an argument\n"));
    let input: Value = serde_json::from_str(&read(&here, "input").expect("input")).expect("JSON");
    assert_eq!(input["entries"][0]["kind"], "config_reloaded");
    let env = read(&here, "env").expect("an environment");
    let lines: Vec<&str> = env.lines().collect();
    let id = input["id"].as_str().expect("an id");
    for line in [
        "SNIGATE_EVENT=config_reloaded",
        "SNIGATE_EVENT_STATE=happened",
        "SNIGATE_EVENT_SEVERITY=info",
        "SNIGATE_EVENT_COUNT=1",
        &format!("SNIGATE_NOTIFICATION_ID={id}"),
        "KEY=s3cret",
    ] {
        assert!(lines.contains(&line), "{line}: {env}");
    }
    assert!(!env.contains("UNRELATED"), "{env}");
    // Its own three, and that of `ls`.
    let descriptors = read(&here, "fds").expect("descriptors");
    assert!(descriptors.lines().count() <= 4, "{descriptors}");
    gateway.wait_for_log("said with [redacted]");
    assert!(!gateway.log().contains("s3cret"));
}

#[test]
fn a_program_that_fails_or_hangs_is_run_again_and_its_output_is_bounded() {
    let (builder, here) = program(
        "echo $SNIGATE_NOTIFICATION_ID >>$HERE/runs\n\
         case $(wc -l <$HERE/runs) in\n\
         1) echo oh no >&2; exit 3 ;;\n\
         2) sleep 600 & echo $! >$HERE/child; wait ;;\n\
         *) yes flood | head -c 1000000 ;;\n\
         esac",
        ", timeout: 1s",
    );
    let gateway = builder.start();
    gateway.reload();
    wait_for_deliveries(&gateway, "exec", 1.0);
    let runs = read(&here, "runs").expect("runs");
    let mut ids: Vec<&str> = runs.lines().collect();
    assert_eq!(ids.len(), 3, "{runs}");
    ids.dedup();
    assert_eq!(ids.len(), 1, "{runs}");
    let log = gateway.log();
    assert!(log.contains("failed (exit status: 3)"), "{log}");
    assert!(log.contains("output of the program: oh no"), "{log}");
    assert!(
        log.contains("did not finish within 1s and was killed"),
        "{log}"
    );
    assert!(
        log.matches("output of the program: flood").count() <= 20,
        "{log}"
    );
    let child = read(&here, "child").expect("a process");
    let stat = format!("/proc/{}/stat", child.trim());
    wait_for("the end of what the program began", || {
        let stat = fs::read_to_string(&stat);
        stat.map_or(true, |stat| stat.contains(") Z "))
            .then_some(())
    });
}
