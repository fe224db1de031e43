//! Leases in files, which end at once when their process ends, and after a while when it is stuck.
//!
//! `.locks` holds, named by digests so that any key can be locked:
//!
//! | path | what |
//! |---|---|
//! | `XX` | one of 256 parts, by the first digits of the key's digest, so that leases of different keys seldom wait for one another |
//! | `XX/guard` | locked by the system for the moment in which a lease is given; holds the last token |
//! | `XX/KEY.TOKEN` | a lease: a directory, from which its holder renames what it stores under the lease |
//! | `XX/KEY.TOKEN/holder` | locked by the system as long as the holder lives; holds its heartbeat |
//!
//! A lease is over when its directory is gone: nothing can be renamed from there any more, however
//! late its holder wakes up. Whoever takes over removes the directory first. It may do so when the
//! holder's lock is free, or when it has itself seen the same heartbeat for as long as a lease lasts:
//! no clocks are compared. Nothing of this need outlive a power failure, so nothing is synced.

mod guard;

use std::collections::HashMap;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, Once, Weak};
use std::thread;
use std::time::{Duration, Instant};

use openssl::sha::sha256;

use self::guard::Guard;
use super::{DIRECTORY_MODE, FILE_MODE, Key, StorageError, io_failure, write};

use crate::lock::MutexExt;
use crate::printable::Printable as _;

const HOLDER: &str = "holder";

/// How many times the removal of a directory that somebody works in is repeated.
const ATTEMPTS: u32 = 100;

/// How many keys held by others are remembered before old ones are dropped.
const MANY_SIGHTS: usize = 1024;

/// How leases are kept alive, and when they are lost.
#[derive(Clone, Copy, Debug)]
pub struct LeaseTerms {
    /// How long a holder may be without a heartbeat before it loses its lease.
    pub lasts: Duration,
    /// The time between two heartbeats; several of them fit in `lasts`.
    pub heartbeat: Duration,
}

impl Default for LeaseTerms {
    fn default() -> Self {
        Self {
            lasts: Duration::from_secs(30),
            heartbeat: Duration::from_secs(5),
        }
    }
}

/// The leases of a storage.
#[derive(Debug)]
pub(super) struct Locks {
    directory: PathBuf,
    terms: LeaseTerms,
    swept: Once,
    /// What this handle holds, for the heartbeats.
    held: Mutex<Vec<Weak<Life>>>,
    /// Ends the thread of the heartbeats when dropped.
    beating: Mutex<Option<mpsc::Sender<()>>>,
    /// When another holder's heartbeat was first seen, by the directory of its lease.
    seen: Mutex<HashMap<PathBuf, Sight>>,
}

#[derive(Debug)]
struct Sight {
    beat: Vec<u8>,
    since: Instant,
}

/// A lease that this process has taken; it is given back when dropped.
pub(super) struct Taken {
    locks: Arc<Locks>,
    token: u64,
    directory: PathBuf,
    /// `Some` until dropped.
    life: Option<Arc<Life>>,
}

/// What shows that a holder is alive.
#[derive(Debug)]
struct Life {
    /// Locked as long as it is open.
    file: File,
    beat: AtomicU64,
}

impl Locks {
    pub(super) fn new(directory: PathBuf, terms: LeaseTerms) -> Self {
        Self {
            directory,
            terms,
            swept: Once::new(),
            held: Mutex::default(),
            beating: Mutex::default(),
            seen: Mutex::default(),
        }
    }

    /// Takes the lease of `key`; `None` if another has it.
    pub(super) fn take_lease(self: &Arc<Self>, key: &Key) -> Result<Option<Taken>, StorageError> {
        self.make_directory()
            .map_err(|error| io_failure("create", &self.directory, error))?;
        self.swept.call_once(|| self.remove_stale());
        self.beat_from_now_on()
            .map_err(|error| io_failure("start the heartbeat of", &self.directory, error))?;
        let name = name(key);
        let part = self.part(&name);
        self.take_lease_in(&part, &name, key)
            .map_err(|error| io_failure("lock a key in", &part, error))
    }

    fn take_lease_in(
        self: &Arc<Self>,
        part: &Path,
        name: &str,
        key: &Key,
    ) -> io::Result<Option<Taken>> {
        write::create_directory(part)?;
        let Some(guard) = Guard::enter(part)? else {
            return Ok(None);
        };
        if self.is_taken(part, name)? {
            return Ok(None);
        }
        let token = guard.next_token()?;
        let directory = part.join(format!("{name}.{token}"));
        let held =
            write::create_directory(&directory).and_then(|()| create_lease_file(&directory, key));
        // The disk may be full, for instance. What cannot be removed now will be by the next
        // process.
        let file = held.inspect_err(|_| drop(remove_lease_file(&directory)))?;
        let life = Arc::new(Life {
            file,
            beat: AtomicU64::new(0),
        });
        self.held.lock_unpoisoned().push(Arc::downgrade(&life));
        Ok(Some(Taken {
            locks: Arc::clone(self),
            token,
            directory,
            life: Some(life),
        }))
    }

    /// Returns true if somebody holds a lease in `part` whose name begins with `name`. Removes
    /// those that nobody holds any more. Must be called under the guard.
    fn is_taken(&self, part: &Path, name: &str) -> io::Result<bool> {
        let mut is_taken = false;
        for entry in fs::read_dir(part)? {
            let entry = entry?;
            let file_name = entry.file_name();
            let is_asked = file_name
                .to_str()
                .is_some_and(|other| other.starts_with(name));
            let lease = entry.path();
            if !is_asked || lease.ends_with(guard::FILE) {
                continue;
            }
            if self.is_alive(&lease)? {
                is_taken = true;
            } else {
                remove_lease_file(&lease)?;
                self.seen.lock_unpoisoned().remove(&lease);
            }
        }
        Ok(is_taken)
    }

    /// Returns true if the holder of `lease` is alive and has shown so in time.
    fn is_alive(&self, lease: &Path) -> io::Result<bool> {
        let mut file = match File::open(lease.join(HOLDER)) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        match file.try_lock() {
            Ok(()) => return Ok(false),
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => return Err(error),
        }
        let mut beat = Vec::new();
        file.read_to_end(&mut beat)?;
        let mut seen = self.seen.lock_unpoisoned();
        if let Some(sight) = seen.get(lease)
            && sight.beat == beat
        {
            return Ok(sight.since.elapsed() < self.terms.lasts);
        }
        if seen.len() >= MANY_SIGHTS {
            let old = self.terms.lasts * 10;
            seen.retain(|_, sight| sight.since.elapsed() < old);
        }
        let since = Instant::now();
        seen.insert(lease.to_owned(), Sight { beat, since });
        Ok(true)
    }

    fn part(&self, name: &str) -> PathBuf {
        self.directory.join(name.get(..2).unwrap_or_default())
    }

    fn make_directory(&self) -> io::Result<()> {
        DirBuilder::new()
            .recursive(true)
            .mode(DIRECTORY_MODE)
            .create(&self.directory)
    }

    /// Removes leases of killed holders, which nobody may ask for any more. Failures are left to
    /// the next process.
    fn remove_stale(&self) {
        for part in fs::read_dir(&self.directory)
            .into_iter()
            .flatten()
            .flatten()
        {
            let part = part.path();
            if let Ok(Some(_guard)) = Guard::enter(&part) {
                let _ = self.is_taken(&part, "");
            }
        }
    }

    /// Starts the heartbeat thread if it is not running. It ends with `self`.
    fn beat_from_now_on(self: &Arc<Self>) -> io::Result<()> {
        let mut beating = self.beating.lock_unpoisoned();
        if beating.is_none() {
            let (sender, ended) = mpsc::channel();
            let (locks, pause) = (Arc::downgrade(self), self.terms.heartbeat);
            thread::Builder::new()
                .name("storage-leases".into())
                .spawn(move || {
                    while ended.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
                        let Some(locks) = locks.upgrade() else { return };
                        locks.beat();
                    }
                })?;
            *beating = Some(sender);
        }
        Ok(())
    }

    fn beat(&self) {
        let held: Vec<Arc<Life>> = {
            let mut held = self.held.lock_unpoisoned();
            held.retain(|life| life.strong_count() > 0);
            held.iter().filter_map(Weak::upgrade).collect()
        };
        for life in held {
            if let Err(error) = life.beat() {
                tracing::warn!(
                    path = %self.directory.printable(),
                    %error,
                    "cannot write the heartbeat of a lock: another process may take over"
                );
            }
        }
    }
}

impl Taken {
    pub(super) fn token(&self) -> u64 {
        self.token
    }

    pub(super) fn is_held(&self) -> bool {
        self.directory.is_dir()
    }

    /// Files can be renamed from here as long as the lease is held.
    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Runs `work` while nobody can take over; `None` if another process has.
    pub(super) fn while_held<T>(&self, work: impl FnOnce() -> T) -> io::Result<Option<T>> {
        let part = self.directory.parent().unwrap_or(&self.locks.directory);
        let Some(_guard) = Guard::enter(part)? else {
            return Err(ErrorKind::TimedOut.into());
        };
        Ok(self.is_held().then(work))
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        // Closed first, because NFS keeps a file that is open when removed. What cannot be removed
        // is cleaned up by the next process, which finds no live holder.
        self.life = None;
        let _ = remove_lease_file(&self.directory);
    }
}

impl Life {
    fn beat(&self) -> io::Result<()> {
        let beat = self.beat.fetch_add(1, Ordering::Relaxed) + 1;
        self.file.write_all_at(line(beat).as_bytes(), 0)
    }
}

/// Creates the file that shows that the lease in `directory` is alive, as long as it is open.
fn create_lease_file(directory: &Path, key: &Key) -> io::Result<File> {
    let file = OpenOptions::new()
        .create_new(true)
        .read(true)
        .write(true)
        .mode(FILE_MODE)
        .open(directory.join(HOLDER))?;
    file.try_lock().map_err(io::Error::from)?;
    // For people, after the heartbeat.
    let text = format!("{}process {} holds {key}\n", line(0), process::id());
    file.write_all_at(text.as_bytes(), 0)?;
    Ok(file)
}

/// A heartbeat; all have the same length.
fn line(beat: u64) -> String {
    format!("{beat:020}\n")
}

/// Removes the directory of a lease, although its holder may be creating files in it.
fn remove_lease_file(lease: &Path) -> io::Result<()> {
    let mut removed = Ok(());
    for _ in 0..ATTEMPTS {
        removed = fs::remove_dir_all(lease);
        match &removed {
            Ok(()) => break,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                // The error may concern only something in it.
                if !lease.exists() {
                    return Ok(());
                }
            }
            Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => {}
            Err(_) => break,
        }
    }
    removed
}

/// The name of `key` in the directory of locks.
fn name(key: &Key) -> String {
    let hash = sha256(key.as_str().as_bytes());
    hash.iter()
        .take(16)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
