//! The door through which one at a time gives or takes over a lease; it also counts the tokens.
//!
//! It is a file with a lock of the system on it, held for some calls to the file system that wait
//! for no disk. The system opens it when its holder dies.

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

/// How long others are waited for, which takes that long only where one has been stopped here.
const PATIENCE: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(1);

/// How many tokens there are in a second of the clock.
const TOKENS: u64 = 1_000_000;

/// Nobody else is inside while it is there.
pub(super) struct Guard(File);

impl Guard {
    /// Enters the directory `part`, `None` where another does not come out.
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

    /// A token above all before it. Should the file be lost, the clock sees to that.
    pub(super) fn next_token(&self) -> io::Result<u64> {
        let mut text = String::new();
        (&self.0).take(32).read_to_string(&mut text)?;
        let last = text.trim().parse().unwrap_or(0_u64);
        let now = u64::try_from(SystemClock.now()).unwrap_or_default();
        let token = last.saturating_add(1).max(now.saturating_mul(TOKENS));
        self.0
            .write_all_at(format!("{token:020}\n").as_bytes(), 0)?;
        Ok(token)
    }
}
