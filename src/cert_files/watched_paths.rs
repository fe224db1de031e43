//! Which paths are to be watched for changes.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::files::EntryId;
use super::sources::Sources;

/// The paths of which a change may concern an entry.
#[derive(Default)]
pub(super) struct WatchedPaths {
    /// Directories and files.
    paths: Arc<BTreeSet<PathBuf>>,
    /// What configured files, and links in directories, are when links are followed.
    targets: BTreeSet<PathBuf>,
}

impl WatchedPaths {
    pub(super) fn paths(&self) -> &Arc<BTreeSet<PathBuf>> {
        &self.paths
    }

    /// Watches nothing until something is known of another configuration.
    pub(super) fn clear(&mut self) {
        self.paths = Arc::default();
    }

    /// Watches what the configuration names, before anything is known of it.
    pub(super) fn watch_configured(&mut self, sources: &Sources) {
        let directories = sources.directories().iter().map(|one| &one.path);
        let watched = directories.chain(sources.folders());
        let watched = watched.map(|one| one.to_path_buf());
        self.paths = Arc::new(watched.chain(sources.file_paths().cloned()).collect());
    }

    /// Whether folders are looked into that are not watched yet.
    pub(super) fn lacks_folders(&self, sources: &Sources) -> bool {
        let mut folders = sources.folders();
        folders.any(|folder| !self.paths.contains(&**folder))
    }

    /// Finds all that is to be watched.
    pub(super) fn find_all(&mut self, sources: &Sources) {
        self.watch_configured(sources);
        let links = sources.directories().iter().flat_map(|one| &one.links);
        Arc::make_mut(&mut self.paths).extend(links.clone().cloned());
        // A symbolic link may stay while what it leads to changes.
        let paths = sources.file_paths().chain(links);
        self.targets = paths.flat_map(fs::canonicalize).collect();
    }

    /// Watches the links of these entries too.
    pub(super) fn add_links<'a>(
        &mut self,
        entries: impl Iterator<Item = &'a EntryId>,
        sources: &Sources,
    ) {
        for id in entries {
            for path in [id.chain(), id.key()] {
                if path.is_symlink() || sources.has_file_path(&path) {
                    self.targets.extend(fs::canonicalize(&path));
                    if !self.paths.contains(&path) {
                        Arc::make_mut(&mut self.paths).insert(path);
                    }
                }
            }
        }
    }

    /// Whether links may lead to files through `path`, which none of them names: all but other
    /// people's files, a log in the same directory say.
    pub(super) fn may_lead_through(&self, path: &Path, is_file: bool) -> bool {
        // It may be reported by a path that leads through other directories.
        !is_file || fs::canonicalize(path).is_ok_and(|path| self.targets.contains(&path))
    }
}
