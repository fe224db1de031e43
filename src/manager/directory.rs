//! What the names in a certificate directory say.
//!
//! `NAME.pem` or `NAME.crt` is a chain, with its key inside or in `NAME.key`. Names that begin with
//! a dot are not looked at: editors' and our own temporary files, and the `..data` of mounted
//! Kubernetes secrets, whose real names are symbolic links beside it.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use crate::certificate::TlsCertificate;
use crate::host::Pattern;

/// The extensions of files with a chain.
const CHAINS: [&str; 2] = ["pem", "crt"];

/// The extension of files with a key.
pub(super) const KEY: &str = "key";

/// What a name in a directory stands for.
pub(super) enum Part {
    Chain,
    Key,
}

/// What the file `name` is; `None` where it is not looked at.
pub(super) fn part(name: &OsStr) -> Option<Part> {
    let path = Path::new(name);
    if is_hidden(path) {
        return None;
    }
    match extension(path)? {
        KEY => Some(Part::Key),
        other => CHAINS.contains(&other).then_some(Part::Chain),
    }
}

/// The names of the chains that the key `name` may belong to.
pub(super) fn chains_of(name: &OsStr) -> impl Iterator<Item = OsString> {
    CHAINS
        .iter()
        .map(|extension| Path::new(name).with_extension(extension).into_os_string())
}

/// Whether `path` has a name of the kind that is not looked at.
pub(super) fn is_hidden(path: &Path) -> bool {
    path.file_name()
        .and_then(OsStr::to_str)
        .is_none_or(|name| name.starts_with('.'))
}

/// Whether `path` is the link that a Kubernetes volume in `directory` turns to its new content.
pub(super) fn is_turned_link(path: &Path, directory: &Path) -> bool {
    path.parent() == Some(directory)
        && path
            .file_name()
            .is_some_and(|name| name.as_encoded_bytes().starts_with(b".."))
}

/// Whether `path` is such a link beside `file`.
pub(super) fn is_beside(path: &Path, file: &Path) -> bool {
    file.parent()
        .is_some_and(|directory| is_turned_link(path, directory))
}

/// Whether the name of a certificate's file says a host that it does not cover.
pub(super) fn is_misnamed(name: &OsStr, certificate: &TlsCertificate) -> bool {
    let Some(name) = Path::new(name).file_stem().and_then(OsStr::to_str) else {
        return false;
    };
    let covers = |pattern: &Pattern| match pattern {
        Pattern::Exact(host) => certificate.covers(host.as_str()),
        other => certificate.names().contains(other),
    };
    // One label says nothing: `tls.crt`, `site1.pem`.
    named(name).is_some_and(|pattern| name.contains('.') && !covers(&pattern))
}

/// The host or wildcard that a file is named after: `a.example`, `*.a.example` or
/// `_wildcard.a.example`, each perhaps with the kind of key, `a.example.rsa`.
fn named(name: &str) -> Option<Pattern> {
    let name = [".ecdsa", ".ed25519", ".rsa"]
        .iter()
        .find_map(|kind| name.strip_suffix(kind))
        .unwrap_or(name);
    match name.strip_prefix("_wildcard.") {
        Some(parent) => format!("*.{parent}").parse().ok(),
        None => name.parse().ok(),
    }
}

fn extension(path: &Path) -> Option<&str> {
    path.extension().and_then(OsStr::to_str)
}
