//! What every command has: help, a manual page, completions, exit codes.

use std::io::{Read, Write};
use std::process::{Command, Stdio};

use super::{run, snigate, stderr, stdout};

const VERBS: [&[&str]; 22] = [
    &[],
    &["run"],
    &["demo"],
    &["check"],
    &["reload"],
    &["stop"],
    &["status"],
    &["certs"],
    &["certs", "list"],
    &["certs", "show"],
    &["certs", "obtain"],
    &["certs", "renew"],
    &["upstreams"],
    &["upstreams", "list"],
    &["upstreams", "drain"],
    &["upstreams", "resume"],
    &["ca"],
    &["ca", "root"],
    &["ca", "trust"],
    &["schema"],
    &["completions"],
    &["man"],
];

#[test]
fn help_is_data_and_fits_a_screen() {
    for verb in VERBS {
        let output = run(&[verb, &["-h"]].concat());
        assert_eq!(output.status.code(), Some(0), "{verb:?}");
        assert_eq!(stderr(&output), "", "{verb:?}");
        let help = stdout(&output);
        assert!(help.lines().count() <= 24, "{verb:?}: {help}");
        assert!(!help.contains('\x1b'), "{verb:?}: colour in a pipe");
    }
    assert!(stdout(&run(&["--help"])).contains("Examples:"));
}

#[test]
fn every_verb_has_a_manual_page() {
    for verb in VERBS {
        let output = run(&[&["man"], verb].concat());
        assert_eq!(
            output.status.code(),
            Some(0),
            "{verb:?}: {}",
            stderr(&output)
        );
        let name = [&["snigate"], verb].concat().join("-");
        assert!(
            stdout(&output).contains(&format!(".TH {name} 1")),
            "{verb:?}"
        );
    }
    assert_eq!(run(&["man", "frobnicate"]).status.code(), Some(2));
}

#[test]
fn completions_are_valid_for_their_shell() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let output = run(&["completions", shell]);
        assert_eq!(output.status.code(), Some(0), "{shell}");
        assert!(stdout(&output).contains("snigate"), "{shell}");
    }
    let script = run(&["completions", "bash"]).stdout;
    let mut bash = Command::new("bash")
        .arg("-n")
        .stdin(Stdio::piped())
        .spawn()
        .expect("bash is installed");
    bash.stdin
        .take()
        .expect("a pipe")
        .write_all(&script)
        .expect("written");
    assert!(bash.wait().expect("an end").success());
    assert_eq!(run(&["completions", "tcsh"]).status.code(), Some(2));
}

#[test]
fn the_schema_is_json() {
    let output = run(&["schema"]);
    assert_eq!(output.status.code(), Some(0));
    let schema: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert!(schema.is_object());
}

#[test]
fn the_version_is_the_package_s() {
    assert_eq!(
        stdout(&run(&["--version"])),
        concat!("snigate ", env!("CARGO_PKG_VERSION"), "\n")
    );
}

#[test]
fn wrong_usage_ends_with_2() {
    for wrong in [
        &[][..],
        &["frobnicate"],
        &["run", "--frobnicate"],
        &["check", "extra"],
        &["status", "--admin", "nonsense"],
        &["certs", "list", "--fail-within", "14"],
        &["certs", "show"],
        &["certs", "show", "../status"],
        &["certs", "show", "a.example", "--json", "--pem"],
        &[
            "certs",
            "renew",
            "a.example",
            "--no-wait",
            "--timeout",
            "1m",
        ],
    ] {
        let output = run(wrong);
        assert_eq!(output.status.code(), Some(2), "{wrong:?}");
        assert_eq!(stdout(&output), "", "{wrong:?}");
        assert!(
            stderr(&output).contains("help"),
            "{wrong:?}: {}",
            stderr(&output)
        );
    }
}

#[test]
fn a_reader_that_has_read_enough_is_no_failure() {
    let mut child = snigate(&["completions", "zsh"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    drop(child.stdout.take());
    let mut said = String::new();
    child
        .stderr
        .take()
        .expect("a pipe")
        .read_to_string(&mut said)
        .expect("text");
    assert_eq!(child.wait().expect("an end").code(), Some(0), "{said}");
    assert_eq!(said, "");
}

#[test]
fn demo_s_directory_must_be_usable() {
    let output = run(&["demo", "--data", "/proc/nonexistent"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("/proc/nonexistent"),
        "{}",
        stderr(&output)
    );
}
