//! A scan of all files, in slices.

use std::collections::VecDeque;
use std::fs::{self, DirEntry, ReadDir};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use super::files::{EntryId, Kind};
use super::folders::{self, Folder, Yield};
use super::naming::{self, Part};
use super::{CertFiles, Change, Found};
use crate::certificate::Loader;
use crate::clock::UnixTime;

/// How many entries are read at a time, on all cores.
const ENTRIES_AT_ONCE: usize = 256;

/// A scan of all files that is under way.
pub(crate) struct Scan {
    steps: VecDeque<Step>,
    /// How many entries it has found.
    found: usize,
    /// Those of folders, which are looked at many at a time.
    gathered: Vec<Found>,
    /// How many files there are, as far as they have been counted.
    files: usize,
    /// Whether anything has changed.
    has_changed: bool,
}

enum Step {
    Count(ReadDir),
    Counted,
    Files(std::vec::IntoIter<Found>),
    Directory(usize),
    Listing(usize, ReadDir),
    /// A folder in a directory, and how many levels of folders are above it.
    Enter(usize, Arc<Path>, usize),
    Folder(usize, Box<Folder>),
    Gone,
}

/// What a slice of a scan has done.
pub(crate) struct Progress {
    pub(crate) changes: Vec<Change>,
    /// Whether all has been looked at.
    pub(crate) is_done: bool,
}

impl CertFiles {
    /// Begins a scan of all files, from the start where one is under way.
    pub(crate) fn begin_scan(&mut self) {
        self.scans = self.scans.wrapping_add(1);
        let files = self.files.iter().map(|(id, origin)| Found {
            id: id.clone(),
            kind: Kind::Files,
            origin: Arc::clone(origin),
        });
        let files: Vec<_> = files.collect();
        let count = files.len();
        let mut steps = VecDeque::from([Step::Files(files.into_iter())]);
        steps.extend((0..self.directories.len()).map(Step::Directory));
        steps.push_back(Step::Gone);
        if self.entries.len() == 0 {
            // To say how far the first one is, and what files are named after.
            steps.push_front(Step::Counted);
            let directories = self.directories.iter();
            for listing in directories.filter_map(|directory| fs::read_dir(&directory.path).ok()) {
                steps.push_front(Step::Count(listing));
            }
        }
        self.scan = Some(Scan {
            steps,
            found: 0,
            gathered: Vec::new(),
            files: count,
            has_changed: self.watch.is_empty() || self.priority_load.is_some(),
        });
    }

    /// Whether a scan is under way.
    pub(crate) fn is_scanning(&self) -> bool {
        self.scan.is_some()
    }

    /// How many files the current scan has looked at, and of how many as far as is known.
    pub(crate) fn scan_progress(&self) -> (usize, usize) {
        let scan = self.scan.as_ref();
        scan.map_or((0, 0), |scan| (scan.found, scan.files.max(scan.found)))
    }

    /// Loads the files that clients wait for, then continues the scan until it is done or it is
    /// `until`.
    pub(crate) fn scan_until(
        &mut self,
        until: Option<Instant>,
        loader: &Loader,
        now: UnixTime,
    ) -> Progress {
        let mut changes = self.load_requested(loader, now);
        let Some(mut scan) = self.scan.take() else {
            self.finish_loading();
            return Progress {
                changes,
                is_done: true,
            };
        };
        while let Some(step) = scan.steps.pop_front() {
            if let Some(rest) = self.run_step(step, &mut scan, &mut changes, loader, now) {
                scan.steps.push_front(rest);
            }
            if until.is_some_and(|until| Instant::now() >= until || self.is_hurried()) {
                break;
            }
        }
        scan.has_changed |= !changes.is_empty();
        let is_done = scan.steps.is_empty();
        if is_done {
            changes.extend(self.complete_chains(loader, now));
            for directory in &mut self.directories {
                directory.lack = directory.yields.missing_hint();
            }
            // Links may lead elsewhere where something changed, and hardly where nothing did.
            if scan.has_changed || self.has_new_folders() {
                self.find_watched();
            }
            self.finish_loading();
        } else {
            self.scan = Some(scan);
        }
        Progress { changes, is_done }
    }

    /// Forgets what was needed for the first scan alone.
    fn finish_loading(&mut self) {
        self.priority_load = None;
        self.forget_unclaimed();
    }

    /// Runs one part of a step. Returns what is left of it.
    fn run_step(
        &mut self,
        step: Step,
        scan: &mut Scan,
        changes: &mut Vec<Change>,
        loader: &Loader,
        now: UnixTime,
    ) -> Option<Step> {
        match step {
            Step::Count(mut listing) => {
                let names = listing.by_ref().take(8 * ENTRIES_AT_ONCE).flatten();
                let mut seen = 0;
                for found in names {
                    seen += 1;
                    let name = found.file_name();
                    if let Some(Part::Chain) = naming::part(&name) {
                        scan.files += 1;
                        self.note_listed(&name);
                    }
                }
                (seen > 0).then_some(Step::Count(listing))
            }
            Step::Counted => {
                self.open_index(scan.files);
                self.note_all_listed();
                None
            }
            Step::Files(mut files) => {
                let found: Vec<_> = files.by_ref().take(ENTRIES_AT_ONCE).collect();
                if found.is_empty() {
                    return None;
                }
                scan.found += found.len();
                changes.extend(self.reload_found(found, loader, now));
                Some(Step::Files(files))
            }
            Step::Directory(place) => {
                let directory = self.directories.get_mut(place)?;
                match fs::read_dir(&directory.path) {
                    Ok(listing) => {
                        directory.problem = None;
                        directory.lone_keys.clear();
                        directory.links.clear();
                        directory.folders.clear();
                        directory.yields = Yield::default();
                        directory.is_one = folders::is_one(&directory.path);
                        if directory.is_one {
                            let one = Folder::of_one(&directory.path)?;
                            return Some(Step::Folder(place, Box::new(one)));
                        }
                        Some(Step::Listing(place, listing))
                    }
                    Err(error) => {
                        directory.problem = Some(unlisted(&error));
                        None
                    }
                }
            }
            Step::Listing(place, mut listing) => {
                let mut found = Vec::with_capacity(ENTRIES_AT_ONCE);
                let mut is_over = true;
                for entry in listing.by_ref().take(2 * ENTRIES_AT_ONCE) {
                    is_over = false;
                    match entry.and_then(|entry| self.list_entry(place, &entry)) {
                        Ok(Listed::Chain(entry)) => found.push(entry),
                        Ok(Listed::Folder(path)) => {
                            scan.steps.push_front(Step::Enter(place, path, 1));
                        }
                        Ok(Listed::Other) => {}
                        Err(error) => {
                            let directory = self.directories.get_mut(place)?;
                            directory.problem = Some(unlisted(&error));
                            is_over = true;
                            break;
                        }
                    }
                }
                scan.found += found.len();
                changes.extend(self.reload_found(found, loader, now));
                (!is_over).then_some(Step::Listing(place, listing))
            }
            Step::Enter(place, path, depth) => {
                let entered = self.directories.get_mut(place)?.enter(&path, depth);
                entered.map(|folder| Step::Folder(place, Box::new(folder)))
            }
            Step::Folder(place, folder) => {
                let listed = self.list_folder(place, *folder, 2 * ENTRIES_AT_ONCE);
                scan.found += usize::from(listed.found.is_some());
                scan.gathered.extend(listed.found);
                // What went has its successor in the same slice.
                if scan.gathered.len() >= ENTRIES_AT_ONCE || !listed.gone.is_empty() {
                    let gathered = std::mem::take(&mut scan.gathered);
                    changes.extend(listed.gone);
                    changes.extend(self.reload_found(gathered, loader, now));
                }
                for (path, depth) in listed.folders {
                    scan.steps.push_front(Step::Enter(place, path, depth));
                }
                listed.rest.map(|rest| Step::Folder(place, Box::new(rest)))
            }
            Step::Gone => {
                let gathered = std::mem::take(&mut scan.gathered);
                changes.extend(self.reload_found(gathered, loader, now));
                let gone: Vec<_> = self.vanished_entries().collect();
                for (id, is_configured) in gone {
                    changes.extend(match is_configured {
                        true => self.mark_vanished(&id, now),
                        false => self.remove_entry(&id),
                    });
                }
                None
            }
        }
    }

    /// Takes an entry of a directory's listing.
    fn list_entry(&mut self, place: usize, listed: &DirEntry) -> io::Result<Listed> {
        let name = listed.file_name();
        let Some(directory) = self.directories.get_mut(place) else {
            return Ok(Listed::Other);
        };
        let Some(part) = naming::part(&name) else {
            if naming::is_hidden(&name) {
                return Ok(Listed::Other);
            }
            directory.yields.count_file(false);
            return Ok(if folders::is_folder(listed) {
                Listed::Folder(listed.path().into())
            } else {
                Listed::Other
            });
        };
        if listed.file_type()?.is_symlink() {
            directory.links.insert(listed.path());
        }
        directory.yields.count_file(matches!(part, Part::Chain));
        match part {
            Part::Chain => {
                let id = EntryId::beside(&directory.path, &name);
                // What the configuration names goes before.
                if self.files.contains_key(&id) {
                    return Ok(Listed::Other);
                }
                Ok(Listed::Chain(Found {
                    id,
                    kind: Kind::Directory,
                    origin: Arc::clone(&directory.origin),
                }))
            }
            Part::Key => {
                let is_lone = naming::chains_of(&name)
                    .all(|chain| fs::symlink_metadata(directory.path.join(chain)).is_err());
                if is_lone {
                    directory.note_lone(listed.path());
                }
                Ok(Listed::Other)
            }
        }
    }

    /// The entries that this scan has not found and that are gone indeed, and whether the
    /// configuration still asks for them.
    fn vanished_entries(&self) -> impl Iterator<Item = (EntryId, bool)> {
        let unseen = self.entries.iter().filter(|entry| entry.seen != self.scans);
        let is_configured = |id: &EntryId, kind: Kind| {
            let mut directories = self.directories.iter();
            let home = directories.find(|one| id.file.directory().starts_with(&one.path));
            match home.filter(|_| kind == Kind::Directory) {
                // Where it cannot be listed, nobody knows; and it may have come meanwhile.
                Some(home) if home.problem.is_some() => None,
                Some(_) if is_absent(&id.chain()) => Some(true),
                // What is there may be taken for something else now.
                Some(home) => {
                    let is_here = home.path == *id.file.directory();
                    (is_here && (home.is_one || id.key.is_some())).then_some(false)
                }
                None => Some(false),
            }
        };
        unseen.filter_map(move |entry| {
            let is_configured = is_configured(&entry.id, entry.kind)?;
            Some((entry.id.clone(), is_configured))
        })
    }
}

/// An entry of a directory's listing.
enum Listed {
    Chain(Found),
    Folder(Arc<Path>),
    Other,
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

fn unlisted(error: &io::Error) -> String {
    format!("cannot be listed: {error}; check that it is there and that this user may read it")
}
