//! The requests of one HTTP/2 connection.
//!
//! Each is begun in the task of its connection, which is all that most answers of the gateway's own
//! take; what then has to wait goes on in a task of its own. The answers to requests that came
//! together so leave together.
//!
//! When the gateway stops, a connection is told with GOAWAY, and the h2 crate then waits for the
//! client's word that it has seen it. A client that never says it must not hold the gateway.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2::server::Connection;
use pingora_core::protocols::http::ServerSession;
use pingora_core::protocols::http::v2::server::{H2Accept, HttpSession};
use pingora_core::protocols::{Digest, Stream};
use pingora_http::ResponseHeader;
use tokio::time::Instant;

use crate::edge::gather::Turn;
use crate::edge::timer::Timer;
use crate::proxy::{Answering, Ready, Request};
use crate::shutdown::{ShutdownWatch, requested};

/// How long the last octets of an answer may be on their way to the client.
const FLUSH: Duration = Duration::from_secs(5);

/// How often a connection that is to end is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// How many requests a connection may begin before others have their turn.
const AT_ONCE: usize = 64;

/// How many malformed requests a connection may bring before it is closed.
const MAX_MALFORMED: usize = 32;

/// What requests of a connection have in common.
pub(super) struct Streams<A> {
    app: Arc<A>,
    shutdown: ShutdownWatch,
    /// How long a connection may be without a request, and a stream may take no data.
    idle: Duration,
    open: AtomicUsize,
    last_end: Mutex<Option<Instant>>,
}

impl<A> Streams<A>
where
    A: Answering + Send + Sync + 'static,
{
    pub(super) fn new(app: &Arc<A>, shutdown: ShutdownWatch, idle: Duration) -> Arc<Self> {
        Arc::new(Self {
            app: Arc::clone(app),
            shutdown,
            idle,
            open: AtomicUsize::new(0),
            last_end: Mutex::new(None),
        })
    }

    /// Waits until nothing is in flight and the last answer has had the time to arrive.
    pub(super) async fn at_rest(&self) {
        while self.open() > 0 || self.last_end().is_some_and(|end| end.elapsed() < FLUSH) {
            tokio::time::sleep(LOOK).await;
        }
    }

    fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    fn last_end(&self) -> Option<Instant> {
        *self.last_end.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers what comes until the client or an error ends the connection, or nothing has been in
    /// flight for too long. When the gateway stops, the client is told and what it has begun is
    /// still answered.
    pub(super) async fn serve(
        self: &Arc<Self>,
        connection: &mut Connection<Stream, Bytes>,
        digest: &Arc<Digest>,
        turn: &Turn,
    ) {
        let mut heard = self.shutdown.clone();
        let mut stopping = pin!(requested(&mut heard));
        let mut stops = false;
        let mut malformed = 0;
        let mut timer = Timer::default();
        let begun = Instant::now();
        let busy_at = || match (self.open(), self.last_end()) {
            (0, end) => end.unwrap_or(begun),
            _ => Instant::now(),
        };
        poll_fn(|cx| {
            if !stops && stopping.as_mut().poll(cx).is_ready() {
                connection.graceful_shutdown();
                stops = true;
            }
            let mut room = AT_ONCE;
            loop {
                if room == 0 {
                    turn.end();
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                // Pingora's future holds nothing between two polls.
                let accepted = pin!(HttpSession::from_h2_conn(connection, Arc::clone(digest)));
                match accepted.poll(cx) {
                    Poll::Ready(Ok(Some(H2Accept::Session(session)))) => {
                        room -= 1;
                        turn.begin();
                        self.begin(session, cx);
                    }
                    Poll::Ready(Ok(Some(H2Accept::Rejected))) => {
                        room -= 1;
                        malformed += 1;
                        if malformed >= MAX_MALFORMED {
                            return Poll::Ready(());
                        }
                    }
                    Poll::Ready(Ok(None) | Err(_)) => return Poll::Ready(()),
                    // All that had come is begun: send what is answered, and read on.
                    Poll::Pending if turn.end() => {}
                    Poll::Pending => break,
                }
            }
            if stops {
                return Poll::Pending;
            }
            timer.poll_since(cx, self.idle, busy_at)
        })
        .await;
        turn.end();
    }

    /// Begins with a request, and leaves it to a task of its own where it has to wait.
    fn begin(self: &Arc<Self>, session: HttpSession, cx: &mut Context<'_>) {
        let mut request = Box::pin(Arc::clone(self).answer(session));
        if request.as_mut().poll(cx).is_pending() {
            tokio::spawn(request);
        }
    }

    async fn answer(self: Arc<Self>, mut session: HttpSession) {
        let _in_flight = InFlight::new(&self);
        let request = session
            .is_body_empty()
            .then(|| Request::http2(session.req_header(), session.digest()));
        let Some(answer) = request
            .flatten()
            .and_then(|request| self.app.answer(&request))
        else {
            let session = ServerSession::new_http2(session);
            self.app.process_new_http(session, &self.shutdown).await;
            return;
        };
        session.set_write_timeout(Some(self.idle));
        // Where the client is gone there is nobody to tell.
        _ = send(&mut session, &answer).await;
        let octets = session.body_bytes_sent();
        let request = Request::of(session.req_header(), session.digest());
        self.app.sent(answer, &request, octets);
    }
}

/// Sends a whole answer.
async fn send(session: &mut HttpSession, answer: &Ready) -> pingora_core::Result<()> {
    let mut head = ResponseHeader::build_no_case(answer.status(), Some(8))?;
    for (name, value) in answer.fields() {
        head.insert_header(name, value)?;
    }
    let body = answer.body();
    session.write_response_header(Box::new(head), body.is_none())?;
    if let Some(body) = body {
        session.write_body(body.clone(), true).await?;
    }
    Ok(())
}

/// One request in flight.
struct InFlight<'a, A>(&'a Streams<A>);

impl<'a, A> InFlight<'a, A> {
    fn new(streams: &'a Streams<A>) -> Self {
        streams.open.fetch_add(1, Ordering::Relaxed);
        Self(streams)
    }
}

impl<A> Drop for InFlight<'_, A> {
    fn drop(&mut self) {
        let now = Some(Instant::now());
        *self
            .0
            .last_end
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = now;
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}
