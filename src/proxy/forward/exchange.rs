//! One request and its response over one connection to a server, both at the same time.

use std::task::{Context, Poll};
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

/// One attempt at a server.
pub(super) struct Exchange<'a, C> {
    client: &'a mut C,
    connection: &'a mut Connection,
    asked: Asked<'a>,
    patience: Patience,
    upload: Upload,
    pub(super) download: Download,
    replay: &'a mut Replay,
    /// Since when the server has been waited for, or the end of the request after the response.
    since: Option<Instant>,
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
            since: None,
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
        if self.upload.is_over()
            && !self.download.is_tunnel()
            && let Poll::Ready(error) = self.client.poll_gone(cx)
        {
            return Poll::Ready(Err(error));
        }
        if received.is_ready() && !self.has_response {
            self.has_response = true;
            self.since = None;
        }
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
        let in_tunnel = self.download.is_tunnel();
        let limit = if self.has_response || self.upload.is_closed() {
            FAREWELL
        } else if in_tunnel {
            UPGRADED_IDLE
        } else if !self.download.is_waiting {
            // The client is to accept the response first, for which it has a deadline of its own.
            self.since = None;
            return Poll::Pending;
        } else if self.upload.is_blocked {
            self.patience.send
        } else {
            self.patience.read
        };
        let has_moved = self.upload.has_moved | self.download.has_moved;
        (self.upload.has_moved, self.download.has_moved) = (false, false);
        // What still comes does not extend a farewell.
        if has_moved && !self.has_response {
            self.since = None;
        }
        let since = *self.since.get_or_insert_with(Instant::now);
        if self
            .connection
            .alarm
            .poll_at(cx, since + limit)
            .is_pending()
        {
            return Poll::Pending;
        }
        if self.has_response || in_tunnel {
            self.upload.stop();
            return Poll::Ready(Ok(()));
        }
        Poll::Ready(Err(self.timeout_error(limit)))
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
