//! The context of a request that Pingora's proxy carries, its `CTX`.

use std::sync::Arc;

use http::StatusCode;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_core::{Error, ErrorType, Result};
use pingora_http::RequestHeader;

use super::body::Body;
use super::connection_limit::ConnectionLimit;
use super::deadline::Deadline;
use super::dial::Dialer;
use super::flow::Flow;
use super::handover::KeepAlive;
use super::header;
use super::race;
use super::request::Fields;
use super::request_ctx::RequestCtx;
use super::upstream::{Choice, Lease, Pool};

/// The context of one request, with what only Pingora's phases need.
pub struct PhaseCtx {
    pub(super) request: RequestCtx,
    /// Whether a kept connection turned out to be closed before anything was sent.
    pub(super) is_stale: bool,
    /// The connection to the server.
    pub(super) lease: Option<Lease>,
    /// Whether the client requests a WebSocket.
    pub(super) websocket: bool,
    /// By when the upstream must agree to the upgrade that the client requests.
    deadline: Option<Deadline>,
    /// Tells the owner of an HTTP/1 connection that it is kept.
    pub(super) keep_alive: Option<KeepAlive>,
    /// Whether a complete error page was sent, to a client that may still be sending.
    pub(super) page_sent: bool,
    /// The flow of the response to a client of HTTP/2.
    pub(super) flow: Option<Arc<Flow>>,
    /// The length of the body as the request declares it.
    pub(super) declared: Option<u64>,
    /// How much of the body has arrived, over HTTP/2.
    pub(super) body: Body,
    /// Octets of the body in this attempt.
    pub(super) octets: u64,
    /// By when the whole response must have come.
    total: Option<Deadline>,
}

impl PhaseCtx {
    /// The context of a request that has just arrived.
    pub(super) fn new() -> Self {
        Self {
            request: RequestCtx::new(),
            is_stale: false,
            lease: None,
            websocket: false,
            deadline: None,
            keep_alive: None,
            page_sent: false,
            flow: None,
            declared: None,
            body: Body::default(),
            octets: 0,
            total: None,
        }
    }

    /// Acquires a permit to use a connection to an upstream, and returns whether there is one for
    /// this request.
    pub(super) fn acquire_upstream_permit(
        &mut self,
        head: &RequestHeader,
        limit: &Arc<ConnectionLimit>,
    ) -> bool {
        self.declared = header::declared_length(Fields::Map(&head.headers));
        self.flow = head.extensions.get::<Arc<Flow>>().cloned();
        let held = self.flow.as_ref().map(|flow| &flow.held);
        self.request.acquire_upstream_permit(limit, held)
    }

    /// Takes a connection to the chosen server that waits, or opens one that begins with `header`.
    /// Returns what Pingora finds it by.
    ///
    /// # Errors
    /// If the server cannot be reached or trusted.
    pub(super) async fn connect(
        &mut self,
        mut choice: Choice,
        header: Option<Vec<u8>>,
        limit: &Arc<ConnectionLimit>,
        dialer: &Dialer,
    ) -> Result<Box<HttpPeer>> {
        let gone = || Error::explain(ErrorType::InternalError, "the route is gone");
        let proxy = self.request.proxy().ok_or_else(gone)?;
        let (pool, patience) = (Arc::clone(&proxy.pool), proxy.connect_timeout);
        let mut lease = Pool::lease(&choice, self.is_stale, limit, self.flow.clone());
        if !lease.link.is_open() {
            let (ctx, header) = (&mut self.request, header.as_deref());
            let opening = race::open_connection(ctx, choice, header, dialer, patience);
            let (fastest, socket) = opening.await?;
            choice = fastest;
            lease = Pool::lease(&choice, true, limit, self.flow.clone());
            lease.link.set_socket(socket);
        }
        let peer = pool.peer(&choice, &lease)?;
        self.lease = Some(lease);
        Ok(peer)
    }

    /// Records that the chosen server can be reached.
    pub(super) fn record_connected(&mut self) {
        self.request.record_connected(self.is_link_reused());
        // Each attempt sends it from its beginning.
        self.body = Body::of(self.declared);
        self.octets = 0;
        if let Some(total) = self.request.proxy().and_then(|proxy| proxy.total_timeout) {
            let left = total.saturating_sub(self.request.elapsed());
            let deadline = |lease: &Lease| Deadline::start(&lease.link, left);
            self.total = self.lease.as_ref().map(deadline);
        }
        if let (true, Some(proxy)) = (self.websocket, self.request.proxy()) {
            let patience = proxy.read_timeout;
            let deadline = |lease: &Lease| Deadline::start(&lease.link, patience);
            self.deadline = self.lease.as_ref().map(deadline);
        }
    }

    /// Counts octets of the request's body.
    ///
    /// # Errors
    /// If there are more than its route allows.
    pub(super) fn count_octets(&mut self, octets: usize) -> Result<()> {
        self.octets = self.octets.saturating_add(octets as u64);
        let most = self.request.proxy().map_or(0, |proxy| proxy.max_body);
        if most == 0 || self.octets <= most {
            return Ok(());
        }
        let why = "the request's body is larger than its route allows";
        Err(Error::explain(ErrorType::HTTPStatus(413), why).into_down())
    }

    /// Whether the request's connection has served others before, which Pingora does not know.
    fn is_link_reused(&self) -> bool {
        self.lease
            .as_ref()
            .is_some_and(|lease| lease.link.is_reused())
    }

    /// Records that the head of a response has arrived. Only a tunnel may be silent for longer than
    /// the route allows.
    pub(super) fn record_response(&mut self, status: StatusCode) {
        self.request.record_response(status, None);
        let is_tunnel = status == StatusCode::SWITCHING_PROTOCOLS;
        if is_tunnel {
            self.total = None;
        }
        self.record_progress(is_tunnel);
    }

    /// Records that the upstream has sent something, and whether it may be silent from now on.
    pub(super) fn record_progress(&mut self, may_be_silent: bool) {
        if may_be_silent {
            self.deadline = None;
        } else if let Some(deadline) = &self.deadline {
            deadline.restart();
        }
    }

    /// Records that the server had closed the kept connection: the same server is tried over
    /// another one.
    pub(super) fn record_stale(&mut self) {
        self.is_stale = true;
        self.request.try_server_again();
    }

    /// Records that a request failed after it was connected, and returns whether to try again.
    pub(super) fn record_exchange_failure(
        &mut self,
        error: &mut Error,
        repeatable: bool,
        body_complete: bool,
    ) -> bool {
        let deadlines = [self.deadline.take(), self.total.take()];
        let mut deadlines = deadlines.into_iter().flatten();
        if deadlines.any(|deadline| deadline.has_passed()) {
            error.etype = ErrorType::ReadTimedout;
            error.as_up();
        }
        let is_reused = self.is_link_reused();
        self.request
            .record_exchange_failure(error, is_reused, repeatable, body_complete)
    }
}
