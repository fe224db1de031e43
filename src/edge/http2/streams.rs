//! The requests of one HTTP/2 connection.
//!
//! Each is begun in the task of its connection, which is all that most answers of the gateway's own
//! take; what then has to wait continues in a task of its own. The answers to requests that came
//! together so leave together.
//!
//! A connection ends with GOAWAY, whoever ends it and why, so that the client knows which of its
//! requests it may repeat (RFC 9113, section 6.8). The h2 crate then waits for the client's word that
//! it has seen it. A client that never says it must not hold the gateway.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use h2::server::Connection;
use http::StatusCode;
use pingora_core::protocols::http::v2::write_body;
use pingora_core::protocols::{Digest, Stream};
use pingora_http::ResponseHeader;
use tokio::time::Instant;

use super::accounting::Accounting;
use super::head::check_head;
use super::stream::HttpSession;
use crate::config::model::Limits;
use crate::edge::http1::Refusal;
use crate::edge::report::Report;
use crate::edge::slot::Slot;
use crate::edge::timer::Timer;
use crate::edge::write_coalescing::Batch;
use crate::proxy::{DirectResponder, Flow, Prepared, Request};
use crate::shutdown::{ShutdownWatch, requested};

use super::session::Session;

/// How long the last octets of an answer may be on their way to the client.
const FLUSH: Duration = Duration::from_secs(5);

/// How often a connection that is to end is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// How many requests a connection may begin before others have their turn.
const AT_ONCE: usize = 64;

/// How long requests may cross the word that the connection ends.
const CROSSING: Duration = Duration::from_secs(1);

/// How long the end itself may take.
const CLOSING: Duration = Duration::from_secs(2);

/// How far a connection is on its way to the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Open,
    /// The gateway stops, and whoever waits for that looks after the end.
    Stopping,
    /// The client has been told not to ask for more, at this time.
    Leaving(Instant),
    /// The last GOAWAY is on its way.
    Closing,
}

/// What requests of a connection have in common.
pub(super) struct Streams<A> {
    app: Arc<A>,
    shutdown: ShutdownWatch,
    /// How long a connection may be without a request, and a stream may take no data.
    idle: Duration,
    /// The most octets of a request's head.
    max_head: usize,
    report: Arc<Report>,
    slot: Arc<Slot>,
    accounting: Accounting,
    /// Whether there has been a request.
    is_used: AtomicBool,
    /// How many of its requests are at upstreams.
    at_upstreams: Arc<AtomicUsize>,
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
    ) -> Arc<Self> {
        Arc::new(Self {
            app: Arc::clone(app),
            shutdown,
            idle: limits.idle,
            max_head: limits.max_header_bytes,
            report: Arc::clone(report),
            slot: Arc::clone(slot),
            accounting,
            is_used: AtomicBool::new(false),
            at_upstreams: Arc::default(),
        })
    }

    /// Waits until nothing is in flight and the last answer has had the time to arrive.
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

    /// Answers what comes until the client or an error ends the connection, nothing has been in
    /// flight for too long, another connection needs the slot, or the connection has made too much
    /// work in vain. When the gateway stops, the client is told and what it has begun is still
    /// answered.
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
                        let let_go = self.slot.poll_close_requested(cx).is_ready();
                        if self.slot.take_stalled() {
                            timer.clear();
                        }
                        let_go || timer.poll_since(cx, self.idle, busy_at).is_ready()
                    }
                    Phase::Stopping => false,
                    Phase::Leaving(since) => {
                        let crossed = busy_at().max(since) + CROSSING;
                        // What is answered may still have to be taken.
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

    /// Begins with the requests that have come; ready once the connection is over.
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
                // All that had come is begun: send what is answered, and read on.
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
        // Others have their turn before the rest.
        batch.end();
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Begins with a request, and leaves it to a task of its own where it has to wait.
    fn begin_request(self: &Arc<Self>, mut session: HttpSession, cx: &mut Context<'_>) {
        if session.poll_reset(cx).is_ready() {
            // The client has taken it back already.
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
        let answer = if let Err(refusal) = check_head(session.req_header(), self.max_head) {
            Some(self.prepare_refusal(&session, &refusal))
        } else {
            let request = session
                .is_body_empty()
                .then(|| Request::http2(session.req_header(), session.digest()));
            request
                .flatten()
                .and_then(|request| self.app.prepare_response(&request))
        };
        let Some(answer) = answer else {
            let flow = Flow::new(&self.at_upstreams);
            let session = Session::new_session(session, flow, in_flight.stalled());
            self.app.process_new_http(session, &self.shutdown).await;
            return;
        };
        // Where the client is gone there is nobody to tell.
        let octets = send_response(&mut session, &answer, self.idle)
            .await
            .unwrap_or(0);
        let request = Request::of(session.req_header(), session.digest());
        self.app.record_sent(answer, &request, octets);
    }

    /// The answer to a request that is refused for its head alone.
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

/// Sends a whole answer; how many octets follow its head. The client may take nothing for `idle`.
async fn send_response(
    session: &mut HttpSession,
    answer: &Prepared,
    idle: Duration,
) -> pingora_core::Result<usize> {
    let mut head = ResponseHeader::build_no_case(answer.status(), Some(8))?;
    for (name, value) in answer.fields() {
        head.insert_header(name, value)?;
    }
    let body = answer.body();
    session.write_response_header(Box::new(head), body.is_none())?;
    let (Some(body), Some(mut writer)) = (body, session.take_response_body_writer()) else {
        return Ok(0);
    };
    // The session would give the client that time for all of it.
    write_body(&mut writer, body.clone(), true, Some(idle)).await?;
    Ok(body.len())
}
