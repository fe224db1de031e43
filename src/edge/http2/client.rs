//! The client of HTTP/2 in an exchange with a server.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, DATE};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use pingora_core::protocols::http::date::get_cached_date;
use pingora_core::{Error, ErrorType, OrErr as _, Result};

use super::halves::{FRAME, Halves};
use super::outbox::Outbox;
use super::websocket::is_of_http1;
use crate::edge::pace::Pace;
use crate::edge::timer::Timer;
use crate::proxy::{Client, Held, HeldBody, ResponseBody, ResponseHead};

/// Octets of responses that the streams of a connection share, before their clients accept them.
const SHARED: usize = 1024 * 1024;

/// The smallest and the largest share of one stream.
const LEAST: usize = 8 * 1024;
const MOST: usize = 4 * FRAME;

/// The client of one request.
pub(super) struct Http2Client<'a> {
    halves: &'a mut Halves,
    held: &'a Arc<Held>,
    outbox: &'a Outbox,
    /// Set if the client does not read the response.
    stalled: &'a AtomicBool,
    /// How long the client may accept nothing.
    idle: Duration,
    blocked: Timer,
    pace: Pace,
    /// Whether the body may pause.
    may_pause: bool,
    /// What the length of the body, if it is declared, leaves of it.
    declared: HeldBody,
    /// Whether all of the body has been handed on.
    is_body_done: bool,
    has_cancelled: bool,
    /// Whether the stream has become a tunnel.
    is_tunnel: bool,
}

impl<'a> Http2Client<'a> {
    /// The client of a request that declares its body's length as `length`, if it does.
    pub(super) fn new(
        halves: &'a mut Halves,
        held: &'a Arc<Held>,
        outbox: &'a Outbox,
        stalled: &'a AtomicBool,
        idle: Duration,
        length: Option<u64>,
    ) -> Self {
        let is_body_done = halves.has_body_ended();
        Self {
            halves,
            held,
            outbox,
            stalled,
            idle,
            blocked: Timer::default(),
            pace: Pace::new(idle),
            may_pause: false,
            declared: HeldBody::of(length),
            is_body_done,
            has_cancelled: false,
            is_tunnel: false,
        }
    }

    /// This client, which waits for `100 Continue` before it sends a body if `expects`.
    pub(super) fn expecting(mut self, expects: bool) -> Self {
        if expects {
            self.pace.hold();
        }
        self
    }

    /// Queues octets of the response's body, as far as client and connection accept them.
    fn poll_queue(
        &mut self,
        cx: &mut Context<'_>,
        part: &mut Bytes,
        is_last: bool,
    ) -> Poll<Result<()>> {
        let stream = self.halves.id();
        ready!(self.outbox.poll_add(cx, stream, part.len()));
        let sent = self.halves.poll_send(cx, part, is_last);
        self.outbox.subtract(stream, part.len());
        sent
    }

    fn note_failure<T>(&mut self, done: Result<T>) -> Result<T> {
        if done.is_err() {
            // Whatever fails a stream, nobody waits for its response.
            self.has_cancelled = true;
            self.outbox.remove(self.halves.id());
        }
        done.map_err(|error| error.into_down())
    }
}

impl Client for Http2Client<'_> {
    fn held(&self) -> Option<&Arc<Held>> {
        Some(self.held)
    }

    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>>> {
        if self.is_body_done {
            return Poll::Ready(Ok(None));
        }
        let Poll::Ready(part) = self.halves.poll_body(cx) else {
            if self.is_tunnel {
                return Poll::Pending;
            }
            if self.may_pause {
                return Poll::Pending;
            }
            ready!(self.pace.poll_too_slow(cx)).map_err(|error| {
                let why = "while the request's body is awaited";
                Error::because(ErrorType::ReadTimedout, why, error).into_down()
            })?;
            return Poll::Pending;
        };
        let mut part = self.note_failure(part)?;
        self.pace.advance(part.as_ref().map_or(0, Bytes::len));
        let is_end = part.is_none();
        self.declared.check_part(&mut part, is_end);
        self.is_body_done = is_end;
        Poll::Ready(Ok(part))
    }

    fn allow_pauses(&mut self) {
        self.may_pause = true;
    }

    fn take_trailers(&mut self) -> Option<HeaderMap> {
        self.halves.take_trailers()
    }

    fn is_body_done(&self) -> bool {
        self.is_body_done
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<Box<Error>> {
        let reset = ready!(self.halves.poll_reset(cx));
        self.has_cancelled = true;
        self.outbox.remove(self.halves.id());
        Poll::Ready(match reset {
            Ok(reason) => {
                let why = format!("the client has reset the request: {reason}");
                Error::explain(ErrorType::H2Error, why).into_down()
            }
            Err(error) => error.into_down(),
        })
    }

    fn has_cancelled(&self) -> bool {
        self.has_cancelled
    }

    fn send_interim(&mut self, head: &ResponseHead<'_>) -> Result<()> {
        if head.status == StatusCode::CONTINUE {
            self.pace.resume();
        }
        let head = build_head(head)?;
        let sent = self.halves.send_interim(head);
        self.note_failure(sent)
    }

    fn send_head(&mut self, head: &ResponseHead<'_>) -> Result<()> {
        let is_complete = matches!(head.body, ResponseBody::None(_) | ResponseBody::Empty);
        let (head_body, is_dated) = (head.body, head.is_dated());
        let length = head_body.declared_length();
        let id = head.request_id().clone();
        if let Some(handshake) = &self.halves.handshake {
            self.is_tunnel = handshake.check_response(head)?;
        }
        let mut head = match self.is_tunnel {
            true => build_tunnel_head(head)?,
            false => build_head(head)?,
        };
        let fields = head.headers_mut();
        // The end of the stream says as much as a length of 0, and is all that gRPC expects.
        if let Some(length) = length.filter(|_| head_body != ResponseBody::Empty) {
            fields.insert(CONTENT_LENGTH, HeaderValue::from(length));
        }
        if !is_dated {
            fields.insert(DATE, get_cached_date());
        }
        fields.insert(HeaderName::from_static("x-request-id"), id);
        let sent = self.halves.send_head(head, is_complete);
        self.note_failure(sent)
    }

    fn poll_room(&mut self, _: &mut Context<'_>) -> Poll<Result<usize>> {
        let requests = self.held.requests();
        Poll::Ready(Ok((SHARED / requests.max(1)).clamp(LEAST, MOST)))
    }

    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        part: &mut Bytes,
        is_last: bool,
    ) -> Poll<Result<()>> {
        let before = part.len();
        let sent = self.poll_queue(cx, part, is_last);
        if part.len() < before || sent.is_ready() {
            self.blocked.clear();
        }
        if let Poll::Ready(sent) = sent {
            return Poll::Ready(self.note_failure(sent));
        }
        if let Poll::Ready(error) = self.poll_gone(cx) {
            return Poll::Ready(Err(error));
        }
        ready!(self.blocked.poll_after(cx, self.idle));
        self.stalled.store(true, Ordering::Relaxed);
        let why = format!("the client reads nothing for {:?}", self.idle);
        // What it has queued stays counted: it must not make room for others on a connection that
        // accepts nothing.
        self.has_cancelled = true;
        Poll::Ready(Err(
            Error::explain(ErrorType::WriteTimedout, why).into_down()
        ))
    }

    fn send_trailers(&mut self, trailers: HeaderMap) -> Result<()> {
        let sent = self.halves.send_trailers(trailers);
        self.note_failure(sent)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        // Nobody reads from the client of a tunnel while its server accepts nothing.
        if self.is_tunnel
            && !self.halves.is_ended
            && let Poll::Ready(error) = self.poll_gone(cx)
        {
            return Poll::Ready(Err(error));
        }
        // The task of the connection sends what its streams have accepted.
        Poll::Ready(Ok(()))
    }
}

/// A head with the server's fields.
fn build_head(head: &ResponseHead<'_>) -> Result<Response<()>> {
    build_with_fields(head.status, head.fields())
}

/// The head that opens a tunnel, with the server's fields.
fn build_tunnel_head(head: &ResponseHead<'_>) -> Result<Response<()>> {
    let fields = head.fields().filter(|(name, _)| !is_of_http1(name));
    build_with_fields(StatusCode::OK, fields)
}

fn build_with_fields<'a>(
    status: StatusCode,
    fields: impl Iterator<Item = (&'a [u8], &'a [u8])>,
) -> Result<Response<()>> {
    let mut built = Response::new(());
    *built.status_mut() = status;
    let invalid = "a field of a response is not valid in HTTP/2";
    for (name, value) in fields {
        let name = HeaderName::from_bytes(name).or_err(ErrorType::InvalidHTTPHeader, invalid);
        let value = HeaderValue::from_bytes(value).or_err(ErrorType::InvalidHTTPHeader, invalid);
        let (name, value) = (
            name.map_err(|error| error.into_up())?,
            value.map_err(|error| error.into_up())?,
        );
        built.headers_mut().append(name, value);
    }
    Ok(built)
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use h2::{RecvStream, SendStream, client, server};
    use http::{Request, StatusCode};
    use pingora_core::ErrorSource;
    use tokio::task::JoinHandle;

    use super::*;

    const IDLE: Duration = Duration::from_secs(60);

    /// A request at the gateway.
    struct Near {
        halves: Halves,
        held: Arc<Held>,
        outbox: Outbox,
        stalled: AtomicBool,
    }

    /// The request at its client.
    struct Far {
        body: SendStream<Bytes>,
        response: client::ResponseFuture,
        tasks: [JoinHandle<()>; 2],
    }

    /// Begins a request, whose head ends it if `end`.
    async fn begin(end: bool) -> (Near, Far) {
        let (near, far) = tokio::io::duplex(1 << 20);
        let (client, server) = tokio::join!(client::handshake(far), server::handshake(near));
        let (mut requests, connection) = client.expect("a connection");
        let mut server = server.expect("a connection");
        let driven = tokio::spawn(async move { connection.await.expect("no failure") });
        let request = Request::post("https://a.test/").body(()).expect("valid");
        let (response, body) = requests.send_request(request, end).expect("room");
        let (request, respond) = server.accept().await.expect("a request").expect("valid");
        let served = tokio::spawn(async move {
            let _requests = requests;
            while server.accept().await.is_some() {}
        });
        let near = Near {
            halves: Halves::new(request.into_body(), respond),
            held: Arc::default(),
            outbox: Outbox::default(),
            stalled: AtomicBool::new(false),
        };
        let far = Far {
            body,
            response,
            tasks: [driven, served],
        };
        (near, far)
    }

    impl Near {
        fn client(&mut self, length: Option<u64>) -> Http2Client<'_> {
            let (halves, held) = (&mut self.halves, &self.held);
            let (outbox, stalled) = (&self.outbox, &self.stalled);
            Http2Client::new(halves, held, outbox, stalled, IDLE, length)
        }

        /// Sends the head of a response, and then parts of its body, of which the last one ends it.
        async fn respond(&mut self, head: &str, parts: &[&'static str]) {
            let mut client = self.client(None);
            send_head(&mut client, head).expect("accepted");
            for (at, part) in parts.iter().enumerate() {
                let mut part = Bytes::from_static(part.as_bytes());
                let is_last = at + 1 == parts.len();
                let sent = poll_fn(|cx| client.poll_send(cx, &mut part, is_last)).await;
                sent.expect("the client accepts it");
            }
        }
    }

    impl Drop for Far {
        fn drop(&mut self) {
            self.tasks.iter().for_each(JoinHandle::abort);
        }
    }

    fn send_head(client: &mut Http2Client<'_>, head: &str) -> Result<()> {
        let head = format!("{head}\r\n\r\n");
        ResponseHead::parse_sample(head.as_bytes(), |head| client.send_head(head))
    }

    async fn read(body: &mut RecvStream) -> String {
        let mut got = String::new();
        while let Some(part) = body.data().await {
            got.push_str(str::from_utf8(&part.expect("no failure")).expect("text"));
        }
        got
    }

    #[tokio::test]
    async fn a_response_has_the_servers_fields_without_those_of_its_connection() {
        let (mut near, mut far) = begin(true).await;
        let head = "HTTP/1.1 200 Fine\r\nDate: d\r\nX-A: 1\r\nConnection: x-hop\r\nX-Hop: 1\r\n\
             Keep-Alive: 5\r\nx-a: 2\r\nTransfer-Encoding: chunked\r\nX-Request-Id: theirs";
        near.respond(head, &["he", "", "llo"]).await;
        let (head, mut body) = (&mut far.response).await.expect("a response").into_parts();
        assert_eq!(head.status, StatusCode::OK);
        let mut fields: Vec<_> = head
            .headers
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().expect("text")))
            .collect();
        fields.sort_unstable();
        assert_eq!(
            fields,
            ["date: d", "x-a: 1", "x-a: 2", "x-request-id: 00ff"]
        );
        assert_eq!(read(&mut body).await, "hello");
    }

    #[tokio::test]
    async fn a_response_declares_its_length_in_normal_form_and_is_dated() {
        let (mut near, mut far) = begin(true).await;
        near.respond("HTTP/1.1 200 OK\r\nContent-Length: 005", &["hello"])
            .await;
        let response = (&mut far.response).await.expect("a response");
        assert_eq!(response.headers()[CONTENT_LENGTH], "5");
        let date = response.headers()[DATE].to_str().expect("text");
        assert!(date.ends_with(" GMT"), "{date}");
        assert_eq!(read(&mut response.into_body()).await, "hello");
    }

    #[tokio::test]
    async fn a_response_without_a_body_ends_with_its_head() {
        for (head, length) in [
            ("HTTP/1.1 304 Not Modified\r\nContent-Length: 5", Some("5")),
            ("HTTP/1.1 204 No Content\r\nContent-Length: 5", None),
        ] {
            let (mut near, mut far) = begin(true).await;
            near.respond(head, &[]).await;
            let response = (&mut far.response).await.expect("a response");
            assert!(response.body().is_end_stream());
            let declared = response.headers().get(CONTENT_LENGTH);
            assert_eq!(
                declared.map(HeaderValue::as_bytes),
                length.map(str::as_bytes)
            );
        }
    }

    #[tokio::test]
    async fn interim_responses_are_passed_on() {
        let (mut near, mut far) = begin(true).await;
        let mut client = near.client(None);
        let hints = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n";
        let sent = ResponseHead::parse_sample(hints, |head| client.send_interim(head));
        sent.expect("accepted");
        near.respond("HTTP/1.1 204 No Content", &[]).await;
        let interim = poll_fn(|cx| far.response.poll_informational(cx)).await;
        let interim = interim.expect("an interim response").expect("no failure");
        assert_eq!(interim.status(), StatusCode::EARLY_HINTS);
        assert_eq!(interim.headers()["link"], "x");
        let response = (&mut far.response).await.expect("a response");
        assert_eq!(response.status(), StatusCode::NO_CONTENT);
    }

    #[tokio::test]
    async fn the_last_octet_that_is_declared_waits_for_the_end_of_the_body() {
        let (mut near, mut far) = begin(false).await;
        let hello = Bytes::from_static(b"hello");
        far.body.send_data(hello, false).expect("room");
        let mut client = near.client(Some(5));
        let part = poll_fn(|cx| client.poll_body(cx)).await.expect("a part");
        assert_eq!(part, Some(Bytes::from_static(b"hell")));
        assert!(!client.is_body_done());
        far.body.send_data(Bytes::new(), true).expect("room");
        let mut rest = Vec::new();
        while let Some(part) = poll_fn(|cx| client.poll_body(cx)).await.expect("a part") {
            rest.extend_from_slice(&part);
        }
        assert_eq!(rest, b"o");
        assert!(client.is_body_done());
    }

    #[tokio::test]
    async fn a_request_without_a_body_is_done_from_the_beginning() {
        let (mut near, _far) = begin(true).await;
        let mut client = near.client(None);
        assert!(client.is_body_done());
        let end = poll_fn(|cx| client.poll_body(cx)).await.expect("the end");
        assert_eq!(end, None);
    }

    #[tokio::test]
    async fn trailers_pass_both_ways() {
        let (mut near, mut far) = begin(false).await;
        let trailers = || HeaderMap::from_iter([(DATE, HeaderValue::from_static("x"))]);
        far.body.send_trailers(trailers()).expect("open");
        let mut client = near.client(None);
        let end = poll_fn(|cx| client.poll_body(cx)).await.expect("the end");
        assert_eq!((end, client.take_trailers()), (None, Some(trailers())));
        assert!(client.is_body_done() && client.take_trailers().is_none());
        send_head(&mut client, "HTTP/1.1 200 OK").expect("accepted");
        client.send_trailers(trailers()).expect("accepted");
        let response = (&mut far.response).await.expect("a response");
        let mut body = response.into_body();
        assert_eq!(read(&mut body).await, "");
        assert_eq!(body.trailers().await.expect("no failure"), Some(trailers()));
    }

    #[tokio::test]
    async fn trailers_that_are_too_large_are_refused() {
        let (mut near, mut far) = begin(false).await;
        let value = HeaderValue::from_bytes(&[b'a'; 16_384]).expect("valid");
        far.body
            .send_trailers(HeaderMap::from_iter([(DATE, value)]))
            .expect("open");
        let mut client = near.client(None);
        let error = poll_fn(|cx| client.poll_body(cx))
            .await
            .expect_err("too large");
        assert_eq!(*error.esource(), ErrorSource::Downstream);
        assert_eq!(*error.etype(), ErrorType::InvalidHTTPHeader);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_of_messages_may_pause() {
        let (mut near, mut far) = begin(false).await;
        let mut client = near.client(None);
        client.allow_pauses();
        let pause = tokio::time::sleep(IDLE * 10);
        let sent = async {
            pause.await;
            far.body
                .send_data(Bytes::from_static(b"hello"), false)
                .expect("room");
        };
        let (part, ()) = tokio::join!(poll_fn(|cx| client.poll_body(cx)), sent);
        assert_eq!(part.expect("a part"), Some(Bytes::from_static(b"hello")));
    }

    #[tokio::test]
    async fn a_client_that_resets_its_stream_has_cancelled_the_request() {
        let (mut near, mut far) = begin(true).await;
        let mut client = near.client(None);
        let now = poll_fn(|cx| Poll::Ready(client.poll_gone(cx))).await;
        assert!(now.is_pending() && !client.has_cancelled());
        far.body.send_reset(h2::Reason::CANCEL);
        let error = poll_fn(|cx| client.poll_gone(cx)).await;
        assert!(client.has_cancelled());
        assert_eq!(*error.esource(), ErrorSource::Downstream);
        assert_eq!(*error.etype(), ErrorType::H2Error);
    }

    #[tokio::test]
    async fn a_body_that_is_reset_cancels_the_request() {
        let (mut near, mut far) = begin(false).await;
        far.body.send_reset(h2::Reason::CANCEL);
        let mut client = near.client(None);
        let error = poll_fn(|cx| client.poll_body(cx)).await.expect_err("reset");
        assert!(client.has_cancelled() && !client.is_body_done());
        assert_eq!(*error.esource(), ErrorSource::Downstream);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_come_is_the_clients_failure() {
        let (mut near, _far) = begin(false).await;
        let mut client = near.client(None);
        let error = poll_fn(|cx| client.poll_body(cx))
            .await
            .expect_err("too slow");
        assert_eq!(*error.esource(), ErrorSource::Downstream);
        assert_eq!(*error.etype(), ErrorType::ReadTimedout);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_reads_nothing_stalls_its_connection() {
        let (mut near, _far) = begin(true).await;
        let mut client = near.client(None);
        send_head(&mut client, "HTTP/1.1 200 OK").expect("accepted");
        let begun = tokio::time::Instant::now();
        // More than a client allows that has allowed nothing.
        let mut part = Bytes::from(vec![b'a'; 100_000]);
        let sent = poll_fn(|cx| client.poll_send(cx, &mut part, true)).await;
        let error = sent.expect_err("no room");
        assert_eq!(begun.elapsed(), IDLE);
        assert_eq!(part.len(), 100_000 - 65_535);
        assert_eq!(*error.esource(), ErrorSource::Downstream);
        assert_eq!(*error.etype(), ErrorType::WriteTimedout);
        assert!(near.stalled.load(Ordering::Relaxed));
    }

    #[tokio::test]
    async fn streams_share_what_is_read_ahead_of_their_clients() {
        let (mut near, _far) = begin(true).await;
        let held = Arc::clone(&near.held);
        let mut client = near.client(None);
        for (streams, room) in [(0, MOST), (1, MOST), (32, SHARED / 32), (1000, LEAST)] {
            held.set_at_upstreams(streams);
            let given = poll_fn(|cx| client.poll_room(cx)).await;
            assert_eq!(given.expect("room"), room, "{streams}");
        }
    }
}
