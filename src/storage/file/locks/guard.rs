//! The guard under which one process at a time gives or takes over a lease; it also counts the
//! tokens.
//!
//! It is a file with a system lock on it, held for a few file system calls that wait for no disk.
//! The system releases it when its holder dies.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use super::FILE_MODE;
use crate::clock::{Clock, SystemClock};

/// The name of the file.
pub(super) const FILE: &str = "guard";

/// How long to wait for others, which takes that long only if one was stopped inside.
const PATIENCE: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(1);

/// How many tokens fit in one second of the clock.
const TOKENS: u64 = 1_000_000;

/// Nobody else is inside while this exists.
pub(super) struct Guard(File);

impl Guard {
    /// Enters the directory `part`; `None` if another process does not leave in time.
    pub(super) fn enter(part: &Path) -> io::Result<Option<Self>> {
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .mode(FILE_MODE)
            .open(part.join(FILE))?;
        let start = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Some(Self(file))),
                Err(TryLockError::WouldBlock) if start.elapsed() < PATIENCE => thread::sleep(PAUSE),
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
    }

    /// A token higher than all before. If the file was lost, the clock ensures that.
    pub(super) fn next_token(&self) -> io::Result<u64> {
        let mut text = String::new();
        (&self.0).take(32).read_to_string(&mut text)?;
        let last = text.trim().parse().unwrap_or(0_u64);
        let now = u64::try_from(SystemClock.now().as_secs()).unwrap_or_default();
        let token = last.saturating_add(1).max(now.saturating_mul(TOKENS));
        self.0
            .write_all_at(format!("{token:020}\n").as_bytes(), 0)?;
        Ok(token)
    }
}
