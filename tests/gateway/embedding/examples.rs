//! Every example, as a program of its own against a real CA.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use openssl::x509::X509;
use tempfile::TempDir;

use super::{Running, cargo, root, target};
use crate::support::{Origin, PATIENCE, Pebble, Port, TlsClient, curl, wait_for, within};

/// The directory of the built examples. `cargo test` has built them unless it was told to build one
/// test program alone.
fn examples() -> PathBuf {
    static BUILT: OnceLock<()> = OnceLock::new();
    BUILT.get_or_init(|| {
        let mut build = cargo(env!("CARGO_MANIFEST_DIR").as_ref());
        build.args(["build", "--quiet", "--offline", "--locked"]);
        for name in [
            "custom_dns_provider",
            "custom_storage",
            "embed_pingora",
            "embed_tokio",
            "events",
            "on_demand_decision",
        ] {
            build.args(["--example", name]);
        }
        assert!(build.status().expect("cargo").success());
    });
    target().join("debug/examples")
}

/// An example in a directory of its own.
struct Example {
    dir: TempDir,
    command: Command,
}

impl Example {
    fn new(name: &str, arguments: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let mut command = Command::new(examples().join(name));
        let output = File::create(dir.path().join("output")).expect("ours");
        command
            .args(arguments)
            .current_dir(dir.path())
            .stdin(Stdio::null())
            .stderr(output.try_clone().expect("a copy"))
            .stdout(output);
        Self { dir, command }
    }

    fn spawn(&mut self) -> Running {
        Running(self.command.spawn().expect("it starts"))
    }

    fn output(&self) -> String {
        fs::read_to_string(self.dir.path().join("output")).expect("ours")
    }

    /// Runs it to its end.
    fn finish(&mut self) -> String {
        let mut running = self.spawn();
        let status = within(3 * PATIENCE, "the example to end", || {
            running.0.try_wait().expect("ours")
        });
        assert!(status.success(), "{status}: {}", self.output());
        self.output()
    }
}

/// Waits until a client that believes nobody but `root` gets a response of `host`.
#[track_caller]
fn wait_until_served(address: SocketAddr, host: &str, root: &X509, example: &Example) -> String {
    let start = Instant::now();
    loop {
        let connected = TcpStream::connect(address).map_err(|error| error.to_string());
        let client = || TlsClient::named(host).trusting(root);
        match connected.and_then(|_| client().try_connect(address)) {
            Ok(mut stream) => return stream.get(host, "/").text(),
            Err(error) => {
                let is_late = start.elapsed() > 3 * PATIENCE;
                assert!(
                    !is_late,
                    "{host} is not served: {error}: {}",
                    example.output()
                );
            }
        }
        thread::sleep(Duration::from_millis(50));
    }
}

fn roots(pebble: &Pebble) -> String {
    pebble.ca_file().display().to_string()
}

#[test]
fn embed_tokio_serves_with_a_certificate_of_the_ca() {
    let port = Port::take();
    let pebble = Pebble::builder().tls_port(port.number()).start();
    let address = port.address().to_string();
    let arguments = [&*address, "a.test", &pebble.directory(), &roots(&pebble)];
    let mut example = Example::new("embed_tokio", &arguments);
    let _running = example.spawn();
    let body = wait_until_served(port.address(), "a.test", &root(&pebble), &example);
    assert_eq!(body, "hello\n");
    let code = include_str!("../../../examples/embed_tokio.rs");
    let code = code
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with("//"));
    assert!(code.count() < 40);
}

#[test]
fn embed_pingora_is_a_proxy() {
    let (https, http) = (Port::take(), Port::take());
    let origin = Origin::named("the origin");
    let pebble = Pebble::builder()
        .http_port(http.number())
        .tls_port(https.number())
        .start();
    let arguments = [
        https.address().to_string(),
        http.address().to_string(),
        origin.address().to_string(),
        "a.test".to_owned(),
        pebble.directory(),
        roots(&pebble),
    ];
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mut example = Example::new("embed_pingora", &arguments);
    let mut running = example.spawn();
    let body = wait_until_served(https.address(), "a.test", &root(&pebble), &example);
    assert_eq!(body, "the origin");
    let plain = curl(&format!("http://{}/", http.address())).send();
    assert_eq!(plain.text(), "the origin");
    // Ctrl-C ends it in order.
    let pid = i32::try_from(running.0.id()).expect("a process id");
    let signal = nix::sys::signal::Signal::SIGINT;
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal).expect("it runs");
    let status = within(PATIENCE, "the end", || running.0.try_wait().expect("ours"));
    assert!(status.success(), "{status}: {}", example.output());
}

#[test]
fn custom_storage_keeps_everything() {
    let port = Port::take();
    let pebble = Pebble::builder().tls_port(port.number()).start();
    let address = port.address().to_string();
    let arguments = [&*address, "a.test", &pebble.directory(), &roots(&pebble)];
    let mut example = Example::new("custom_storage", &arguments);
    let _running = example.spawn();
    let body = wait_until_served(port.address(), "a.test", &root(&pebble), &example);
    assert_eq!(body, "hello\n");
    for stored in ["accounts/", "a.test"] {
        wait_for(stored, || example.output().contains(stored).then_some(()));
    }
    let kept = fs::read_dir(example.dir.path()).expect("readable");
    assert_eq!(kept.count(), 1, "nothing but its output is in files");
}

#[test]
fn custom_dns_provider_proves_a_wildcard() {
    let pebble = Pebble::builder().start();
    let resolver = pebble.resolver_url();
    let address = resolver.trim_start_matches("http://");
    let arguments = [address, "*.a.test", &pebble.directory(), &roots(&pebble)];
    let output = Example::new("custom_dns_provider", &arguments).finish();
    for line in [
        "add _acme-challenge.a.test ",
        "remove _acme-challenge.a.test ",
        "*.a.test has a certificate",
    ] {
        assert!(output.contains(line), "{line}: {output}");
    }
}

#[test]
fn on_demand_decision_allows_customers() {
    let port = Port::take();
    let pebble = Pebble::builder().tls_port(port.number()).start();
    let address = port.address().to_string();
    let arguments = [
        &*address,
        "customers.txt",
        &pebble.directory(),
        &roots(&pebble),
    ];
    let mut example = Example::new("on_demand_decision", &arguments);
    fs::write(example.dir.path().join("customers.txt"), "a.test\n").expect("ours");
    let _running = example.spawn();
    let root = root(&pebble);
    let body = wait_until_served(port.address(), "a.test", &root, &example);
    assert_eq!(body, "hello\n");
    let stranger = TlsClient::named("b.test").trusting(&root);
    let refused = stranger.try_connect(port.address());
    let refused = refused.err().expect("it is no customer");
    assert!(refused.contains("unrecognized name"), "{refused}");
}

#[test]
fn events_come_by_callback_and_by_stream() {
    let port = Port::take();
    let pebble = Pebble::builder().http_port(port.number()).start();
    let address = port.address().to_string();
    let arguments = [&*address, "a.test", &pebble.directory(), &roots(&pebble)];
    let output = Example::new("events", &arguments).finish();
    for line in [
        "callback: certificate_obtained ",
        "stream: {",
        "\"kind\":\"certificate_obtained\"",
        "a.test has a certificate",
    ] {
        assert!(output.contains(line), "{line}: {output}");
    }
}
