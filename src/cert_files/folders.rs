//! Folders in certificate directories: each may hold one certificate, as certbot, acme.sh, Caddy and
//! volumes of Kubernetes have it.
//!
//! Where a folder holds certificates in another way nobody can say which key belongs to what. Such a
//! folder is passed over, and named where a whole directory yields nothing.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::{self, DirEntry, ReadDir};
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::files::{EntryId, Kind};
use super::naming::{self, Part};
use super::watched_paths::Survey;
use super::{CertFiles, Change, Directory, Found};
use crate::printable::Printable as _;

/// How many levels of folders are looked into: that of Caddy, `CA/NAME/NAME.crt`.
const DEPTH: usize = 2;

/// How many folders that are passed over are named.
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
    /// Begins to list `path`.
    fn open(path: &Arc<Path>, depth: usize) -> io::Result<Self> {
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

    /// Lists so many entries, and gives the folders among them. `None` where there are no more.
    fn list_files(&mut self, most: usize) -> io::Result<Option<Vec<Arc<Path>>>> {
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

impl Directory {
    /// Notes a folder, `depth` levels down, and begins to list it.
    pub(super) fn enter(&mut self, path: &Arc<Path>, depth: usize) -> Option<Folder> {
        self.folders.insert(Arc::clone(path));
        match Folder::open(path, depth) {
            Ok(folder) => Some(folder),
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    name_one(&mut self.yields.closed, path);
                }
                None
            }
        }
    }
}

impl CertFiles {
    /// Lists some of a folder of the directory at `place`. What is left of it, and the folders in it
    /// that are to be listed; at its end the certificate that it is for, where there is one.
    pub(super) fn list_folder(&mut self, place: usize, mut folder: Folder, most: usize) -> Listed {
        let mut listed = Listed::default();
        let more = folder.list_files(most);
        let Some(directory) = self.directories.get_mut(place) else {
            return listed;
        };
        match more {
            Ok(Some(folders)) => {
                let depth = folder.depth + 1;
                listed.folders = folders.into_iter().map(|one| (one, depth)).collect();
                listed.rest = Some(folder);
            }
            Ok(None) => {
                listed.found = self.find_one(place, &folder, &mut listed.gone);
                if let Some(directory) = self.directories.get_mut(place) {
                    directory.yields.found += usize::from(listed.found.is_some());
                    if listed.found.is_none() && folder.has_files {
                        name_one(&mut directory.yields.strange, &folder.path);
                    }
                }
            }
            Err(_) => name_one(&mut directory.yields.closed, &folder.path),
        }
        listed
    }

    /// The certificate that a folder, which has been listed, is for. Others that were taken for it
    /// before go.
    fn find_one(
        &mut self,
        place: usize,
        folder: &Folder,
        changes: &mut Vec<Change>,
    ) -> Option<Found> {
        let mut ids = folder.candidates.iter().map(|one| one.id(&folder.path));
        let id = ids.next();
        for other in ids {
            if !self.files.contains_key(&other) {
                changes.extend(self.remove_entry(&other));
            }
        }
        let id = id.filter(|id| !self.files.contains_key(id))?;
        let directory = self.directories.get_mut(place)?;
        directory.lack = None;
        let links = [id.chain(), id.key()].into_iter();
        directory
            .links
            .extend(links.filter(|path| path.is_symlink()));
        Some(Found {
            id,
            kind: Kind::Directory,
            origin: Arc::clone(&directory.origin),
        })
    }

    /// Looks for the certificate of `folder` again, one of the directory at `place` in which
    /// something has changed. Whether there is one, or was.
    pub(super) fn survey_folder(
        &mut self,
        place: usize,
        folder: &Arc<Path>,
        survey: &mut Survey,
    ) -> bool {
        let mut changes = Vec::new();
        let mut found = None;
        if let Ok(mut folder) = Folder::open(folder, DEPTH) {
            while let Ok(Some(_)) = folder.list_files(usize::MAX) {}
            found = self.find_one(place, &folder, &mut changes);
        }
        let mut is_known = !changes.is_empty();
        survey.changes.append(&mut changes);
        let name = folder.file_name().unwrap_or_default();
        let here = found.as_ref().map(|found| &found.id);
        let chains = naming::chains_named([name, OsStr::new("tls")]);
        let whole = ["fullchain.pem", "fullchain.cer"].map(OsString::from);
        for chain in chains.chain(whole) {
            let id = Candidate::from_name(name, &chain).map(|candidate| candidate.id(folder));
            let gone = id.filter(|id| Some(id) != here && self.entries.get(id).is_some());
            let is_gone = |id: &EntryId| {
                let found = fs::symlink_metadata(id.chain());
                found.is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
            };
            if let Some(id) = gone.filter(is_gone) {
                is_known = true;
                survey.gone.push(id);
            }
        }
        is_known |= found.is_some();
        survey.found.extend(found);
        is_known
    }
}

/// What came of listing some of a folder.
#[derive(Default)]
pub(super) struct Listed {
    pub(super) found: Option<Found>,
    /// What was taken for it before.
    pub(super) gone: Vec<Change>,
    /// With how many levels of folders are above them.
    pub(super) folders: Vec<(Arc<Path>, usize)>,
    pub(super) rest: Option<Folder>,
}
