//! Changes while it runs: every way in which files change, and what clients see of it.

mod certificate_files;
mod concurrency;
mod configuration;
mod listeners;
mod watching;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use openssl::x509::X509;

use crate::support::{Ca, Gateway, Pair, TlsClient, within};

/// A site that answers with this.
fn site(host: &str, body: &str) -> String {
    format!("  - {{ hosts: [\"{host}\"], routes: [{{ respond: {{ body: \"{body}\" }} }}] }}\n")
}

/// One site, `a.example`, with a certificate of the directory `certs`.
fn config(body: &str) -> String {
    format!(
        "certificates: [{{ directory: certs }}]\nsites:\n{}",
        site("a.example", body)
    )
}

/// A gateway for `a.example` that answers with `one`, and the root to trust.
fn gateway() -> (Gateway, Ca) {
    let builder = Gateway::builder();
    let ca = Ca::new("Reload Root");
    ca.leaf(&["a.example"])
        .make()
        .write(&builder.dir().join("certs"), "a.example");
    (builder.config(config("one")).start(), ca)
}

/// What `host` answers over a new connection.
fn body(gateway: &Gateway, host: &str) -> Result<String, String> {
    let mut stream = TlsClient::named(host).try_connect(gateway.https)?;
    Ok(stream.get(host, "/").text())
}

#[track_caller]
fn wait_for_body(gateway: &Gateway, host: &str, wanted: &str) {
    within(
        Duration::from_secs(15),
        &format!("{host} to answer {wanted}"),
        || (body(gateway, host).as_deref() == Ok(wanted)).then_some(()),
    );
}

fn fingerprint(certificate: &X509) -> Vec<u8> {
    let digest = certificate.digest(openssl::hash::MessageDigest::sha256());
    digest.expect("SHA-256").to_vec()
}

fn presents(gateway: &Gateway, host: &str, pair: &Pair) -> bool {
    let stream = TlsClient::named(host).try_connect(gateway.https);
    stream.is_ok_and(|stream| fingerprint(&stream.certificate()) == fingerprint(&pair.certificate))
}

fn reloads(gateway: &Gateway, result: &str) -> f64 {
    let name = format!("snigate_config_reloads_total{{result=\"{result}\"}}");
    gateway.metric(&name).unwrap_or(0.0)
}

fn lines_with(gateway: &Gateway, texts: &[&str]) -> Vec<String> {
    let log = gateway.log();
    let lines = log.lines();
    lines
        .filter(|line| texts.iter().all(|text| line.contains(text)))
        .map(str::to_owned)
        .collect()
}

/// What clients saw that connected again and again while something else went on.
#[derive(Debug, Default)]
struct Seen {
    connections: usize,
    failures: Vec<String>,
    /// The certificate's serial number and the body, in the order of one client.
    pairs: Vec<(String, String)>,
}

/// Runs `work` while two clients make new connections to `host`, one after the other.
fn under_connections(gateway: &Gateway, host: &str, root: &X509, work: impl FnOnce()) -> Seen {
    let done = AtomicBool::new(false);
    let client = || {
        let mut seen = Seen::default();
        while !done.load(Ordering::Relaxed) {
            seen.connections += 1;
            match TlsClient::named(host)
                .trusting(root)
                .try_connect(gateway.https)
            {
                Ok(mut stream) => {
                    let serial = serial(&stream.certificate());
                    let response = stream.get(host, "/");
                    let pair = (serial, response.text());
                    if response.status != 200 {
                        seen.failures.push(format!("{response:?}"));
                    }
                    if seen.pairs.last() != Some(&pair) {
                        seen.pairs.push(pair);
                    }
                }
                Err(error) => seen.failures.push(error),
            }
        }
        seen
    };
    thread::scope(|scope| {
        let clients = [scope.spawn(client), scope.spawn(client)];
        // The clients are let go even where the work fails.
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        done.store(true, Ordering::Relaxed);
        let mut all = Seen::default();
        for client in clients {
            let seen = client.join().expect("a client");
            all.connections += seen.connections;
            all.failures.extend(seen.failures);
            all.pairs.extend(seen.pairs);
        }
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
        assert!(all.connections > 0);
        assert_eq!(all.failures, Vec::<String>::new());
        all
    })
}

/// Replaces a symbolic link at once.
fn turn(link: &Path, target: &str) {
    let name = link.file_name().expect("a name").to_string_lossy();
    let fresh = link.with_file_name(format!(".turning-{name}"));
    symlink(target, &fresh).expect("linked");
    fs::rename(&fresh, link).expect("turned");
}

/// The volume that Kubernetes mounts for a ConfigMap or Secret, and how it changes it.
struct Volume<'a>(&'a Path);

impl Volume<'_> {
    fn publish(&self, version: &str, files: &[(&str, &str)]) {
        let Self(directory) = self;
        let fresh = directory.join(format!("..{version}"));
        fs::create_dir_all(&fresh).expect("made");
        for (name, text) in files {
            fs::write(fresh.join(name), text).expect("written");
        }
        turn(&directory.join("..data"), &format!("..{version}"));
        for (name, _) in files {
            let link = directory.join(name);
            if !link.is_symlink() {
                symlink(format!("..data/{name}"), link).expect("linked");
            }
        }
        for old in fs::read_dir(directory).expect("a directory").flatten() {
            let name = old.file_name().to_string_lossy().into_owned();
            if name.starts_with("..") && name != "..data" && name != format!("..{version}") {
                fs::remove_dir_all(old.path()).expect("removed");
            }
        }
    }
}

/// In decimal digits.
fn serial(certificate: &X509) -> String {
    let serial = certificate.serial_number().to_bn().expect("a number");
    serial.to_dec_str().expect("a number").to_string()
}
