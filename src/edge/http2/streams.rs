//! The requests of one HTTP/2 connection.
//!
//! Each starts in the task of its connection, which suffices for most of the gateway's own
//! responses. A request that has to wait continues in a task of its own. So the responses to
//! requests that arrived together leave together.
//!
//! A connection always ends with GOAWAY, so that the client knows which of its requests it may
//! repeat (RFC 9113, section 6.8). The h2 crate then waits until the client confirms it. A client
//! that never does must not delay the gateway.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use h2::server::Connection;
use http::StatusCode;
use http::header::{CONTENT_LENGTH, EXPECT};
use pingora_core::protocols::{Digest, Stream};
use tokio::time::Instant;

use super::accounting::Accounting;
use super::client::Http2Client;
use super::head::{check_head, join_crumbs};
use super::outbox::Outbox;
use super::response::{await_body_end, send_response};
use super::session::Session;
use super::stream::HttpSession;
use super::websocket::NOT_HERE;
use crate::config::model::Limits;
use crate::edge::refusal::Refusal;
use crate::edge::report::Report;
use crate::edge::slot::Slot;
use crate::edge::timer::Timer;
use crate::edge::write_coalescing::Batch;
use crate::proxy::{
    Carried, Decision, DirectResponder, Flow, Held, IDLE_AFTER, IDLE_BEFORE, Prepared, Request,
    Routed,
};
use crate::shutdown::{ShutdownWatch, requested};

/// How long the last octets of a response may take to reach the client.
const FLUSH: Duration = Duration::from_secs(5);

/// How long the task of the connection has for sending what a stream has accepted, before the stream
/// is reset: a reset drops the rest, the head of the response included.
const BEFORE_RESET: Duration = Duration::from_millis(100);

/// How long the rest of the body of a gRPC call that is refused is waited for without an octet.
const IDLE_BEFORE_GRPC: Duration = Duration::from_millis(100);

/// How often a connection that should end is checked.
const LOOK: Duration = Duration::from_millis(100);

/// How many requests a connection may start before other tasks have their turn.
const AT_ONCE: usize = 64;

/// How long requests may still arrive that the client sent before it received GOAWAY.
const CROSSING: Duration = Duration::from_secs(1);

/// How long the close itself may take.
const CLOSING: Duration = Duration::from_secs(2);

/// How close a connection is to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Open,
    /// The gateway stops; the task that waits for that also ends the connection.
    Stopping,
    /// Since this time the client has been asked to send no more requests.
    Leaving(Instant),
    /// The last GOAWAY is being sent.
    Closing,
}

/// What the requests of a connection share.
pub(super) struct Streams<A> {
    app: Arc<A>,
    shutdown: ShutdownWatch,
    /// How long a connection may have no request, and a client may not read from a stream.
    idle: Duration,
    /// The most octets of a request's head.
    max_head: usize,
    report: Arc<Report>,
    slot: Arc<Slot>,
    accounting: Accounting,
    outbox: Outbox,
    /// Whether there has been a request.
    is_used: AtomicBool,
    /// Whether the client needs another connection: a response has said so (421).
    is_outdated: AtomicBool,
    /// What its requests use.
    held: Arc<Held>,
}

impl<A> Streams<A>
where
    A: DirectResponder + Send + Sync + 'static,
{
    pub(super) fn new(
        app: &Arc<A>,
        shutdown: ShutdownWatch,
        limits: &Limits,
        report: &Arc<Report>,
        slot: &Arc<Slot>,
        accounting: Accounting,
        outbox: Outbox,
    ) -> Arc<Self> {
        Arc::new(Self {
            app: Arc::clone(app),
            shutdown,
            idle: limits.idle,
            max_head: limits.max_header_bytes,
            report: Arc::clone(report),
            slot: Arc::clone(slot),
            accounting,
            outbox,
            is_used: AtomicBool::new(false),
            is_outdated: AtomicBool::new(false),
            held: Arc::default(),
        })
    }

    /// Waits until nothing is in flight and the last response has had time to arrive.
    pub(super) async fn wait_until_idle(&self) {
        let is_at_rest = || {
            let idle_since = self.slot.idle_since();
            let has_arrived = |since: Instant| since.elapsed() >= FLUSH;
            !self.is_used.load(Ordering::Relaxed) || idle_since.is_some_and(has_arrived)
        };
        while !is_at_rest() {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Serves requests until the client or an error ends the connection, nothing has been in flight
    /// for too long, another connection needs the slot, or the connection has caused too much
    /// useless work. When the gateway stops, the client is informed, and the requests that it has
    /// started are still served.
    pub(super) async fn serve(
        self: &Arc<Self>,
        connection: &mut Connection<Stream, Bytes>,
        digest: &Arc<Digest>,
        batch: &Batch,
    ) {
        let mut heard = self.shutdown.clone();
        let mut stopping = pin!(requested(&mut heard));
        let mut course = Phase::Open;
        let mut timer = Timer::default();
        let busy_at = || self.slot.idle_since().unwrap_or_else(Instant::now);
        poll_fn(|cx| {
            if course == Phase::Open && stopping.as_mut().poll(cx).is_ready() {
                connection.graceful_shutdown();
                course = Phase::Stopping;
            }
            loop {
                if self.poll_requests(connection, digest, batch, cx).is_ready() {
                    return Poll::Ready(());
                }
                if course != Phase::Closing && self.accounting.is_exceeded() {
                    self.report.log_flood(digest.socket_digest.as_deref());
                    connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
                    timer.clear();
                    course = Phase::Closing;
                    continue;
                }
                let is_due = match course {
                    Phase::Open => {
                        let let_go = self.slot.poll_close_requested(cx).is_ready()
                            || self.is_outdated.load(Ordering::Relaxed);
                        if self.slot.take_stalled() {
                            timer.clear();
                        }
                        let_go || timer.poll_since(cx, self.idle, busy_at).is_ready()
                    }
                    Phase::Stopping => false,
                    Phase::Leaving(since) => {
                        let crossed = busy_at().max(since) + CROSSING;
                        // The client may still have to read responses.
                        let taken = connection.has_streams().then(|| busy_at() + self.idle);
                        let end = taken.map_or(crossed, |taken| taken.max(crossed));
                        timer.clear();
                        timer.poll_since(cx, Duration::ZERO, || end).is_ready()
                    }
                    Phase::Closing => return timer.poll_after(cx, CLOSING),
                };
                if !is_due {
                    return Poll::Pending;
                }
                timer.clear();
                course = if course == Phase::Open {
                    connection.graceful_shutdown();
                    Phase::Leaving(Instant::now())
                } else {
                    connection.abrupt_shutdown(Reason::NO_ERROR);
                    Phase::Closing
                };
            }
        })
        .await;
        batch.end();
    }

    /// Starts the requests that have arrived; ready once the connection has ended.
    fn poll_requests(
        self: &Arc<Self>,
        connection: &mut Connection<Stream, Bytes>,
        digest: &Arc<Digest>,
        batch: &Batch,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        for _ in 0..AT_ONCE {
            match HttpSession::poll_accept(connection, digest, cx) {
                Poll::Ready(Some(session)) => {
                    batch.begin();
                    self.begin_request(session, cx);
                }
                Poll::Ready(None) => return Poll::Ready(()),
                // All requests that had arrived are started: send the responses, and read on.
                Poll::Pending => {
                    let had_requests = batch.end();
                    if self.accounting.resume() {
                        break;
                    }
                    if !had_requests {
                        return Poll::Pending;
                    }
                }
            }
        }
        // Other tasks have their turn before the rest.
        batch.end();
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Starts a request, and moves it to a task of its own if it has to wait.
    fn begin_request(self: &Arc<Self>, mut session: HttpSession, cx: &mut Context<'_>) {
        if session.poll_reset(cx).is_ready() {
            // The client has already cancelled it.
            return;
        }
        self.is_used.store(true, Ordering::Relaxed);
        let mut request = Box::pin(Arc::clone(self).answer_request(session));
        if request.as_mut().poll(cx).is_pending() {
            tokio::spawn(request);
        }
    }

    async fn answer_request(self: Arc<Self>, mut session: HttpSession) {
        let in_flight = self.slot.count_in_flight();
        let routed = match self.route(&mut session) {
            pending @ (Routed::Validation | Routed::Authorize(_)) => {
                let (head, digest, halves) = session.split();
                let request = Request::of(head, Some(digest));
                let gone = poll_fn(|cx| halves.poll_reset(cx).map(|_| ()));
                Box::pin(self.app.complete_routing(pending, &request, gone)).await
            }
            routed => routed,
        };
        let response = match routed {
            // Any success would say that the WebSocket is open.
            Routed::Respond(response)
                if session.is_websocket() && response.status().is_success() =>
            {
                Box::new(self.prepare_refusal(&session, &NOT_HERE))
            }
            Routed::Respond(response) => response,
            Routed::Forward(decision) => {
                // Most requests are in a task of their own by then.
                let forwarded = self.forward(&mut session, decision, in_flight.stalled());
                match forwarded.await {
                    Some(response) => response,
                    None => return,
                }
            }
            Routed::Gone | Routed::Validation | Routed::Authorize(_) => return,
            Routed::Process(decision) => {
                let flow = Flow::new(&self.held);
                let session = Session::new_session(session, flow, decision, in_flight.stalled());
                self.app.process_new_http(session, &self.shutdown).await;
                return;
            }
        };
        self.respond(&mut session, *response).await;
    }

    /// Passes a request on. Returns the response that the gateway has to send itself, if it has
    /// to.
    async fn forward(
        &self,
        session: &mut HttpSession,
        decision: Decision,
        stalled: &AtomicBool,
    ) -> Option<Box<Prepared>> {
        let (head, digest, halves) = session.split();
        let request = Request::of(head, Some(digest));
        let length = head.headers.get(CONTENT_LENGTH);
        let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
        let idle = self.idle;
        let (held, outbox) = (&self.held, &self.outbox);
        let client = Http2Client::new(halves, held, outbox, stalled, idle, length);
        let mut client = client.expecting(head.headers.contains_key(EXPECT));
        match self.app.forward(decision, &request, &mut client).await {
            Carried::Complete => await_body_end(session, IDLE_BEFORE).await,
            Carried::Cut => {
                tokio::time::sleep(BEFORE_RESET).await;
                session.shutdown();
            }
            Carried::Respond(response) => return Some(response),
        }
        None
    }

    /// Sends a response of the gateway itself, and has it recorded.
    async fn respond(&self, session: &mut HttpSession, mut response: Prepared) {
        let status = response.status();
        if status.is_success() {
            await_body_end(session, IDLE_BEFORE).await;
        } else if response.head_status().is_success() {
            // Of gRPC. A client that streams need not be done with its body, and most others soon are.
            await_body_end(session, IDLE_BEFORE_GRPC).await;
        } else if !session.has_body_ended() {
            response.add_note();
        }
        // An error means that the client is gone.
        let sent = send_response(session, &response, self.idle).await;
        let octets = *sent.as_ref().unwrap_or(&0);
        let request = Request::of(session.req_header(), session.digest());
        let is_outdated = response.closes() && status == StatusCode::MISDIRECTED_REQUEST;
        self.app.record_sent(response, &request, octets);
        if is_outdated {
            self.is_outdated.store(true, Ordering::Relaxed);
            self.slot.request_close();
        }
        // A client that was too slow is not waited for again.
        if sent.is_ok() && status != StatusCode::REQUEST_TIMEOUT {
            await_body_end(session, IDLE_AFTER).await;
        }
    }

    /// Has the application decide what to do with a request, unless its head is malformed.
    fn route(&self, session: &mut HttpSession) -> Routed {
        let checked = check_head(session.req_header(), self.max_head);
        if let Err(refusal) = checked.and_then(|()| session.begin_handshake()) {
            return Routed::Respond(Box::new(self.prepare_refusal(session, &refusal)));
        }
        join_crumbs(session.req_header_mut());
        self.app
            .route(&Request::of(session.req_header(), session.digest()))
    }

    /// The response to a request that is refused because of its head.
    fn prepare_refusal(&self, session: &HttpSession, refusal: &Refusal) -> Prepared {
        let head = session.req_header();
        if refusal.status == StatusCode::BAD_REQUEST {
            self.accounting.count_malformed();
        } else {
            self.accounting.count_refused(head.headers.len());
        }
        let peer = session.digest().and_then(|d| d.socket_digest.as_deref());
        self.report.log_refused_request(peer, refusal);
        let request = Request::of(head, session.digest());
        self.app
            .prepare_refusal(refusal.status, refusal.reason, &request)
    }
}
