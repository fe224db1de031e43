//! Writes lines to a file or a stream, never mixing them with those of others, and rotates the file.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Weak};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::OFlags;

use super::Loss;
use crate::config::model::Rotate;
use crate::lock::MutexExt as _;

/// The pause while a non-blocking stream has no room.
const PAUSE: Duration = Duration::from_millis(10);

/// How much is written at once to a stream that other programs may write to: as much as a pipe accepts
/// as a whole.
const WHOLE: usize = 4096;

/// How often it is checked whether the file is still there.
const CHECK: Duration = Duration::from_secs(1);

/// How long a rotation that has failed is not tried again.
const RETRY: Duration = Duration::from_secs(5);

/// The mode of a file that is made: lines are about people, and no business of all users.
const MODE: u32 = 0o640;

/// Opens a file to append to. A pipe that nobody reads fails at once instead of waiting for a reader.
pub(super) fn append(path: &Path) -> io::Result<File> {
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    let mut options = OpenOptions::new();
    options.create(true).append(true).mode(MODE);
    options.custom_flags(flags.bits().cast_signed()).open(path)
}

/// A file or a stream that lines are written to.
pub(super) struct Stream {
    out: File,
    /// Of a file.
    path: Option<PathBuf>,
    rotate: Option<Rotate>,
    /// The size of the file, if it is rotated.
    size: u64,
    /// Whether it is a file, and no pipe or device that the path leads to.
    is_file: bool,
    /// Held by whoever writes to a stream that several logs may write to.
    turn: Option<Arc<Mutex<()>>>,
    /// The last write ended in the middle of a line.
    is_torn: bool,
    /// When to check the file again, or to try to rotate it again.
    next_check: Instant,
    next_rotation: Instant,
    /// Why the file could not be opened anew, if that has not been reported.
    fault: Option<io::Error>,
    is_faulty: bool,
}

impl Stream {
    pub(super) fn new(out: File, path: Option<PathBuf>, rotate: Option<Rotate>) -> Self {
        let now = Instant::now();
        let mut stream = Self {
            rotate: rotate.filter(|_| path.is_some()),
            turn: path.is_none().then(|| turn_at(&out)),
            out,
            path,
            size: 0,
            is_file: false,
            is_torn: false,
            next_check: now + CHECK,
            next_rotation: now,
            fault: None,
            is_faulty: false,
        };
        stream.measure();
        stream
    }

    /// Opens the file again, if it is one.
    pub(super) fn reopen(&mut self) -> io::Result<()> {
        if let Some(path) = &self.path {
            self.out = append(path)?;
            self.is_torn = false;
            self.is_faulty = false;
            self.measure();
        }
        Ok(())
    }

    /// Why the file could not be rotated or replaced, once for each time that it cannot.
    pub(super) fn take_fault(&mut self) -> Option<io::Error> {
        self.fault.take()
    }

    /// Writes lines, or counts those that could not be written completely. `may_rotate` says whether
    /// the file may be rotated.
    pub(super) fn write(
        &mut self,
        lines: &[u8],
        may_rotate: bool,
        lost: &mut Loss,
    ) -> io::Result<()> {
        if lines.is_empty() {
            return Ok(());
        }
        self.find_removed();
        let mut rest = lines;
        let outcome = self.write_all(&mut rest, may_rotate);
        if !rest.is_empty() {
            let count = memchr::memchr_iter(b'\n', rest).count();
            lost.add(count as u64, rest.len());
        }
        outcome
    }

    /// Opens the file again if it was removed: what is written to it would be lost.
    fn find_removed(&mut self) {
        let now = Instant::now();
        if self.path.is_none() || now < self.next_check {
            return;
        }
        self.next_check = now + CHECK;
        let is_removed = |data: fs::Metadata| data.nlink() == 0 && data.is_file();
        if self.out.metadata().is_ok_and(is_removed) {
            let outcome = self.reopen();
            self.note_fault(outcome);
        }
    }

    fn note_fault(&mut self, outcome: io::Result<()>) {
        if let Err(error) = outcome
            && !std::mem::replace(&mut self.is_faulty, true)
        {
            self.fault = Some(error);
        }
    }

    /// Writes `rest`, and leaves what could not be written.
    fn write_all(&mut self, rest: &mut &[u8], may_rotate: bool) -> io::Result<()> {
        while !rest.is_empty() {
            if may_rotate {
                self.rotate_if_full(rest);
            }
            if self.is_torn {
                // A truncated line stays a line of its own.
                self.write_some(b"\n")?;
                self.is_torn = false;
            }
            let piece = self.piece(rest, may_rotate);
            let turn = self.turn.clone();
            let _turn = turn.as_ref().map(|turn| turn.lock_unpoisoned());
            let mut left = piece;
            while !left.is_empty() {
                let written = self.write_some(left);
                let Ok(count) = written else {
                    self.is_torn = left.len() < piece.len() && !ends_line(piece, left);
                    *rest = rest.get(piece.len() - left.len()..).unwrap_or_default();
                    return written.map(drop);
                };
                left = left.get(count..).unwrap_or_default();
            }
            *rest = rest.get(piece.len()..).unwrap_or_default();
        }
        Ok(())
    }

    /// What to write at once: everything, or as many whole lines as fit into the file, or for a
    /// shared stream as many as are not mixed with those of others.
    fn piece<'l>(&self, lines: &'l [u8], may_rotate: bool) -> &'l [u8] {
        let most = match (&self.path, self.rotate) {
            (Some(_), Some(rotate))
                if may_rotate && self.is_file && Instant::now() >= self.next_rotation =>
            {
                usize::try_from(rotate.size.saturating_sub(self.size)).unwrap_or(usize::MAX)
            }
            (Some(_), _) => return lines,
            (None, _) => WHOLE,
        };
        if lines.len() <= most {
            return lines;
        }
        let (first, others) = lines.split_at_checked(most).unwrap_or((lines, &[]));
        let end = match memchr::memrchr(b'\n', first) {
            Some(end) => end + 1,
            None => memchr::memchr(b'\n', others).map_or(lines.len(), |end| most + end + 1),
        };
        lines.get(..end).unwrap_or(lines)
    }

    fn write_some(&mut self, octets: &[u8]) -> io::Result<usize> {
        loop {
            match self.out.write(octets) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => {
                    self.size = self.size.saturating_add(count as u64);
                    return Ok(count);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(PAUSE),
                Err(error) => return Err(error),
            }
        }
    }

    /// Rotates the file if the first of `lines` does not fit into it. If that fails, the file grows
    /// until it can be rotated.
    fn rotate_if_full(&mut self, lines: &[u8]) {
        let (Some(path), Some(rotate)) = (&self.path, self.rotate) else {
            return;
        };
        let first = memchr::memchr(b'\n', lines).map_or(lines.len(), |end| end + 1);
        let full = self.size.saturating_add(first as u64) > rotate.size;
        if !self.is_file || self.size == 0 || !full || Instant::now() < self.next_rotation {
            return;
        }
        let renamed = match self.is_ours(path) {
            // A link leads to the next file too.
            true => fs::canonicalize(path).and_then(|path| shift_files(&path, rotate.keep)),
            // Others have rotated or removed it.
            false => Ok(()),
        };
        let outcome = renamed.and_then(|()| self.reopen());
        if outcome.is_err() {
            self.next_rotation = Instant::now() + RETRY;
        }
        self.note_fault(outcome);
    }

    /// Whether the file at the path is the one that is written.
    fn is_ours(&self, path: &Path) -> bool {
        match (fs::metadata(path), self.out.metadata()) {
            (Ok(there), Ok(here)) => (there.dev(), there.ino()) == (here.dev(), here.ino()),
            _ => false,
        }
    }

    fn measure(&mut self) {
        let data = self.rotate.and_then(|_| self.out.metadata().ok());
        self.is_file = data.as_ref().is_some_and(fs::Metadata::is_file);
        self.size = data.map_or(0, |data| data.len());
    }
}

/// What all that write to this stream have in common, under whichever name.
fn turn_at(stream: &File) -> Arc<Mutex<()>> {
    /// By device and inode.
    type Known = Vec<((u64, u64), Weak<Mutex<()>>)>;
    static TURNS: Mutex<Known> = Mutex::new(Vec::new());
    let place = stream
        .metadata()
        .map_or((0, 0), |data| (data.dev(), data.ino()));
    let mut turns = TURNS.lock_unpoisoned();
    turns.retain(|(_, turn)| turn.strong_count() > 0);
    let known = turns.iter().find(|(other, _)| *other == place);
    if let Some(turn) = known.and_then(|(_, turn)| turn.upgrade()) {
        return turn;
    }
    let turn = Arc::default();
    turns.push((place, Arc::downgrade(&turn)));
    turn
}

/// Renames `log` to `log.1`, that to `log.2` and so on. The last one is replaced.
fn shift_files(path: &Path, keep: u32) -> io::Result<()> {
    // Up to the first gap: nothing older needs to move.
    let gap = (1..keep).find(|number| !numbered(path, *number).exists());
    for number in (1..gap.unwrap_or(keep)).rev() {
        fs::rename(numbered(path, number), numbered(path, number + 1))?;
    }
    fs::rename(path, numbered(path, 1))
}

fn numbered(path: &Path, number: u32) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(format!(".{number}"));
    name.into()
}

/// Returns true if the written part of `piece`, before `left`, ends with a line.
fn ends_line(piece: &[u8], left: &[u8]) -> bool {
    let written = piece.len() - left.len();
    written.checked_sub(1).and_then(|last| piece.get(last)) == Some(&b'\n')
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader};
    use std::os::fd::OwnedFd;

    use super::*;

    #[test]
    fn long_lines_of_two_logs_stay_whole_in_one_stream() {
        const LINES: usize = 50;
        let (reader, writer) = io::pipe().expect("a pipe");
        let writing = ["a", "b"].map(|letter| {
            let out = File::from(OwnedFd::from(writer.try_clone().expect("a copy")));
            thread::spawn(move || {
                // Longer than the pipe.
                let line = letter.repeat(100_000) + "\n";
                let mut stream = Stream::new(out, None, None);
                for _ in 0..LINES {
                    let written = stream.write(line.as_bytes(), true, &mut Loss::default());
                    written.expect("written");
                }
            })
        });
        drop(writer);
        let mut count = 0;
        for line in BufReader::new(reader).lines() {
            let line = line.expect("a line");
            let first = line.get(..1).expect("a letter");
            assert!(line == first.repeat(100_000), "lines are mixed");
            count += 1;
        }
        assert_eq!(count, 2 * LINES);
        for thread in writing {
            thread.join().expect("no panic");
        }
    }
}
