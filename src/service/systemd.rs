//! What systemd is told, where it started us and listens.
//!
//! A thread of its own tells it, in order: a service manager that does not read holds nobody up.

use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use sd_notify::NotifyState;

use super::outcome::Refused;
use crate::printable;
use crate::pulse::Pulse;

/// How often a start that is held back says that it goes on.
pub(super) const NUDGE: Duration = Duration::from_secs(5);

/// How much time it asks for each time, in microseconds.
const MORE_TIME: u32 = 30_000_000;

/// How many messages wait at most. One that finds no room is dropped.
const QUEUE: usize = 64;

/// How long a status may be, in characters.
const LONGEST: usize = 500;

/// Where messages go; empty where systemd does not listen.
static MESSAGES: OnceLock<SyncSender<String>> = OnceLock::new();

/// Begins to tell systemd what the functions below say, and that the data plane has a pulse, where
/// a watchdog is set. Does nothing where systemd does not listen.
pub fn begin(pulse: Pulse) {
    if std::env::var_os("NOTIFY_SOCKET").is_none() {
        return;
    }
    let (sender, messages) = sync_channel(QUEUE);
    let thread = thread::Builder::new().name("systemd".to_owned());
    match thread.spawn(move || tell(&messages, &pulse)) {
        // Where it has begun before, that one continues.
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

/// A reload was taken, or refused.
pub(super) fn reloaded(refused: Option<&Refused>) {
    let status = match refused {
        None => "serving".to_owned(),
        Some(why) => format!("serving the old configuration, the new one was refused: {why}"),
    };
    let status: String = printable::line(&status).chars().take(LONGEST).collect();
    notify(&[NotifyState::Status(&status)]);
}

/// The start goes on, and waits for so many certificates.
pub(super) fn starting(missing: usize) {
    let status = match missing {
        0 => "looking for certificates that are required at the start".to_owned(),
        1 => "waiting for a certificate that is required at the start".to_owned(),
        more => format!("waiting for {more} certificates that are required at the start"),
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

/// Sends what comes, and meanwhile that the data plane lives: a third of the watchdog's time may
/// pass in between, so that one delay is no reason for a restart.
fn tell(messages: &Receiver<String>, pulse: &Pulse) {
    let watchdog = sd_notify::watchdog_enabled().map(|within| within / 3);
    loop {
        let message = match watchdog {
            Some(every) => messages.recv_timeout(every),
            None => messages.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        let sent = match message {
            Ok(message) => sd_notify::notify(&[NotifyState::Custom(&message)]),
            Err(RecvTimeoutError::Timeout) if pulse.is_felt() => {
                sd_notify::notify(&[NotifyState::Watchdog])
            }
            Err(RecvTimeoutError::Timeout) => {
                tracing::error!("the data plane stands still: systemd's watchdog is not told");
                continue;
            }
            Err(RecvTimeoutError::Disconnected) => return,
        };
        if let Err(error) = sent {
            tracing::warn!(%error, "cannot notify systemd");
        }
    }
}
