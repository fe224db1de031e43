//! The directory in which outboxes are kept, each in a [`Journal`].
//!
//! It lies beside the values of the storage, in a hidden folder, and not in the storage itself: an
//! event may be that the storage fails; each of the gateways that share one reports what happens to
//! itself; and a queue that changes with every event is no load for a storage over the network. The
//! folder is named after the machine and the configuration, so that gateways that share the directory
//! have one each. A lock keeps a second process, such as one that is stopping, from writing to it.
//!
//! If it cannot be used, outboxes live in memory until it can.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use openssl::sha::sha256;
use serde_json::Value;
use tokio::sync::OwnedMutexGuard;

use super::journal::{self, Journal};
use super::outbox::Outbox;
use crate::lock::MutexExt as _;
use crate::printable::Printable as _;

/// The end of the name of a journal.
const SUFFIX: &str = "log";

/// The claims on outboxes, by their ids.
type Claims = HashMap<Arc<str>, Arc<tokio::sync::Mutex<()>>>;

/// The directory of all outboxes of one gateway.
pub(super) struct Spool {
    directory: PathBuf,
    /// The lock of the directory, held as long as the process lives. Whoever takes it may have to wait
    /// for the disk.
    lock: Mutex<Option<File>>,
    is_failing: AtomicBool,
    claims: Mutex<Claims>,
}

impl Spool {
    /// The spool in the hidden folder `parent` for the gateway with this host name and configuration.
    /// Nothing is written yet.
    pub(super) fn new(parent: &Path, gateway: &str, config: &Path) -> Self {
        let digest = sha256(config.as_os_str().as_encoded_bytes());
        let (first, _) = digest.split_at(4);
        let digest: String = first.iter().map(|octet| format!("{octet:02x}")).collect();
        let host: String = gateway
            .chars()
            .map(|char| match char {
                'a'..='z' | 'A'..='Z' | '0'..='9' | '-' | '_' | '.' => char,
                _ => '_',
            })
            .take(100)
            .collect();
        Self {
            directory: parent.join(format!("{host}-{digest}")),
            lock: Mutex::default(),
            is_failing: AtomicBool::new(false),
            claims: Mutex::default(),
        }
    }

    /// Waits until nobody else in this process uses the outbox with this id.
    pub(super) async fn claim(&self, id: &Arc<str>) -> OwnedMutexGuard<()> {
        let claim = {
            let mut claims = self.claims.lock_unpoisoned();
            claims.retain(|_, claim| Arc::strong_count(claim) > 1);
            Arc::clone(claims.entry(Arc::clone(id)).or_default())
        };
        claim.lock_owned().await
    }

    /// What is kept of an outbox. Blocks.
    ///
    /// # Errors
    /// If it cannot be read, or another process uses the directory.
    pub(super) fn load(&self, id: &str) -> io::Result<BTreeMap<String, Value>> {
        self.lock()?;
        journal::load(&self.path(id))
    }

    /// Begins the journal of an outbox, with all of it. Blocks.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(super) fn begin(&self, id: &str, outbox: Vec<(String, Value)>) -> io::Result<Journal> {
        self.lock()?;
        Journal::create(&self.path(id), outbox)
    }

    /// Deletes what is kept of an outbox. Blocks.
    pub(super) fn delete(&self, id: &str) {
        // If it cannot be deleted, the next start tries again.
        let _ = self.lock().and_then(|()| fs::remove_file(self.path(id)));
    }

    /// Deletes what is kept of outboxes with other ids than these, and returns how many entries were
    /// lost with it. Blocks.
    pub(super) fn retain(&self, is_wanted: impl Fn(&str) -> bool) -> usize {
        if self.lock().is_err() {
            return 0;
        }
        let entries = fs::read_dir(&self.directory);
        let mut lost = 0;
        for entry in entries.into_iter().flatten().flatten() {
            let path = entry.path();
            let is_journal = path.extension().is_some_and(|suffix| suffix == SUFFIX);
            let id = path.file_stem().and_then(|stem| stem.to_str());
            if is_journal && id.is_some_and(|id| !is_wanted(id)) {
                let mut outbox = Outbox::default();
                outbox.restore(journal::load(&path).unwrap_or_default());
                lost += outbox.depth();
                let _ = fs::remove_file(&path);
            }
        }
        lost
    }

    /// Records whether the directory could be used. Says so once if that has changed.
    pub(super) fn record(&self, result: &io::Result<()>) {
        let was_failing = self.is_failing.swap(result.is_err(), Ordering::Relaxed);
        match result {
            Ok(()) if was_failing => {
                tracing::info!(
                    directory = %self.directory.printable(),
                    "notifications are kept in their directory again"
                );
            }
            Err(error) if !was_failing => {
                tracing::error!(
                    directory = %self.directory.printable(),
                    %error,
                    "notifications cannot be kept in their directory: until they can, those that \
                     wait are lost if this process ends"
                );
            }
            Ok(()) | Err(_) => {}
        }
    }

    fn path(&self, id: &str) -> PathBuf {
        self.directory.join(id).with_extension(SUFFIX)
    }

    /// Takes the lock of the directory, which is created if need be.
    fn lock(&self) -> io::Result<()> {
        let mut lock = self.lock.lock_unpoisoned();
        if lock.is_some() {
            return Ok(());
        }
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700);
        builder.create(&self.directory)?;
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(self.directory.join("lock"))?;
        file.try_lock().map_err(|error| match error {
            fs::TryLockError::WouldBlock => {
                io::Error::other("another process of the same configuration uses it")
            }
            fs::TryLockError::Error(error) => error,
        })?;
        *lock = Some(file);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn one_process_at_a_time_uses_a_directory() {
        let parent = tempfile::tempdir().expect("a directory");
        let open = |config: &str| Spool::new(parent.path(), "gate way", Path::new(config));
        let first = open("/a.yaml");
        let kept = vec![("o".to_owned(), json!(1))];
        first.begin("id", kept).expect("a journal");
        let second = open("/a.yaml");
        let error = second.load("id").expect_err("in use").to_string();
        assert!(error.contains("another process"), "{error}");
        assert!(open("/b.yaml").load("id").expect("its own").is_empty());
        drop(first);
        assert_eq!(second.load("id").expect("free").len(), 1);
        assert_eq!(second.retain(|id| id == "id"), 0);
        assert_eq!(second.load("id").expect("kept").len(), 1);
        second.delete("id");
        assert!(second.load("id").expect("gone").is_empty());
    }
}
