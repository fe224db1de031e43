//! A real name server: CZ.NIC's `knotd`, with zones of the test's own. It has the word about them
//! and about all other names, of which it knows none, and takes updates that are signed.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::thread;

use tempfile::TempDir;

use super::{Port, wait_for};

/// A key for updates (TSIG), by the names of the configuration.
#[derive(Clone, Copy, Debug)]
pub struct TsigKey {
    pub name: &'static str,
    pub algorithm: &'static str,
    pub secret: &'static str,
}

/// The key that all zones take updates of.
pub const KEY: TsigKey = TsigKey {
    name: "acme",
    algorithm: "hmac-sha256",
    secret: "c25pZ2F0ZSdzIG93biBzZWNyZXQgZm9yIHRlc3RzIQ==",
};

/// A key that the server knows, but which may change nothing.
pub const READER: TsigKey = TsigKey {
    name: "reader",
    algorithm: "hmac-sha512",
    secret: "YSBzZWNyZXQgdGhhdCBvcGVucyBubyBkb29yIGF0IGFsbA==",
};

/// A name server to be.
#[derive(Default)]
pub struct KnotBuilder {
    address: Option<SocketAddr>,
    zones: Vec<(String, String)>,
}

impl KnotBuilder {
    /// Listens here instead of at a port of its own.
    pub fn address(mut self, address: SocketAddr) -> Self {
        self.address = Some(address);
        self
    }

    /// Serves a zone with these records, lines of a zone file: `www A 192.0.2.1`. The SOA record
    /// comes by itself, and so does a name server `ns` where no line begins with `@ NS`.
    pub fn zone(mut self, zone: &str, records: &str) -> Self {
        self.zones.push((zone.to_owned(), records.to_owned()));
        self
    }

    /// Starts it and waits until it answers.
    #[track_caller]
    pub fn start(mut self) -> Knot {
        let dir = tempfile::tempdir().expect("a directory");
        let (address, port) = match self.address {
            Some(address) => (address, None),
            None => {
                let port = Port::take();
                (port.address(), Some(port))
            }
        };
        // So that a name of no zone does not exist, rather than being refused.
        if self.zones.iter().all(|(zone, _)| zone != ".") {
            self = self.zone(".", "");
        }
        let mut config = format!(
            "server:\n    listen: {}@{}\n    rundir: {dir}\n    pidfile: {dir}/knot.pid\n\
             \x20   background-workers: 1\n    udp-workers: 1\n    tcp-workers: 1\n\
             log:\n  - target: stderr\n    any: info\n\
             database:\n    storage: {dir}\n    journal-db-max-size: 8M\n",
            address.ip(),
            address.port(),
            dir = dir.path().display(),
        );
        config.push_str("key:\n");
        for key in [KEY, READER] {
            let TsigKey {
                name,
                algorithm,
                secret,
            } = key;
            writeln!(
                config,
                "  - id: {name}\n    algorithm: {algorithm}\n    secret: {secret}"
            )
            .expect("a text takes it");
        }
        config.push_str("acl:\n  - id: updates\n    key: acme\n    action: update\nzone:\n");
        for (number, (zone, records)) in self.zones.iter().enumerate() {
            let file = dir.path().join(format!("{number}.zone"));
            fs::write(&file, zone_file(zone, records, address)).expect("ours");
            writeln!(
                config,
                "  - domain: \"{zone}\"\n    file: {}\n    acl: updates\n    zonefile-sync: -1",
                file.display()
            )
            .expect("a text takes it");
        }
        fs::write(dir.path().join("knot.conf"), config).expect("ours");
        let mut knot = Knot {
            dir,
            address,
            _port: port,
            process: None,
        };
        knot.resume();
        knot
    }
}

/// A zone file of these records; its server is at `address` where they name none.
pub(super) fn zone_file(zone: &str, records: &str, address: SocketAddr) -> String {
    let origin = if zone == "." {
        ".".to_owned()
    } else {
        format!("{zone}.")
    };
    let mut text = format!("$ORIGIN {origin}\n$TTL 60\n@ SOA ns hostmaster 1 3600 600 86400 5\n");
    if !records.lines().any(|line| line.starts_with("@ NS")) {
        let kind = if address.is_ipv4() { "A" } else { "AAAA" };
        writeln!(text, "@ NS ns\nns {kind} {}", address.ip()).expect("a text takes it");
    }
    text.push_str(records);
    text.push('\n');
    text
}

/// A running name server; killed when dropped, its log shown where the test failed.
pub struct Knot {
    dir: TempDir,
    address: SocketAddr,
    _port: Option<Port>,
    process: Option<Child>,
}

impl Knot {
    /// Begins one.
    pub fn builder() -> KnotBuilder {
        KnotBuilder::default()
    }

    /// Where it answers, over UDP and TCP.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The values of the TXT records of a name, in order.
    pub fn txt(&self, name: &str) -> Vec<String> {
        texts(self.address, name)
    }

    /// Changes a zone with one signed update of lines such as `add www.example.test. 60 A 192.0.2.1`.
    #[track_caller]
    pub fn update(&self, zone: &str, lines: &[&str]) {
        let file = self.dir.path().join("update");
        let (server, port) = (self.address.ip(), self.address.port());
        let TsigKey {
            name,
            algorithm,
            secret,
        } = KEY;
        let text = format!(
            "server {server} {port}\nkey {algorithm}:{name} {secret}\nzone {zone}.\n{}\nsend\n",
            lines.join("\n")
        );
        fs::write(&file, text).expect("ours");
        let output = Command::new("knsupdate")
            .arg(&file)
            .output()
            .expect("Debian's package knot-dnsutils is installed");
        assert!(output.status.success(), "{}", printed(&output));
    }

    /// Ends it at once.
    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// Starts it again at the same port, with the zones as they were after the last update.
    #[track_caller]
    pub fn resume(&mut self) {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log_file())
            .expect("ours");
        let process = Command::new("knotd")
            .arg("-c")
            .arg(self.dir.path().join("knot.conf"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a copy"))
            .stderr(log)
            .spawn()
            .expect("Debian's package knot is installed");
        self.process = Some(process);
        wait_for("the name server", || {
            (!dig(self.address, &[".", "SOA"]).is_empty()).then_some(())
        });
    }

    fn log_file(&self) -> PathBuf {
        self.dir.path().join("knot.log")
    }
}

/// The values of the TXT records that a server has of a name, in order.
pub fn texts(server: SocketAddr, name: &str) -> Vec<String> {
    let mut values: Vec<_> = dig(server, &[name, "TXT"])
        .lines()
        .map(|line| line.trim_matches('"').to_owned())
        .collect();
    values.sort();
    values
}

/// What a server answers, a line for each record; nothing where it does not answer.
pub(super) fn dig(server: SocketAddr, question: &[&str]) -> String {
    let output = Command::new("kdig")
        .args(["+short", "+timeout=1", "+retry=0"])
        .arg(format!("@{}", server.ip()))
        .args(["-p", &server.port().to_string()])
        .args(question)
        .output()
        .expect("Debian's package knot-dnsutils is installed");
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter(|line| !line.starts_with(";;"))
        .fold(String::new(), |text, line| text + line + "\n")
}

fn printed(output: &Output) -> String {
    let [out, err] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    format!("{out}{err}")
}

impl Drop for Knot {
    fn drop(&mut self) {
        self.stop();
        if thread::panicking() {
            let log = fs::read_to_string(self.log_file()).unwrap_or_default();
            eprintln!("--- log of knotd ---\n{log}---");
        }
    }
}
