//! The certificates that come from files, kept up to date with them.
//!
//! A file that cannot be used never takes away what was loaded from it before.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ahash::RandomState;

use super::directory::{self, Listing};
use super::entry::{self, Entry};
use super::files::{self, Content, EntryId, Kind, Reading, Stamps};
use super::parallel;
use super::report::{Change, Problem};
use crate::certificate::{CertificateWarning, Loaded, Loader, TlsCertificate};
use crate::clock::UnixTime;
use crate::config::model::{CertificateSource, Origin};

/// Every configured file and directory, with what was loaded from it.
#[derive(Default)]
pub(super) struct Sources {
    files: Vec<(EntryId, Arc<Origin>)>,
    directories: Vec<Directory>,
    entries: BTreeMap<EntryId, Entry>,
    /// What the loader knew when incomplete chains were last looked at.
    generation: u64,
    hasher: RandomState,
    /// The directories and files of which a change may concern an entry.
    watch: BTreeSet<PathBuf>,
    /// What configured files, and links in directories, are when links are followed.
    targets: BTreeSet<PathBuf>,
}

struct Directory {
    path: PathBuf,
    origin: Arc<Origin>,
    /// Why it could not be listed.
    problem: Option<String>,
    /// What it held when it was last listed.
    listing: Listing,
}

/// Which entries a pass looks at.
#[derive(Clone, Copy)]
pub(super) enum Scope<'a> {
    All,
    /// Those that these paths belong to.
    Paths(&'a [PathBuf]),
}

/// The entries that a pass looks at.
#[derive(Default)]
struct Survey {
    found: BTreeMap<EntryId, (Kind, Arc<Origin>)>,
    gone: BTreeSet<EntryId>,
}

impl Sources {
    /// Takes the files and directories of another configuration; the next full pass loads them.
    pub(super) fn configure(&mut self, sources: &[CertificateSource]) {
        self.files.clear();
        self.directories.clear();
        self.watch.clear();
        for source in sources {
            match source {
                CertificateSource::Directory { path, origin } => {
                    self.directories.push(Directory {
                        path: path.clone(),
                        origin: Arc::new(origin.clone()),
                        problem: None,
                        listing: Listing::default(),
                    });
                }
                CertificateSource::Files { cert, key, origin } => {
                    let id = EntryId {
                        chain: cert.clone(),
                        key: key.clone(),
                    };
                    self.files.push((id, Arc::new(origin.clone())));
                }
                CertificateSource::Managed { .. } => {}
            }
        }
    }

    /// Brings the entries in `scope` up to date with their files.
    pub(super) fn pass(&mut self, scope: Scope<'_>, loader: &Loader, now: UnixTime) -> Vec<Change> {
        let survey = match scope {
            Scope::All => self.survey_all(),
            Scope::Paths(paths) => self.survey_paths(paths),
        };
        let mut changes = Vec::new();
        for id in survey.gone {
            if let Some(old) = self.entries.remove(&id).and_then(|entry| entry.certificate) {
                changes.push(Change {
                    old: Some(old),
                    new: None,
                });
            }
        }
        let mut stale = Vec::new();
        let found: Vec<_> = survey.found.into_iter().collect();
        let stamps = parallel::map(&found, |(id, _)| Stamps::take(id));
        for ((id, (kind, origin)), stamps) in found.into_iter().zip(stamps) {
            let before = match self.entries.get_mut(&id) {
                Some(entry) => {
                    entry.origin = Arc::clone(&origin);
                    if entry.stamps == stamps && entry.sure {
                        continue;
                    }
                    Some(entry.digest)
                }
                None => None,
            };
            stale.push(Stale {
                id,
                kind,
                origin,
                stamps,
                before,
            });
        }
        let hasher = &self.hasher;
        let readings = parallel::map(&stale, |stale| {
            files::read(&stale.id, stale.kind, loader, hasher, stale.before)
        });
        for (stale, reading) in stale.into_iter().zip(readings) {
            changes.extend(self.take(stale, reading, now));
        }
        changes.extend(self.complete(loader));
        // Links may lead elsewhere where something changed, and hardly where nothing did.
        if self.watch.is_empty() || !changes.is_empty() {
            self.find_directories();
        }
        changes
    }

    /// What is wrong with files, and what is odd about what is served at `now`.
    pub(super) fn report(
        &self,
        now: UnixTime,
        problems: &mut Vec<Problem>,
        warnings: &mut Vec<Problem>,
    ) {
        for directory in &self.directories {
            if let Some(problem) = &directory.problem {
                let path = Some(directory.path.clone());
                problems.push(Problem::new(&directory.origin, path, problem.clone()));
            }
            for key in &directory.listing.lone_keys {
                let message = "is a private key without a certificate beside it".to_owned();
                warnings.push(Problem::new(&directory.origin, Some(key.clone()), message));
            }
        }
        for (id, entry) in &self.entries {
            if let Some((path, problem)) = &entry.problem {
                let kept = match entry.certificate {
                    Some(_) => "; the certificate loaded before is still served",
                    None => "",
                };
                let message = format!("{problem}{kept}");
                problems.push(Problem::new(&entry.origin, Some(path.clone()), message));
            }
            for warning in entry.warnings(now) {
                let path = Some(id.chain.clone());
                warnings.push(Problem::new(&entry.origin, path, warning));
            }
        }
    }

    pub(super) fn certificates(&self) -> impl Iterator<Item = &Arc<TlsCertificate>> {
        self.entries
            .values()
            .filter_map(|entry| entry.certificate.as_ref())
    }

    /// The directories and files of which a change may concern an entry.
    pub(super) fn watch(&self) -> &BTreeSet<PathBuf> {
        &self.watch
    }

    fn find_directories(&mut self) {
        self.watch = self
            .directories
            .iter()
            .map(|directory| directory.path.clone())
            .collect();
        self.targets.clear();
        let files = self.files.iter().flat_map(|(id, _)| [&id.chain, &id.key]);
        let links = self
            .directories
            .iter()
            .flat_map(|directory| &directory.listing.links);
        for path in files.chain(links) {
            self.watch.insert(path.clone());
            // A symbolic link may stay while what it leads to changes.
            self.targets.extend(fs::canonicalize(path));
        }
    }

    fn survey_all(&mut self) -> Survey {
        let mut survey = Survey::default();
        for (id, origin) in &self.files {
            survey
                .found
                .insert(id.clone(), (Kind::Files, Arc::clone(origin)));
        }
        for directory in &mut self.directories {
            directory.survey(&self.entries, &mut survey);
        }
        survey.gone = self
            .entries
            .keys()
            .filter(|id| !survey.found.contains_key(id))
            .cloned()
            .collect();
        survey
    }

    fn survey_paths(&mut self, paths: &[PathBuf]) -> Survey {
        let mut survey = Survey::default();
        for path in paths {
            let mut is_known = false;
            // A directory or a link on the way may have been replaced.
            let leads_to =
                |file: &PathBuf| file.starts_with(path) || directory::is_beside(path, file);
            for (id, origin) in self
                .files
                .iter()
                .filter(|(id, _)| leads_to(&id.chain) || leads_to(&id.key))
            {
                is_known = true;
                survey
                    .found
                    .insert(id.clone(), (Kind::Files, Arc::clone(origin)));
            }
            for directory in &mut self.directories {
                is_known |= path.parent() == Some(&directory.path);
                if directory.path.starts_with(path)
                    || directory::is_turned_link(path, &directory.path)
                {
                    is_known = true;
                    directory.survey(&self.entries, &mut survey);
                } else if path.parent() == Some(&directory.path) && !directory::is_hidden(path) {
                    directory.listing.note_link(path);
                    for id in directory::entries_of(path) {
                        if fs::symlink_metadata(&id.chain).is_ok() {
                            let place = (Kind::Directory, Arc::clone(&directory.origin));
                            survey.found.entry(id).or_insert(place);
                        } else {
                            survey.gone.insert(id);
                        }
                    }
                }
            }
            if !is_known && self.may_be_led_through(path) {
                return self.survey_all();
            }
        }
        survey.gone.retain(|id| !survey.found.contains_key(id));
        survey
    }

    /// Whether links may lead to files through `path`, which none of them names: all but other
    /// people's files, a log in the same directory say.
    fn may_be_led_through(&self, path: &Path) -> bool {
        let is_file = fs::symlink_metadata(path).is_ok_and(|found| found.is_file());
        // It may be told by a way that goes through other directories.
        !is_file || fs::canonicalize(path).is_ok_and(|path| self.targets.contains(&path))
    }

    fn take(&mut self, stale: Stale, reading: Reading, now: UnixTime) -> Option<Change> {
        let Stale {
            id,
            kind,
            origin,
            stamps,
            ..
        } = stale;
        let entry = self.entries.entry(id.clone()).or_insert_with(|| Entry {
            kind,
            origin,
            stamps,
            sure: false,
            digest: 0,
            certificate: None,
            warnings: Vec::new(),
            misnamed: false,
            problem: None,
        });
        entry.kind = kind;
        entry.stamps = stamps;
        entry.sure = stamps.are_sure(now);
        entry.digest = reading.digest;
        let new = match reading.content? {
            Ok(Content::Bundle) => {
                (entry.misnamed, entry.warnings) = (false, Vec::new());
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
                    (entry.sure, entry.digest) = (false, !reading.digest);
                    entry.problem = Some((id.chain, why.to_string()));
                    return None;
                }
                entry.misnamed =
                    kind == Kind::Directory && directory::is_misnamed(&id.chain, &certificate);
                entry.warnings = warnings;
                Some(Arc::new(certificate))
            }
            Err((path, error)) => {
                entry.problem = Some((path, error.to_string()));
                return None;
            }
        };
        entry.problem = None;
        let old = std::mem::replace(&mut entry.certificate, new.clone());
        (old.is_some() || new.is_some()).then_some(Change { old, new })
    }

    /// Completes chains whose intermediates have become known.
    fn complete(&mut self, loader: &Loader) -> Vec<Change> {
        let generation = loader.generation();
        if std::mem::replace(&mut self.generation, generation) == generation {
            return Vec::new();
        }
        let mut changes = Vec::new();
        for entry in self.entries.values_mut() {
            let complete = entry
                .certificate
                .as_ref()
                .and_then(|old| loader.complete(old));
            let Some(complete) = complete.map(Arc::new) else {
                continue;
            };
            let void = |warning: &_| matches!(warning, CertificateWarning::Incomplete { .. });
            entry.warnings.retain(|warning| !void(warning));
            let old = entry.certificate.replace(Arc::clone(&complete));
            changes.push(Change {
                old,
                new: Some(complete),
            });
        }
        changes
    }
}

/// An entry whose files are to be read.
struct Stale {
    id: EntryId,
    kind: Kind,
    origin: Arc<Origin>,
    stamps: Stamps,
    /// The digest of what was read before.
    before: Option<u64>,
}

impl Directory {
    /// Adds what is in this directory, and what went; where it cannot be listed, what was there.
    fn survey(&mut self, known: &BTreeMap<EntryId, Entry>, survey: &mut Survey) {
        let here = known
            .iter()
            .filter(|(id, entry)| {
                entry.kind == Kind::Directory && id.chain.parent() == Some(&self.path)
            })
            .map(|(id, _)| id.clone());
        let found = match Listing::read(&self.path) {
            Ok(listing) => {
                self.problem = None;
                self.listing = listing;
                survey.gone.extend(here);
                std::mem::take(&mut self.listing.entries)
            }
            Err(error) => {
                self.problem = Some(format!(
                    "cannot be listed: {error}; check that it is there and that this user may \
                     read it"
                ));
                here.collect()
            }
        };
        for id in found {
            let place = (Kind::Directory, Arc::clone(&self.origin));
            survey.found.entry(id).or_insert(place);
        }
    }
}
