//! Whether served certificates are revoked, and the OCSP responses that come with them.

mod lists;
mod must_staple;
mod revoked;
mod roots;
mod stapling;

use openssl::x509::X509;

use crate::support::{Ca, Gateway, Pair, s_client, wait_for};

/// What a client gets that asks for an OCSP response, over TLS 1.3 or 1.2.
fn status(gateway: &Gateway, name: &str, version: &str) -> String {
    s_client(gateway.https, Some(name), &["-status", version])
}

fn is_stapled(gateway: &Gateway, name: &str) -> bool {
    status(gateway, name, "-tls1_3").contains("Cert Status: good")
}

#[track_caller]
fn wait_until_stapled(gateway: &Gateway, name: &str) {
    wait_for("a stapled response", || {
        is_stapled(gateway, name).then_some(())
    });
}

/// A certificate for `name` with these extensions.
fn with(ca: &Ca, name: &str, extensions: &[(&'static str, Vec<u8>)]) -> Pair {
    let mut leaf = ca.leaf(&[name]);
    for (identifier, value) in extensions {
        leaf = leaf.extension(identifier, value);
    }
    leaf.make()
}

/// What an authority signs with itself.
fn own_signer(ca: &Ca) -> Pair {
    Pair {
        chain: ca.pem(),
        key: String::from_utf8(ca.key_pem()).expect("PEM"),
        certificate: X509::from_pem(ca.pem().as_bytes()).expect("a certificate"),
    }
}

fn authority() -> Ca {
    Ca::new("Status Root").intermediate("Status Intermediate")
}

/// Sites of these hosts, with their certificates in `certs`.
fn config(hosts: &[&str]) -> String {
    format!(
        "certificates: [{{ directory: certs }}]\nlog: {{ format: json }}\n\
         sites: [{{ hosts: [{}], routes: [{{ respond: {{ body: here }} }}] }}]\n",
        hosts.join(", ")
    )
}

fn metric(gateway: &Gateway, series: &str) -> f64 {
    let text = gateway.ask("GET", "/metrics").text();
    let line = text.lines().find(|line| line.starts_with(series));
    let value = line.and_then(|line| line.rsplit(' ').next()?.parse().ok());
    value.unwrap_or_default()
}
