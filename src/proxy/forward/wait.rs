//! What an exchange waits for, and how long it may.

use std::time::Duration;

use pingora_core::{Error, ErrorType};
use tokio::time::Instant;

use super::send_pace::SendPace;
use crate::proxy::upstream::UPGRADED_IDLE;

/// How long a request may continue after its response, and a server after the client of a tunnel
/// has ended its side.
pub(super) const FAREWELL: Duration = Duration::from_secs(2);

/// How long a server may make no progress, and how long the whole may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// Between two parts of its response, and of the request that it waits for.
    pub(super) read: Duration,
    /// While it accepts nothing of the request, and while it is slower than it may be, see
    /// [`SendPace`].
    pub(super) send: Duration,
    /// By when the client must have the complete response.
    pub(super) until: Option<Instant>,
}

/// What an exchange waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// The end of a request whose response is complete.
    Farewell,
    /// What the server still sends through a tunnel whose client has ended its side.
    TunnelEnd,
    /// Anything in a tunnel.
    Tunnel,
    /// The server of a tunnel, to accept what its client has sent.
    TunnelSend,
    /// The server, to accept more of the request.
    Send,
    /// The next part of the response, or of the request that the server waits for.
    Read,
}

impl Wait {
    /// What a response that has not ended waits for: `reads_server` says that more of it is to come
    /// from the server, `is_blocked` that the server accepts nothing of the request. `None` if the
    /// client has to accept the response, for which it has a deadline of its own.
    pub(super) fn for_response(reads_server: bool, is_blocked: bool) -> Option<Self> {
        match (reads_server, is_blocked) {
            (false, _) => None,
            (true, true) => Some(Self::Send),
            (true, false) => Some(Self::Read),
        }
    }

    /// Whether the exchange ends without an error once this has taken too long.
    pub(super) fn is_last(self) -> bool {
        matches!(self, Self::Farewell | Self::TunnelEnd | Self::Tunnel)
    }
}

/// Measures how long an exchange has waited.
#[derive(Debug)]
pub(super) struct WaitClock {
    pub(super) patience: Patience,
    /// What is waited for, and since when.
    current: Option<(Wait, Instant)>,
    pace: SendPace,
}

impl WaitClock {
    pub(super) fn new(patience: Patience) -> Self {
        Self {
            patience,
            current: None,
            pace: SendPace::default(),
        }
    }

    /// Records what is waited for. Returns whether the wait begins now: it is another one, or one of
    /// both sides has made progress.
    pub(super) fn record(&mut self, wait: Option<Wait>, has_moved: bool) -> bool {
        self.pace.note(wait == Some(Wait::Send));
        // What still comes does not extend a farewell.
        let continues = |known: &(Wait, Instant)| {
            wait == Some(known.0) && !(has_moved && known.0 != Wait::Farewell)
        };
        let is_new = !self.current.as_ref().is_some_and(continues);
        if is_new {
            self.current = wait.map(|wait| (wait, Instant::now()));
        }
        is_new
    }

    /// Has the wait begin now.
    pub(super) fn restart(&mut self) {
        if let Some((_, since)) = &mut self.current {
            *since = Instant::now();
        }
    }

    /// When the wait has taken too long.
    pub(super) fn due(&self) -> Option<Instant> {
        self.current.map(|(wait, since)| since + self.limit(wait))
    }

    /// When the server, if it is waited for to accept more of the request, has been too slow with
    /// the octets that it has `accepted`.
    pub(super) fn slow_at(&self, accepted: impl FnOnce() -> u64) -> Option<Instant> {
        let (wait, _) = self.current?;
        (wait == Wait::Send).then(|| self.pace.deadline(self.patience.send, accepted))
    }

    fn limit(&self, wait: Wait) -> Duration {
        match wait {
            Wait::Farewell | Wait::TunnelEnd => FAREWELL,
            Wait::Tunnel => UPGRADED_IDLE,
            Wait::Send | Wait::TunnelSend => self.patience.send,
            Wait::Read => self.patience.read,
        }
    }

    /// The error of a wait for `wait` that has taken too long, with the side that was waited for.
    /// `has_request` says whether the server has the complete request.
    pub(super) fn timeout_error(&self, wait: Wait, has_request: bool) -> Box<Error> {
        let limit = self.limit(wait);
        if matches!(wait, Wait::Send | Wait::TunnelSend) {
            let is_slow = self.due().is_some_and(|due| Instant::now() < due);
            let why = match is_slow {
                true => "the server accepts the request too slowly".to_owned(),
                false => format!("the server accepts nothing of the request for {limit:?}"),
            };
            Error::explain(ErrorType::WriteTimedout, why).into_up()
        } else if has_request {
            let why = format!("the server sends nothing for {limit:?}");
            Error::explain(ErrorType::ReadTimedout, why).into_up()
        } else {
            let why = format!("neither the client nor the server sends anything for {limit:?}");
            Error::explain(ErrorType::ReadTimedout, why).into_down()
        }
    }
}
