//! Another real name server: ISC's `named`, with zones of the test's own that take signed updates.
//! It is a resolver too, and so follows aliases from one zone into another.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::thread;

use tempfile::TempDir;

use super::knot::{KEY, READER, dig, texts, zone_file};
use super::{Port, wait_for};

/// A running name server; killed when dropped, its log shown where the test failed.
pub struct Bind {
    dir: TempDir,
    port: Port,
    process: Child,
}

impl Bind {
    /// Starts one that serves zones with these records, as [`super::knot::KnotBuilder::zone`] takes them,
    /// and waits until it answers. Names of no zone do not exist.
    #[track_caller]
    pub fn start(zones: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let port = Port::take();
        let keys: String = [KEY, READER]
            .map(|key| {
                let (name, algorithm, secret) = (key.name, key.algorithm, key.secret);
                format!("key {name} {{ algorithm {algorithm}; secret \"{secret}\"; }};\n")
            })
            .concat();
        let mut config = format!(
            "options {{\n  directory \"{dir}\";\n  pid-file none;\n  session-keyfile none;\n\
             \x20 listen-on port {port} {{ 127.0.0.1; }};\n  listen-on-v6 {{ none; }};\n\
             \x20 recursion yes;\n  dnssec-validation no;\n}};\ncontrols {{}};\n{keys}",
            dir = dir.path().display(),
            port = port.number(),
        );
        for (number, (zone, records)) in [(".", "")].iter().chain(zones).enumerate() {
            let text = zone_file(zone, records, port.address());
            fs::write(dir.path().join(format!("{number}.zone")), text).expect("ours");
            writeln!(
                config,
                "zone \"{zone}\" {{ type primary; file \"{number}.zone\"; \
                 allow-update {{ key {}; }}; }};",
                KEY.name
            )
            .expect("a text takes it");
        }
        let file = dir.path().join("named.conf");
        fs::write(&file, config).expect("ours");
        let log = File::create(dir.path().join("log")).expect("ours");
        let process = Command::new("named")
            .args(["-g", "-n", "1", "-c"])
            .arg(file)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a copy"))
            .stderr(log)
            .spawn()
            .expect("Debian's package bind9 is installed");
        let server = Self { dir, port, process };
        wait_for("the name server", || {
            (!dig(server.address(), &[".", "SOA"]).is_empty()).then_some(())
        });
        server
    }

    /// Where it answers, over UDP and TCP.
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// The values of the TXT records of a name, in order.
    pub fn txt(&self, name: &str) -> Vec<String> {
        texts(self.address(), name)
    }
}

impl Drop for Bind {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if thread::panicking() {
            let log = fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
            eprintln!("--- log of named ---\n{log}---");
        }
    }
}
