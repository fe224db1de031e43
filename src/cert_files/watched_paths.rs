//! Which files a changed path belongs to, and which paths are to be watched.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::files::{EntryId, Kind};
use super::naming::{self, Part};
use super::{CertFiles, Change, Found, folders};

/// The entries that changed paths belong to.
#[derive(Default)]
pub(super) struct Survey {
    pub(super) found: Vec<Found>,
    pub(super) gone: Vec<EntryId>,
    /// What went because another took its place.
    pub(super) changes: Vec<Change>,
}

impl CertFiles {
    /// The directories and files of which a change may concern an entry.
    pub(crate) fn watched_paths(&self) -> &Arc<BTreeSet<PathBuf>> {
        &self.watch
    }

    /// The entries that `paths` belong to; `None` where that may be any.
    pub(super) fn survey_paths(&mut self, paths: &[PathBuf]) -> Option<Survey> {
        let mut survey = Survey::default();
        let mut seen = BTreeSet::new();
        for path in paths {
            let is_file = fs::symlink_metadata(path).is_ok_and(|found| found.is_file());
            let mut is_known = self.survey_files(path, is_file, &mut seen, &mut survey);
            is_known |= self.survey_directories(path, is_file, &mut seen, &mut survey)?;
            is_known |= self.survey_folders(path, &mut seen, &mut survey)?;
            if !is_known && self.may_be_led_through(path, is_file) {
                return None;
            }
        }
        Some(survey)
    }

    /// Finds the configured files that `path` is, or leads to. Whether there are any.
    fn survey_files(
        &self,
        path: &Path,
        is_file: bool,
        seen: &mut BTreeSet<EntryId>,
        survey: &mut Survey,
    ) -> bool {
        let mut is_known = false;
        let mut take = |id: &EntryId| {
            is_known = true;
            if let Some(origin) = self.files.get(id)
                && seen.insert(id.clone())
            {
                survey.found.push(Found {
                    id: id.clone(),
                    kind: Kind::Files,
                    origin: Arc::clone(origin),
                });
            }
        };
        if is_file {
            self.by_path.get(path).into_iter().flatten().for_each(take);
        } else {
            // A directory or a link on the way may have been replaced.
            let leads_to = |file: &Path| file.starts_with(path) || naming::is_beside(path, file);
            let led = self.by_path.iter().filter(|(file, _)| leads_to(file));
            led.for_each(|(_, ids)| ids.iter().for_each(&mut take));
        }
        is_known
    }

    /// Finds the entry of a directory that `path` is. Whether it is in one; `None` where it leads to
    /// a whole directory.
    fn survey_directories(
        &mut self,
        path: &Path,
        is_file: bool,
        seen: &mut BTreeSet<EntryId>,
        survey: &mut Survey,
    ) -> Option<bool> {
        let mut is_known = false;
        for directory in &mut self.directories {
            let is_inside = path.parent() == Some(&directory.path);
            is_known |= is_inside;
            if !is_file
                && (directory.path.starts_with(path)
                    || naming::is_turned_link(path, &directory.path))
            {
                return None;
            }
            let (true, Some(name)) = (is_inside, path.file_name()) else {
                continue;
            };
            if directory.is_one != folders::is_one(&directory.path) {
                return None;
            }
            if directory.is_one {
                continue;
            }
            let Some(part) = naming::part(name) else {
                continue;
            };
            directory.lone_keys.remove(path);
            if path.is_symlink() {
                directory.links.insert(path.to_owned());
            }
            let names: Vec<_> = match part {
                Part::Chain => vec![name.to_owned()],
                Part::Key => naming::chains_of(name).collect(),
            };
            let mut is_lone = matches!(part, Part::Key) && path.exists();
            for name in names {
                let id = EntryId::beside(&directory.path, &name);
                if self.files.contains_key(&id) || !seen.insert(id.clone()) {
                    continue;
                }
                if fs::symlink_metadata(id.chain()).is_ok() {
                    is_lone = false;
                    directory.lack = None;
                    survey.found.push(Found {
                        id,
                        kind: Kind::Directory,
                        origin: Arc::clone(&directory.origin),
                    });
                } else {
                    survey.gone.push(id);
                }
            }
            if is_lone {
                directory.note_lone(path.to_owned());
            }
        }
        Some(is_known)
    }

    /// Finds the certificate of the folder in a directory that `path` is in. Whether there is one;
    /// `None` where a folder came or went.
    fn survey_folders(
        &mut self,
        path: &Path,
        seen: &mut BTreeSet<EntryId>,
        survey: &mut Survey,
    ) -> Option<bool> {
        let mut is_known = false;
        for place in 0..self.directories.len() {
            let Some(directory) = self.directories.get(place) else {
                continue;
            };
            let folder = match path.parent() {
                Some(parent) if parent == &*directory.path => None,
                Some(parent) => directory.folders.get(parent).map(Arc::clone),
                None => continue,
            };
            let is_inside = folder.is_some() || path.parent() == Some(&directory.path);
            let name = path.file_name().unwrap_or_default();
            if is_inside && naming::part(name).is_none() && !naming::is_hidden(name) {
                let is_folder = directory.folders.contains(path) || path.is_dir();
                if is_folder {
                    return None;
                }
            }
            let folder = match folder {
                Some(folder) => folder,
                None if is_inside && directory.is_one => Arc::clone(&directory.path),
                None => continue,
            };
            let before = survey.found.len();
            is_known |= self.survey_folder(place, &folder, survey);
            // More than one of its files may have changed.
            let again = survey.found.split_off(before);
            survey.found.extend(
                again
                    .into_iter()
                    .filter(|found| seen.insert(found.id.clone())),
            );
        }
        Some(is_known)
    }

    /// Whether links may lead to files through `path`, which none of them names: all but other
    /// people's files, a log in the same directory say.
    fn may_be_led_through(&self, path: &Path, is_file: bool) -> bool {
        // It may be told by a way that goes through other directories.
        !is_file || fs::canonicalize(path).is_ok_and(|path| self.targets.contains(&path))
    }

    /// What the configuration names is watched, before anything is known of it.
    pub(super) fn watch_configured(&mut self) {
        let directories = self.directories.iter().map(|one| &one.path);
        let folders = self.directories.iter().flat_map(|one| &one.folders);
        let watched = directories.chain(folders).map(|one| one.to_path_buf());
        let watch = watched.chain(self.by_path.keys().cloned()).collect();
        self.watch = Arc::new(watch);
    }

    /// Whether folders are looked into that are not watched yet.
    pub(super) fn has_new_folders(&self) -> bool {
        let mut folders = self.directories.iter().flat_map(|one| &one.folders);
        folders.any(|folder| !self.watch.contains(&**folder))
    }

    /// Finds all that is to be watched.
    pub(super) fn find_watched(&mut self) {
        self.watch_configured();
        let links = self.directories.iter().flat_map(|one| &one.links);
        Arc::make_mut(&mut self.watch).extend(links.clone().cloned());
        // A symbolic link may stay while what it leads to changes.
        let paths = self.by_path.keys().chain(links);
        self.targets = paths.flat_map(fs::canonicalize).collect();
    }

    /// Finds what is to be watched for these entries too.
    pub(super) fn watch_links_of<'a>(&mut self, entries: impl Iterator<Item = &'a EntryId>) {
        for id in entries {
            for path in [id.chain(), id.key()] {
                let is_link = path.is_symlink();
                if is_link || self.by_path.contains_key(&path) {
                    self.targets.extend(fs::canonicalize(&path));
                    if !self.watch.contains(&path) {
                        Arc::make_mut(&mut self.watch).insert(path);
                    }
                }
            }
        }
    }
}
