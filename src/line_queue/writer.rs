//! The thread that writes, and its messages if it cannot.

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::{Batch, Loss, Setup, Shared, Target, buffer};

/// How often reopening a file is retried.
const REOPEN: Duration = Duration::from_secs(5);

/// How long no further losses are logged, unless the log could not be written at all.
const QUIET: Duration = Duration::from_secs(10);

/// The pause while a non-blocking stream has no room.
const PAUSE: Duration = Duration::from_millis(10);

/// How much is written at once to a stream that others may write to: as much as a pipe accepts as a
/// whole.
const WHOLE: usize = 4096;

/// How full a buffer may have been to be reused; the memory of larger ones is released.
const SPARE: usize = 256 << 10;

pub(super) struct Writer {
    shared: Arc<Shared>,
    name: &'static str,
    target: Target,
    out: File,
    /// The last write ended in the middle of a line.
    is_torn: bool,
    /// When to retry reopening the file.
    reopen: Option<Instant>,
    /// Lines cannot be written, or not to the requested file, and that has been logged.
    is_failing: bool,
    /// When losses may be logged again.
    quiet_until: Option<Instant>,
    /// Some losses have not been logged yet.
    is_losing: bool,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, setup: Setup, out: File) -> Self {
        Self {
            shared,
            name: setup.name,
            target: setup.target,
            out,
            is_torn: false,
            reopen: None,
            is_failing: false,
            quiet_until: None,
            is_losing: false,
        }
    }

    /// Writes until every handle is gone.
    pub(super) fn run(mut self) {
        let mut spare = buffer(self.shared.capacity);
        while let Some(batch) = self.shared.take_batch(spare, self.next_duty()) {
            let wrote = !batch.lines.is_empty();
            let mut lost = Loss::default();
            let outcome = self.carry_out(&batch, &mut lost);
            let loss = self.shared.finish(batch.last, lost);
            self.report(outcome, wrote, loss);
            spare = batch.lines;
            if spare.len() > SPARE {
                spare = buffer(self.shared.capacity);
            }
            spare.clear();
        }
    }

    /// How long to wait for lines before there is something else to do.
    fn next_duty(&self) -> Option<Duration> {
        let losses = self
            .quiet_until
            .filter(|_| self.is_losing && !self.is_failing);
        let next = [self.reopen, losses].into_iter().flatten().min()?;
        Some(next.saturating_duration_since(Instant::now()))
    }

    /// Writes a batch, and reopens the file if that is requested or overdue. Returns the first
    /// failure, after everything was tried.
    fn carry_out(&mut self, batch: &Batch, lost: &mut Loss) -> io::Result<()> {
        let (before, after) = batch
            .reopen
            .and_then(|at| batch.lines.split_at_checked(at))
            .unwrap_or((&[], &batch.lines));
        let is_due = batch.reopen.is_some() || self.reopen.is_some_and(|at| at <= Instant::now());
        let first = self.write(before, lost);
        let opened = if is_due { self.open_anew() } else { Ok(()) };
        let second = self.write(after, lost);
        first.and(opened).and(second)
    }

    fn open_anew(&mut self) -> io::Result<()> {
        self.reopen = None;
        if !matches!(self.target, Target::File(_)) {
            return Ok(());
        }
        match self.target.open() {
            Ok(file) => {
                self.out = file;
                self.is_torn = false;
                Ok(())
            }
            Err(error) => {
                self.reopen = Some(Instant::now() + REOPEN);
                Err(error)
            }
        }
    }

    /// Writes lines, or counts those that could not be written completely.
    fn write(&mut self, lines: &[u8], lost: &mut Loss) -> io::Result<()> {
        let mut rest = lines;
        let outcome = self.write_all(&mut rest);
        if outcome.is_err() {
            let count = memchr::memchr_iter(b'\n', rest).count();
            lost.add(count as u64, rest.len());
        }
        outcome
    }

    /// Writes `rest`, and leaves what could not be written.
    fn write_all(&mut self, rest: &mut &[u8]) -> io::Result<()> {
        while !rest.is_empty() {
            if self.is_torn {
                // A truncated line stays a line of its own.
                self.write_some(b"\n")?;
                self.is_torn = false;
            }
            let piece = self.piece(rest);
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

    /// What to write at once: everything, or for a shared stream as many whole lines as are not
    /// mixed with those of others.
    fn piece<'l>(&self, lines: &'l [u8]) -> &'l [u8] {
        if matches!(self.target, Target::File(_)) || lines.len() <= WHOLE {
            return lines;
        }
        let (first, others) = lines.split_at_checked(WHOLE).unwrap_or((lines, &[]));
        let end = match memchr::memrchr(b'\n', first) {
            Some(end) => end + 1,
            None => memchr::memchr(b'\n', others).map_or(lines.len(), |end| WHOLE + end + 1),
        };
        lines.get(..end).unwrap_or(lines)
    }

    fn write_some(&mut self, octets: &[u8]) -> io::Result<usize> {
        loop {
            match self.out.write(octets) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(PAUSE),
                outcome => return outcome,
            }
        }
    }

    /// Logs once that lines are lost, and once that they are written again. A stream that was only
    /// too slow is logged afterwards.
    fn report(&mut self, outcome: io::Result<()>, wrote: bool, loss: Loss) {
        let name = self.name;
        self.is_losing = loss != Loss::default();
        match outcome {
            Err(_) if self.is_failing => {}
            Err(error) if self.reopen.is_some() => {
                self.is_failing = true;
                tracing::error!(
                    %error,
                    "{name} cannot be reopened: lines go to the old file until it can; check its \
                     directory"
                );
            }
            Err(error) => {
                self.is_failing = true;
                tracing::error!(%error, "{name} cannot be written: lines are lost");
            }
            Ok(()) if self.is_failing => {
                // Only a write to the requested file proves that it can be written.
                if wrote && self.reopen.is_none() {
                    self.is_failing = false;
                    self.log_loss(loss);
                    tracing::info!(
                        lost_lines = loss.lines,
                        lost_octets = loss.octets,
                        "{name} can be written again"
                    );
                }
            }
            Ok(())
                if self.is_losing
                    && self.quiet_until.is_none_or(|until| until <= Instant::now()) =>
            {
                self.log_loss(loss);
                tracing::warn!(
                    lost_lines = loss.lines,
                    lost_octets = loss.octets,
                    "lines of {name} were lost: it was written too slowly"
                );
            }
            Ok(()) => {}
        }
    }

    /// Logs this loss.
    fn log_loss(&mut self, loss: Loss) {
        self.shared.forget_loss(loss);
        self.is_losing = false;
        self.quiet_until = Some(Instant::now() + QUIET);
    }
}

/// Returns true if the written part of `piece`, before `left`, ends with a line.
fn ends_line(piece: &[u8], left: &[u8]) -> bool {
    let written = piece.len() - left.len();
    written.checked_sub(1).and_then(|last| piece.get(last)) == Some(&b'\n')
}
