//! A scan of all files, in slices.

use std::collections::VecDeque;
use std::fs::{self, ReadDir};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use super::directory::{Listed, Listing};
use super::entry::Found;
use super::entry_table::EntryTable;
use super::folders::Folder;
use super::naming::{self, Part};
use super::priority_load::PriorityLoad;
use super::sources::Sources;
use crate::certificate::{Change, Loader};
use crate::clock::UnixTime;

/// How many entries are read at a time, on all cores.
const ENTRIES_AT_ONCE: usize = 256;

/// A scan of all files that is under way.
pub(super) struct Scan {
    steps: VecDeque<Step>,
    /// How many entries it has found.
    found: usize,
    /// Those of folders, which are looked at many at a time.
    gathered: Vec<Found>,
    /// How many files there are, as far as they have been counted.
    files: usize,
    /// What the current slice has changed.
    changes: Vec<Change>,
    /// Whether anything has changed.
    has_changed: bool,
}

/// What is left to do. A step is done in parts.
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

/// What a scan works on.
pub(super) struct ScanParts<'a> {
    pub(super) sources: &'a mut Sources,
    pub(super) table: &'a mut EntryTable,
    pub(super) priority_load: Option<&'a mut PriorityLoad>,
    pub(super) loader: &'a Loader,
    pub(super) now: UnixTime,
}

impl Scan {
    /// A scan of all `sources`. The first one counts the files before, to say how far it is and to
    /// know what they are named after.
    pub(super) fn new(sources: &Sources, is_first: bool, has_changed: bool) -> Self {
        let files = sources.find_files();
        let count = files.len();
        let directories = sources.directories();
        let mut steps = VecDeque::from([Step::Files(files.into_iter())]);
        steps.extend((0..directories.len()).map(Step::Directory));
        steps.push_back(Step::Gone);
        if is_first {
            steps.push_front(Step::Counted);
            let listings = directories
                .iter()
                .filter_map(|directory| fs::read_dir(&directory.path).ok());
            for listing in listings {
                steps.push_front(Step::Count(listing));
            }
        }
        Self {
            steps,
            found: 0,
            gathered: Vec::new(),
            files: count,
            changes: Vec::new(),
            has_changed,
        }
    }

    /// How many files it has looked at, and of how many as far as is known.
    pub(super) fn progress(&self) -> (usize, usize) {
        (self.found, self.files.max(self.found))
    }

    /// Continues until it is done, it is `until`, or a client waits for a file. Whether it is done.
    pub(super) fn run(&mut self, until: Option<Instant>, parts: &mut ScanParts<'_>) -> bool {
        while let Some(step) = self.steps.pop_front() {
            if let Some(rest) = self.run_step(step, parts) {
                self.steps.push_front(rest);
            }
            let priority_load = parts.priority_load.as_deref();
            let is_hurried = || priority_load.is_some_and(PriorityLoad::is_hurried);
            if until.is_some_and(|until| Instant::now() >= until || is_hurried()) {
                break;
            }
        }
        self.steps.is_empty()
    }

    /// Takes what has changed since the last call. With it, whether anything has changed at all.
    pub(super) fn take_changes(&mut self) -> (Vec<Change>, bool) {
        self.has_changed |= !self.changes.is_empty();
        (std::mem::take(&mut self.changes), self.has_changed)
    }

    /// Runs a part of a step. Returns what is left of it.
    fn run_step(&mut self, step: Step, parts: &mut ScanParts<'_>) -> Option<Step> {
        match step {
            Step::Count(listing) => self.count_files(listing, parts),
            Step::Counted => {
                parts.table.open_index(self.files);
                if let Some(priority_load) = &mut parts.priority_load {
                    priority_load.note_all_listed();
                }
                None
            }
            Step::Files(files) => self.read_files(files, parts),
            Step::Directory(place) => {
                let (directory, _) = parts.sources.directory_mut(place)?;
                Some(match directory.begin_listing()? {
                    Listing::Entries(listing) => Step::Listing(place, listing),
                    Listing::One(folder) => Step::Folder(place, Box::new(folder)),
                })
            }
            Step::Listing(place, listing) => self.list_directory(place, listing, parts),
            Step::Enter(place, path, depth) => {
                let (directory, _) = parts.sources.directory_mut(place)?;
                let folder = directory.enter(&path, depth)?;
                Some(Step::Folder(place, Box::new(folder)))
            }
            Step::Folder(place, folder) => self.list_folder(place, *folder, parts),
            Step::Gone => {
                self.read_gathered(parts);
                self.find_gone(parts);
                None
            }
        }
    }

    /// Counts some of a directory's files, and notes what they are named after.
    fn count_files(&mut self, mut listing: ReadDir, parts: &mut ScanParts<'_>) -> Option<Step> {
        let mut seen = 0;
        for found in listing.by_ref().take(8 * ENTRIES_AT_ONCE).flatten() {
            seen += 1;
            let name = found.file_name();
            if let Some(Part::Chain) = naming::part(&name) {
                self.files += 1;
                if let Some(priority_load) = &mut parts.priority_load {
                    priority_load.note_listed(&name);
                }
            }
        }
        (seen > 0).then_some(Step::Count(listing))
    }

    /// Reads some of the configured files.
    fn read_files(
        &mut self,
        mut files: std::vec::IntoIter<Found>,
        parts: &mut ScanParts<'_>,
    ) -> Option<Step> {
        let found: Vec<_> = files.by_ref().take(ENTRIES_AT_ONCE).collect();
        if found.is_empty() {
            return None;
        }
        self.found += found.len();
        self.read(found, parts);
        Some(Step::Files(files))
    }

    /// Lists some of a directory, and reads the files in it.
    fn list_directory(
        &mut self,
        place: usize,
        mut listing: ReadDir,
        parts: &mut ScanParts<'_>,
    ) -> Option<Step> {
        let (directory, files) = parts.sources.directory_mut(place)?;
        let mut found = Vec::with_capacity(ENTRIES_AT_ONCE);
        let mut is_over = true;
        for entry in listing.by_ref().take(2 * ENTRIES_AT_ONCE) {
            is_over = false;
            match entry.and_then(|entry| directory.list_entry(&entry, files)) {
                Ok(Listed::Chain(entry)) => found.push(entry),
                Ok(Listed::Folder(path)) => {
                    self.steps.push_front(Step::Enter(place, path, 1));
                }
                Ok(Listed::Other) => {}
                Err(error) => {
                    directory.note_unlisted(&error);
                    is_over = true;
                    break;
                }
            }
        }
        self.found += found.len();
        self.read(found, parts);
        (!is_over).then_some(Step::Listing(place, listing))
    }

    /// Lists some of a folder in a directory.
    fn list_folder(
        &mut self,
        place: usize,
        folder: Folder,
        parts: &mut ScanParts<'_>,
    ) -> Option<Step> {
        let (directory, files) = parts.sources.directory_mut(place)?;
        let listed = directory.list_folder(folder, files, 2 * ENTRIES_AT_ONCE);
        self.found += usize::from(listed.found.is_some());
        self.gathered.extend(listed.found);
        let removed = listed.superseded.iter();
        let removed: Vec<_> = removed.filter_map(|id| parts.table.remove(id)).collect();
        // What was removed has its successor in the same slice.
        if self.gathered.len() >= ENTRIES_AT_ONCE || !removed.is_empty() {
            self.changes.extend(removed);
            self.read_gathered(parts);
        }
        for (path, depth) in listed.folders {
            self.steps.push_front(Step::Enter(place, path, depth));
        }
        listed.rest.map(|rest| Step::Folder(place, Box::new(rest)))
    }

    /// Removes the entries that the scan has not found and whose files are gone indeed.
    fn find_gone(&mut self, parts: &mut ScanParts<'_>) {
        let gone = parts.table.unseen().filter_map(|entry| {
            let is_configured = parts.sources.is_configured(&entry.id, entry.kind)?;
            Some((entry.id.clone(), is_configured))
        });
        let gone: Vec<_> = gone.collect();
        for (id, is_configured) in gone {
            self.changes.extend(match is_configured {
                true => parts.table.mark_vanished(&id, parts.now),
                false => parts.table.remove(&id),
            });
        }
    }

    fn read_gathered(&mut self, parts: &mut ScanParts<'_>) {
        let gathered = std::mem::take(&mut self.gathered);
        self.read(gathered, parts);
    }

    fn read(&mut self, found: Vec<Found>, parts: &mut ScanParts<'_>) {
        let changes = parts.table.reload(found, parts.loader, parts.now);
        self.changes.extend(changes);
    }
}
