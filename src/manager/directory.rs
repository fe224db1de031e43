//! Lists what a certificate directory holds.
//!
//! `NAME.pem` or `NAME.crt` is a chain, with its key inside or in `NAME.key`. Names that begin with
//! a dot are not looked at: editors' and our own temporary files, and the `..data` of mounted
//! Kubernetes secrets, whose real names are symbolic links beside it.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::files::EntryId;
use crate::certificate::TlsCertificate;
use crate::host::Pattern;

/// The extensions of files with a chain.
const CHAINS: [&str; 2] = ["pem", "crt"];

/// The extension of files with a key.
const KEY: &str = "key";

/// What is in a directory.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Listing {
    pub(super) entries: Vec<EntryId>,
    /// Keys without a chain.
    pub(super) lone_keys: Vec<PathBuf>,
    /// Those of all these files that are symbolic links.
    pub(super) links: Vec<PathBuf>,
}

impl Listing {
    pub(super) fn read(directory: &Path) -> io::Result<Self> {
        let mut listing = Self::default();
        let (mut keys, mut paired) = (Vec::new(), BTreeSet::new());
        for found in fs::read_dir(directory)? {
            let found = found?;
            let path = found.path();
            if is_hidden(&path) {
                continue;
            }
            if found.file_type()?.is_symlink() {
                listing.links.push(path.clone());
            }
            if let Some(id) = chain(&path) {
                paired.insert(id.key.clone());
                listing.entries.push(id);
            } else if extension(&path) == Some(KEY) {
                keys.push(path);
            }
        }
        keys.retain(|key| !paired.contains(key));
        listing.lone_keys = keys;
        Ok(listing)
    }

    /// Notes that `path`, which came after the listing was made, is a symbolic link, if it is one.
    pub(super) fn note_link(&mut self, path: &Path) {
        if path.is_symlink() && !self.links.iter().any(|link| link == path) {
            self.links.push(path.to_owned());
        }
    }
}

/// The entries that `path`, a chain or a key, may belong to.
pub(super) fn entries_of(path: &Path) -> Vec<EntryId> {
    if extension(path) == Some(KEY) {
        let chains = CHAINS
            .iter()
            .map(|extension| path.with_extension(extension));
        return chains.filter_map(|path| chain(&path)).collect();
    }
    chain(path).into_iter().collect()
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
pub(super) fn is_misnamed(path: &Path, certificate: &TlsCertificate) -> bool {
    let Some(name) = path.file_stem().and_then(OsStr::to_str) else {
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

fn chain(path: &Path) -> Option<EntryId> {
    let is_chain = CHAINS.contains(&extension(path)?);
    is_chain.then(|| EntryId {
        chain: path.to_owned(),
        key: path.with_extension(KEY),
    })
}

fn extension(path: &Path) -> Option<&str> {
    path.extension().and_then(OsStr::to_str)
}
