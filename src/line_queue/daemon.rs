//! Sends records to a daemon: syslog, or systemd's journal.

use std::io::{self, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::frame::{self, Frame};
use super::journal::Journal;
use super::syslog::Header;
use super::transport::Transport;
use crate::config::model::Syslog;
use crate::printable::beginning;

/// How many octets are written to a connection at once.
const PART: usize = 64 << 10;

/// How long a connection may take for that much.
const PART_TIME: Duration = Duration::from_secs(30);

/// How much is sent of a message that is too long for a datagram: what any receiver accepts.
const SHORT: usize = 2048;

/// A daemon that records are sent to.
pub(super) struct Daemon {
    kind: Kind,
    /// What is sent at once, and where in it each message ends.
    part: Vec<u8>,
    ends: Vec<usize>,
}

enum Kind {
    Journal(Journal),
    Syslog {
        syslog: Syslog,
        transport: Transport,
        header: Header,
    },
}

impl Daemon {
    pub(super) fn journal(socket: &Path) -> Self {
        Self::new(Kind::Journal(Journal::at(socket)))
    }

    /// A receiver of syslog messages, which need not be there.
    ///
    /// # Errors
    /// If its roots cannot be loaded.
    pub(super) fn syslog(syslog: &Syslog) -> io::Result<Self> {
        Ok(Self::new(Kind::Syslog {
            transport: Transport::new(syslog)?,
            header: Header::new(syslog.facility, "-"),
            syslog: syslog.clone(),
        }))
    }

    fn new(kind: Kind) -> Self {
        Self {
            kind,
            part: Vec::new(),
            ends: Vec::new(),
        }
    }

    /// Names the kind of messages.
    pub(super) fn with_kind(mut self, name: &str) -> Self {
        match &mut self.kind {
            Kind::Syslog { header, syslog, .. } => *header = Header::new(syslog.facility, name),
            Kind::Journal(journal) => journal.set_kind(name),
        }
        self
    }

    /// Sends the first records, and takes from `records` those that were sent. Those that the daemon
    /// never accepts count as sent.
    pub(super) fn send_some(&mut self, records: &mut &[u8]) -> io::Result<()> {
        self.part.clear();
        self.ends.clear();
        let is_stream =
            matches!(&self.kind, Kind::Syslog { transport, .. } if transport.is_stream());
        let mut rest = *records;
        let mut sent = Vec::new();
        while let Some((frame, after)) = frame::split_first(rest) {
            self.append(frame, is_stream);
            self.ends.push(self.part.len());
            sent.push(after);
            rest = after;
            if !is_stream || self.part.len() >= PART {
                break;
            }
        }
        let outcome = self.send_part();
        let (count, outcome) = match outcome {
            Ok(()) => (self.ends.len(), Ok(())),
            Err((octets, error)) => {
                let whole = self.ends.iter().filter(|end| **end <= octets).count();
                self.disconnect();
                (whole, Err(error))
            }
        };
        if let Some(after) = count.checked_sub(1).and_then(|last| sent.get(last)) {
            *records = after;
        }
        outcome
    }

    /// Gives up a connection that is closed.
    pub(super) fn check(&mut self) {
        if let Kind::Syslog { transport, .. } = &mut self.kind {
            transport.check();
        }
    }

    fn append(&mut self, frame: Frame<'_>, is_stream: bool) {
        match &self.kind {
            Kind::Journal(journal) => journal.write_entry(frame, &mut self.part),
            Kind::Syslog { header, .. } if is_stream => {
                let mut message = Vec::with_capacity(frame.record.len() + 128);
                header.write(frame, &mut message);
                // Writing to a vector does not fail.
                _ = write!(self.part, "{} ", message.len());
                self.part.extend_from_slice(&message);
            }
            Kind::Syslog { header, .. } => header.write(frame, &mut self.part),
        }
    }

    /// Sends what is to be sent at once, or says how many octets were.
    fn send_part(&mut self) -> Result<(), (usize, io::Error)> {
        match &mut self.kind {
            Kind::Journal(journal) => journal.send(&self.part).map_err(|error| (0, error)),
            Kind::Syslog { transport, .. } => {
                let (mut done, until) = (0, Instant::now() + PART_TIME);
                while let Some(left) = self.part.get(done..).filter(|left| !left.is_empty()) {
                    match transport.send(left) {
                        Ok(count) => {
                            done += count;
                            // A receiver that accepts octet by octet would never be given up.
                            if done < self.part.len() && Instant::now() >= until {
                                return Err((done, io::ErrorKind::TimedOut.into()));
                            }
                        }
                        Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                        Err(error) if error.raw_os_error() == Some(Errno::EMSGSIZE as i32) => {
                            // Nothing of this size is ever accepted.
                            return transport
                                .send(beginning(left, SHORT))
                                .map(drop)
                                .map_err(|error| (0, error));
                        }
                        Err(error) => return Err((done, error)),
                    }
                }
                Ok(())
            }
        }
    }

    fn disconnect(&mut self) {
        match &mut self.kind {
            Kind::Journal(journal) => journal.disconnect(),
            Kind::Syslog { transport, .. } => transport.disconnect(),
        }
    }
}
