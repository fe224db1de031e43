//! The thread that writes, and its messages if it cannot.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::daemon::Daemon;
use super::stream::Stream;
use super::{Batch, Loss, Out, Setup, Shared, Target, buffer, frame};

/// How often reopening a file is retried.
const REOPEN: Duration = Duration::from_secs(5);

/// How long no further losses are logged, unless the log could not be written at all.
const QUIET: Duration = Duration::from_secs(10);

/// How full a buffer may have been to be reused; the memory of larger ones is released.
const SPARE: usize = 256 << 10;

/// How long a daemon that cannot be reached is left alone: at first, and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

pub(super) struct Writer {
    shared: Arc<Shared>,
    name: &'static str,
    out: Sink,
    /// When to retry reopening the file.
    reopen: Option<Instant>,
    /// Lines cannot be written, or not to the requested file, and that has been logged.
    is_failing: bool,
    /// When losses may be logged again.
    quiet_until: Option<Instant>,
    /// Some losses have not been logged yet.
    is_losing: bool,
}

enum Sink {
    Stream(Stream),
    Daemon(Daemon),
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, setup: Setup, out: Out) -> Self {
        let out = match out {
            Out::File(file) => {
                let path = match setup.target {
                    Target::File(path) => Some(path),
                    _ => None,
                };
                Sink::Stream(Stream::new(file, path, setup.rotate))
            }
            Out::Daemon(daemon) => Sink::Daemon(daemon.with_kind(setup.thread)),
        };
        Self {
            shared,
            name: setup.name,
            out,
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
        let Sink::Stream(stream) = &mut self.out else {
            return Ok(());
        };
        let outcome = stream.reopen();
        if outcome.is_err() {
            self.reopen = Some(Instant::now() + REOPEN);
        }
        outcome
    }

    /// Writes lines, or counts those that could not be written.
    fn write(&mut self, lines: &[u8], lost: &mut Loss) -> io::Result<()> {
        let stream = match &mut self.out {
            Sink::Stream(stream) => stream,
            Sink::Daemon(_) => {
                self.send(lines, lost);
                return Ok(());
            }
        };
        let may_rotate = self.shared.rotates.load(Ordering::Relaxed);
        let outcome = stream.write(lines, may_rotate, lost);
        if let Some(error) = stream.take_fault() {
            let name = self.name;
            tracing::error!(
                %error,
                "{name} cannot be rotated or replaced: lines go to the file that is open until it \
                 can; check its directory"
            );
        }
        outcome
    }

    /// Sends records to a daemon, however long it takes: those that follow wait meanwhile, as many
    /// as there is room for. Once nobody needs this log, what cannot be sent is lost.
    fn send(&mut self, records: &[u8], lost: &mut Loss) {
        let Sink::Daemon(daemon) = &mut self.out else {
            return;
        };
        daemon.check();
        let (name, mut rest, mut pause) = (self.name, records, FIRST_PAUSE);
        while !rest.is_empty() {
            let before = rest.len();
            let outcome = daemon.send_some(&mut rest);
            match outcome {
                Ok(()) if rest.len() == before => {
                    // There is no whole record: that never happens.
                    return;
                }
                Ok(()) => {
                    pause = FIRST_PAUSE;
                    if std::mem::take(&mut self.is_failing) {
                        tracing::info!("{name} can be sent again");
                    }
                }
                Err(error) => {
                    if !std::mem::replace(&mut self.is_failing, true) {
                        tracing::error!(
                            %error,
                            "{name} cannot be sent: lines wait for the daemon, and are lost if there \
                             are too many"
                        );
                    }
                    if self.shared.wait_closed(pause) {
                        lost.add(frame::count(rest), rest.len());
                        return;
                    }
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
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
