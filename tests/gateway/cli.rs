//! The command line as its users meet it: what it prints where, and how it ends.

mod admin;
mod certs;
mod configuration;
mod renew;
mod usage;

use std::process::{Command, Output, Stdio};

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
