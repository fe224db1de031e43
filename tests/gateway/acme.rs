//! Certificates from ACME CAs, obtained and renewed by the gateway itself: what the real `pebble`
//! and `caddy` make of it, and one CA that misbehaves as scripted.

mod account_commands;
mod accounts;
mod answers;
mod ari;
mod at_scale;
mod certs;
mod cluster;
mod crash;
mod dns;
mod found_revoked;
mod limited;
mod obtain;
mod on_demand;
mod order;
mod other_ca;
mod outage;
mod preflight;
mod refusals;
mod renewal;
mod revoke;
mod start;
mod stop;
mod storage;
mod validation;
mod veto;
mod zerossl;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use openssl::x509::X509;

use crate::support::{
    Builder, FakeCa, Gateway, Pair, Pebble, PebbleBuilder, Printed, TlsClient, snigate, within,
};

const SECOND: Duration = Duration::from_secs(1);

/// How long it may take until something that failed is tried again.
const RETRY: Duration = Duration::from_secs(100);

/// Begins a CA that validates at the listeners of the gateway to be.
fn pebble_for(gateway: &Builder) -> PebbleBuilder {
    Pebble::builder()
        .http_port(gateway.http().port())
        .tls_port(gateway.https().port())
}

/// A CA under `issuers`, with more of its keys.
fn issuer(name: &str, directory: &str, ca_file: &Path, more: &str) -> String {
    let limit = if more.contains("limit:") {
        ""
    } else {
        ", limit: { orders: 1000, per: 1s }"
    };
    let more = if more.is_empty() {
        String::new()
    } else {
        format!(", {more}")
    };
    format!(
        "  {name}: {{ acme: {{ directory: {directory:?}, ca_file: {ca_file:?}{limit}{more} }} }}\n"
    )
}

/// The issuer `pebble`.
fn pebble_issuer(pebble: &Pebble, more: &str) -> String {
    issuer("pebble", &pebble.directory(), pebble.ca_file(), more)
}

/// The issuer `fake`.
fn fake_issuer(ca: &FakeCa) -> String {
    issuer("fake", &ca.directory(), ca.ca_file(), "")
}

/// A configuration with these issuers, and a site for each host that answers with its name.
fn config(issuers: &str, hosts: &[&str]) -> String {
    format!(
        "issuers:\n{issuers}renewal: {{ check_every: 1s }}\n{}",
        sites(hosts)
    )
}

/// A site for each host, and the log as [`Gateway::events`] reads it.
fn sites(hosts: &[&str]) -> String {
    let sites: String = hosts
        .iter()
        .map(|host| {
            format!("  - {{ hosts: [{host:?}], routes: [{{ respond: {{ body: {host:?} }} }}] }}\n")
        })
        .collect();
    format!("log: {{ format: json, access: off }}\nsites:\n{sites}")
}

/// The root that the CA issues from now.
fn root(pebble: &Pebble) -> X509 {
    X509::from_pem(pebble.root().as_bytes()).expect("a certificate")
}

/// The certificate that a client gets for `host` which believes nobody but `root`.
fn try_served(gateway: &Gateway, host: &str, root: &X509) -> Result<X509, String> {
    let stream = TlsClient::named(host)
        .trusting(root)
        .try_connect(gateway.https)?;
    Ok(stream.certificate())
}

/// Waits until a client that believes nobody but `root` is served at `host`.
#[track_caller]
fn wait_until_served(gateway: &Gateway, host: &str, root: &X509) -> X509 {
    let mut last = String::new();
    let what = format!("{host} to be served with a certificate of the CA");
    within(RETRY, &what, || {
        assert!(gateway.is_running(), "the gateway has ended");
        std::net::TcpStream::connect(gateway.https).ok()?;
        match try_served(gateway, host, root) {
            Ok(certificate) => Some(certificate),
            Err(error) => {
                if error != last {
                    let reason = error.split("reason: ").nth(1).unwrap_or(&error);
                    eprintln!("{host}: {}", reason.split(',').next().unwrap_or(reason));
                    last = error;
                }
                None
            }
        }
    })
}

/// Asks for the certificate of `host` now, whatever the schedule says.
#[track_caller]
fn press(gateway: &Gateway, host: &str) {
    let answer = gateway.ask("POST", &format!("/api/v1/certificates/{host}/renew"));
    assert!((200..300).contains(&answer.status), "{}", answer.text());
}

/// Asks again after each failure until a client that believes nobody but `root` is served: the
/// schedule would have minutes between the attempts.
#[track_caller]
fn insist(gateway: &Gateway, host: &str, root: &X509) -> X509 {
    loop {
        let before = gateway.count("certificate_failed", host);
        press(gateway, host);
        let served = within(RETRY, &format!("an outcome for {host}"), || {
            assert!(gateway.is_running(), "the gateway has ended");
            match try_served(gateway, host, root) {
                Ok(certificate) => Some(Some(certificate)),
                Err(_) => (gateway.count("certificate_failed", host) > before).then_some(None),
            }
        });
        if let Some(certificate) = served {
            return certificate;
        }
    }
}

/// The certificate that a client gets for `host` which believes everybody.
#[track_caller]
fn presented(gateway: &Gateway, host: &str) -> X509 {
    TlsClient::named(host).connect(gateway.https).certificate()
}

fn serial(certificate: &X509) -> String {
    let number = certificate.serial_number().to_bn().expect("a number");
    number.to_hex_str().expect("a number").to_lowercase()
}

/// How many orders the CA has taken.
fn orders(pebble: &Pebble) -> usize {
    pebble.log().matches("Added order ").count()
}

/// How many certificates the CA has issued.
fn issued(pebble: &Pebble) -> usize {
    pebble.log().matches("Issued certificate serial ").count()
}

/// How many accounts the CA has made.
fn accounts_made(pebble: &Pebble) -> usize {
    pebble.log().matches(" accounts in memory").count()
}

/// Where the certificate for `host` of the CA with this directory is stored.
fn stored_at(data: &Path, directory: &str, host: &str) -> PathBuf {
    let ca = directory
        .trim_start_matches("https://")
        .replace([':', '/'], "-");
    data.join(format!("certificates/{ca}/{host}.pem"))
}

/// Stores a certificate as if that CA had issued it.
fn store(data: &Path, directory: &str, host: &str, pair: &Pair) {
    let path = stored_at(data, directory, host);
    fs::create_dir_all(path.parent().expect("a directory")).expect("ours");
    fs::write(path, format!("{}{}", pair.chain, pair.key)).expect("ours");
}

/// `snigate` with these words, at the gateway's admin interface.
fn command(gateway: &Gateway, words: &[&str]) -> Printed {
    let admin = gateway.admin.to_string();
    snigate(&[words, &["--admin", &admin]].concat())
}

/// The only file below a directory of the storage, `accounts` say.
#[track_caller]
fn only_file(gateway: &Gateway, under: &str) -> PathBuf {
    only_file_in(&gateway.dir().join("data"), under)
}

#[track_caller]
fn only_file_in(data: &Path, under: &str) -> PathBuf {
    let mut directories = vec![data.join(under)];
    let mut files = Vec::new();
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            match entry.path() {
                path if path.is_dir() => directories.push(path),
                path => files.push(path),
            }
        }
    }
    assert_eq!(files.len(), 1, "{under}: {files:?}");
    files.remove(0)
}

/// What a client gets over plain HTTP: the status and the body.
fn plain(gateway: &Gateway, host: &str) -> Option<(u16, String)> {
    let reply = gateway.curl_http(host, "/").try_send().ok()?;
    Some((reply.status, reply.text()))
}
