//! The configured files and directories, and which entries changed paths belong to.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::directory::{ConfiguredFiles, Directory, Survey};
use super::entry::{Entries, Found};
use super::files::{EntryId, Kind};
use super::naming;
use crate::config::model::CertificateSource;
use crate::host::Pattern;

/// Everything that certificates come from.
#[derive(Default)]
pub(super) struct Sources {
    files: ConfiguredFiles,
    /// The configured files by the paths of both.
    by_path: HashMap<PathBuf, Vec<EntryId>>,
    directories: Vec<Directory>,
}

impl Sources {
    /// The files and directories of a configuration.
    pub(super) fn from_config(config: &[CertificateSource]) -> Self {
        let mut sources = Self::default();
        for source in config {
            match source {
                CertificateSource::Directory { path, origin } => {
                    let directory = Directory::new(path, origin);
                    sources.directories.push(directory);
                }
                CertificateSource::Files { cert, key, origin } => {
                    let id = EntryId::of_files(cert, key);
                    for path in [cert, key] {
                        let ids = sources.by_path.entry(path.clone()).or_default();
                        if !ids.contains(&id) {
                            ids.push(id.clone());
                        }
                    }
                    sources.files.insert(id, Arc::new(origin.clone()));
                }
                CertificateSource::Managed { .. } => {}
            }
        }
        sources
    }

    pub(super) fn directories(&self) -> &[Directory] {
        &self.directories
    }

    /// The directory at `place`, and the files that have precedence over its own.
    pub(super) fn directory_mut(
        &mut self,
        place: usize,
    ) -> Option<(&mut Directory, &ConfiguredFiles)> {
        Some((self.directories.get_mut(place)?, &self.files))
    }

    /// The folders in directories that are looked into.
    pub(super) fn folders(&self) -> impl Iterator<Item = &Arc<Path>> {
        self.directories.iter().flat_map(|one| &one.folders)
    }

    /// The paths of the configured files.
    pub(super) fn file_paths(&self) -> impl Iterator<Item = &PathBuf> {
        self.by_path.keys()
    }

    pub(super) fn has_file_path(&self, path: &Path) -> bool {
        self.by_path.contains_key(path)
    }

    pub(super) fn file_ids(&self) -> impl Iterator<Item = &EntryId> {
        self.files.keys()
    }

    /// All configured files.
    pub(super) fn find_files(&self) -> Vec<Found> {
        self.files
            .keys()
            .filter_map(|id| self.find_file(id))
            .collect()
    }

    /// The configured files with this id.
    pub(super) fn find_file(&self, id: &EntryId) -> Option<Found> {
        Some(Found {
            id: id.clone(),
            kind: Kind::Files,
            origin: Arc::clone(self.files.get(id)?),
        })
    }

    /// Finds the files of directories that are named after `pattern`.
    pub(super) fn find_named(&self, pattern: &Pattern, found: &mut Vec<Found>) {
        for name in naming::names_for(pattern) {
            for directory in &self.directories {
                let id = EntryId::beside(&directory.path, OsStr::new(&name));
                if !self.files.contains_key(&id) && fs::symlink_metadata(id.chain()).is_ok() {
                    found.push(directory.found(id));
                }
            }
        }
    }

    /// Whether the configuration still asks for an entry that a scan has not found; `None` where
    /// that is not known, or its files are there.
    pub(super) fn is_configured(&self, id: &EntryId, kind: Kind) -> Option<bool> {
        let mut directories = self.directories.iter();
        let home = directories.find(|one| id.file.directory().starts_with(&one.path));
        match home.filter(|_| kind == Kind::Directory) {
            Some(home) => home.is_entry_gone(id),
            None => Some(false),
        }
    }

    /// Judges, after a scan, which directories lack a certificate.
    pub(super) fn judge_directories(&mut self) {
        for directory in &mut self.directories {
            directory.judge();
        }
    }

    /// The entries that `paths` belong to; `None` where that may be any. `may_lead` says of a path,
    /// and whether it is a file, whether links may lead to files through it.
    pub(super) fn survey_paths(
        &mut self,
        paths: &[PathBuf],
        entries: &Entries,
        may_lead: impl Fn(&Path, bool) -> bool,
    ) -> Option<Survey> {
        let mut survey = Survey::default();
        for path in paths {
            let is_file = fs::symlink_metadata(path).is_ok_and(|found| found.is_file());
            let mut is_known = self.survey_files(path, is_file, &mut survey);
            for directory in &mut self.directories {
                is_known |= directory.survey_path(path, is_file, &self.files, &mut survey)?;
            }
            for directory in &mut self.directories {
                is_known |= directory.survey_folders(path, &self.files, entries, &mut survey)?;
            }
            if !is_known && may_lead(path, is_file) {
                return None;
            }
        }
        Some(survey)
    }

    /// Finds the configured files that `path` is, or leads to. Whether there are any.
    fn survey_files(&self, path: &Path, is_file: bool, survey: &mut Survey) -> bool {
        let mut is_known = false;
        let mut add = |id: &EntryId| {
            is_known = true;
            if let Some(found) = self.find_file(id) {
                survey.add(found);
            }
        };
        if is_file {
            self.by_path.get(path).into_iter().flatten().for_each(add);
        } else {
            // A directory or a link on the way may have been replaced.
            let leads_to = |file: &Path| file.starts_with(path) || naming::is_beside(path, file);
            let led = self.by_path.iter().filter(|(file, _)| leads_to(file));
            led.for_each(|(_, ids)| ids.iter().for_each(&mut add));
        }
        is_known
    }
}
