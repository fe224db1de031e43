//! Certificate files of every kind, good and bad: what is served of them, and what is said.

mod at_scale;
mod chains;
mod files;
mod selection;

use crate::support::{Gateway, TlsClient};

/// The fingerprint that `name` gets.
#[track_caller]
fn served(gateway: &Gateway, name: &str) -> String {
    fingerprint(&TlsClient::named(name).connect(gateway.https).certificate())
}

fn fingerprint(certificate: &openssl::x509::X509) -> String {
    let digest = certificate.digest(openssl::hash::MessageDigest::sha256());
    let digest = digest.expect("SHA-256");
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// How many lines of the log are errors that name this.
fn errors_with(gateway: &Gateway, text: &str) -> usize {
    let log = gateway.log();
    let errors = log.lines().filter(|line| line.contains("ERROR"));
    errors.filter(|line| line.contains(text)).count()
}

/// A site that answers with its name on every host given.
fn sites(hosts: &[&str]) -> String {
    format!(
        "sites: [{{ hosts: [{}], routes: [{{ respond: {{ body: here }} }}] }}]\n",
        hosts.join(", ")
    )
}
