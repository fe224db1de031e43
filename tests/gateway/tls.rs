//! TLS by server name: which certificate, which sessions, which versions, ciphers and protocols.

mod client_auth;
mod client_hello;
mod key_log;
mod parameters;
mod selection;
mod sessions;

use crate::support::{Ca, Gateway, TlsClient};

/// A gateway for `a.example`, `b.example`, `*.wild.example` and `x.wild.example`, each with a
/// certificate and a site of its own.
fn gateway(rest: &str) -> Gateway {
    let builder = Gateway::builder();
    let ca = Ca::new("Sni Root").intermediate("Sni Intermediate");
    let certs = builder.dir().join("certs");
    let mut sites = String::new();
    for (file, host) in [
        ("a", "a.example"),
        ("b", "b.example"),
        ("wild", "*.wild.example"),
        ("x", "x.wild.example"),
    ] {
        ca.leaf(&[host]).make().write(&certs, file);
        sites.push_str(&format!(
            "  - {{ hosts: [\"{host}\"], routes: [{{ respond: {{ body: \"{host}\" }} }}] }}\n"
        ));
    }
    builder
        .server("limits: { handshake: 2s }")
        .config(format!(
            "certificates: [{{ directory: certs }}]\nsites:\n{sites}{rest}"
        ))
        .start()
}

#[track_caller]
fn names(gateway: &Gateway, name: &str) -> Vec<String> {
    TlsClient::named(name).connect(gateway.https).names()
}

/// What the library says of a handshake that must fail.
#[track_caller]
fn refused(gateway: &Gateway, name: Option<&str>) -> String {
    let client = name.map_or_else(TlsClient::nameless, TlsClient::named);
    let outcome = client.try_connect(gateway.https);
    outcome
        .err()
        .unwrap_or_else(|| panic!("{name:?} is served"))
}

/// The sum of all series of a metric whose labels hold these texts.
fn metric_sum(gateway: &Gateway, name: &str, labels: &[&str]) -> f64 {
    let text = gateway.ask("GET", "/metrics").text();
    let series = text.lines().filter(|line| line.starts_with(name));
    series
        .filter(|line| labels.iter().all(|label| line.contains(label)))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}
