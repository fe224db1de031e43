//! One request and its response over one connection to a server, both at the same time.

use std::future::poll_fn;
use std::task::{Context, Poll, ready};

use http::{HeaderName, HeaderValue, StatusCode};
use pingora_core::Result;
use tokio::time::Instant;

use super::client::Client;
use super::deadline::{Awaited, overrun_error};
use super::download::Download;
use super::response::Asked;
use super::upload::{Replay, Upload};
use super::wait::{Patience, Wait, WaitClock};
use crate::proxy::connection::Connection;
use crate::proxy::head_watch::HeadWatch;

/// How an exchange ended.
pub(super) struct Outcome {
    pub(super) result: Result<()>,
    /// The status of the response, if its head is on its way to the client.
    pub(super) status: Option<StatusCode>,
    /// Octets of the response's body that the client has accepted.
    pub(super) octets: usize,
    /// Octets of the request's body that the client has sent.
    pub(super) received: u64,
    /// Whether anything, interim responses included, has been passed on.
    pub(super) has_begun: bool,
    /// Whether the server has certainly not processed the request.
    pub(super) is_unprocessed: bool,
    /// What is kept of the fields of the response, if the gateway responds in its place.
    pub(super) replaced: Option<Vec<(HeaderName, HeaderValue)>>,
    /// Whether the response is that of a call of gRPC, whose end is in its trailers.
    pub(super) is_call: bool,
    /// Whether its connection, if it had one of its own, may serve another request.
    pub(super) leaves_connection: bool,
}

/// One attempt at a server.
pub(super) struct Exchange<'a, C> {
    client: &'a mut C,
    connection: &'a mut Connection,
    asked: Asked<'a>,
    upload: Upload,
    pub(super) download: Download,
    replay: &'a mut Replay,
    clock: WaitClock,
    /// How many octets of the request the server had not acknowledged when the wait began.
    unacknowledged: usize,
    /// Whether the response was complete before the request was.
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
            upload,
            download: Download::new(),
            replay,
            clock: WaitClock::new(patience),
            unacknowledged: 0,
            has_response: false,
        }
    }

    /// Carries the exchange to its end. `record_response` gets the status of the response, and when
    /// the request was complete.
    pub(super) async fn carry(
        mut self,
        record_response: impl FnOnce(StatusCode, Option<std::time::Instant>),
    ) -> Outcome {
        let mut watch = HeadWatch::new(record_response);
        let result = poll_fn(|cx| {
            let carried = self.poll(cx);
            watch.look(self.upload.is_over(), self.download.status);
            carried
        });
        let result = result.await;
        let leaves_connection = result.is_ok() && self.leaves_connection();
        let download = &mut self.download;
        Outcome {
            status: download.status,
            octets: download.octets,
            received: self.upload.body_octets(),
            has_begun: download.has_begun,
            is_unprocessed: false,
            replaced: download.replaced.take(),
            is_call: false,
            leaves_connection,
            result,
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
        let is_over =
            self.upload.is_over() || self.download.is_tunnel() || self.download.replaced.is_some();
        if received.is_ready() && is_over {
            return Poll::Ready(Ok(()));
        }
        let is_unread = match self.download.is_tunnel() {
            true => self.upload.is_blocked,
            false => self.upload.is_over() || self.upload.is_blocked,
        };
        if is_unread && let Poll::Ready(error) = self.client.poll_gone(cx) {
            return Poll::Ready(Err(error));
        }
        self.has_response |= received.is_ready();
        self.poll_overdue(cx)
    }

    /// Whether the connection may serve another request. Not if the response was complete before the
    /// request: a server that has not waited for the body may take it for another request, whose
    /// response would be that of the next one.
    pub(super) fn leaves_connection(&self) -> bool {
        !self.has_response
            && self.upload.is_complete()
            && self.download.leaves_connection(self.connection)
    }

    fn poll_upload(&mut self, cx: &mut Context<'_>) -> Result<()> {
        let in_tunnel = self.download.is_tunnel();
        let (client, connection) = (&mut *self.client, &mut *self.connection);
        let trailers = self.asked.trailers;
        self.upload
            .poll(cx, client, connection, self.replay, trailers, in_tunnel)
    }

    /// Ready once the server has been waited for too long, or if the response has ended and the
    /// request does not.
    fn poll_overdue(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let has_moved = self.upload.has_moved | self.download.has_moved;
        (self.upload.has_moved, self.download.has_moved) = (false, false);
        // A tunnel has no end of its own.
        let is_open = !self.has_response && !self.download.is_tunnel();
        let until = self.clock.patience.until.filter(|_| is_open);
        let wait = self.current_wait();
        let is_sending = matches!(wait, Some(Wait::Send | Wait::TunnelSend));
        if self.clock.record(wait, has_moved) && is_sending {
            self.unacknowledged = self.connection.unacknowledged();
        }
        let due = self.clock.due();
        let Some(deadline) = [due, self.slow_at(), until].into_iter().flatten().min() else {
            return Poll::Pending;
        };
        ready!(self.connection.alarm.poll_at(cx, deadline));
        if until == Some(deadline) {
            return Poll::Ready(Err(overrun_error(self.awaited())));
        }
        let Some(wait) = wait else {
            return Poll::Pending;
        };
        if wait.is_last() {
            self.upload.stop();
            return Poll::Ready(Ok(()));
        }
        let may_have_progress =
            wait == Wait::TunnelSend || self.slow_at().is_some_and(|slow| Instant::now() < slow);
        if may_have_progress {
            // The kernel takes more only once there is room for much.
            let unacknowledged = self.connection.unacknowledged();
            let has_progress = unacknowledged < self.unacknowledged;
            if has_progress {
                self.unacknowledged = unacknowledged;
                self.clock.restart();
            }
            if has_progress || due.is_some_and(|due| Instant::now() < due) {
                return self.poll_overdue(cx);
            }
        }
        let error = self.clock.timeout_error(wait, self.has_turn());
        Poll::Ready(Err(error))
    }

    /// When the server has been too slow with what it has accepted of the request.
    fn slow_at(&self) -> Option<Instant> {
        self.clock.slow_at(|| {
            let unacknowledged = self.connection.unacknowledged() as u64;
            self.upload.written.saturating_sub(unacknowledged)
        })
    }

    /// What is waited for, if the client's side has no deadline of its own.
    fn current_wait(&self) -> Option<Wait> {
        if self.has_response {
            Some(Wait::Farewell)
        } else if self.upload.is_closed() {
            Some(Wait::TunnelEnd)
        } else if self.download.is_tunnel() && self.upload.is_blocked {
            Some(Wait::TunnelSend)
        } else if self.download.is_tunnel() {
            Some(Wait::Tunnel)
        } else {
            Wait::for_response(self.download.is_waiting, self.upload.is_blocked)
        }
    }

    /// Whose turn it is.
    fn awaited(&self) -> Awaited {
        let is_waiting = self.download.is_waiting;
        Awaited::of(self.has_turn(), self.upload.is_blocked, is_waiting)
    }

    /// Whether it is the server's turn: it has the complete request, or the client waits until it asks
    /// for the body.
    fn has_turn(&self) -> bool {
        let awaits_continue =
            self.asked.expects && !self.download.has_continued && self.upload.is_untouched();
        self.upload.is_over() || awaits_continue
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use pingora_core::{ErrorSource, ErrorType};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
    use tokio::time::sleep;

    use super::super::fake::Received::{End, Head, Interim};
    use super::super::fake::{FakeClient, Person, Received, arrived, asked, connect, octets};
    use super::super::request::Body;
    use super::super::wait::FAREWELL;
    use super::*;
    use crate::proxy::upstream::UPGRADED_IDLE;

    const READ: Duration = Duration::from_secs(10);
    const SEND: Duration = Duration::from_secs(5);

    const HEAD: &str = "POST / HTTP/1.1\r\n\r\n";
    const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc";
    const SWITCHING: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n";

    /// How an exchange ended.
    #[derive(Debug, PartialEq, Eq)]
    struct Outcome {
        failed: Option<(ErrorSource, ErrorType)>,
        after: Duration,
        /// Whether the connection is left for another request.
        leaves: bool,
        received: Vec<Received>,
    }

    fn complete(after: Duration, leaves: bool, received: &[Received]) -> Outcome {
        Outcome {
            failed: None,
            after,
            leaves,
            received: received.to_vec(),
        }
    }

    fn failed(source: ErrorSource, kind: ErrorType, after: Duration) -> Outcome {
        Outcome {
            failed: Some((source, kind)),
            after,
            leaves: false,
            received: Vec::new(),
        }
    }

    /// Carries an exchange over `connection`.
    async fn carry(client: FakeClient, connection: Connection, body: Body) -> Outcome {
        carry_within(None, client, connection, body).await
    }

    /// Carries an exchange that may take `total`.
    async fn carry_within(
        total: Option<Duration>,
        client: FakeClient,
        connection: Connection,
        body: Body,
    ) -> Outcome {
        let asked = Asked {
            upgrade: body == Body::None,
            ..asked()
        };
        carry_asked(asked, total, client, connection, body).await
    }

    async fn carry_asked(
        asked: Asked<'static>,
        total: Option<Duration>,
        mut client: FakeClient,
        mut connection: Connection,
        body: Body,
    ) -> Outcome {
        let begun = Instant::now();
        let mut replay = Replay::default();
        let upload = Upload::new(Bytes::from_static(HEAD.as_bytes()), body, &replay, 0);
        let patience = Patience {
            read: READ,
            send: SEND,
            until: total.map(|total| begun + total),
        };
        let (client, connection) = (&mut client, &mut connection);
        let mut exchange = Exchange::new(client, connection, asked, patience, upload, &mut replay);
        let done = poll_fn(|cx| exchange.poll(cx)).await;
        let leaves = exchange.leaves_connection();
        Outcome {
            failed: done
                .err()
                .map(|error| (error.esource().clone(), error.etype().clone())),
            after: begun.elapsed(),
            leaves,
            received: exchange.client.received.clone(),
        }
    }

    /// Carries an exchange while `play` acts as the client and the server.
    async fn play<F: Future>(body: Body, play: impl FnOnce(Person, DuplexStream) -> F) -> Outcome {
        let (client, person) = FakeClient::new();
        let (connection, server) = connect(1024);
        let (outcome, _) = tokio::join!(carry(client, connection, body), play(person, server));
        outcome
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn response() -> [Received; 3] {
        [Head(200), octets("abc"), End]
    }

    #[tokio::test(start_paused = true)]
    async fn an_exchange_ends_with_the_response() {
        let outcome = play(Body::Length(5), async |mut person, mut server| {
            person.send("hello");
            person.end();
            sleep(seconds(3)).await;
            assert_eq!(arrived(&mut server).await, format!("{HEAD}hello"));
            server.write_all(OK).await.expect("open");
            (person, server)
        });
        assert_eq!(outcome.await, complete(seconds(3), true, &response()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_response_reaches_the_client_while_it_sends_its_body() {
        let outcome = play(Body::Chunked, async |mut person, mut server| {
            person.send("hello");
            server.write_all(OK).await.expect("open");
            sleep(seconds(1)).await;
            person.send("!");
            person.end();
            sleep(seconds(1)).await;
            let body = "5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n";
            assert_eq!(arrived(&mut server).await, format!("{HEAD}{body}"));
            (person, server)
        });
        assert_eq!(outcome.await, complete(seconds(1), false, &response()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_may_continue_for_a_moment_after_the_response() {
        let silent = play(Body::Chunked, async |person, mut server| {
            server.write_all(OK).await.expect("open");
            sleep(seconds(5)).await;
            (person, server)
        });
        assert_eq!(silent.await, complete(FAREWELL, false, &response()));
        let endless = play(Body::Chunked, async |person, mut server| {
            server.write_all(OK).await.expect("open");
            for _ in 0..50 {
                person.send("more");
                sleep(Duration::from_millis(100)).await;
            }
            (person, server)
        });
        assert_eq!(endless.await, complete(FAREWELL, false, &response()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_may_respond_and_close_without_reading_the_body() {
        let outcome = play(Body::Chunked, async |person, mut server| {
            server.write_all(OK).await.expect("open");
            drop(server);
            person.send("hello");
            person
        });
        assert_eq!(outcome.await, complete(Duration::ZERO, false, &response()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_closes_instead_of_responding_has_failed() {
        for body in [Body::None, Body::Chunked] {
            let outcome = play(body, async |person, server| {
                sleep(seconds(1)).await;
                drop(server);
                person.send("hello");
                sleep(seconds(1)).await;
                person
            });
            let closed = ErrorType::ConnectionClosed;
            let expected = failed(ErrorSource::Upstream, closed, seconds(1));
            assert_eq!(outcome.await, expected, "{body:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_is_waited_for_is_to_blame() {
        let server = play(Body::Length(5), async |mut person, server| {
            person.send("hello");
            person.end();
            sleep(READ * 2).await;
            (person, server)
        });
        let expected = failed(ErrorSource::Upstream, ErrorType::ReadTimedout, READ);
        assert_eq!(server.await, expected);

        let client = play(Body::Length(5), async |person, server| {
            person.send("hell");
            sleep(READ * 2).await;
            (person, server)
        });
        let expected = failed(ErrorSource::Downstream, ErrorType::ReadTimedout, READ);
        assert_eq!(client.await, expected);

        let deaf_server = play(Body::Length(4096), async |person, server| {
            person.send(&"a".repeat(4096));
            sleep(READ * 2).await;
            (person, server)
        });
        let expected = failed(ErrorSource::Upstream, ErrorType::WriteTimedout, SEND);
        assert_eq!(deaf_server.await, expected);
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_is_to_blame_for_the_end_of_a_request_only_if_it_has_all_of_it() {
        const TOTAL: Duration = Duration::from_secs(2);
        const LONG: u64 = 4096;
        for (length, sent, source, kind) in [
            (5, 5, ErrorSource::Upstream, ErrorType::ReadTimedout),
            (5, 3, ErrorSource::Downstream, ErrorType::ReadTimedout),
            // It may accept them as fast as it can.
            (
                LONG,
                LONG,
                ErrorSource::Downstream,
                ErrorType::HTTPStatus(504),
            ),
        ] {
            let (client, mut person) = FakeClient::new();
            let (connection, _server) = connect(1024);
            person.send(&"a".repeat(sent as usize));
            if sent == length {
                person.end();
            }
            let outcome = carry_within(Some(TOTAL), client, connection, Body::Length(length));
            assert_eq!(outcome.await, failed(source, kind, TOTAL), "{sent} octets");
        }
        let (mut client, mut person) = FakeClient::new();
        client.pause(READ * 5);
        person.end();
        let (connection, mut server) = connect(1024);
        server.write_all(OK).await.expect("open");
        let outcome = carry_within(Some(TOTAL), client, connection, Body::Length(0)).await;
        let expected = (ErrorSource::Downstream, ErrorType::WriteTimedout);
        assert_eq!((outcome.failed, outcome.after), (Some(expected), TOTAL));
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_has_to_say_whether_it_wants_the_body() {
        const ASK: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
        for (sent, response, total, source) in [
            ("", None, None, ErrorSource::Upstream),
            ("", None, Some(SEND), ErrorSource::Upstream),
            ("a", None, None, ErrorSource::Downstream),
            ("", Some(ASK), None, ErrorSource::Downstream),
            ("", Some(ASK), Some(SEND), ErrorSource::Downstream),
        ] {
            let (client, person) = FakeClient::new();
            let (connection, mut server) = connect(1024);
            if !sent.is_empty() {
                person.send(sent);
            }
            if let Some(response) = response {
                server.write_all(response).await.expect("open");
            }
            let asked = Asked {
                expects: true,
                ..asked()
            };
            let body = Body::Length(5);
            let outcome = carry_asked(asked, total, client, connection, body).await;
            let expected = Some((source, ErrorType::ReadTimedout));
            let after = total.unwrap_or(READ);
            assert_eq!((outcome.failed, outcome.after), (expected, after));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn progress_of_either_side_extends_the_wait() {
        let outcome = play(Body::Length(3), async |mut person, mut server| {
            for part in ["a", "b", "c"] {
                sleep(READ - seconds(1)).await;
                person.send(part);
            }
            person.end();
            let (head, body) = OK.split_at(OK.len() - 3);
            for part in [head, &body[..1], &body[1..]] {
                sleep(READ - seconds(1)).await;
                server.write_all(part).await.expect("open");
            }
            (person, server)
        });
        assert_eq!(outcome.await, complete(seconds(54), true, &response()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_that_trickles_is_waited_for_no_longer_than_any() {
        let trickle = play(Body::Length(0), async |mut person, mut server| {
            person.end();
            for octet in OK.chunks(1) {
                sleep(seconds(1)).await;
                if server.write_all(octet).await.is_err() {
                    break;
                }
            }
            person
        });
        let expected = failed(ErrorSource::Upstream, ErrorType::ReadTimedout, READ);
        assert_eq!(trickle.await, expected);
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_has_to_accept_a_request_at_some_rate() {
        const SIZE: usize = 26_000;
        async fn accept(mut person: Person, mut server: DuplexStream, pause: Duration) -> Person {
            person.send(&"a".repeat(SIZE));
            person.end();
            let mut left = HEAD.len() + SIZE;
            let mut part = [0; 1000];
            while left > 0 {
                sleep(pause).await;
                match server.read(&mut part).await {
                    Ok(count @ 1..) => left -= count,
                    _ => return person,
                }
            }
            server.write_all(OK).await.expect("open");
            sleep(seconds(1)).await;
            person
        }
        let slow = play(Body::Length(SIZE as u64), |person, server| {
            accept(person, server, seconds(2))
        });
        let expected = failed(ErrorSource::Upstream, ErrorType::WriteTimedout, SEND);
        assert_eq!(slow.await, expected);
        let steady = play(Body::Length(SIZE as u64), |person, server| {
            accept(person, server, Duration::from_millis(700))
        });
        let outcome = steady.await;
        assert_eq!(
            (outcome.failed, outcome.received),
            (None, response().into())
        );
        assert!(outcome.after > SEND * 3, "{:?}", outcome.after);
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_is_not_to_blame_for_a_client_that_reads_slowly() {
        let (mut client, mut person) = FakeClient::new();
        client.pause(READ * 5);
        person.end();
        let (connection, mut server) = connect(1024);
        server.write_all(OK).await.expect("open");
        let outcome = carry(client, connection, Body::Length(0)).await;
        assert_eq!(outcome, complete(READ * 5, true, &response()));
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_the_server_once_the_client_is_gone() {
        let outcome = play(Body::Length(5), async |mut person, server| {
            person.send("hello");
            person.end();
            sleep(seconds(2)).await;
            drop(person);
            sleep(seconds(1)).await;
            server
        });
        let closed = ErrorType::ConnectionClosed;
        let expected = failed(ErrorSource::Downstream, closed, seconds(2));
        assert_eq!(outcome.await, expected);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_leaves_is_missed_while_its_server_accepts_nothing() {
        for (body, response) in [(Body::None, SWITCHING), (Body::Chunked, b"")] {
            let outcome = play(body, async |person, mut server| {
                server.write_all(response).await.expect("open");
                sleep(seconds(1)).await;
                person.send(&"a".repeat(4096));
                sleep(seconds(1)).await;
                drop(person);
                sleep(seconds(1)).await;
                server
            });
            let outcome = outcome.await;
            let gone = (ErrorSource::Downstream, ErrorType::ConnectionClosed);
            assert_eq!((outcome.failed, outcome.after), (Some(gone), seconds(2)));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_server_of_a_tunnel_has_to_accept_what_its_client_sends() {
        let outcome = play(Body::None, async |person, mut server| {
            server.write_all(SWITCHING).await.expect("open");
            sleep(seconds(1)).await;
            person.send(&"a".repeat(4096));
            sleep(UPGRADED_IDLE).await;
            (person, server)
        });
        let outcome = outcome.await;
        let deaf = (ErrorSource::Upstream, ErrorType::WriteTimedout);
        let after = seconds(1) + SEND;
        assert_eq!((outcome.failed, outcome.after), (Some(deaf), after));
    }

    #[tokio::test(start_paused = true)]
    async fn a_tunnel_carries_both_ways_until_the_server_ends_it() {
        let outcome = play(Body::None, async |person, mut server| {
            person.send("hello");
            sleep(seconds(1)).await;
            assert_eq!(arrived(&mut server).await, HEAD);
            server.write_all(SWITCHING).await.expect("open");
            sleep(seconds(1)).await;
            assert_eq!(arrived(&mut server).await, "hello");
            sleep(READ * 2).await;
            server.write_all(b"hi").await.expect("open");
            person.send("bye");
            sleep(seconds(1)).await;
            assert_eq!(arrived(&mut server).await, "bye");
            server.write_all(b" there").await.expect("open");
            drop(server);
            person
        });
        let received = [Head(101), octets("hi there"), End];
        assert_eq!(outcome.await, complete(seconds(23), false, &received));
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_may_say_farewell_to_the_client_of_a_tunnel() {
        let outcome = play(Body::None, async |mut person, mut server| {
            server.write_all(SWITCHING).await.expect("open");
            sleep(seconds(1)).await;
            person.send("bye");
            person.end();
            let mut got = String::new();
            server.read_to_string(&mut got).await.expect("its end");
            assert_eq!(got, format!("{HEAD}bye"));
            sleep(seconds(1)).await;
            server.write_all(b"farewell").await.expect("open");
            sleep(FAREWELL * 2).await;
            (person, server)
        });
        let received = [Head(101), octets("farewell")];
        let after = seconds(2) + FAREWELL;
        assert_eq!(outcome.await, complete(after, false, &received));
    }

    #[tokio::test(start_paused = true)]
    async fn a_tunnel_in_which_both_are_silent_ends() {
        let outcome = play(Body::None, async |person, mut server| {
            server.write_all(SWITCHING).await.expect("open");
            sleep(UPGRADED_IDLE - seconds(1)).await;
            person.send("hello");
            sleep(UPGRADED_IDLE + seconds(1)).await;
            (person, server)
        });
        let after = UPGRADED_IDLE * 2 - seconds(1);
        assert_eq!(outcome.await, complete(after, false, &[Head(101)]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_promises_a_response_has_to_send_it() {
        let outcome = play(Body::Length(0), async |mut person, mut server| {
            person.end();
            sleep(seconds(5)).await;
            server
                .write_all(b"HTTP/1.1 100 Continue\r\n\r\n")
                .await
                .expect("open");
            sleep(READ * 2).await;
            (person, server)
        });
        let timed_out = (ErrorSource::Upstream, ErrorType::ReadTimedout);
        let expected = Outcome {
            failed: Some(timed_out),
            received: vec![Interim(100)],
            ..complete(seconds(15), false, &[])
        };
        assert_eq!(outcome.await, expected);
    }
}
