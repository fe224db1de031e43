//! The certificates that come from files, kept up to date with them.
//!
//! A file that cannot be used never takes away what was loaded from it before. There may be a
//! million: to look at all of them takes seconds, so that is done in slices (a sweep), between which
//! everything else goes on; a change of one is looked at by itself.

mod first;
mod noted;
mod sweep;
mod watched;

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use self::first::First;
use self::sweep::Sweep;
use super::directory;
use super::entry::{self, Entries, Entry, Odd};
use super::files::{self, Content, EntryId, Kind, Print, Reading, Stamps};
use super::parallel;
use super::report::Change;
use crate::certificate::{CertificateWarning, Loaded, Loader, TlsCertificate};
use crate::clock::UnixTime;
use crate::config::model::{CertificateSource, Origin};
use crate::schedule::Horizon;

/// How many keys without a chain are told of, for each directory.
const LONE_KEYS: usize = 1_000;

/// Every configured file and directory, with what was loaded from it.
#[derive(Default)]
pub(super) struct Sources {
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
    /// The entries that there is something to say about, or soon.
    noted: BTreeSet<EntryId>,
    /// When there will be about which.
    horizon: Horizon<EntryId>,
    /// What the loader knew when incomplete chains were last looked at.
    generation: u64,
    sweep: Option<Sweep>,
    sweeps: u32,
    /// There until all files have been looked at for the first time.
    first: Option<First>,
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
}

impl Sources {
    /// Takes the files and directories of another configuration; the next sweep loads them.
    pub(super) fn configure(&mut self, sources: &[CertificateSource]) {
        self.files.clear();
        self.by_path.clear();
        self.directories.clear();
        self.watch = Arc::default();
        self.sweep = None;
        for source in sources {
            match source {
                CertificateSource::Directory { path, origin } => {
                    self.directories.push(Directory {
                        path: path.as_path().into(),
                        origin: Arc::new(origin.clone()),
                        problem: None,
                        lone_keys: BTreeSet::new(),
                        links: BTreeSet::new(),
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

    /// Looks at the entries that `paths` belong to. `None` where that may be any: then a sweep is
    /// asked for.
    pub(super) fn look_at(
        &mut self,
        paths: &[PathBuf],
        loader: &Loader,
        now: UnixTime,
    ) -> Option<Vec<Change>> {
        let survey = self.survey(paths)?;
        let mut changes = Vec::new();
        for id in survey.gone {
            changes.extend(self.remove(&id));
        }
        self.follow(survey.found.iter().map(|found| &found.id));
        changes.extend(self.look(survey.found, loader, now));
        changes.extend(self.complete(loader));
        Some(changes)
    }

    /// How many certificates there are.
    pub(super) fn loaded(&self) -> usize {
        self.loaded
    }

    /// The shortest life that a certificate has had, in seconds.
    pub(super) fn shortest_life(&self) -> Option<i64> {
        self.shortest
    }

    pub(super) fn certificates(&self) -> impl Iterator<Item = &Arc<TlsCertificate>> {
        self.entries
            .iter()
            .filter_map(|entry| entry.certificate.as_ref())
    }

    /// Brings these entries up to date with their files.
    fn look(&mut self, found: Vec<Found>, loader: &Loader, now: UnixTime) -> Vec<Change> {
        let stamps = parallel::map(&found, |found| Stamps::take(&found.id, now));
        let mut stale = Vec::new();
        for (found, stamps) in found.into_iter().zip(stamps) {
            let sweep = self.sweeps;
            let before = match self.entries.get_mut(&found.id) {
                Some(entry) => {
                    entry.origin = Arc::clone(&found.origin);
                    entry.seen = sweep;
                    if entry.stamps == stamps.print && entry.sure {
                        continue;
                    }
                    entry.digest
                }
                None => Print::NONE,
            };
            stale.push(Stale {
                found,
                stamps,
                before,
            });
        }
        let readings = parallel::map(&stale, |stale| {
            files::read(&stale.found.id, stale.found.kind, loader, stale.before)
        });
        let read = stale.into_iter().zip(readings);
        read.filter_map(|(stale, reading)| self.take(stale, reading, now))
            .collect()
    }

    fn take(&mut self, stale: Stale, reading: Reading, now: UnixTime) -> Option<Change> {
        let Stale { found, stamps, .. } = stale;
        let Found { id, kind, origin } = found;
        let seen = self.sweeps;
        let entry = self.entries.or_insert(&id, || Entry {
            id: id.clone(),
            kind,
            origin,
            stamps: stamps.print,
            digest: Print::NONE,
            certificate: None,
            odd: None,
            seen,
            sure: false,
        });
        entry.kind = kind;
        entry.stamps = stamps.print;
        entry.sure = stamps.sure;
        entry.digest = reading.digest;
        let new = match reading.content? {
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
                    self.note(&id, now);
                    return None;
                }
                let misnamed =
                    kind == Kind::Directory && directory::is_misnamed(id.file.name(), &certificate);
                let odd = Odd {
                    warnings,
                    misnamed,
                    problem: None,
                };
                entry.odd = odd.boxed();
                Some(Arc::new(certificate))
            }
            Err((path, error)) => {
                entry.note_problem((path, error.to_string()));
                self.note(&id, now);
                return None;
            }
        };
        let old = std::mem::replace(&mut entry.certificate, new.clone());
        let length = new.as_ref().map(|new| new.lifetime().length());
        self.shortest = self.shortest.into_iter().chain(length).min();
        self.loaded += usize::from(new.is_some());
        self.loaded -= usize::from(old.is_some());
        self.note(&id, now);
        (old.is_some() || new.is_some()).then_some(Change { old, new })
    }

    /// Forgets an entry, whose files are gone or no longer configured.
    fn remove(&mut self, id: &EntryId) -> Option<Change> {
        self.noted.remove(id);
        let old = self.entries.remove(id)?.certificate?;
        self.loaded -= 1;
        Some(Change {
            old: Some(old),
            new: None,
        })
    }

    /// Completes chains whose intermediates have become known.
    fn complete(&mut self, loader: &Loader) -> Vec<Change> {
        let generation = loader.generation();
        if std::mem::replace(&mut self.generation, generation) == generation {
            return Vec::new();
        }
        let is_void =
            |warning: &CertificateWarning| matches!(warning, CertificateWarning::Incomplete { .. });
        let mut changes = Vec::new();
        // Whatever is incomplete is warned of.
        for id in &self.noted {
            let Some(entry) = self.entries.get_mut(id) else {
                continue;
            };
            let Some(mut odd) = entry.odd.take_if(|odd| odd.warnings.iter().any(is_void)) else {
                continue;
            };
            let incomplete = entry.certificate.as_ref();
            let complete = incomplete.and_then(|old| loader.complete(old));
            if let Some(complete) = complete.map(Arc::new) {
                odd.warnings.retain(|warning| !is_void(warning));
                let old = entry.certificate.replace(Arc::clone(&complete));
                changes.push(Change {
                    old,
                    new: Some(complete),
                });
            }
            entry.odd = odd.boxed();
        }
        changes
    }
}
