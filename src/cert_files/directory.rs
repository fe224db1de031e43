//! A configured directory: lists it, and finds the entries in it that a changed path belongs to.

use std::collections::{BTreeSet, HashMap};
use std::ffi::{OsStr, OsString};
use std::fs::{self, DirEntry, ReadDir};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::entry::{Entries, Found};
use super::files::{EntryId, Kind};
use super::folders::{self, Folder, Yield};
use super::naming::{self, Part};
use crate::config::model::Origin;

/// How many keys without a chain are reported for each directory.
const LONE_KEYS: usize = 1_000;

/// A configured directory, as it was when it was last listed.
pub(super) struct Directory {
    pub(super) path: Arc<Path>,
    pub(super) origin: Arc<Origin>,
    /// Why it could not be listed.
    pub(super) problem: Option<String>,
    /// Keys without a chain, the first of them.
    pub(super) lone_keys: BTreeSet<PathBuf>,
    /// Files that are symbolic links.
    pub(super) links: BTreeSet<PathBuf>,
    /// Whether it is the folder of one certificate itself.
    is_one: bool,
    /// Folders in it that are looked into.
    pub(super) folders: BTreeSet<Arc<Path>>,
    /// What the current scan, or else the last one, has found.
    yields: Yield,
    /// What to report where the last scan found no certificate.
    pub(super) lack: Option<String>,
}

/// The configured files. They have precedence over the same files in a directory.
pub(super) type ConfiguredFiles = HashMap<EntryId, Arc<Origin>>;

/// The entries that changed paths belong to.
#[derive(Default)]
pub(super) struct Survey {
    pub(super) found: Vec<Found>,
    pub(super) gone: Vec<EntryId>,
    /// Those in whose place another is taken.
    pub(super) superseded: Vec<EntryId>,
    /// Those that have been looked at.
    pub(super) seen: BTreeSet<EntryId>,
}

impl Survey {
    /// Adds an entry, once.
    pub(super) fn add(&mut self, found: Found) {
        if self.seen.insert(found.id.clone()) {
            self.found.push(found);
        }
    }
}

/// The listing of a directory, as it begins.
pub(super) enum Listing {
    Entries(ReadDir),
    /// It is the folder of one certificate.
    One(Folder),
}

/// An entry of a directory's listing.
pub(super) enum Listed {
    Chain(Found),
    Folder(Arc<Path>),
    Other,
}

/// What came of listing some of a folder.
#[derive(Default)]
pub(super) struct ListedFolder {
    pub(super) found: Option<Found>,
    /// What was taken for it before.
    pub(super) superseded: Vec<EntryId>,
    /// With how many levels of folders are above them.
    pub(super) folders: Vec<(Arc<Path>, usize)>,
    pub(super) rest: Option<Folder>,
}

impl Directory {
    pub(super) fn new(path: &Path, origin: &Origin) -> Self {
        Self {
            path: path.into(),
            origin: Arc::new(origin.clone()),
            problem: None,
            lone_keys: BTreeSet::new(),
            links: BTreeSet::new(),
            is_one: false,
            folders: BTreeSet::new(),
            yields: Yield::default(),
            lack: None,
        }
    }

    /// An entry of this directory.
    pub(super) fn found(&self, id: EntryId) -> Found {
        Found {
            id,
            kind: Kind::Directory,
            origin: Arc::clone(&self.origin),
        }
    }

    /// Notes a key without a chain, one of the first.
    fn note_lone(&mut self, key: PathBuf) {
        if self.lone_keys.len() < LONE_KEYS {
            self.lone_keys.insert(key);
        }
    }

    /// Whether the configuration still asks for an entry in it that a scan has not found; `None`
    /// where that is not known, or its files are there.
    pub(super) fn is_entry_gone(&self, id: &EntryId) -> Option<bool> {
        // Where it cannot be listed, that is not known; and the file may have come meanwhile.
        if self.problem.is_some() {
            return None;
        }
        if is_absent(&id.chain()) {
            return Some(true);
        }
        // What is there may be taken for something else now.
        let is_here = self.path == *id.file.directory();
        (is_here && (self.is_one || id.key.is_some())).then_some(false)
    }

    /// Judges, after a scan, whether it lacks a certificate.
    pub(super) fn judge(&mut self) {
        self.lack = self.yields.missing_hint();
    }

    /// Begins to list it; `None` where it cannot be listed.
    pub(super) fn begin_listing(&mut self) -> Option<Listing> {
        let listing = match fs::read_dir(&self.path) {
            Ok(listing) => listing,
            Err(error) => {
                self.note_unlisted(&error);
                return None;
            }
        };
        self.problem = None;
        self.lone_keys.clear();
        self.links.clear();
        self.folders.clear();
        self.yields = Yield::default();
        self.is_one = folders::is_one(&self.path);
        if self.is_one {
            return Folder::of_one(&self.path).map(Listing::One);
        }
        Some(Listing::Entries(listing))
    }

    /// Notes why it cannot be listed.
    pub(super) fn note_unlisted(&mut self, error: &io::Error) {
        self.problem = Some(format!(
            "cannot be listed: {error}; check that it is there and that this user may read it"
        ));
    }

    /// Takes note of an entry of its listing.
    pub(super) fn list_entry(
        &mut self,
        listed: &DirEntry,
        files: &ConfiguredFiles,
    ) -> io::Result<Listed> {
        let name = listed.file_name();
        let Some(part) = naming::part(&name) else {
            if naming::is_hidden(&name) {
                return Ok(Listed::Other);
            }
            self.yields.count_file(false);
            return Ok(if folders::is_folder(listed) {
                Listed::Folder(listed.path().into())
            } else {
                Listed::Other
            });
        };
        if listed.file_type()?.is_symlink() {
            self.links.insert(listed.path());
        }
        self.yields.count_file(matches!(part, Part::Chain));
        match part {
            Part::Chain => {
                let id = EntryId::beside(&self.path, &name);
                if files.contains_key(&id) {
                    return Ok(Listed::Other);
                }
                Ok(Listed::Chain(self.found(id)))
            }
            Part::Key => {
                let is_lone = naming::chains_of(&name)
                    .all(|chain| fs::symlink_metadata(self.path.join(chain)).is_err());
                if is_lone {
                    self.note_lone(listed.path());
                }
                Ok(Listed::Other)
            }
        }
    }

    /// Notes a folder, `depth` levels down, and begins to list it.
    pub(super) fn enter(&mut self, path: &Arc<Path>, depth: usize) -> Option<Folder> {
        self.folders.insert(Arc::clone(path));
        match Folder::open(path, depth) {
            Ok(folder) => Some(folder),
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    self.yields.note_closed(path);
                }
                None
            }
        }
    }

    /// Lists some of a folder. What is left of it, and the folders in it that are to be listed; at
    /// its end the certificate that it is for, where there is one.
    pub(super) fn list_folder(
        &mut self,
        mut folder: Folder,
        files: &ConfiguredFiles,
        most: usize,
    ) -> ListedFolder {
        let mut listed = ListedFolder::default();
        match folder.list_files(most) {
            Ok(Some(folders)) => {
                let depth = folder.depth() + 1;
                listed.folders = folders.into_iter().map(|one| (one, depth)).collect();
                listed.rest = Some(folder);
            }
            Ok(None) => {
                listed.found = self.find_one(&folder, files, &mut listed.superseded);
                self.yields.count_folder(&folder, listed.found.is_some());
            }
            Err(_) => self.yields.note_closed(folder.path()),
        }
        listed
    }

    /// The certificate that a folder, which has been listed, is for. Others that were taken for it
    /// before are superseded.
    fn find_one(
        &mut self,
        folder: &Folder,
        files: &ConfiguredFiles,
        superseded: &mut Vec<EntryId>,
    ) -> Option<Found> {
        let mut ids = folder.candidates();
        let id = ids.next();
        superseded.extend(ids.filter(|other| !files.contains_key(other)));
        let id = id.filter(|id| !files.contains_key(id))?;
        self.lack = None;
        let links = [id.chain(), id.key()].into_iter();
        self.links.extend(links.filter(|path| path.is_symlink()));
        Some(self.found(id))
    }

    /// Finds the entry directly in it that `path` is. Whether `path` is in it; `None` where it
    /// leads to the whole directory.
    pub(super) fn survey_path(
        &mut self,
        path: &Path,
        is_file: bool,
        files: &ConfiguredFiles,
        survey: &mut Survey,
    ) -> Option<bool> {
        let is_inside = path.parent() == Some(&self.path);
        let leads_here = self.path.starts_with(path) || naming::is_turned_link(path, &self.path);
        if !is_file && leads_here {
            return None;
        }
        let (true, Some(name)) = (is_inside, path.file_name()) else {
            return Some(is_inside);
        };
        if self.is_one != folders::is_one(&self.path) {
            return None;
        }
        let (false, Some(part)) = (self.is_one, naming::part(name)) else {
            return Some(true);
        };
        self.lone_keys.remove(path);
        if path.is_symlink() {
            self.links.insert(path.to_owned());
        }
        let names: Vec<_> = match part {
            Part::Chain => vec![name.to_owned()],
            Part::Key => naming::chains_of(name).collect(),
        };
        let mut is_lone = matches!(part, Part::Key) && path.exists();
        for name in names {
            let id = EntryId::beside(&self.path, &name);
            if files.contains_key(&id) || !survey.seen.insert(id.clone()) {
                continue;
            }
            if fs::symlink_metadata(id.chain()).is_ok() {
                is_lone = false;
                self.lack = None;
                survey.found.push(self.found(id));
            } else {
                survey.gone.push(id);
            }
        }
        if is_lone {
            self.note_lone(path.to_owned());
        }
        Some(true)
    }

    /// Finds the certificate of the folder in it that `path` is in. Whether there is one; `None`
    /// where a folder came or went.
    pub(super) fn survey_folders(
        &mut self,
        path: &Path,
        files: &ConfiguredFiles,
        entries: &Entries,
        survey: &mut Survey,
    ) -> Option<bool> {
        let folder = match path.parent() {
            Some(parent) if parent == &*self.path => None,
            Some(parent) => self.folders.get(parent).map(Arc::clone),
            None => return Some(false),
        };
        let is_inside = folder.is_some() || path.parent() == Some(&self.path);
        let name = path.file_name().unwrap_or_default();
        if is_inside && naming::part(name).is_none() && !naming::is_hidden(name) {
            let is_folder = self.folders.contains(path) || path.is_dir();
            if is_folder {
                return None;
            }
        }
        let folder = match folder {
            Some(folder) => folder,
            None if is_inside && self.is_one => Arc::clone(&self.path),
            None => return Some(false),
        };
        Some(self.survey_folder(&folder, files, entries, survey))
    }

    /// Looks for the certificate of `folder` again, in which something has changed. Whether there
    /// is one, or was.
    fn survey_folder(
        &mut self,
        folder: &Arc<Path>,
        files: &ConfiguredFiles,
        entries: &Entries,
        survey: &mut Survey,
    ) -> bool {
        let (mut found, mut superseded) = (None, Vec::new());
        if let Some(mut folder) = Folder::of_one(folder) {
            while let Ok(Some(_)) = folder.list_files(usize::MAX) {}
            found = self.find_one(&folder, files, &mut superseded);
        }
        let has_certificate = |id: &EntryId| {
            let entry = entries.get(id);
            entry.is_some_and(|entry| entry.certificate.is_some())
        };
        let mut is_known = superseded.iter().any(has_certificate);
        survey.superseded.append(&mut superseded);
        let name = folder.file_name().unwrap_or_default();
        let here = found.as_ref().map(|found| &found.id);
        let chains = naming::chains_named([name, OsStr::new("tls")]);
        let whole = ["fullchain.pem", "fullchain.cer"].map(OsString::from);
        for chain in chains.chain(whole) {
            let id = folders::entry_id(folder, &chain);
            let gone = id.filter(|id| Some(id) != here && entries.get(id).is_some());
            let is_gone = |id: &EntryId| {
                let found = fs::symlink_metadata(id.chain());
                found.is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
            };
            if let Some(id) = gone.filter(is_gone) {
                is_known = true;
                survey.gone.push(id);
            }
        }
        if let Some(found) = found {
            is_known = true;
            // More than one of its files may have changed.
            survey.add(found);
        }
        is_known
    }
}

/// Whether nothing is at `path`, and not just nothing that this user may see.
fn is_absent(path: &Path) -> bool {
    let absent = |error: io::Error| {
        matches!(
            error.kind(),
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
        )
    };
    fs::symlink_metadata(path).is_err_and(absent)
}
