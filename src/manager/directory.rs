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

/// The kinds of keys that a name may end in.
const KINDS: [&str; 3] = [".ecdsa", ".ed25519", ".rsa"];

/// Whether the name of a certificate's file says a host that it does not cover.
pub(super) fn is_misnamed(name: &OsStr, certificate: &TlsCertificate) -> bool {
    let covers = |pattern: &Pattern| match pattern {
        Pattern::Exact(host) => certificate.covers(host.as_str()),
        other => certificate.names().contains(other),
    };
    named_after(name).is_some_and(|pattern| !covers(&pattern))
}

/// What the file `name` is named after. One label says nothing: `tls.crt`, `site1.pem`.
pub(super) fn named_after(name: &OsStr) -> Option<Pattern> {
    let stem = Path::new(name).file_stem().and_then(OsStr::to_str)?;
    stem.contains('.').then(|| named(stem)).flatten()
}

/// The host or wildcard that a file is named after: `a.example`, `*.a.example` or
/// `_wildcard.a.example`, each perhaps with the kind of key, `a.example.rsa`.
pub(super) fn named(name: &str) -> Option<Pattern> {
    let name = KINDS
        .iter()
        .find_map(|kind| name.strip_suffix(kind))
        .unwrap_or(name);
    match name.strip_prefix("_wildcard.") {
        Some(parent) => format!("*.{parent}").parse().ok(),
        None => name.parse().ok(),
    }
}

/// The names of chains' files that are named after `pattern`.
pub(super) fn names_for(pattern: &Pattern) -> impl Iterator<Item = String> {
    let stems = match pattern {
        Pattern::Any => [None, None],
        Pattern::Exact(_) | Pattern::Ip(_) => [Some(pattern.to_string()), None],
        Pattern::Wildcard(of) => [Some(format!("*.{of}")), Some(format!("_wildcard.{of}"))],
    };
    stems.into_iter().flatten().flat_map(|stem| {
        let kinds = std::iter::once("").chain(KINDS);
        kinds.flat_map(move |kind| {
            let stem = stem.clone();
            CHAINS.map(|extension| format!("{stem}{kind}.{extension}"))
        })
    })
}

fn extension(path: &Path) -> Option<&str> {
    path.extension().and_then(OsStr::to_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_by_what_they_say() {
        for name in [
            "a.example.pem",
            "a.example.crt",
            "a.example.rsa.pem",
            "_wildcard.a.example.pem",
            "*.a.example.ecdsa.crt",
            "192.0.2.1.pem",
        ] {
            let pattern = named_after(OsStr::new(name)).expect(name);
            assert!(names_for(&pattern).any(|one| one == name), "{name}");
        }
        for name in ["tls.crt", "site1.pem", "a_b.c d.pem"] {
            assert_eq!(named_after(OsStr::new(name)), None, "{name}");
        }
    }
}
