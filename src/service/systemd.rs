//! Notifies systemd of the state of the gateway, if systemd started it.
//!
//! A separate thread sends the messages, in order: a service manager that does not read holds nothing
//! up.
//!
//! systemd usually listens only to the main process of a unit. If that is a process in front of the
//! gateway, it passes the gateway's messages on.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, channel, sync_channel};
use std::thread;
use std::time::Duration;

use sd_notify::NotifyState;

use crate::printable;
use crate::pulse::Pulse;

/// The variable that says where systemd listens.
const SOCKET: &str = "NOTIFY_SOCKET";

/// How much more time a start that waits asks for in each update, in microseconds.
const MORE_TIME: u32 = 30_000_000;

/// How many messages wait at most. One that finds no room is dropped.
const QUEUE: usize = 64;

/// How long a status may be, in characters.
const LONGEST: usize = 500;

/// How long a process in front of the gateway waits at its end for the last message to be passed on.
const LAST: Duration = Duration::from_secs(1);

/// Where messages go; empty if systemd does not listen.
static MESSAGES: OnceLock<SyncSender<String>> = OnceLock::new();

/// The way to systemd through a process in front of this one; empty if there is none.
static RELAY: OnceLock<Relay> = OnceLock::new();

/// The gateway's end of the way to systemd through the process in front of it.
#[derive(Debug)]
pub struct Relay(UnixStream);

/// The other end: what passes messages on.
#[derive(Debug)]
pub struct Forwarder(UnixStream);

/// Makes both ends, for a process that is about to put itself in front of the gateway; `None` if
/// systemd does not listen.
///
/// # Errors
/// If the system has no socket for it.
pub fn relay() -> io::Result<Option<(Forwarder, Relay)>> {
    if std::env::var_os(SOCKET).is_none() {
        return Ok(None);
    }
    let (front, gateway) = UnixStream::pair()?;
    Ok(Some((Forwarder(front), Relay(gateway))))
}

impl Relay {
    /// Sends all messages of this process this way.
    pub fn install(self) {
        // There is one process in front at most.
        _ = RELAY.set(self);
    }

    fn send(&self, message: &str) -> io::Result<()> {
        // A message may have several lines, which belong together.
        (&self.0).write_all(format!("{message}\0").as_bytes())
    }
}

impl Forwarder {
    /// Passes messages on, in a separate thread, until the gateway has ended. The function that is
    /// returned waits for the last message, for a moment.
    ///
    /// # Errors
    /// If no thread can be started.
    pub fn start(self) -> io::Result<impl FnOnce()> {
        let (done, ended) = channel::<()>();
        let thread = thread::Builder::new().name("systemd".to_owned());
        thread.spawn(move || {
            let _done = done;
            for message in BufReader::new(self.0).split(0).map_while(Result::ok) {
                let message = String::from_utf8_lossy(&message);
                // There is no log here, and the next message may do better.
                _ = sd_notify::notify(&[NotifyState::Custom(&message)]);
            }
        })?;
        Ok(move || _ = ended.recv_timeout(LAST))
    }
}

/// Starts to send systemd the messages of the functions below and, if a watchdog is set, that the
/// data plane has a pulse. Does nothing if systemd does not listen.
pub fn begin(pulse: Pulse) {
    if std::env::var_os(SOCKET).is_none() {
        return;
    }
    let (sender, messages) = sync_channel(QUEUE);
    let thread = thread::Builder::new().name("systemd".to_owned());
    match thread.spawn(move || send_messages(&messages, &pulse)) {
        // If one was started before, that one continues.
        Ok(_) => _ = MESSAGES.set(sender),
        Err(error) => tracing::warn!(%error, "cannot notify systemd"),
    }
}

/// The start is over.
pub fn ready() {
    notify(&[NotifyState::Ready, NotifyState::Status("serving")]);
}

/// The stop has begun.
pub(super) fn stopping() {
    notify(&[NotifyState::Stopping, NotifyState::Status("stopping")]);
}

/// A reload was applied, or refused for this reason.
pub fn reloaded(refused: Option<String>) {
    let status = match refused {
        None => "serving".to_owned(),
        Some(why) => format!("serving the old configuration, the new one was refused: {why}"),
    };
    let status: String = printable::line(&status).chars().take(LONGEST).collect();
    notify(&[NotifyState::Status(&status)]);
}

/// The start continues, and waits for so many certificates.
pub(super) fn starting(missing: usize) {
    let status = match missing {
        0 => "looking for certificates that are required at startup".to_owned(),
        1 => "waiting for a certificate that is required at startup".to_owned(),
        more => format!("waiting for {more} certificates that are required at startup"),
    };
    notify(&[
        NotifyState::ExtendTimeoutUsec(MORE_TIME),
        NotifyState::Status(&status),
    ]);
}

fn notify(state: &[NotifyState<'_>]) {
    if let Some(messages) = MESSAGES.get() {
        let lines: Vec<_> = state.iter().map(ToString::to_string).collect();
        // Full means that systemd has not read for long.
        _ = messages.try_send(lines.join("\n"));
    }
}

/// Sends messages as they come, and meanwhile that the data plane lives: every third of the
/// watchdog's time, so that one delay is no reason for a restart.
fn send_messages(messages: &Receiver<String>, pulse: &Pulse) {
    let watchdog = watchdog().map(|within| within / 3);
    loop {
        let message = match watchdog {
            Some(every) => messages.recv_timeout(every),
            None => messages.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        let sent = match message {
            Ok(message) => send(&message),
            Err(RecvTimeoutError::Timeout) if pulse.is_felt() => {
                send(&NotifyState::Watchdog.to_string())
            }
            Err(RecvTimeoutError::Timeout) => {
                tracing::error!("the data plane is stuck: systemd's watchdog is not notified");
                continue;
            }
            Err(RecvTimeoutError::Disconnected) => return,
        };
        if let Err(error) = sent {
            tracing::warn!(%error, "cannot notify systemd");
        }
    }
}

fn send(message: &str) -> io::Result<()> {
    match RELAY.get() {
        Some(relay) => relay.send(message),
        None => sd_notify::notify(&[NotifyState::Custom(message)]),
    }
}

/// How long systemd's watchdog waits for a message; `None` if it has none.
fn watchdog() -> Option<Duration> {
    if RELAY.get().is_none() {
        return sd_notify::watchdog_enabled();
    }
    // WATCHDOG_PID is that of the process in front, and may be the one outside of its namespace.
    let within = std::env::var("WATCHDOG_USEC").ok()?.parse().ok()?;
    (within > 0).then(|| Duration::from_micros(within))
}
