//! One request and its response over one stream of HTTP/2 to a server, both at the same time.

mod download;
mod upload;

use std::future::poll_fn;
use std::mem;
use std::task::{Context, Poll, ready};

use http::header::CONTENT_TYPE;
use http::{Request, StatusCode};
use pingora_core::{ErrorSource, Result};

use self::download::Download;
use self::upload::Upload;
use super::client::Client;
use super::deadline::{Awaited, overrun_error};
use super::exchange::Outcome;
use super::request::Body;
use super::response::Asked;
use super::upload::Replay;
use super::wait::{Patience, Wait, WaitClock};
use crate::proxy::alarm::Alarm;
use crate::proxy::grpc;
use crate::proxy::head_watch::HeadWatch;
use crate::proxy::http2::{Place, stream_error};

/// A request for a server of HTTP/2.
pub(super) struct Outgoing<'a> {
    pub(super) head: Request<()>,
    pub(super) body: Body,
    /// The most octets of the body, 0 for as many as it has.
    pub(super) max_body: u64,
    /// Whether the body is a stream of messages, between which the client may pause.
    pub(super) may_pause: bool,
    pub(super) asked: Asked<'a>,
    pub(super) patience: Patience,
}

/// One attempt at a server.
struct Exchange<'a, C> {
    client: &'a mut C,
    asked: Asked<'a>,
    upload: Upload,
    download: Download,
    replay: &'a mut Replay,
    alarm: Alarm,
    clock: WaitClock,
    /// Whether the server has been waited for too long.
    has_timed_out: bool,
    /// Whether the server has sent something since this was last cleared.
    has_sign: bool,
    /// Whether the client has the complete response.
    has_response: bool,
}

/// Carries a request and its response. `record_response` gets the status of the response, and when
/// the request was complete.
///
/// A stream that is not complete is reset when this ends, or is dropped.
pub(super) async fn carry<C: Client>(
    mut place: Place,
    outgoing: Outgoing<'_>,
    client: &mut C,
    replay: &mut Replay,
    record_response: impl FnOnce(StatusCode, Option<std::time::Instant>),
) -> Outcome {
    let Outgoing { body, max_body, .. } = outgoing;
    if outgoing.may_pause {
        client.allow_pauses();
    }
    let has_ended = body == Body::None;
    let content_type = outgoing
        .head
        .headers()
        .get(CONTENT_TYPE)
        .filter(|_| outgoing.may_pause);
    let is_call = grpc::is_native(content_type);
    let (response, stream) = match place.send_head(outgoing.head, has_ended) {
        Ok(stream) => stream,
        Err(error) => {
            // The connection has ended since the place was taken.
            place.retire_connection();
            let why = "before a request is sent";
            return Outcome {
                result: Err(stream_error(error, why)),
                status: None,
                octets: 0,
                received: 0,
                has_begun: false,
                is_unprocessed: true,
                replaced: None,
                is_call: false,
                leaves_connection: false,
            };
        }
    };
    let upload = Upload::new(stream, has_ended, replay, max_body);
    let mut exchange = Exchange {
        client,
        asked: outgoing.asked,
        upload,
        download: Download::new(response, is_call),
        replay,
        alarm: Alarm::default(),
        clock: WaitClock::new(outgoing.patience),
        has_timed_out: false,
        has_sign: false,
        has_response: false,
    };
    let mut watch = HeadWatch::new(record_response);
    let result = poll_fn(|cx| {
        let carried = exchange.poll(cx);
        if mem::take(&mut exchange.has_sign) {
            place.note_sign();
        }
        watch.look(exchange.upload.is_over(), exchange.download.status);
        carried
    });
    let result = result.await;
    if exchange.has_timed_out {
        // Its server may be gone without a word.
        place.retire_connection();
    }
    if result.is_ok() || exchange.download.has_failed {
        place.note_end();
    }
    let download = &mut exchange.download;
    Outcome {
        status: download.status,
        octets: download.octets,
        received: exchange.upload.body_octets(),
        has_begun: download.has_begun,
        is_unprocessed: download.is_unprocessed,
        replaced: download.replaced.take(),
        is_call: download.is_call,
        leaves_connection: false,
        result,
    }
}

impl<C: Client> Exchange<'_, C> {
    /// Ready once the client has the complete response and the server the complete request, or will
    /// not get it.
    ///
    /// # Errors
    /// If one of the two fails.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let may_repeat = !self.download.has_begun;
        let trailers = self.asked.trailers;
        self.upload
            .poll(cx, self.client, self.replay, trailers, may_repeat)?;
        let received = self.download.poll(cx, self.client, self.asked);
        self.has_sign |= self.download.has_moved;
        let received = received?;
        let is_over = self.upload.is_over() || self.download.replaced.is_some();
        if received.is_ready() && is_over {
            return Poll::Ready(Ok(()));
        }
        if (self.upload.is_over() || self.upload.is_blocked)
            && let Poll::Ready(error) = self.client.poll_gone(cx)
        {
            return Poll::Ready(Err(error));
        }
        self.has_response |= received.is_ready();
        self.poll_overdue(cx)
    }

    /// Ready once the server has been waited for too long, or if the response has ended and the
    /// request does not.
    fn poll_overdue(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let has_moved = self.upload.has_moved | self.download.has_moved;
        (self.upload.has_moved, self.download.has_moved) = (false, false);
        let until = self.clock.patience.until.filter(|_| !self.has_response);
        let wait = match self.has_response {
            true => Some(Wait::Farewell),
            false => Wait::for_response(self.download.is_waiting, self.upload.is_blocked),
        };
        self.clock.record(wait, has_moved);
        let slow = self.clock.slow_at(|| self.upload.accepted);
        let Some(deadline) = [self.clock.due(), slow, until].into_iter().flatten().min() else {
            return Poll::Pending;
        };
        ready!(self.alarm.poll_at(cx, deadline));
        if until == Some(deadline) {
            let is_waiting = self.download.is_waiting;
            let awaited = Awaited::of(self.has_turn(), self.upload.is_blocked, is_waiting);
            return Poll::Ready(Err(overrun_error(awaited)));
        }
        let Some(wait) = wait else {
            return Poll::Pending;
        };
        if wait.is_last() {
            return Poll::Ready(Ok(()));
        }
        let error = self.clock.timeout_error(wait, self.has_turn());
        self.has_timed_out = *error.esource() == ErrorSource::Upstream;
        Poll::Ready(Err(error))
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
    use h2::server::{self, SendResponse};
    use h2::{Reason, RecvStream};
    use http::Response;
    use pingora_core::ErrorType;
    use tokio::io::duplex;
    use tokio::sync::oneshot;
    use tokio::time::{Instant, sleep};

    use super::super::fake::Received::{End, Head, Interim, Trailers};
    use super::super::fake::{FakeClient, Person, Received, asked, octets};
    use super::super::wait::FAREWELL;
    use super::*;
    use crate::proxy::dial::Duplex;
    use crate::proxy::http2::{Http2Connections, Opened};

    const READ: Duration = Duration::from_secs(10);
    const SEND: Duration = Duration::from_secs(5);

    /// A request at its server.
    struct Call {
        body: RecvStream,
        respond: SendResponse<Bytes>,
    }

    /// How an exchange ended.
    #[derive(Debug, PartialEq, Eq)]
    struct Ended {
        failed: Option<(ErrorSource, ErrorType)>,
        after: Duration,
        is_unprocessed: bool,
        received: Vec<Received>,
    }

    /// Carries a request with a body while `play` acts as the client and the server.
    async fn play<F: Future>(play: impl FnOnce(Person, Call) -> F) -> Ended {
        let connections = Http2Connections::new();
        let (near, far) = duplex(1 << 20);
        let (tell, call) = oneshot::channel();
        let serving = tokio::spawn(async move {
            let mut connection = server::handshake(far).await.expect("HTTP/2");
            let (request, respond) = connection.accept().await.expect("one").expect("valid");
            let body = request.into_body();
            assert!(tell.send(Call { body, respond }).is_ok());
            while connection.accept().await.is_some() {}
        });
        let dial = |_| async { Ok(Box::new(near) as Box<dyn Duplex>) };
        let opened = connections
            .open(READ, true, None, dial)
            .await
            .expect("open");
        let Opened::Place(place) = opened else {
            panic!("it is HTTP/2")
        };
        let (mut client, person) = FakeClient::new();
        let mut replay = Replay::default();
        let head = Request::post("http://a.test/").body(()).expect("valid");
        let outgoing = Outgoing {
            head,
            body: Body::Chunked,
            max_body: 0,
            may_pause: false,
            asked: asked(),
            patience: Patience {
                read: READ,
                send: SEND,
                until: None,
            },
        };
        let carried = async {
            let begun = Instant::now();
            let outcome = carry(place, outgoing, &mut client, &mut replay, |_, _| {}).await;
            (outcome, begun.elapsed())
        };
        let acting = async {
            let call = call.await.expect("a request");
            play(person, call).await
        };
        let ((outcome, after), _acted) = tokio::join!(carried, acting);
        serving.abort();
        let error = outcome.result.err();
        Ended {
            failed: error.map(|error| (error.esource().clone(), error.etype().clone())),
            after,
            is_unprocessed: outcome.is_unprocessed,
            received: client.received,
        }
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn head(status: u16) -> Response<()> {
        Response::builder().status(status).body(()).expect("valid")
    }

    fn failed(source: ErrorSource, kind: ErrorType, after: Duration) -> Ended {
        Ended {
            failed: Some((source, kind)),
            after,
            is_unprocessed: false,
            received: Vec::new(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_exchange_ends_with_both_sides() {
        let ended = play(async |mut person, mut call: Call| {
            person.send("hello");
            person.end();
            let part = call.body.data().await.expect("a part").expect("no failure");
            assert_eq!(part, "hello");
            while let Some(part) = call.body.data().await {
                assert!(part.expect("no failure").is_empty());
            }
            call.respond.send_informational(head(103)).expect("open");
            sleep(seconds(1)).await;
            let mut response = call.respond.send_response(head(200), false).expect("open");
            response
                .send_data(Bytes::from_static(b"abc"), false)
                .expect("open");
            let trailers = [("x-sum", "1"), ("x-request-id", "0")];
            let trailers = trailers.map(|(n, v)| (n.parse().unwrap(), v.parse().unwrap()));
            response
                .send_trailers(trailers.into_iter().collect())
                .expect("open");
            person
        });
        let expected = Ended {
            failed: None,
            after: seconds(1),
            is_unprocessed: false,
            received: vec![
                Interim(103),
                Head(200),
                octets("abc"),
                Trailers(vec!["x-sum: 1".to_owned()]),
                End,
            ],
        };
        assert_eq!(ended.await, expected);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_may_continue_for_a_moment_after_the_response() {
        let ended = play(async |person, mut call: Call| {
            call.respond.send_response(head(200), true).expect("open");
            for _ in 0..50 {
                person.send("more");
                sleep(Duration::from_millis(100)).await;
            }
        });
        let expected = Ended {
            failed: None,
            after: FAREWELL,
            is_unprocessed: false,
            received: vec![Head(200), End],
        };
        assert_eq!(ended.await, expected);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_is_waited_for_is_to_blame() {
        let server = play(async |mut person, call: Call| {
            person.send("hello");
            person.end();
            sleep(READ * 2).await;
            (person, call)
        });
        let expected = failed(ErrorSource::Upstream, ErrorType::ReadTimedout, READ);
        assert_eq!(server.await, expected);

        let client = play(async |person, call: Call| {
            sleep(READ * 2).await;
            (person, call)
        });
        let expected = failed(ErrorSource::Downstream, ErrorType::ReadTimedout, READ);
        assert_eq!(client.await, expected);

        let deaf_server = play(async |mut person, call: Call| {
            // More than its window holds.
            person.send(&"a".repeat(200_000));
            person.end();
            sleep(READ * 2).await;
            (person, call)
        });
        let expected = failed(ErrorSource::Upstream, ErrorType::WriteTimedout, SEND);
        assert_eq!(deaf_server.await, expected);
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_has_to_accept_a_request_at_some_rate() {
        const SIZE: usize = 200_000;
        // More than its window, and then so many octets a second.
        async fn accept(mut person: Person, mut call: Call, rate: usize) -> (Person, Call) {
            person.send(&"a".repeat(SIZE));
            person.end();
            let mut arrived = 0;
            while arrived < SIZE {
                let waited = tokio::time::timeout(seconds(1), call.body.data()).await;
                match waited {
                    Ok(Some(Ok(part))) => arrived += part.len(),
                    Ok(_) => return (person, call),
                    Err(_) => {
                        let released = call.body.flow_control().release_capacity(rate);
                        released.expect("it was used");
                    }
                }
            }
            call.respond.send_response(head(200), true).expect("open");
            sleep(seconds(1)).await;
            (person, call)
        }
        let slow = play(|person, call| accept(person, call, 100)).await;
        let failure = (ErrorSource::Upstream, ErrorType::WriteTimedout);
        assert_eq!(slow.failed, Some(failure));
        // What the window has taken counts.
        assert!(slow.after > seconds(60), "{:?}", slow.after);
        assert!(slow.after < seconds(80), "{:?}", slow.after);
        let steady = play(|person, call| accept(person, call, 1500)).await;
        assert_eq!(
            (steady.failed, steady.received),
            (None, vec![Head(200), End])
        );
        assert!(steady.after > seconds(80), "{:?}", steady.after);
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_sends_only_empty_parts_is_late() {
        let ended = play(async |mut person, mut call: Call| {
            person.end();
            let mut response = call.respond.send_response(head(200), false).expect("open");
            while response.send_data(Bytes::new(), false).is_ok() {
                sleep(seconds(1)).await;
            }
            person
        });
        let expected = Ended {
            received: vec![Head(200)],
            ..failed(ErrorSource::Upstream, ErrorType::ReadTimedout, READ)
        };
        assert_eq!(ended.await, expected);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_is_refused_has_not_been_processed() {
        for (reason, kind, is_unprocessed) in [
            (Reason::REFUSED_STREAM, ErrorType::ConnectionClosed, true),
            (Reason::INTERNAL_ERROR, ErrorType::H2Error, false),
        ] {
            let ended = play(async |person, mut call: Call| {
                sleep(seconds(1)).await;
                call.respond.send_reset(reason);
                sleep(seconds(1)).await;
                (person, call)
            });
            let expected = Ended {
                is_unprocessed,
                ..failed(ErrorSource::Upstream, kind, seconds(1))
            };
            assert_eq!(ended.await, expected);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_leaves_resets_the_stream() {
        let ended = play(async |mut person, mut call: Call| {
            person.end();
            sleep(seconds(1)).await;
            drop(person);
            let reason = poll_fn(|cx| call.respond.poll_reset(cx)).await;
            assert_eq!(reason.expect("no failure"), Reason::CANCEL);
        });
        let gone = ErrorType::ConnectionClosed;
        assert_eq!(
            ended.await,
            failed(ErrorSource::Downstream, gone, seconds(1))
        );
    }
}
