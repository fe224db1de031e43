//! The command line as its users meet it: what it prints where, and how it ends.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::process::{Command, Output, Stdio};
use std::thread;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::{Ca, Gateway, Port, read_head};

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

const VERBS: [&[&str]; 18] = [
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
    let pair = ca.leaf(&["b.example"]).with_place_of_issuer().make();
    let other = ca.leaf(&["b.example"]).make();
    pair.with_key_of(&other).write(dir.path(), "b");
    let output = run(&["check", "--config", &path]);
    assert_eq!(output.status.code(), Some(3));
    let said = stderr(&output);
    assert!(said.starts_with(&format!("{path}:8:")), "{said}");
    assert!(said.contains("b.key"), "{said}");

    // Well, but for an issuer that is missing.
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
fn commands_find_their_gateway_though_the_file_is_broken() {
    let gateway = Gateway::builder()
        .token("secret-token")
        .config("include: [more.yaml, also.yaml]")
        .config("log: { access: off }");
    std::fs::write(gateway.dir().join("more.yaml"), "\n").expect("a file");
    let sites = "sites: [{ hosts: [a.test], tls: off, routes: [{ respond: {} }] }]\n";
    std::fs::write(gateway.dir().join("also.yaml"), sites).expect("a file");
    let gateway = gateway.start();
    let path = gateway.config.to_str().expect("text").to_owned();
    let reloaded = run(&["reload", "--config", &path]);
    assert_eq!(reloaded.status.code(), Some(0), "{}", stderr(&reloaded));
    for broken in [
        "nonsense: 1\n",
        "sites: 5\nupstreams: [\n",
        "sites:\n\t- x\n",
        "issuers: { a: { local_ca: { } } }\n--- \n",
    ] {
        gateway.write_config(broken);
        let output = run(&["reload", "--config", &path]);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(3), "{broken}: {said}");
        assert!(said.starts_with(&path), "{broken}: {said}");
        let output = run(&["status", "--config", &path]);
        assert_eq!(
            output.status.code(),
            Some(0),
            "{broken}: {}",
            stderr(&output)
        );
    }
    // An included file that is broken says nothing of the address.
    gateway.write_config("");
    gateway.write("more.yaml", "sites: [\n");
    let output = run(&["certs", "list", "--config", &path]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let output = run(&["stop", "--config", &path]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
}

#[test]
fn no_other_gateway_is_reached_because_a_file_is_broken() {
    for (broken, mistake) in [
        // The address may stand in what cannot be read.
        (
            "sites: [\nserver: { admin: \"127.0.0.1:9\" }\n",
            "not valid YAML",
        ),
        ("server: { admin: \"127.0.0.1:9", "not valid YAML"),
        ("include: [missing.yaml]\n", "missing.yaml"),
        // It is there, in a way that nobody can read.
        ("server: { admn: \"127.0.0.1:9\" }\n", "'admn'"),
        ("sever: { admin: \"127.0.0.1:9\" }\n", "'sever'"),
        ("server: { admin: [] }\n", "server.admin"),
        ("server: { admin: somewhere }\n", "server.admin"),
        (
            "server: { admin: \"${SNIGATE_TEST_NOT_SET}\" }\n",
            "SNIGATE_TEST_NOT_SET",
        ),
    ] {
        let (_dir, path) = configured(broken);
        for verb in [&["reload"][..], &["status"], &["stop"], &["certs", "list"]] {
            let output = run(&[verb, &["--config", &path]].concat());
            let said = stderr(&output);
            assert_eq!(output.status.code(), Some(3), "{verb:?} {broken}: {said}");
            assert!(said.contains(mistake), "{verb:?} {broken}: {said}");
        }
    }
}

#[test]
fn a_file_s_name_writes_no_line_of_its_own() {
    let gateway = Gateway::builder();
    let forged = "a\nWARN b.pem";
    std::fs::create_dir(gateway.dir().join("certs")).expect("a directory");
    std::fs::write(gateway.dir().join("certs").join(forged), "broken").expect("a file");
    let mut gateway = gateway
        .config(format!(
            "certificates: [{{ files: {{ cert: {:?} }} }}]\n\
             sites: [{{ hosts: [a.test], tls: off, routes: [{{ respond: {{}} }}] }}]\n",
            format!("certs/{forged}")
        ))
        .spawn();
    gateway.wait_for_log("a\\nWARN b.pem");
    let path = gateway.config.to_str().expect("text").to_owned();
    let checked = stderr(&run(&["check", "--config", &path]));
    gateway.stop();
    assert!(checked.contains("a\\nWARN b.pem"), "{checked}");
    for text in [checked, gateway.log()] {
        assert!(!text.lines().any(|line| line.starts_with("WARN")), "{text}");
    }
}

#[test]
fn a_gateway_that_does_not_run_is_named_with_what_to_do() {
    let port = Port::take();
    let address = port.address().to_string();
    for verb in [
        &["reload"][..],
        &["status"],
        &["stop"],
        &["certs", "list", "--fail-within", "14d"],
        &["certs", "show", "a.example"],
        &["certs", "obtain", "a.example"],
        &["certs", "renew", "a.example", "--no-wait"],
    ] {
        let output = run(&[verb, &["--admin", &address]].concat());
        assert_eq!(output.status.code(), Some(1), "{verb:?}");
        assert_eq!(stdout(&output), "", "{verb:?}");
        let said = stderr(&output);
        assert!(
            said.contains(&address) && said.contains("hint:"),
            "{verb:?}: {said}"
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

/// Certificates of a CA, given as files: one of each age.
fn gateway_with_files() -> Gateway {
    let builder = Gateway::builder();
    let ca = Ca::new("Files CA");
    for (name, from, to) in [("soon", -80, 10), ("late", -1, 300)] {
        let names = [&format!("{name}.example")[..], &format!("*.{name}.example")];
        let pair = ca.leaf(&names).valid(from, to).make();
        pair.write(&builder.dir().join("certs"), name);
    }
    builder
        .config(
            r#"
issuers: { local: { local_ca: { name: "Test CA" } } }
certificates: [{ directory: certs }]
sites:
  - hosts: [soon.example, late.example, issued.example]
    routes: [{ respond: { status: 200, body: hello } }]
"#,
        )
        .start()
}

/// The certificates of this gateway.
fn certs(gateway: &Gateway, arguments: &[&str]) -> Output {
    let admin = gateway.admin.to_string();
    run(&[&["certs"], arguments, &["--admin", &admin]].concat())
}

#[test]
fn certificates_are_listed_the_most_urgent_first() {
    let gateway = gateway_with_files();
    let output = certs(&gateway, &["list"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(stderr(&output), "");
    let table = stdout(&output);
    assert!(!table.contains('\x1b'), "colour in a pipe: {table}");
    let rows: Vec<Vec<&str>> = table
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(
        rows[0],
        [
            "NAME", "NAMES", "ISSUER", "STATE", "EXPIRES", "LEFT", "NEXT"
        ]
    );
    let soon = table
        .lines()
        .position(|line| line.starts_with("soon.example"));
    let late = table
        .lines()
        .position(|line| line.starts_with("late.example"));
    let issued = rows.iter().find(|row| row[0] == "issued.example");
    assert!(soon.is_some() && soon < late, "{table}");
    assert_eq!(issued.expect("a row")[2], "local", "{table}");
    let soon = &table.lines().nth(soon.expect("a row")).expect("a row");
    for part in ["+ *.soon.example", "Files CA", "valid"] {
        assert!(soon.contains(part), "{part}: {soon}");
    }
    // Ten days from when it was made, a moment ago.
    assert!(soon.contains(" 9 d ") || soon.contains(" 10 d "), "{soon}");

    let output = certs(&gateway, &["list", "--json"]);
    let list: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(list.as_array().map(Vec::len), Some(3));
    assert!(!stdout(&output).contains("PRIVATE"));
}

#[test]
fn what_ends_soon_ends_with_4() {
    let gateway = gateway_with_files();
    // The local CA's own live for days, so that only hours tell them apart.
    let output = certs(&gateway, &["list", "--fail-within", "1h"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(stderr(&output), "");

    for json in [&[][..], &["--json"]] {
        let arguments = [&["list", "--fail-within", "14d"], json].concat();
        let output = certs(&gateway, &arguments);
        assert_eq!(output.status.code(), Some(4));
        assert!(stdout(&output).contains("late.example"), "all are listed");
        let said = stderr(&output);
        assert!(said.contains("soon.example"), "{said}");
        assert!(!said.contains("late.example"), "{said}");
    }
}

#[test]
fn what_is_missing_ends_with_4() {
    let mut gateway = Gateway::builder()
        .config(
            "sites:\n  - hosts: [wanted.example]\n    routes: [{ respond: { status: 200, body: x } }]\n",
        )
        .spawn();
    crate::support::wait_for("the admin interface", || {
        assert!(gateway.exited().is_none(), "{}", gateway.log());
        std::net::TcpStream::connect(gateway.admin).ok()
    });
    let output = certs(&gateway, &["list", "--fail-within", "1s"]);
    assert_eq!(output.status.code(), Some(4), "{}", stderr(&output));
    assert!(stdout(&output).contains("missing"), "{}", stdout(&output));
    assert!(stderr(&output).contains("wanted.example (missing)"));

    let output = certs(&gateway, &["show", "wanted.example"]);
    assert!(stdout(&output).contains("state         missing: "));
    let output = certs(&gateway, &["show", "wanted.example", "--pem"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(stdout(&output), "");
    let output = certs(&gateway, &["obtain", "wanted.example"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("no issuer"), "{}", stderr(&output));
}

#[test]
fn a_certificate_is_shown_by_any_of_its_names() {
    let gateway = gateway_with_files();
    let output = certs(&gateway, &["show", "www.Late.example"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let shown = stdout(&output);
    for part in [
        "late.example\n",
        "names         late.example, *.late.example\n",
        "issued by     CN=Files CA\n",
        "certs/late.pem\n",
        " d left)\n",
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }

    let output = certs(&gateway, &["show", "*.late.example", "--pem"]);
    let chain = openssl::x509::X509::stack_from_pem(&output.stdout).expect("PEM");
    assert_eq!(chain.len(), 1);
    assert!(!stdout(&output).contains("PRIVATE"));

    let output = certs(&gateway, &["show", "issued.example", "--json"]);
    let view: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(view["source"], "local");
    assert_eq!(view["renewal"]["issuers"][0], "local");
    assert!(view["renewal"]["next"].is_string(), "{view}");
    assert_eq!(
        view["chain"].as_str().map(|pem| pem.contains("BEGIN")),
        Some(true)
    );

    let output = certs(&gateway, &["show", "lat.example"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(stdout(&output), "");
    let said = stderr(&output);
    assert!(said.contains("did you mean late.example"), "{said}");
}

#[test]
fn a_certificate_from_a_file_is_not_renewed() {
    let gateway = gateway_with_files();
    for verb in [
        &["renew", "late.example"][..],
        &["renew", "late.example", "--no-wait"],
        &["obtain", "late.example"],
    ] {
        let output = certs(&gateway, verb);
        assert_eq!(output.status.code(), Some(1), "{verb:?}");
        assert_eq!(stdout(&output), "", "{verb:?}");
        let said = stderr(&output);
        assert!(said.contains("late.pem"), "{verb:?}: {said}");
    }
    // What is valid need not be obtained.
    let output = certs(&gateway, &["obtain", "issued.example"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(
        stderr(&output).starts_with("nothing to do"),
        "{}",
        stderr(&output)
    );
}

const VIEW: &str = r#"{"name":"a.example","names":["a.example"],"state":"STATE","source":"test",
"issuer":null,"not_before":null,"not_after":null,"days_left":null,"key":null,"serial":null,
"fingerprint":null,"file":null,"renewal":{"subject":"a.example","issuers":["test"],
"obtaining":OBTAINING,"next":"2030-01-01T00:00:00Z","failures":FAILURES,"last_failure":FAILURE}}"#;

fn view(state: &str, obtaining: bool, failure: Option<&str>) -> String {
    let told = failure.map_or_else(
        || "null".to_owned(),
        |message| {
            format!(
                r#"{{"at":"2026-01-01T00:00:00Z","issuer":"test","class":"validation",
                "message":"{message}","url":"https://ca.example/why","retry_after":null}}"#
            )
        },
    );
    VIEW.replace("STATE", state)
        .replace("OBTAINING", if obtaining { "true" } else { "false" })
        .replace("FAILURES", if failure.is_some() { "1" } else { "0" })
        .replace("FAILURE", &told)
}

fn event(kind: &str, message: &str, not_after: &str) -> String {
    format!(
        "data: {{\"at\":\"2026-01-01T00:00:00Z\",\"kind\":\"{kind}\",\"severity\":\"info\",\
         \"domain\":\"a.example\",\"issuer\":\"test\",\"attempt\":1,\"next\":null,\
         \"not_after\":{not_after},\"message\":\"{message}\",\"url\":null}}\n\n"
    )
}

/// A gateway that asks an issuer when it is told to: then come these events, and `after` is how the
/// certificate stands. The stream of events ends where `ends` says so.
fn issuing(events: String, after: String, ends: bool) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address").to_string();
    thread::spawn(move || {
        let mut asked = false;
        let mut subscriber = None;
        for stream in listener.incoming() {
            let mut stream = stream.expect("a client");
            let Ok(Some(head)) = read_head(&mut stream) else {
                continue;
            };
            let head = String::from_utf8(head).expect("text");
            let path = head.split(' ').nth(1).expect("a path").to_owned();
            let (status, body) = match &path[..] {
                "/api/v1/events?domain=a.example&live=true" => {
                    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\
                                Connection: close\r\n\r\n: hello\n\n";
                    stream.write_all(head.as_bytes()).expect("taken");
                    subscriber = Some(stream);
                    continue;
                }
                "/api/v1/certificates/a.example/renew" => {
                    asked = true;
                    ("202 Accepted", view("obtaining", true, None))
                }
                "/api/v1/certificates/a.example" if asked => ("200 OK", after.clone()),
                "/api/v1/certificates/a.example" => ("200 OK", view("missing", false, None)),
                other => panic!("{other}"),
            };
            let answer = format!("HTTP/1.1 {status}\r\nConnection: close\r\n\r\n{body}");
            // Whoever was interrupted reads no more.
            let _ = stream.write_all(answer.as_bytes());
            drop(stream);
            if path.ends_with("/renew")
                && let Some(mut stream) = subscriber.take()
            {
                let _ = stream.write_all(events.as_bytes());
                if !ends {
                    subscriber = Some(stream);
                }
            }
        }
    });
    address
}

fn steps() -> String {
    event("certificate_obtaining", "asking for a certificate", "null")
        + &event(
            "certificate_progress",
            "http-01: waiting for the CA",
            "null",
        )
        + &event(
            "certificate_progress",
            "http-01: waiting for the CA",
            "null",
        )
}

#[test]
fn the_steps_to_a_certificate_are_shown() {
    let given = event(
        "certificate_obtained",
        "a certificate",
        "\"2030-01-01T00:00:00Z\"",
    );
    let address = issuing(steps() + &given, view("obtaining", true, None), false);
    let output = run(&["certs", "renew", "A.example", "--admin", &address]);
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert_eq!(stdout(&output), "");
    assert!(!said.contains(['\x1b', '\r']), "{said:?}");
    let lines: Vec<&str> = said.lines().map(str::trim).collect();
    assert_eq!(lines.len(), 4, "{said}");
    assert!(lines[0].ends_with(" s  asked for a.example"), "{said}");
    assert!(
        lines[1].ends_with("test: asking for a certificate"),
        "{said}"
    );
    assert!(
        lines[2].ends_with("test: http-01: waiting for the CA"),
        "{said}"
    );
    assert!(
        lines[3].starts_with("obtained: a certificate for a.example, valid until 2030-01-01T"),
        "{said}"
    );
}

#[test]
fn a_failure_is_shown_in_the_words_of_the_ca() {
    let failed = event("certificate_failed", "no answer from 192.0.2.1", "null");
    let after = view("failed", false, Some("no answer\\u001b[2J from 192.0.2.1"));
    let address = issuing(steps() + &failed, after, false);
    let output = run(&["certs", "renew", "a.example", "--admin", &address]);
    assert_eq!(output.status.code(), Some(1));
    let said = stderr(&output);
    for part in [
        "error: no certificate for a.example",
        "from 192.0.2.1\nsee https://ca.example/why\n",
        "hint: the gateway tries again",
        "2030-01-01T00:00:00Z",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(
        !said.contains('\x1b'),
        "a CA commands no terminal: {said:?}"
    );
}

/// An event may be lost; the gateway knows how it stands all the same.
#[test]
fn an_end_without_an_event_is_seen() {
    let address = issuing(String::new(), view("failed", false, Some("no")), false);
    let output = run(&["certs", "renew", "a.example", "--admin", &address]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("no certificate for a.example"));
}

#[test]
fn watching_ends_where_the_watcher_or_the_gateway_does() {
    let under_way = || view("obtaining", true, None);
    let address = issuing(steps(), under_way(), false);
    let arguments = ["certs", "renew", "a.example", "--admin", &address];
    let output = run(&[&arguments[..], &["--timeout", "1s"]].concat());
    assert_eq!(output.status.code(), Some(1));
    let said = stderr(&output);
    assert!(
        said.contains("within 1s") && said.contains("goes on"),
        "{said}"
    );

    let output = run(&[
        "certs",
        "renew",
        "a.example",
        "--no-wait",
        "--admin",
        &address,
    ]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));

    let address = issuing(steps(), under_way(), true);
    let output = run(&["certs", "renew", "a.example", "--admin", &address]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("stopped"), "{}", stderr(&output));

    let address = issuing(steps(), under_way(), false);
    let mut child = snigate(&["certs", "renew", "a.example", "--admin", &address])
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut stderr = BufReader::new(child.stderr.take().expect("a pipe"));
    let mut said = String::new();
    while !said.contains("waiting for the CA") {
        assert_ne!(stderr.read_line(&mut said).expect("text"), 0, "{said}");
    }
    let pid = i32::try_from(child.id()).expect("a process id");
    kill(Pid::from_raw(pid), Signal::SIGINT).expect("a signal");
    stderr.read_to_string(&mut said).expect("text");
    assert_eq!(child.wait().expect("an end").code(), Some(1), "{said}");
    assert!(said.contains("the gateway goes on"), "{said}");
}
