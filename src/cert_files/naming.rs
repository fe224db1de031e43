//! What the file names in a certificate directory mean.
//!
//! `NAME.pem`, `NAME.crt` or `NAME.cer` is a chain, with its key inside or in `NAME.key`; in large
//! letters, as Windows has them, `NAME.CRT` with `NAME.KEY`. Names that begin with a dot are
//! skipped: editors' and our own temporary files, and the `..data` of mounted Kubernetes secrets,
//! whose real names are symbolic links beside it.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use crate::certificate::TlsCertificate;
use crate::host::Pattern;

/// The extensions of files with a chain.
const CHAINS: [&str; 3] = ["pem", "crt", "cer"];

/// The extension of files with a key.
const KEY: &str = "key";

/// What a name in a directory stands for.
pub(super) enum Part {
    Chain,
    Key,
}

/// What the file `name` is; `None` if it is skipped.
pub(super) fn part(name: &OsStr) -> Option<Part> {
    if is_hidden(name) {
        return None;
    }
    let extension = extension(name)?;
    if extension.eq_ignore_ascii_case(KEY) {
        return Some(Part::Key);
    }
    let is_chain = CHAINS.iter().any(|one| extension.eq_ignore_ascii_case(one));
    is_chain.then_some(Part::Chain)
}

/// How the letters of an extension are written.
#[derive(Clone, Copy)]
enum Letters {
    Small,
    Large,
    Capital,
}

impl Letters {
    fn of(extension: &str) -> Self {
        let mut letters = extension.bytes();
        let begins_large = letters.next().is_some_and(|one| one.is_ascii_uppercase());
        let is_large = letters.clone().all(|one| one.is_ascii_uppercase());
        match (begins_large, is_large) {
            (true, true) => Self::Large,
            (true, false) if letters.all(|one| one.is_ascii_lowercase()) => Self::Capital,
            _ => Self::Small,
        }
    }

    fn write(self, extension: &str) -> String {
        let mut text = extension.to_owned();
        match self {
            Self::Small => {}
            Self::Large => text.make_ascii_uppercase(),
            Self::Capital => {
                if let Some(first) = text.get_mut(..1) {
                    first.make_ascii_uppercase();
                }
            }
        }
        text
    }
}

/// The path of a key beside `chain`: its extension is written like the chain's.
pub(super) fn key_beside(chain: &Path) -> PathBuf {
    match chain.file_name().and_then(extension).map(Letters::of) {
        None | Some(Letters::Small) => chain.with_extension(KEY),
        Some(letters) => chain.with_extension(letters.write(KEY)),
    }
}

/// The names of the chains that the key `name` may belong to.
pub(super) fn chains_of(name: &OsStr) -> impl Iterator<Item = OsString> {
    let letters = extension(name).map_or(Letters::Small, Letters::of);
    CHAINS.iter().map(move |extension| {
        Path::new(name)
            .with_extension(letters.write(extension))
            .into()
    })
}

/// The names of chains with one of these stems.
pub(super) fn chains_named<'s>(
    stems: impl IntoIterator<Item = &'s OsStr>,
) -> impl Iterator<Item = OsString> {
    let all = [Letters::Small, Letters::Large, Letters::Capital];
    stems.into_iter().flat_map(move |stem| {
        all.into_iter().flat_map(move |letters| {
            CHAINS.map(|extension| {
                let mut name = stem.to_owned();
                name.push(".");
                name.push(letters.write(extension));
                name
            })
        })
    })
}

/// Whether `name` is skipped.
pub(super) fn is_hidden(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b".")
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

fn extension(name: &OsStr) -> Option<&str> {
    Path::new(name).extension().and_then(OsStr::to_str)
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

    #[test]
    fn a_chain_and_its_key_are_written_alike() {
        for (chain, key) in [
            ("a.example.pem", "a.example.key"),
            ("SITE.CRT", "SITE.KEY"),
            ("Site.Cer", "Site.Key"),
            ("site.cRT", "site.key"),
            ("x/a.crt", "x/a.key"),
        ] {
            assert_eq!(key_beside(Path::new(chain)), Path::new(key), "{chain}");
        }
        for (key, chains) in [
            ("a.key", ["a.pem", "a.crt", "a.cer"]),
            ("A.KEY", ["A.PEM", "A.CRT", "A.CER"]),
            ("a.Key", ["a.Pem", "a.Crt", "a.Cer"]),
        ] {
            assert!(matches!(part(OsStr::new(key)), Some(Part::Key)), "{key}");
            let all: Vec<_> = chains_of(OsStr::new(key)).collect();
            assert_eq!(all, chains, "{key}");
            for chain in chains {
                assert!(
                    matches!(part(OsStr::new(chain)), Some(Part::Chain)),
                    "{chain}"
                );
            }
        }
    }

    #[test]
    fn hidden_is_what_begins_with_a_dot_whatever_else_it_is() {
        use std::os::unix::ffi::OsStrExt;
        assert!(is_hidden(OsStr::from_bytes(b".\xff.pem")));
        let odd = OsStr::from_bytes(b"\xff\xfe.pem");
        assert!(matches!(part(odd), Some(Part::Chain)));
        assert_eq!(named_after(odd), None);
        assert!(part(OsStr::new("a.txt")).is_none() && part(OsStr::new("pem")).is_none());
    }
}
