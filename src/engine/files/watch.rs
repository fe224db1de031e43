//! Notices changes of files: of the files themselves, and of the directories and symbolic links
//! that lead to them.
//!
//! Editors, `mv`, certbot and Kubernetes replace files rather than write into them, so directories are
//! watched. It reports that something changed; what it is, its users find out by reading the files.

mod path_components;

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tokio::time::Instant;

use self::path_components::PathComponents;

/// How long it must have been quiet before a change is reported, so that two files that are written
/// one after the other are one change.
const QUIET: Duration = Duration::from_millis(40);

/// How long a change is held back at most if it is never quiet.
const PATIENCE: Duration = Duration::from_secs(2);

/// A watch over the directories of some files.
pub(super) struct Watch {
    watcher: RecommendedWatcher,
    directories: BTreeMap<PathBuf, Option<Identity>>,
    events: mpsc::UnboundedReceiver<Vec<PathBuf>>,
    /// What changed and has not been reported yet.
    pending: Option<Pending>,
}

/// Device and inode of a directory: one that was made again is another.
type Identity = (u64, u64);

/// What came of [`Watch::follow_paths`].
#[derive(Debug)]
pub(super) struct Followed {
    /// Whether a directory is watched that was not before.
    pub(super) is_more: bool,
    /// Which directories cannot be watched, and why.
    pub(super) errors: Vec<notify::Error>,
}

/// Changes that wait for quiet.
struct Pending {
    paths: BTreeSet<PathBuf>,
    all_known: bool,
    /// When they are reported if nothing else changes.
    quiet: Instant,
    /// When they are reported at the latest.
    patience: Instant,
}

impl Watch {
    /// A watch over nothing yet.
    ///
    /// # Errors
    /// If the system gives no watch, such as at the limit `fs.inotify.max_user_instances`.
    pub(super) fn new() -> notify::Result<Self> {
        let (sender, events) = mpsc::unbounded_channel();
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // An error, such as a queue that overflowed, hides changes: report one without a path.
            let paths = match event {
                Ok(event) if is_change(event.kind) || event.need_rescan() => event.paths,
                Ok(_) => return,
                Err(_) => Vec::new(),
            };
            // There is no receiver any more once the engine stops.
            let _ = sender.send(paths);
        })?;
        Ok(Self {
            watcher,
            directories: BTreeMap::new(),
            events,
            pending: None,
        })
    }

    /// Watches what leads to `paths`, and no longer what led to earlier ones. Directories among
    /// them are watched themselves.
    pub(super) fn follow_paths<'a>(
        &mut self,
        paths: impl IntoIterator<Item = &'a Path>,
    ) -> Followed {
        let wanted = PathComponents::leading_to(paths).into_directories();
        for gone in self.directories.keys().filter(|one| !wanted.contains(*one)) {
            // It may have been deleted, and its watch with it.
            let _ = self.watcher.unwatch(gone);
        }
        let mut followed = Followed {
            is_more: false,
            errors: Vec::new(),
        };
        let mut watched = BTreeMap::new();
        for directory in wanted {
            let identity = identity(&directory);
            // A directory that was deleted and made again has lost its watch, hence the renewal.
            match self.watcher.watch(&directory, RecursiveMode::NonRecursive) {
                Ok(()) => {
                    followed.is_more |= self.directories.get(&directory) != Some(&identity);
                    watched.insert(directory, identity);
                }
                // Most errors name it already.
                Err(error) if error.paths.is_empty() => {
                    followed.errors.push(error.add_path(directory));
                }
                Err(error) => followed.errors.push(error),
            }
        }
        self.directories = watched;
        followed
    }

    /// Whether what is followed may lead elsewhere now that these paths, or nobody knows which, have
    /// changed: not where files were written, replaced or removed.
    pub(super) fn may_lead_elsewhere(&self, changed: &[PathBuf]) -> bool {
        let leads = |path: &PathBuf| match path.symlink_metadata() {
            Ok(found) => !found.is_file(),
            // What is gone was a file unless something watched was in it.
            Err(_) => self.directories.keys().any(|one| one.starts_with(path)),
        };
        changed.is_empty() || changed.iter().any(leads)
    }

    /// Waits for a change and then for quiet. Returns the paths that changed; empty if it is not known
    /// which. Nothing is lost if the wait is given up and begun again.
    pub(super) async fn wait_for_change(&mut self) -> Vec<PathBuf> {
        loop {
            let event = match &self.pending {
                None => self.events.recv().await,
                Some(pending) => {
                    let until = pending.quiet.min(pending.patience);
                    let event = tokio::time::timeout_at(until, self.events.recv()).await;
                    event.unwrap_or_default()
                }
            };
            let is_quiet = event.is_none();
            if let Some(paths) = event {
                self.pending.get_or_insert_default().add(paths);
            }
            match self.pending.take() {
                Some(pending) if is_quiet || Instant::now() >= pending.patience => {
                    return pending.into_paths();
                }
                // The watcher lives as long as `self`: the end of the events is not reached.
                None => return std::future::pending().await,
                waiting => self.pending = waiting,
            }
        }
    }
}

impl Default for Pending {
    fn default() -> Self {
        Self {
            paths: BTreeSet::new(),
            all_known: true,
            quiet: Instant::now() + QUIET,
            patience: Instant::now() + PATIENCE,
        }
    }
}

impl Pending {
    fn add(&mut self, paths: Vec<PathBuf>) {
        self.all_known &= !paths.is_empty();
        self.quiet = Instant::now() + QUIET;
        self.paths.extend(paths);
    }

    fn into_paths(self) -> Vec<PathBuf> {
        if self.all_known {
            self.paths.into_iter().collect()
        } else {
            Vec::new()
        }
    }
}

fn identity(directory: &Path) -> Option<Identity> {
    let metadata = directory.metadata().ok()?;
    Some((metadata.dev(), metadata.ino()))
}

/// Whether an event can mean that a file's content has changed: opening and reading does not.
fn is_change(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(kind) => kind == AccessKind::Close(AccessMode::Write),
        EventKind::Any
        | EventKind::Create(_)
        | EventKind::Modify(_)
        | EventKind::Remove(_)
        | EventKind::Other => true,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    async fn told(watch: &mut Watch) -> bool {
        tokio::time::timeout(Duration::from_secs(10), watch.wait_for_change())
            .await
            .is_ok()
    }

    #[tokio::test]
    async fn rewriting_replacing_and_removing_are_changes() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("a.yaml");
        fs::write(&file, "1").expect("written");
        let mut watch = Watch::new().expect("inotify");
        let followed = watch.follow_paths([&*file]);
        assert!(followed.is_more && followed.errors.is_empty());
        assert!(!watch.follow_paths([&*file]).is_more);

        fs::write(&file, "2").expect("written");
        assert!(told(&mut watch).await, "rewritten");
        let new = dir.path().join("new");
        fs::write(&new, "3").expect("written");
        fs::rename(&new, &file).expect("renamed");
        assert!(told(&mut watch).await, "replaced");
        fs::remove_file(&file).expect("removed");
        assert!(told(&mut watch).await, "removed");
    }

    #[tokio::test]
    async fn a_change_outlives_a_wait_that_is_given_up() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("a.yaml");
        let mut watch = Watch::new().expect("inotify");
        watch.follow_paths([&*file]);
        fs::write(&file, "1").expect("written");
        // Long enough for the event to come, too short for it to be told.
        let given_up = tokio::time::timeout(QUIET / 2, watch.wait_for_change()).await;
        assert!(given_up.is_err());
        assert!(told(&mut watch).await);
    }

    #[tokio::test]
    async fn a_directory_that_was_made_again_is_more() {
        let dir = tempfile::tempdir().expect("a directory");
        let inner = dir.path().join("inner");
        fs::create_dir(&inner).expect("made");
        let mut watch = Watch::new().expect("inotify");
        assert!(watch.follow_paths([&*inner]).is_more);
        fs::rename(&inner, dir.path().join("old")).expect("moved");
        fs::create_dir(&inner).expect("made again");
        assert!(watch.follow_paths([&*inner]).is_more);
    }

    #[test]
    fn files_lead_nowhere_else() {
        let dir = tempfile::tempdir().expect("a directory");
        let at = |name: &str| dir.path().join(name);
        fs::create_dir_all(at("outer/inner")).expect("made");
        fs::write(at("outer/inner/a.pem"), "1").expect("written");
        let mut watch = Watch::new().expect("inotify");
        watch.follow_paths([&*at("outer/inner/a.pem")]);
        let leads = |names: &[&str]| {
            let paths: Vec<_> = names.iter().map(|name| at(name)).collect();
            watch.may_lead_elsewhere(&paths)
        };
        assert!(!leads(&["outer/inner/a.pem", "outer/inner/a.pem.tmp"]));
        assert!(leads(&[]), "it is not known what changed");
        assert!(leads(&["outer/inner/a.pem", "outer"]));
        fs::remove_file(at("outer/inner/a.pem")).expect("removed");
        assert!(!leads(&["outer/inner/a.pem"]));
        symlink(at("b.pem"), at("outer/inner/a.pem")).expect("linked");
        assert!(leads(&["outer/inner/a.pem"]));
        fs::remove_dir_all(at("outer")).expect("removed");
        assert!(leads(&["outer"]) && leads(&["outer/inner"]));
        assert!(!leads(&["out"]), "another's name");
    }

    #[tokio::test]
    async fn reading_is_no_change() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("a.yaml");
        fs::write(&file, "1").expect("written");
        let mut watch = Watch::new().expect("inotify");
        watch.follow_paths([&*file]);
        fs::read(&file).expect("read");
        let quiet = tokio::time::timeout(Duration::from_millis(400), watch.wait_for_change()).await;
        assert!(quiet.is_err());
    }

    #[tokio::test]
    async fn swapped_links_are_changes() {
        // The layout of a Kubernetes volume: a.yaml -> ..data/a.yaml, ..data -> ..1
        let dir = tempfile::tempdir().expect("a directory");
        let at = |name: &str| dir.path().join(name);
        for version in ["..1", "..2"] {
            fs::create_dir(at(version)).expect("made");
            fs::write(at(version).join("a.yaml"), version).expect("written");
        }
        symlink("..1", at("..data")).expect("linked");
        symlink("..data/a.yaml", at("a.yaml")).expect("linked");
        // And a link to the whole volume from elsewhere.
        let outside = tempfile::tempdir().expect("a directory");
        symlink(dir.path(), outside.path().join("volume")).expect("linked");
        let file = outside.path().join("volume/a.yaml");

        let mut watch = Watch::new().expect("inotify");
        watch.follow_paths([&*file]);
        symlink("..2", at("..tmp")).expect("linked");
        fs::rename(at("..tmp"), at("..data")).expect("swapped");
        assert!(told(&mut watch).await, "the inner link");
        assert_eq!(fs::read_to_string(&file).expect("read"), "..2");

        watch.follow_paths([&*file]);
        fs::remove_file(outside.path().join("volume")).expect("removed");
        assert!(told(&mut watch).await, "the outer link");
    }
}
