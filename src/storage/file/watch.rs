//! Watches a directory, which need not exist yet.
//!
//! The system reports changes on this machine (inotify). On network file systems it does not report
//! those of other machines, and it may refuse to watch: so the directories are also checked each
//! second, which costs a call for each of them. Values are renamed to their places, so every change
//! of one is a change of its directory.

use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use nix::sys::statfs::{self, statfs};
use notify::event::{AccessKind, AccessMode, ModifyKind};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};

use super::super::{ChangeNotifier, StorageError, Watch};
use super::io_failure;

const LOOK_PAUSE: Duration = Duration::from_secs(1);

/// A directory of at least this size, in octets, is large: it has thousands of files, and nobody
/// keeps symbolic links to directories among them.
const LARGE: u64 = 1 << 18;

/// Watches everything below `top`.
pub(super) fn start(top: PathBuf) -> Result<Watch, StorageError> {
    start_with(top, true, LOOK_PAUSE)
}

fn start_with(top: PathBuf, by_system: bool, pause: Duration) -> Result<Watch, StorageError> {
    let top = std::path::absolute(&top).unwrap_or(top);
    let (tidings, incoming) = mpsc::channel();
    let notifier = ChangeNotifier::default();
    let watch = notifier.watch();
    let watcher = if by_system {
        watcher(top.clone(), tidings.clone())
    } else {
        None
    };
    let mut eye = Eye {
        watcher,
        is_unsure: !by_system,
        above: None,
        known: BTreeMap::new(),
        top,
    };
    // Before returning: changes from then on are reported.
    eye.rescan();
    let top = eye.top.clone();
    thread::Builder::new()
        .name("storage-watch".into())
        .spawn(move || eye.run(pause, &incoming, &notifier))
        .map_err(|error| io_failure("watch", &top, error))?;
    Ok(watch.with_guard(End(tidings)))
}

/// A message to the watching thread.
enum Tiding {
    /// Something has changed below the top.
    Change,
    /// Something has changed on the path to the top.
    Look,
    End,
}

/// Ends the watching when dropped.
struct End(Sender<Tiding>);

impl Drop for End {
    fn drop(&mut self) {
        // If the thread is gone already, so is the watching.
        let _ = self.0.send(Tiding::End);
    }
}

/// What is known of the directories.
struct Eye {
    top: PathBuf,
    watcher: Option<RecommendedWatcher>,
    /// Whether the system may fail to report changes.
    is_unsure: bool,
    /// The nearest existing directory above the top, watched as long as the top does not exist.
    above: Option<(PathBuf, Identity)>,
    known: BTreeMap<PathBuf, Known>,
}

/// Device and inode of a directory, which tell if it was recreated.
type Identity = (u64, u64);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Known {
    identity: Identity,
    /// When it was last changed, to the nanosecond, twice; and how many directories it holds.
    mark: (i64, i64, i64, i64, u64),
    directories: Vec<PathBuf>,
}

impl Eye {
    fn run(mut self, pause: Duration, incoming: &Receiver<Tiding>, notifier: &ChangeNotifier) {
        // A change may have the same time stamp as an earlier one that was reported: if only checks
        // reveal changes, each is reported twice.
        let mut again = false;
        loop {
            let tiding = match incoming.recv_timeout(pause) {
                Ok(tiding) => Some(tiding),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let was_quiet = tiding.is_none();
            let mut is_change = false;
            for tiding in tiding.into_iter().chain(incoming.try_iter()) {
                match tiding {
                    Tiding::Change => is_change = true,
                    Tiding::Look => {}
                    Tiding::End => return,
                }
            }
            // Checked first, then reported, so that the report covers what the check has seen.
            is_change |= self.rescan();
            if is_change || was_quiet && again {
                notifier.notify();
            }
            again = self.is_unsure && (is_change || again && !was_quiet);
        }
    }

    /// Checks all directories, and watches new ones. Returns true if any has changed.
    fn rescan(&mut self) -> bool {
        let mut found = BTreeMap::new();
        let mut directories = vec![self.top.clone()];
        while let Some(directory) = directories.pop() {
            if let Ok(known) = self.scan_path(&directory) {
                directories.extend(known.directories.iter().cloned());
                found.insert(directory, known);
            }
        }
        let is_change = found != self.known;
        self.known = found;
        if self.known.is_empty() {
            self.watch_above();
        } else if let Some((above, _)) = self.above.take() {
            self.unwatch(&above);
        }
        is_change
    }

    fn scan_path(&mut self, path: &Path) -> io::Result<Known> {
        let metadata = directory(path)?;
        let identity = identity(&metadata);
        if self
            .known
            .get(path)
            .is_none_or(|known| known.identity != identity)
        {
            self.watch_one(path);
        }
        // After it is watched: later changes are reported.
        let metadata = directory(path)?;
        let mark = (
            metadata.mtime(),
            metadata.mtime_nsec(),
            metadata.ctime(),
            metadata.ctime_nsec(),
            metadata.nlink(),
        );
        let directories = match self.known.get(path) {
            Some(known) if known.mark == mark && known.identity == identity => {
                known.directories.clone()
            }
            // One link from above and one from itself: it has no subdirectories, and its great many
            // files need not be read.
            _ if metadata.nlink() == 2 && metadata.len() >= LARGE => Vec::new(),
            _ => directories_in(path)?,
        };
        Ok(Known {
            identity,
            mark,
            directories,
        })
    }

    /// Watches the nearest directory above the top, because the top does not exist.
    fn watch_above(&mut self) {
        // As many times as directories can appear meanwhile.
        for _ in 0..self.top.components().count() {
            let nearest = self.top.ancestors().skip(1).find_map(|path| {
                let metadata = directory(path).ok()?;
                Some((path.to_owned(), identity(&metadata)))
            });
            if self.above == nearest {
                return;
            }
            if let Some((above, _)) = self.above.take() {
                self.unwatch(&above);
            }
            if let Some((path, _)) = &nearest {
                self.watch_one(path);
            }
            self.above = nearest;
        }
    }

    fn watch_one(&mut self, path: &Path) {
        self.is_unsure |= match &mut self.watcher {
            // What cannot be watched, for instance because of a system limit, is checked
            // periodically.
            Some(watcher) => {
                watcher.watch(path, RecursiveMode::NonRecursive).is_err() || !is_local(path)
            }
            None => true,
        };
    }

    fn unwatch(&mut self, path: &Path) {
        if let Some(watcher) = &mut self.watcher {
            // It may have been deleted, and its watch with it.
            let _ = watcher.unwatch(path);
        }
    }
}

/// Has the system report changes. `None` if it provides no watch.
fn watcher(top: PathBuf, tidings: Sender<Tiding>) -> Option<RecommendedWatcher> {
    let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        let tiding = match event {
            Ok(event) if event.need_rescan() => Tiding::Change,
            Ok(event) if !is_change(event.kind) => return,
            Ok(event) if event.paths.iter().any(|path| is_value(path, &top)) => Tiding::Change,
            Ok(_) => Tiding::Look,
            // An overflowed queue, for instance, hides changes.
            Err(_) => Tiding::Change,
        };
        // Nobody is listening any more once the watching has ended.
        let _ = tidings.send(tiding);
    });
    watcher
        .inspect_err(|error| {
            tracing::warn!(
                %error,
                "the system cannot watch the storage, which is checked every second instead"
            );
        })
        .ok()
}

fn is_change(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(kind) => kind == AccessKind::Close(AccessMode::Write),
        EventKind::Modify(ModifyKind::Metadata(_)) => false,
        _ => true,
    }
}

/// Returns true if `path` is that of a value below `top`, or of a directory of values.
fn is_value(path: &Path, top: &Path) -> bool {
    path.strip_prefix(top).is_ok_and(|inner| {
        inner
            .components()
            .all(|part| !part.as_os_str().as_encoded_bytes().starts_with(b"."))
    })
}

fn directory(path: &Path) -> io::Result<Metadata> {
    let metadata = fs::metadata(path)?;
    if metadata.is_dir() {
        Ok(metadata)
    } else {
        Err(io::ErrorKind::NotADirectory.into())
    }
}

fn identity(metadata: &Metadata) -> Identity {
    (metadata.dev(), metadata.ino())
}

fn directories_in(path: &Path) -> io::Result<Vec<PathBuf>> {
    let mut directories = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let is_hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
        let kind = entry.file_type()?;
        if !is_hidden && (kind.is_dir() || kind.is_symlink() && entry.path().is_dir()) {
            directories.push(entry.path());
        }
    }
    directories.sort();
    Ok(directories)
}

/// Returns true if only this machine changes what is at `path`, so the system knows of all changes.
fn is_local(path: &Path) -> bool {
    const LOCAL: [statfs::FsType; 5] = [
        statfs::EXT4_SUPER_MAGIC,
        statfs::XFS_SUPER_MAGIC,
        statfs::BTRFS_SUPER_MAGIC,
        statfs::TMPFS_MAGIC,
        statfs::OVERLAYFS_SUPER_MAGIC,
    ];
    statfs(path).is_ok_and(|found| LOCAL.contains(&found.filesystem_type()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(40);

    async fn told(watch: &mut Watch) {
        let told = tokio::time::timeout(Duration::from_secs(20), watch.changed()).await;
        told.expect("told in time");
    }

    /// Consumes signals without a cause.
    async fn settle(watch: &mut Watch) {
        let long = SHORT * 5;
        while tokio::time::timeout(long, watch.changed()).await.is_ok() {}
    }

    #[tokio::test]
    async fn looking_finds_what_the_system_does_not_tell() {
        let directory = tempfile::tempdir().expect("a directory");
        let top = directory.path().join("a/b");
        let mut watch = start_with(top.clone(), false, SHORT).expect("watched");
        fs::create_dir_all(top.join("c/d")).expect("made");
        told(&mut watch).await;
        told(&mut watch).await;
        settle(&mut watch).await;
        fs::write(top.join("c/d/e"), "1").expect("written");
        told(&mut watch).await;
        settle(&mut watch).await;
        fs::remove_file(top.join("c/d/e")).expect("removed");
        told(&mut watch).await;
    }

    #[tokio::test]
    async fn directories_that_come_and_go_are_watched() {
        let directory = tempfile::tempdir().expect("a directory");
        let (first, top) = (directory.path().join("a"), directory.path().join("a/b/c"));
        let mut watch = start_with(top.clone(), true, SHORT).expect("watched");
        for _ in 0..3 {
            fs::create_dir_all(top.join("d")).expect("made");
            told(&mut watch).await;
            fs::write(top.join("d/e"), "1").expect("written");
            told(&mut watch).await;
            fs::rename(&first, directory.path().join("old")).expect("moved");
            told(&mut watch).await;
            fs::remove_dir_all(directory.path().join("old")).expect("removed");
        }
    }

    #[tokio::test]
    async fn what_is_hidden_or_beside_is_not_told() {
        let directory = tempfile::tempdir().expect("a directory");
        let top = directory.path().join("a");
        fs::create_dir(&top).expect("made");
        let mut watch = start_with(top, true, SHORT).expect("watched");
        settle(&mut watch).await;
        fs::create_dir(directory.path().join(".new")).expect("made");
        fs::write(directory.path().join(".new/b"), "1").expect("written");
        fs::write(directory.path().join("b"), "1").expect("written");
        let quiet = tokio::time::timeout(SHORT * 5, watch.changed()).await;
        assert!(quiet.is_err());
    }

    #[tokio::test]
    async fn the_watching_ends_with_the_watch() {
        let directory = tempfile::tempdir().expect("a directory");
        let watch = start(directory.path().to_owned()).expect("watched");
        let mut changes = watch.changes.clone();
        drop(watch);
        let ended = tokio::time::timeout(Duration::from_secs(20), async {
            while changes.changed().await.is_ok() {}
        });
        ended.await.expect("its thread ends");
    }
}
