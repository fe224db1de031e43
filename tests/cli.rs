//! The command line as its users meet it: what it prints where, and how it ends.

#![allow(clippy::expect_used, clippy::panic, reason = "a test may fail loudly")]

mod support;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::{Command, Output, Stdio};
use std::thread;

use support::{Ca, Port, read_head};

fn snigate(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_snigate"));
    command.args(arguments).stdin(Stdio::null());
    for name in ["SNIGATE_ADMIN", "SNIGATE_TOKEN", "NO_COLOR"] {
        command.env_remove(name);
    }
    command
}

fn run(arguments: &[&str]) -> Output {
    snigate(arguments).output().expect("the program starts")
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("text")
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("text")
}

const VERBS: [&[&str]; 13] = [
    &[],
    &["run"],
    &["demo"],
    &["check"],
    &["reload"],
    &["stop"],
    &["status"],
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
fn a_configuration_that_is_not_there_ends_with_3() {
    let output = run(&["check", "--config", "/nonexistent/snigate.yaml"]);
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    assert_eq!(stdout(&output), "");
    assert!(
        stderr(&output).starts_with("/nonexistent/snigate.yaml"),
        "{}",
        stderr(&output)
    );

    let output = run(&["check", "--json", "--config", "/nonexistent/snigate.yaml"]);
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(stderr(&output), "");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(report["valid"], false);
    assert_eq!(report["errors"][0]["file"], "/nonexistent/snigate.yaml");
}

/// A directory with this configuration.
fn configured(yaml: &str) -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("snigate.yaml");
    std::fs::write(&path, yaml).expect("written");
    (dir, path.to_str().expect("text").to_owned())
}

const VALID: &str = r#"
server: { https: ["127.0.0.1:0"], http: [], admin: off }
storage: { file: { path: ./data } }
issuers: { local: { local_ca: { name: "Test CA" } } }
sites:
  - hosts: [a.localhost]
    routes: [{ respond: { status: 200, body: hello } }]
"#;

#[test]
fn a_valid_configuration_ends_with_0() {
    let (_dir, path) = configured(VALID);
    let output = run(&["check", "--config", &path]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stdout(&output).starts_with(&format!("{path}: valid (1 site, ")));
    assert_eq!(stderr(&output), "");

    let output = run(&["check", "--json", "--config", &path]);
    assert_eq!(output.status.code(), Some(0));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(report["valid"], true);
    assert_eq!(report["errors"], serde_json::json!([]));
}

#[test]
fn every_mistake_is_told_at_its_place() {
    let yaml = VALID
        .replace("respond", "repond")
        .replace("hosts: [a.localhost]", "hosts: [a..localhost]");
    let (_dir, path) = configured(&yaml);
    for verb in ["check", "run"] {
        let output = run(&[verb, "--config", &path]);
        assert_eq!(output.status.code(), Some(3), "{verb}");
        assert_eq!(stdout(&output), "", "{verb}");
        let said = stderr(&output);
        assert!(said.contains(&format!("{path}:6:13: ")), "{verb}: {said}");
        assert!(said.contains(&format!("{path}:7:16: ")), "{verb}: {said}");
        assert!(said.contains("did you mean 'respond'?"), "{verb}: {said}");
        assert!(!said.contains("panicked"), "{verb}: {said}");
    }
}

#[test]
fn a_certificate_with_another_key_is_told_with_its_file() {
    let (dir, path) = configured(&format!(
        "{VALID}certificates: [{{ files: {{ cert: b.pem, key: b.key }} }}]\n"
    ));
    let ca = Ca::new("Test CA");
    let pair = ca.leaf(&["b.example"]).make();
    let other = ca.leaf(&["b.example"]).make();
    pair.with_key_of(&other).write(dir.path(), "b");
    let output = run(&["check", "--config", &path]);
    assert_eq!(output.status.code(), Some(3));
    let said = stderr(&output);
    assert!(said.starts_with(&format!("{path}:8:")), "{said}");
    assert!(said.contains("b.key"), "{said}");

    // Well, but for a root that nobody is known to trust.
    pair.write(dir.path(), "b");
    let output = run(&["check", "--strict", "--config", &path]);
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    assert!(stderr(&output).contains("warning: "), "{}", stderr(&output));
    let output = run(&["check", "--config", &path]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(
        stdout(&output).contains("1 certificate)"),
        "{}",
        stdout(&output)
    );
}

#[test]
fn the_root_is_told_to_be_missing_where_it_is() {
    let (_dir, path) = configured(VALID);
    let output = run(&["ca", "root", "--config", &path]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(stdout(&output), "");
    let said = stderr(&output);
    assert!(said.contains("no root") && said.contains("hint:"), "{said}");

    let (_dir, path) = configured(&VALID.replace("issuers:", "# issuers:"));
    let output = run(&["ca", "root", "--config", &path]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("has no local CA"));

    let two = VALID.replace("issuers: {", "issuers: { second: { local_ca: {} },");
    let (_dir, path) = configured(&two);
    let output = run(&["ca", "root", "--issuer", "third", "--config", &path]);
    assert_eq!(output.status.code(), Some(1));
    let said = stderr(&output);
    assert!(
        said.contains("\"third\"") && said.contains("second"),
        "{said}"
    );
}

#[test]
fn an_admin_interface_that_is_off_is_told_as_such() {
    let (_dir, path) = configured(VALID);
    let output = run(&["reload", "--config", &path]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("SIGHUP"), "{}", stderr(&output));
}

#[test]
fn the_admin_address_is_taken_from_the_configuration() {
    let (dir, path) = configured(&VALID.replace("admin: off", "admin: unix:admin.sock"));
    let output = run(&["status", "--config", &path]);
    assert_eq!(output.status.code(), Some(1));
    let socket = dir.path().join("admin.sock");
    let said = stderr(&output);
    assert!(
        said.contains(&format!("unix:{}", socket.display())),
        "{said}"
    );
}

#[test]
fn a_gateway_that_does_not_run_is_named_with_what_to_do() {
    let port = Port::take();
    let address = port.address().to_string();
    for verb in ["reload", "status", "stop"] {
        let output = run(&[verb, "--admin", &address]);
        assert_eq!(output.status.code(), Some(1), "{verb}");
        assert_eq!(stdout(&output), "", "{verb}");
        let said = stderr(&output);
        assert!(
            said.contains(&address) && said.contains("hint:"),
            "{verb}: {said}"
        );
    }
    let output = run(&["status", "--admin", "unix:/nonexistent/admin.sock"]);
    assert_eq!(output.status.code(), Some(1));
    let output = snigate(&["status"])
        .env("SNIGATE_ADMIN", &address)
        .output()
        .expect("the program starts");
    assert!(
        stderr(&output).contains(&address),
        "the environment names it"
    );
    let output = run(&["status", "--config", "/nonexistent/snigate.yaml"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("/nonexistent/snigate.yaml"));
}

/// Answers one request with this, and returns its head.
fn answering(response: &'static str) -> (String, thread::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address").to_string();
    let answering = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client");
        let head = read_head(&mut stream)
            .expect("readable")
            .expect("a request");
        stream.write_all(response.as_bytes()).expect("taken");
        String::from_utf8(head).expect("text")
    });
    (address, answering)
}

#[test]
fn a_refused_reload_shows_every_mistake_and_ends_with_3() {
    let (address, gateway) = answering(concat!(
        "HTTP/1.1 400 Bad Request\r\nContent-Type: application/problem+json\r\n",
        "Connection: close\r\n\r\n",
        r#"{"detail":"the configuration is invalid","errors":["#,
        r#"{"file":"a.yaml","line":3,"column":5,"message":"no such upstream"},"#,
        r#"{"file":"a.yaml","line":9,"column":1,"message":"unknown key"}]}"#,
    ));
    let output = snigate(&["reload", "--admin", &address])
        .env("SNIGATE_TOKEN", "correct horse")
        .output()
        .expect("the program starts");
    assert_eq!(output.status.code(), Some(3));
    let said = stderr(&output);
    assert!(said.contains("a.yaml:3:5: no such upstream\n"), "{said}");
    assert!(said.contains("a.yaml:9:1: unknown key\n"), "{said}");
    let head = gateway.join().expect("one request").to_ascii_lowercase();
    assert!(
        head.starts_with("post /api/v1/reload http/1.1\r\n"),
        "{head}"
    );
    assert!(
        head.contains("\r\nauthorization: bearer correct horse\r\n"),
        "{head}"
    );
    assert!(head.contains(&format!("\r\nhost: {address}\r\n")), "{head}");
}

#[test]
fn a_wrong_token_is_told_as_such() {
    let (address, gateway) = answering(
        "HTTP/1.1 401 Unauthorized\r\nConnection: close\r\n\r\n{\"detail\":\"the token is wrong\"}",
    );
    let output = run(&["stop", "--admin", &address, "--token", "guess"]);
    assert_eq!(output.status.code(), Some(1));
    let said = stderr(&output);
    assert!(
        said.contains("the token is wrong") && said.contains("--token"),
        "{said}"
    );
    assert!(!said.contains("guess"), "{said}");
    gateway.join().expect("one request");
}

#[test]
fn something_else_at_the_admin_address_is_no_success() {
    for answer in [
        "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n<html>",
        "SSH-2.0-OpenSSH_9.2\r\n",
    ] {
        let (address, gateway) = answering(answer);
        let output = run(&["reload", "--admin", &address]);
        assert_eq!(
            output.status.code(),
            Some(1),
            "{answer}: {}",
            stderr(&output)
        );
        gateway.join().expect("one request");
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
