//! What a request goes over to its server: a connection of its own, or a place on a shared one.

use std::sync::Arc;
use std::time::Duration;

use pingora_core::{Error, ErrorType, Result};

use crate::config::model::Protocol;
use crate::proxy::connection::Connection;
use crate::proxy::connection_limit::Held;
use crate::proxy::dial::Dialer;
use crate::proxy::http2::{Opened, Place};
use crate::proxy::race;
use crate::proxy::request::Request;
use crate::proxy::request_ctx::RequestCtx;
use crate::proxy::upstream::{Choice, Pool};

/// What a request goes over.
pub(super) enum Connected {
    Http1(Connection),
    Http2(Place),
}

impl Connected {
    /// Whether earlier requests went over the same connection.
    pub(super) fn is_reused(&self) -> bool {
        match self {
            Self::Http1(connection) => connection.is_reused(),
            Self::Http2(place) => place.is_reused(),
        }
    }

    /// An open connection to the server, for a request whose client's connection has `held` so far.
    /// One of HTTP/1 may be given only if `may_reuse`, one of
    /// HTTP/2 only unless `needs_http1`.
    pub(super) fn take_open(
        pool: &Pool,
        choice: &Choice,
        held: Option<&Arc<Held>>,
        may_reuse: bool,
        needs_http1: bool,
    ) -> Option<Self> {
        let protocol = pool.protocol();
        if protocol != Protocol::Http1
            && !needs_http1
            && let Some(place) = choice.endpoint.http2.take_place(held)
        {
            return Some(Self::Http2(place));
        }
        let may_reuse = may_reuse && protocol != Protocol::Http2;
        let connection = may_reuse
            .then(|| choice.endpoint.idle.take_connection())
            .flatten();
        connection.map(Self::Http1)
    }

    /// Opens a connection to the server within `patience`, or waits for a place on one. Returns the
    /// address that it leads to.
    ///
    /// # Errors
    /// If the server cannot be reached or trusted, or does not speak what it has to. If it only has
    /// no room, the error's type is `HTTPStatus(503)`.
    pub(super) async fn open(
        ctx: &mut RequestCtx,
        choice: Choice,
        request: &Request<'_>,
        held: Option<&Arc<Held>>,
        dialer: &Dialer,
        patience: Duration,
        needs_http1: bool,
    ) -> Result<(Choice, Self)> {
        let gone = || Error::explain(ErrorType::InternalError, "the route is gone");
        let pool = Arc::clone(&ctx.proxy().ok_or_else(gone)?.pool);
        let protocol = pool.protocol();
        if protocol == Protocol::Http1 || needs_http1 {
            let header = pool.proxy_header(Some(request));
            let opening = race::open_connection(ctx, choice, header.as_deref(), dialer, patience);
            let (choice, socket) = opening.await?;
            return Ok((choice, Self::Http1(Connection::new(socket))));
        }
        let is_prior_knowledge = protocol == Protocol::Http2;
        let open = |choice: Choice, patience| {
            let pool = &pool;
            async move {
                let dial = |left| pool.dial(&choice, None, dialer, left, false);
                let http2 = &choice.endpoint.http2;
                let opened = http2.open(patience, is_prior_knowledge, held, dial).await?;
                Ok(match opened {
                    Opened::Place(place) => Self::Http2(place),
                    Opened::Http1(socket) => Self::Http1(Connection::new(socket)),
                })
            }
        };
        race::race_addresses(ctx, choice, patience, open).await
    }
}
