//! What systemd is told, where it started us and listens.

use std::time::Duration;

use sd_notify::NotifyState;

/// How often a start that is held back says that it goes on.
pub(super) const NUDGE: Duration = Duration::from_secs(5);

/// How much time it asks for each time, in microseconds.
const MORE_TIME: u32 = 30_000_000;

/// The start is over.
pub fn ready() {
    notify(&[NotifyState::Ready, NotifyState::Status("serving")]);
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
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "cannot notify systemd");
    }
}
