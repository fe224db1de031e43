//! One request and its response over one connection to a server, both at the same time.

use std::task::{Context, Poll, ready};
use std::time::Duration;

use pingora_core::{Error, ErrorType, Result};
use tokio::time::Instant;

use super::client::Client;
use super::download::Download;
use super::response::Asked;
use super::upload::{Replay, Upload};
use crate::proxy::connection::Connection;
use crate::proxy::upstream::UPGRADED_IDLE;

/// How long a request may continue after its response, and a server after the client of a tunnel
/// has ended its side.
const FAREWELL: Duration = Duration::from_secs(2);

/// How long a server may make no progress.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// Between two parts of its response, and of the request that it waits for.
    pub(super) read: Duration,
    /// While it accepts nothing of the request.
    pub(super) send: Duration,
}

/// What an exchange waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    /// The end of a request whose response is complete.
    Farewell,
    /// What the server still sends through a tunnel whose client has ended its side.
    TunnelEnd,
    /// Anything in a tunnel.
    Tunnel,
    /// The server, to accept more of the request.
    Send,
    /// The next part of the response, or of the request that the server waits for.
    Read,
}

/// One attempt at a server.
pub(super) struct Exchange<'a, C> {
    client: &'a mut C,
    connection: &'a mut Connection,
    asked: Asked<'a>,
    patience: Patience,
    upload: Upload,
    pub(super) download: Download,
    replay: &'a mut Replay,
    /// What is waited for, and since when.
    wait: Option<(Wait, Instant)>,
    /// Whether the client has the complete response.
    has_response: bool,
}

impl<'a, C: Client> Exchange<'a, C> {
    pub(super) fn new(
        client: &'a mut C,
        connection: &'a mut Connection,
        asked: Asked<'a>,
        patience: Patience,
        upload: Upload,
        replay: &'a mut Replay,
    ) -> Self {
        Self {
            client,
            connection,
            asked,
            patience,
            upload,
            download: Download::new(),
            replay,
            wait: None,
            has_response: false,
        }
    }

    /// Carries the exchange. Ready once the client has the complete response and the server the
    /// complete request, or will not get it.
    ///
    /// # Errors
    /// If one of the two fails.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let was_tunnel = self.download.is_tunnel();
        self.poll_upload(cx)?;
        let received = self
            .download
            .poll(cx, self.client, self.connection, self.asked)?;
        if self.download.is_tunnel() && !was_tunnel {
            self.upload.begin_tunnel();
            self.poll_upload(cx)?;
        }
        if received.is_ready() && (self.upload.is_over() || self.download.is_tunnel()) {
            return Poll::Ready(Ok(()));
        }
        if (self.upload.is_over() || self.upload.is_blocked)
            && !self.download.is_tunnel()
            && let Poll::Ready(error) = self.client.poll_gone(cx)
        {
            return Poll::Ready(Err(error));
        }
        self.has_response |= received.is_ready();
        self.poll_overdue(cx)
    }

    /// Whether the connection may serve another request.
    pub(super) fn leaves_connection(&self) -> bool {
        self.upload.is_complete() && self.download.leaves_connection(self.connection)
    }

    fn poll_upload(&mut self, cx: &mut Context<'_>) -> Result<()> {
        let in_tunnel = self.download.is_tunnel();
        self.upload
            .poll(cx, self.client, self.connection, self.replay, in_tunnel)
    }

    /// Ready once the server has been waited for too long, or if the response has ended and the
    /// request does not.
    fn poll_overdue(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let has_moved = self.upload.has_moved | self.download.has_moved;
        (self.upload.has_moved, self.download.has_moved) = (false, false);
        let Some(wait) = self.current_wait() else {
            self.wait = None;
            return Poll::Pending;
        };
        // What still comes does not extend a farewell.
        let continues =
            |known: &(Wait, Instant)| known.0 == wait && !(has_moved && wait != Wait::Farewell);
        let known = self.wait.filter(continues);
        let (_, since) = *self
            .wait
            .insert(known.unwrap_or_else(|| (wait, Instant::now())));
        let limit = match wait {
            Wait::Farewell | Wait::TunnelEnd => FAREWELL,
            Wait::Tunnel => UPGRADED_IDLE,
            Wait::Send => self.patience.send,
            Wait::Read => self.patience.read,
        };
        ready!(self.connection.alarm.poll_at(cx, since + limit));
        if matches!(wait, Wait::Farewell | Wait::TunnelEnd | Wait::Tunnel) {
            self.upload.stop();
            return Poll::Ready(Ok(()));
        }
        Poll::Ready(Err(self.timeout_error(limit)))
    }

    /// What is waited for; `None` if it is the client that has to accept the response, for which it
    /// has a deadline of its own.
    fn current_wait(&self) -> Option<Wait> {
        if self.has_response {
            Some(Wait::Farewell)
        } else if self.upload.is_closed() {
            Some(Wait::TunnelEnd)
        } else if self.download.is_tunnel() {
            Some(Wait::Tunnel)
        } else if !self.download.is_waiting {
            None
        } else if self.upload.is_blocked {
            Some(Wait::Send)
        } else {
            Some(Wait::Read)
        }
    }

    /// The error of a wait of `limit`, with the side that was waited for.
    fn timeout_error(&self, limit: Duration) -> Box<Error> {
        if self.upload.is_blocked {
            let why = format!("the server accepts nothing of the request for {limit:?}");
            Error::explain(ErrorType::WriteTimedout, why).into_up()
        } else if self.upload.is_over() {
            let why = format!("the server sends nothing for {limit:?}");
            Error::explain(ErrorType::ReadTimedout, why).into_up()
        } else {
            let why = format!("the client sends nothing of the request's body for {limit:?}");
            Error::explain(ErrorType::ReadTimedout, why).into_down()
        }
    }
}
