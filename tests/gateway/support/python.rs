//! Scripts beside this file, run by the system's Python with the libraries that Debian packages.

use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Runs a script to its end, and returns what it printed.
#[track_caller]
pub fn python<A: AsRef<OsStr>>(script: &str, arguments: &[A]) -> String {
    let output = Command::new("timeout")
        .arg("120")
        .args(command(script))
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("coreutils are installed");
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{script}: {}\n{printed}{complaint}{ADVICE}",
        output.status
    );
    printed
}

/// A server; runs until dropped.
pub struct PythonServer {
    address: SocketAddr,
    process: Child,
}

impl PythonServer {
    /// Starts a script that prints its port on 127.0.0.1 as soon as it listens.
    #[track_caller]
    pub fn start(script: &str) -> Self {
        let [python, rest @ ..] = command(script);
        let mut process = Command::new(python)
            .args(rest)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("Debian's package python3 is installed");
        let mut line = String::new();
        let printed = process.stdout.take().expect("a pipe");
        let mut printed = BufReader::new(printed);
        printed.read_line(&mut line).expect("a line");
        let Ok(port) = line.trim().parse::<u16>() else {
            panic!("{script}: {:?}, see above\n{ADVICE}", process.wait());
        };
        let address = (Ipv4Addr::LOCALHOST, port).into();
        Self { address, process }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for PythonServer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What to do about the usual reason.
const ADVICE: &str = "where a Python library is missing, `scripts/install test` installs it";

/// The system's Python with a script, without what the environment or this directory could put in
/// the place of a library.
fn command(script: &str) -> [OsString; 3] {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/gateway/support");
    [
        "/usr/bin/python3".into(),
        "-I".into(),
        directory.join(script).into(),
    ]
}
