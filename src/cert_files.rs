//! The certificates that come from files, kept up to date with them.
//!
//! A file that cannot be used never replaces what was loaded from it before. There may be a
//! million files, and reading all of them takes seconds. So they are scanned in slices, between
//! which everything else continues; a change of one file is read on its own.

mod cached;
mod entry;
mod files;
mod folders;
mod index;
mod lazy;
mod load_priority;
mod naming;
mod priority_load;
mod problems;
mod scan;
mod vanished;
mod watched_paths;

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use prometheus::IntCounter;

pub use self::index::Flusher;

use self::entry::{Entries, Entry, Odd};
use self::files::{Content, EntryId, Kind, Print, Reading, Stamps};
use self::folders::Yield;
use self::index::{Index, IndexedCert};
use self::lazy::FileCertSources;
use self::load_priority::LoadPriority;
use self::priority_load::PriorityLoad;
use self::scan::Scan;
use crate::certificate::Change;
use crate::certificate::{Loaded, Loader, TlsCertificate};
use crate::clock::{Clock, UnixTime};
use crate::config::model::{CertificateSource, InMemory, Origin};
use crate::parallel;
use crate::schedule::Deadlines;

/// How many keys without a chain are reported for each directory.
const LONE_KEYS: usize = 1_000;

/// Every configured file and directory, with what was loaded from it.
pub(crate) struct CertFiles {
    cert_sources: FileCertSources,
    /// Where the index is, until it is open.
    index_place: Option<PathBuf>,
    index: Option<Index>,
    flusher: Flusher,
    /// What is left in files that is to be in memory.
    away: Vec<EntryId>,
    /// Counts entries whose files were read.
    reads: Option<IntCounter>,
    /// The configured files.
    files: HashMap<EntryId, Arc<Origin>>,
    /// The same by the paths of both of their files.
    by_path: HashMap<PathBuf, Vec<EntryId>>,
    directories: Vec<Directory>,
    entries: Entries,
    /// How many entries have a certificate.
    loaded: usize,
    /// The shortest life that one of them has had, in seconds.
    shortest: Option<i64>,
    /// Those whose files have vanished and that are served for a moment longer, and until when.
    vanished: HashMap<EntryId, UnixTime>,
    /// The entries that there is something to say about, or soon.
    noted: BTreeSet<EntryId>,
    /// When there will be about which.
    deadlines: Deadlines<EntryId>,
    /// What the loader knew when incomplete chains were last looked at.
    generation: u64,
    scan: Option<Scan>,
    scans: u32,
    load_priority: LoadPriority,
    /// There until the first scan is done.
    priority_load: Option<PriorityLoad>,
    /// The directories and files of which a change may concern an entry.
    watch: Arc<BTreeSet<PathBuf>>,
    /// What configured files, and links in directories, are when links are followed.
    targets: BTreeSet<PathBuf>,
}

struct Directory {
    path: Arc<Path>,
    origin: Arc<Origin>,
    /// Why it could not be listed.
    problem: Option<String>,
    /// Keys without a chain, the first of them.
    lone_keys: BTreeSet<PathBuf>,
    /// Files that are symbolic links.
    links: BTreeSet<PathBuf>,
    /// Whether it is the folder of one certificate itself.
    is_one: bool,
    /// Folders in it that are looked into.
    folders: BTreeSet<Arc<Path>>,
    /// What the current scan, or else the last one, has found.
    yields: Yield,
    /// What to report where the last scan found no certificate.
    lack: Option<String>,
}

impl Directory {
    /// Notes a key without a chain, one of the first.
    fn note_lone(&mut self, key: PathBuf) {
        if self.lone_keys.len() < LONE_KEYS {
            self.lone_keys.insert(key);
        }
    }
}

/// An entry that is to be looked at.
struct Found {
    id: EntryId,
    kind: Kind,
    origin: Arc<Origin>,
}

/// An entry whose files are to be read.
struct Stale {
    found: Found,
    stamps: Stamps,
    /// The digest of what was read before.
    before: Print,
    /// What was read before, where that was before the start.
    known: Option<Box<IndexedCert>>,
}

impl CertFiles {
    /// No files yet. Without an `index` all files are read at each start.
    pub(crate) fn new(
        in_memory: InMemory,
        loader: &Arc<Loader>,
        clock: &Arc<dyn Clock>,
        index: Option<PathBuf>,
        reads: Option<IntCounter>,
    ) -> Self {
        Self {
            cert_sources: FileCertSources::new(in_memory, loader, clock),
            load_priority: LoadPriority::new(Arc::clone(clock)),
            index_place: index,
            index: None,
            flusher: Flusher::default(),
            away: Vec::new(),
            reads,
            files: HashMap::new(),
            by_path: HashMap::new(),
            directories: Vec::new(),
            entries: Entries::default(),
            loaded: 0,
            shortest: None,
            vanished: HashMap::new(),
            noted: BTreeSet::new(),
            deadlines: Deadlines::default(),
            generation: 0,
            scan: None,
            scans: 0,
            priority_load: None,
            watch: Arc::default(),
            targets: BTreeSet::new(),
        }
    }

    /// Takes the files and directories of another configuration; the next scan loads them.
    pub(crate) fn configure(&mut self, sources: &[CertificateSource]) {
        self.files.clear();
        self.by_path.clear();
        self.directories.clear();
        self.watch = Arc::default();
        self.scan = None;
        for source in sources {
            match source {
                CertificateSource::Directory { path, origin } => {
                    self.directories.push(Directory {
                        path: path.as_path().into(),
                        origin: Arc::new(origin.clone()),
                        problem: None,
                        lone_keys: BTreeSet::new(),
                        links: BTreeSet::new(),
                        is_one: false,
                        folders: BTreeSet::new(),
                        yields: Yield::default(),
                        lack: None,
                    });
                }
                CertificateSource::Files { cert, key, origin } => {
                    let id = EntryId::of_files(cert, key);
                    for path in [cert, key] {
                        let ids = self.by_path.entry(path.clone()).or_default();
                        if !ids.contains(&id) {
                            ids.push(id.clone());
                        }
                    }
                    self.files.insert(id, Arc::new(origin.clone()));
                }
                CertificateSource::Managed { .. } => {}
            }
        }
    }

    /// Reloads the entries that `paths` belong to. `None` where that may be any: then a scan is
    /// asked for.
    pub(crate) fn reload_paths(
        &mut self,
        paths: &[PathBuf],
        loader: &Loader,
        now: UnixTime,
    ) -> Option<Vec<Change>> {
        let survey = self.survey_paths(paths)?;
        let mut changes = survey.changes;
        for id in survey.gone {
            changes.extend(self.mark_vanished(&id, now));
        }
        self.watch_links_of(survey.found.iter().map(|found| &found.id));
        changes.extend(self.reload_found(survey.found, loader, now));
        changes.extend(self.complete_chains(loader, now));
        Some(changes)
    }

    /// How many certificates there are.
    pub(crate) fn loaded(&self) -> usize {
        self.loaded
    }

    /// The shortest life that a certificate has had, in seconds.
    pub(crate) fn shortest_life(&self) -> Option<i64> {
        self.shortest
    }

    pub(crate) fn certificates(&self) -> impl Iterator<Item = &Arc<TlsCertificate>> {
        self.entries
            .iter()
            .filter_map(|entry| entry.certificate.as_ref())
    }

    /// Brings these entries up to date with their files.
    fn reload_found(&mut self, found: Vec<Found>, loader: &Loader, now: UnixTime) -> Vec<Change> {
        let stamps = parallel::map(&found, |found| Stamps::read_from(&found.id, now));
        let (mut stale, mut changes) = (Vec::new(), Vec::new());
        for (found, stamps) in found.into_iter().zip(stamps) {
            let scan = self.scans;
            let (before, known) = match self.entries.get_mut(&found.id) {
                Some(entry) => {
                    self.vanished.remove(&found.id);
                    entry.origin = Arc::clone(&found.origin);
                    entry.seen = scan;
                    if entry.stamps == stamps.print && entry.sure {
                        continue;
                    }
                    (entry.digest, None)
                }
                None => match self.find_indexed(&found.id, found.kind, loader) {
                    Some(known) if known.sure && known.stamps == stamps.print => {
                        changes.extend(self.restore_indexed(found, stamps, *known, now));
                        continue;
                    }
                    known => (known.as_ref().map_or(Print::NONE, |one| one.digest), known),
                },
            };
            stale.push(Stale {
                found,
                stamps,
                before,
                known,
            });
        }
        if let Some(reads) = &self.reads {
            reads.inc_by(u64::try_from(stale.len()).unwrap_or_default());
        }
        let readings = parallel::map(&stale, |stale| {
            files::read_entry(&stale.found.id, stale.found.kind, loader, stale.before)
        });
        let read = stale.into_iter().zip(readings);
        changes.extend(read.filter_map(|(stale, reading)| self.apply_reading(stale, reading, now)));
        changes
    }

    fn apply_reading(&mut self, stale: Stale, reading: Reading, now: UnixTime) -> Option<Change> {
        let Stale {
            found,
            stamps,
            known,
            ..
        } = stale;
        if let (None, Some(known)) = (&reading.content, known) {
            return self.restore_indexed(found, stamps, *known, now);
        }
        let Found { id, kind, origin } = found;
        let entry = self.entry_or_insert(&id, kind, origin);
        entry.stamps = stamps.print;
        entry.sure = stamps.sure;
        entry.digest = reading.digest;
        let Some(content) = reading.content else {
            // The content is what it was, and the stamps may tell that from now on.
            self.index_entry(&id);
            return None;
        };
        let new = match content {
            Ok(Content::Bundle) => {
                entry.odd = None;
                None
            }
            Ok(Content::Certificate(loaded)) => {
                let Loaded {
                    certificate,
                    warnings,
                } = *loaded;
                let kept = entry.certificate.as_ref();
                if let Some(why) = entry::invalidity(&certificate, now)
                    && kept.is_some_and(|kept| entry::invalidity(kept, now).is_none())
                {
                    // Looked at anew in each pass: this one may begin, and the kept one may end.
                    (entry.sure, entry.digest) = (false, Print::NONE);
                    entry.note_problem((id.chain(), why.to_string()));
                    self.note_entry(&id, now);
                    return None;
                }
                let misnamed =
                    kind == Kind::Directory && naming::is_misnamed(id.file.name(), &certificate);
                let odd = Odd {
                    warnings,
                    misnamed,
                    problem: None,
                };
                entry.odd = odd.boxed();
                Some(Arc::new(
                    self.cert_sources.place_in_memory(&id, certificate),
                ))
            }
            Err((path, error)) => {
                entry.note_problem((path, error.to_string()));
                self.note_entry(&id, now);
                return None;
            }
        };
        let change = self.install(&id, new, now);
        self.index_entry(&id);
        change
    }

    /// The entry of `id`, made where there is none.
    fn entry_or_insert(&mut self, id: &EntryId, kind: Kind, origin: Arc<Origin>) -> &mut Entry {
        let seen = self.scans;
        let entry = self.entries.or_insert(id, || Entry {
            id: id.clone(),
            kind,
            origin,
            stamps: Print::NONE,
            digest: Print::NONE,
            certificate: None,
            odd: None,
            seen,
            sure: false,
            indexed: false,
        });
        entry.kind = kind;
        entry
    }

    /// Installs what an entry's files hold now.
    fn install(
        &mut self,
        id: &EntryId,
        new: Option<Arc<TlsCertificate>>,
        now: UnixTime,
    ) -> Option<Change> {
        let entry = self.entries.get_mut(id)?;
        let old = std::mem::replace(&mut entry.certificate, new.clone());
        let length = new.as_ref().map(|new| new.lifetime().length());
        self.shortest = self.shortest.into_iter().chain(length).min();
        self.loaded += usize::from(new.is_some());
        self.loaded -= usize::from(old.is_some());
        self.note_entry(id, now);
        (old.is_some() || new.is_some()).then_some(Change { old, new })
    }

    /// Forgets an entry, whose files are gone or no longer configured.
    fn remove_entry(&mut self, id: &EntryId) -> Option<Change> {
        self.noted.remove(id);
        self.vanished.remove(id);
        let entry = self.entries.remove(id)?;
        if entry.indexed
            && let Some(index) = &self.index
        {
            index.remove_entry(id);
        }
        let old = entry.certificate?;
        self.loaded -= 1;
        Some(Change {
            old: Some(old),
            new: None,
        })
    }
}
