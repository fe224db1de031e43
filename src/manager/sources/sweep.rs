//! A look at all files, in slices.

use std::collections::VecDeque;
use std::fs::{self, DirEntry, ReadDir};
use std::io;
use std::sync::Arc;
use std::time::Instant;

use super::{Change, Found, Sources};
use crate::certificate::Loader;
use crate::clock::UnixTime;
use crate::manager::directory::{self, Part};
use crate::manager::files::{EntryId, Kind};

/// How many entries are looked at in one go, on all cores.
const GO: usize = 256;

/// A look at all files under way.
pub(in crate::manager) struct Sweep {
    steps: VecDeque<Step>,
    /// How many entries it has found.
    found: usize,
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
    Gone,
}

/// What a slice of a sweep has done.
pub(in crate::manager) struct Progress {
    pub(in crate::manager) changes: Vec<Change>,
    /// Whether all has been looked at.
    pub(in crate::manager) is_done: bool,
}

impl Sources {
    /// Begins to look at everything, anew where that is under way.
    pub(in crate::manager) fn begin_sweep(&mut self) {
        self.sweeps = self.sweeps.wrapping_add(1);
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
        self.sweep = Some(Sweep {
            steps,
            found: 0,
            files: count,
            has_changed: self.watch.is_empty() || self.first.is_some(),
        });
    }

    /// Whether a sweep is under way.
    pub(in crate::manager) fn is_sweeping(&self) -> bool {
        self.sweep.is_some()
    }

    /// How many files the sweep under way has looked at, of how many as far as is known.
    pub(in crate::manager) fn swept(&self) -> (usize, usize) {
        let sweep = self.sweep.as_ref();
        sweep.map_or((0, 0), |sweep| (sweep.found, sweep.files.max(sweep.found)))
    }

    /// Goes on with the sweep until it is done or it is `until`.
    pub(in crate::manager) fn sweep(
        &mut self,
        until: Option<Instant>,
        loader: &Loader,
        now: UnixTime,
    ) -> Progress {
        let mut changes = Vec::new();
        let Some(mut sweep) = self.sweep.take() else {
            return Progress {
                changes,
                is_done: true,
            };
        };
        while let Some(step) = sweep.steps.pop_front() {
            if let Some(rest) = self.go(step, &mut sweep, &mut changes, loader, now) {
                sweep.steps.push_front(rest);
            }
            if until.is_some_and(|until| Instant::now() >= until || self.is_hurried()) {
                break;
            }
        }
        sweep.has_changed |= !changes.is_empty();
        let is_done = sweep.steps.is_empty();
        if is_done {
            changes.extend(self.complete(loader, now));
            // Links may lead elsewhere where something changed, and hardly where nothing did.
            if sweep.has_changed {
                self.find_watched();
            }
        } else {
            self.sweep = Some(sweep);
        }
        Progress { changes, is_done }
    }

    /// One go at a step. What is left of it.
    fn go(
        &mut self,
        step: Step,
        sweep: &mut Sweep,
        changes: &mut Vec<Change>,
        loader: &Loader,
        now: UnixTime,
    ) -> Option<Step> {
        match step {
            Step::Count(mut listing) => {
                let names = listing.by_ref().take(8 * GO).flatten();
                let mut seen = 0;
                for found in names {
                    seen += 1;
                    let name = found.file_name();
                    if let Some(Part::Chain) = directory::part(&name) {
                        sweep.files += 1;
                        self.note_listed(&name);
                    }
                }
                (seen > 0).then_some(Step::Count(listing))
            }
            Step::Counted => {
                self.open_index(sweep.files);
                self.note_all_listed();
                None
            }
            Step::Files(mut files) => {
                let found: Vec<_> = files.by_ref().take(GO).collect();
                if found.is_empty() {
                    return None;
                }
                sweep.found += found.len();
                changes.extend(self.look(found, loader, now));
                Some(Step::Files(files))
            }
            Step::Directory(place) => {
                let directory = self.directories.get_mut(place)?;
                match fs::read_dir(&directory.path) {
                    Ok(listing) => {
                        directory.problem = None;
                        directory.lone_keys.clear();
                        directory.links.clear();
                        Some(Step::Listing(place, listing))
                    }
                    Err(error) => {
                        directory.problem = Some(unlisted(&error));
                        None
                    }
                }
            }
            Step::Listing(place, mut listing) => {
                let mut found = Vec::with_capacity(GO);
                let mut is_over = true;
                for entry in listing.by_ref().take(2 * GO) {
                    is_over = false;
                    match entry.and_then(|entry| self.list(place, &entry)) {
                        Ok(entry) => found.extend(entry),
                        Err(error) => {
                            let directory = self.directories.get_mut(place)?;
                            directory.problem = Some(unlisted(&error));
                            is_over = true;
                            break;
                        }
                    }
                }
                sweep.found += found.len();
                changes.extend(self.look(found, loader, now));
                (!is_over).then_some(Step::Listing(place, listing))
            }
            Step::Gone => {
                if sweep.found < self.entries.len() {
                    let gone: Vec<_> = self.gone().collect();
                    for id in gone {
                        changes.extend(self.remove(&id));
                    }
                }
                None
            }
        }
    }

    /// Takes an entry of a directory's listing.
    fn list(&mut self, place: usize, listed: &DirEntry) -> io::Result<Option<Found>> {
        let name = listed.file_name();
        let Some(part) = directory::part(&name) else {
            return Ok(None);
        };
        let Some(directory) = self.directories.get_mut(place) else {
            return Ok(None);
        };
        if listed.file_type()?.is_symlink() {
            directory.links.insert(listed.path());
        }
        match part {
            Part::Chain => {
                let id = EntryId::beside(&directory.path, &name);
                // What the configuration names goes before.
                Ok((!self.files.contains_key(&id)).then(|| Found {
                    id,
                    kind: Kind::Directory,
                    origin: Arc::clone(&directory.origin),
                }))
            }
            Part::Key => {
                let is_lone = directory::chains_of(&name)
                    .all(|chain| fs::symlink_metadata(directory.path.join(chain)).is_err());
                if is_lone {
                    directory.note_lone(listed.path());
                }
                Ok(None)
            }
        }
    }

    /// The entries that this sweep has not found and that are gone indeed.
    fn gone(&self) -> impl Iterator<Item = EntryId> {
        let unseen = self
            .entries
            .iter()
            .filter(|entry| entry.seen != self.sweeps);
        let is_gone = |id: &EntryId, kind: Kind| {
            let mut directories = self.directories.iter();
            let home = directories.find(|one| one.path == *id.file.directory());
            match home.filter(|_| kind == Kind::Directory) {
                // Where it cannot be listed, nobody knows; and it may have come meanwhile.
                Some(home) => home.problem.is_none() && fs::symlink_metadata(id.chain()).is_err(),
                None => true,
            }
        };
        unseen
            .filter(move |entry| is_gone(&entry.id, entry.kind))
            .map(|entry| entry.id.clone())
    }
}

fn unlisted(error: &io::Error) -> String {
    format!("cannot be listed: {error}; check that it is there and that this user may read it")
}
