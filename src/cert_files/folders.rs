//! Folders in certificate directories: each may hold one certificate, as certbot, acme.sh, Caddy
//! and volumes of Kubernetes have it.
//!
//! In a folder with another layout it is unknown which key belongs to which chain. Such a folder is
//! skipped, and named if the whole directory yields nothing.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::{self, DirEntry, ReadDir};
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::files::EntryId;
use super::naming::{self, Part};
use crate::printable::Printable as _;

/// How many levels of folders are searched: those of Caddy, `CA/NAME/NAME.crt`.
const DEPTH: usize = 2;

/// How many skipped folders are named.
const NAMED: usize = 3;

/// A folder while it is listed.
pub(super) struct Folder {
    path: Arc<Path>,
    /// How many levels of folders are above it within the directory.
    depth: usize,
    listing: ReadDir,
    /// The certificates that it may be for, in the order in which they are preferred.
    candidates: BTreeSet<Candidate>,
    /// Whether something in it looks like a certificate.
    has_files: bool,
}

/// A certificate that a folder may be for. The first is taken.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    rank: u8,
    chain: OsString,
    /// `None` where it is beside the chain, by the same name.
    key: Option<OsString>,
}

impl Candidate {
    /// What `name` in the folder `folder` is, where it is the chain of one certificate.
    fn from_name(folder: &OsStr, name: &OsStr) -> Option<Self> {
        let is_chain = matches!(naming::part(name), Some(Part::Chain));
        let stem = Path::new(name).file_stem()?;
        let (rank, key) = match name.to_str() {
            // certbot
            Some("fullchain.pem") => (0, Some("privkey.pem".into())),
            // acme.sh
            Some("fullchain.cer") => (1, Some(key_of_acme_sh(folder))),
            // Caddy, and Kubernetes
            _ if is_chain && stem == folder => (2, None),
            _ if is_chain && stem == "tls" => (3, None),
            _ => return None,
        };
        let chain = name.to_owned();
        Some(Self { rank, chain, key })
    }

    fn id(&self, folder: &Arc<Path>) -> EntryId {
        let beside = EntryId::beside(folder, &self.chain);
        EntryId {
            key: self.key.as_ref().map(|key| folder.join(key).into()),
            ..beside
        }
    }
}

/// The key in a folder `NAME`, or `NAME_ecc` where it is no RSA key: `NAME.key`.
fn key_of_acme_sh(folder: &OsStr) -> OsString {
    let octets = folder.as_encoded_bytes();
    let name = octets.strip_suffix(b"_ecc").unwrap_or(octets);
    let mut key = os_string(name);
    key.push(".key");
    key
}

fn os_string(octets: &[u8]) -> OsString {
    use std::os::unix::ffi::OsStrExt;
    OsStr::from_bytes(octets).to_owned()
}

/// Whether `path`, a configured directory, is the folder of one certificate, of certbot's say.
pub(super) fn is_one(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default();
    let mut chains = ["fullchain.pem", "fullchain.cer"]
        .map(OsStr::new)
        .into_iter();
    chains.any(|chain| {
        let candidate = Candidate::from_name(name, chain);
        let key = candidate.and_then(|candidate| candidate.key);
        key.is_some_and(|key| path.join(chain).exists() && path.join(key).exists())
    })
}

impl Folder {
    /// Begins to list `path`, `depth` levels down.
    pub(super) fn open(path: &Arc<Path>, depth: usize) -> io::Result<Self> {
        Ok(Self {
            path: Arc::clone(path),
            depth,
            listing: fs::read_dir(path)?,
            candidates: BTreeSet::new(),
            has_files: false,
        })
    }

    /// Begins to list `path`, a configured directory that is [one](is_one) itself.
    pub(super) fn of_one(path: &Arc<Path>) -> Option<Self> {
        Self::open(path, DEPTH).ok()
    }

    pub(super) fn path(&self) -> &Arc<Path> {
        &self.path
    }

    /// How many levels of folders are above it within the directory.
    pub(super) fn depth(&self) -> usize {
        self.depth
    }

    /// The certificates that it may be for, the preferred one first.
    pub(super) fn candidates(&self) -> impl Iterator<Item = EntryId> {
        let candidates = self.candidates.iter();
        candidates.map(|candidate| candidate.id(&self.path))
    }

    /// Lists so many entries, and gives the folders among them. `None` where there are no more.
    pub(super) fn list_files(&mut self, most: usize) -> io::Result<Option<Vec<Arc<Path>>>> {
        let name = self.path.file_name().unwrap_or_default().to_owned();
        let mut folders = Vec::new();
        let mut seen = 0;
        for listed in self.listing.by_ref().take(most) {
            let listed = listed?;
            seen += 1;
            let entry = listed.file_name();
            if naming::is_hidden(&entry) {
                continue;
            }
            if let Some(candidate) = Candidate::from_name(&name, &entry) {
                self.candidates.insert(candidate);
            } else if naming::part(&entry).is_none() && self.depth < DEPTH && is_folder(&listed) {
                folders.push(listed.path().into());
            }
            self.has_files |= naming::part(&entry).is_some();
        }
        Ok((seen > 0).then_some(folders))
    }
}

/// The entry of the certificate in `folder` whose chain is `chain`.
pub(super) fn entry_id(folder: &Arc<Path>, chain: &OsStr) -> Option<EntryId> {
    let name = folder.file_name().unwrap_or_default();
    Candidate::from_name(name, chain).map(|candidate| candidate.id(folder))
}

/// Whether an entry of a listing is a folder, or leads to one.
pub(super) fn is_folder(listed: &DirEntry) -> bool {
    listed.file_type().is_ok_and(|kind| {
        kind.is_dir()
            || kind.is_symlink() && fs::metadata(listed.path()).is_ok_and(|found| found.is_dir())
    })
}

/// What a directory has yielded, as far as it has been listed.
#[derive(Default)]
pub(super) struct Yield {
    /// Files with a chain.
    found: usize,
    /// Everything else that is not hidden.
    passed: usize,
    /// Folders that hold certificates and do not say which, the first of them.
    strange: Vec<String>,
    /// Folders that cannot be listed, the first of them.
    closed: Vec<String>,
}

impl Yield {
    pub(super) fn count_file(&mut self, is_chain: bool) {
        if is_chain {
            self.found += 1;
        } else {
            self.passed += 1;
        }
    }

    /// Counts a folder that has been listed, and whether it is for a certificate.
    pub(super) fn count_folder(&mut self, folder: &Folder, is_found: bool) {
        self.found += usize::from(is_found);
        if !is_found && folder.has_files {
            name_one(&mut self.strange, &folder.path);
        }
    }

    /// Notes a folder that cannot be listed.
    pub(super) fn note_closed(&mut self, folder: &Path) {
        name_one(&mut self.closed, folder);
    }

    /// What there is to say of a directory that has yielded this, in words for people.
    pub(super) fn missing_hint(&self) -> Option<String> {
        if self.found > 0 {
            return None;
        }
        let mut text = match self.passed {
            0 => return Some("contains no certificate: it is empty".to_owned()),
            1 => "contains no certificate: one entry was skipped".to_owned(),
            many => format!("contains no certificate: {many} entries were skipped"),
        };
        if let [_, ..] = *self.closed {
            text.push_str(&format!(
                "; this user may not list {}",
                self.closed.join(", ")
            ));
        }
        if let [_, ..] = *self.strange {
            text.push_str(&format!(
                "; there are certificates in {}: give such a folder as a 'directory' of its own, or \
                 its files as 'files'",
                self.strange.join(", ")
            ));
        }
        text.push_str(
            "; a certificate is NAME.pem, NAME.crt or NAME.cer with its key inside or in NAME.key, \
             or a folder with fullchain.pem and privkey.pem, with fullchain.cer and NAME.key, or \
             with files named after it",
        );
        Some(text)
    }
}

fn name_one(names: &mut Vec<String>, path: &Path) {
    if names.len() < NAMED {
        names.push(path.printable().to_string());
    }
}
