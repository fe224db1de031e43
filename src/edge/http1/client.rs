//! The client of HTTP/1 in an exchange with a server.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes, BytesMut};
use http::header::TE;
use http::{HeaderMap, StatusCode};
use pingora_core::protocols::http::date::get_cached_date;
use pingora_core::{Error, ErrorType, Result};
use tokio::io::AsyncWrite as _;

use super::stream::{Gone, MessageStream};
use crate::proxy::{
    Client, Fields, Held, ResponseBody, ResponseHead, parse_trailers, write_last_chunk,
};
use crate::shutdown::ShutdownWatch;

/// How many octets of a response are read at once.
const ROOM: usize = 32 * 1024;

/// The client of one request.
pub(super) struct Http1Client<'a> {
    stream: &'a mut MessageStream,
    /// Whether the client speaks HTTP/1.0.
    is_http_10: bool,
    /// Whether the connection may be kept after the response.
    may_keep: bool,
    shutdown: &'a ShutdownWatch,
    /// Those of the request, if they may ask for trailers.
    fields: Option<Fields<'a>>,
    /// What frames the body, and is not written yet.
    out: BytesMut,
    is_chunked: bool,
    /// Whether the chunk that is being written has begun.
    in_chunk: bool,
    /// Whether the end of the response has been put into `out`.
    is_ended: bool,
    /// Whether the response says that the connection is kept.
    is_kept: bool,
    /// Whether the connection has become a tunnel.
    is_tunnel: bool,
}

impl<'a> Http1Client<'a> {
    pub(super) fn new(
        stream: &'a mut MessageStream,
        is_http_10: bool,
        may_keep: bool,
        shutdown: &'a ShutdownWatch,
    ) -> Self {
        Self {
            stream,
            is_http_10,
            may_keep,
            shutdown,
            fields: None,
            out: BytesMut::new(),
            is_chunked: false,
            in_chunk: false,
            is_ended: false,
            is_kept: false,
            is_tunnel: false,
        }
    }

    /// This client, whose request has these fields.
    pub(super) fn with_fields(self, fields: Fields<'a>) -> Self {
        Self {
            fields: Some(fields),
            ..self
        }
    }

    /// Whether the client takes trailers (RFC 9110, section 10.1.4).
    fn takes_trailers(&self) -> bool {
        let is_te = |name: &[u8]| name.eq_ignore_ascii_case(TE.as_str().as_bytes());
        let fields = self.fields.into_iter().flat_map(Fields::iter);
        fields
            .filter(|(name, _)| is_te(name))
            .flat_map(|(_, value)| value.split(|&octet| octet == b','))
            .any(|coding| coding.trim_ascii().eq_ignore_ascii_case(b"trailers"))
    }

    /// Whether another request may follow.
    pub(super) fn keeps_connection(&self) -> bool {
        self.is_kept && self.is_ended && self.stream.is_done()
    }

    fn put_line(&mut self, head: &ResponseHead<'_>) {
        self.out.reserve(1024);
        self.put(&[b"HTTP/1.1 ", head.status.as_str().as_bytes(), b" "]);
        self.put(&[head.reason.as_bytes(), b"\r\n"]);
        for (name, value) in head.fields() {
            self.put_field(name, value);
        }
    }

    fn put_field(&mut self, name: &[u8], value: &[u8]) {
        self.put(&[name, b": ", value, b"\r\n"]);
    }

    fn put(&mut self, parts: &[&[u8]]) {
        for part in parts {
            self.out.extend_from_slice(part);
        }
    }

    /// Writes what frames the body.
    fn poll_out(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        while !self.out.is_empty() {
            let written = Pin::new(&mut *self.stream).poll_write(cx, &self.out);
            let count = ready!(written).map_err(write_error)?;
            self.out.advance(count);
            self.stream.note_written();
        }
        Poll::Ready(Ok(()))
    }
}

impl Client for Http1Client<'_> {
    fn held(&self) -> Option<&Arc<Held>> {
        None
    }

    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>>> {
        let data = ready!(self.stream.poll_data(cx));
        Poll::Ready(data.map_err(|error| {
            let why = "while the request's body is read";
            Error::because(ErrorType::ReadError, why, error).into_down()
        }))
    }

    fn take_trailers(&mut self) -> Option<HeaderMap> {
        let lines = self.stream.take_trailers();
        (!lines.is_empty()).then(|| parse_trailers(&lines))
    }

    fn is_body_done(&self) -> bool {
        self.stream.is_done()
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<Box<Error>> {
        let gone = match self.is_tunnel {
            true => self.stream.poll_hung_up(cx),
            false => self.stream.poll_gone(cx),
        };
        let (kind, why) = match ready!(gone) {
            Gone::Closed => (ErrorType::ConnectionClosed, "the client has gone away"),
            Gone::Early => (ErrorType::ConnectError, "the upgrade is not granted yet"),
        };
        Poll::Ready(Error::explain(kind, why).into_down())
    }

    fn has_cancelled(&self) -> bool {
        false
    }

    fn send_interim(&mut self, head: &ResponseHead<'_>) -> Result<()> {
        if head.status == StatusCode::CONTINUE {
            self.stream.note_continued();
        }
        // A client of HTTP/1.0 knows no interim responses.
        if !self.is_http_10 {
            self.put_line(head);
            self.put(&[b"\r\n"]);
        }
        Ok(())
    }

    fn send_head(&mut self, head: &ResponseHead<'_>) -> Result<()> {
        self.put_line(head);
        self.put_field(b"X-Request-Id", head.request_id().as_bytes());
        if head.body == ResponseBody::Tunnel {
            self.is_tunnel = true;
            self.put(&[b"\r\n"]);
            return Ok(());
        }
        if let Some(length) = head.body.declared_length() {
            let length = http::HeaderValue::from(length);
            self.put_field(b"Content-Length", length.as_bytes());
        }
        let is_unsized = matches!(head.body, ResponseBody::Chunked | ResponseBody::UntilClose);
        self.is_chunked = is_unsized && !self.is_http_10;
        if self.is_chunked {
            self.put_field(b"Transfer-Encoding", b"chunked");
        }
        if !head.is_dated() {
            self.put_field(b"Date", get_cached_date().as_bytes());
        }
        // To a client of HTTP/1.0 the end of the connection is the end of such a body. And what a
        // client may still send of its own cannot be told from its next request.
        let ends_with_connection = is_unsized && self.is_http_10;
        self.is_kept = self.may_keep
            && !ends_with_connection
            && self.stream.is_done()
            && !*self.shutdown.borrow();
        let connection: &[u8] = match self.is_kept {
            true => b"keep-alive",
            false => b"close",
        };
        self.put_field(b"Connection", connection);
        self.put(&[b"\r\n"]);
        Ok(())
    }

    fn poll_room(&mut self, _: &mut Context<'_>) -> Poll<Result<usize>> {
        // Nothing more is read while a part is being sent.
        Poll::Ready(Ok(ROOM))
    }

    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        part: &mut Bytes,
        is_last: bool,
    ) -> Poll<Result<()>> {
        if self.is_chunked && !part.is_empty() && !self.in_chunk {
            self.in_chunk = true;
            let size = format!("{:x}\r\n", part.len());
            self.put(&[size.as_bytes()]);
        }
        ready!(self.poll_out(cx))?;
        while !part.is_empty() {
            let written = Pin::new(&mut *self.stream).poll_write(cx, part);
            let count = ready!(written).map_err(write_error)?;
            part.advance(count);
            self.stream.note_written();
        }
        if std::mem::take(&mut self.in_chunk) {
            self.put(&[b"\r\n"]);
        }
        if is_last && !self.is_ended {
            self.is_ended = true;
            if self.is_chunked {
                self.put(&[b"0\r\n\r\n"]);
            }
        }
        self.poll_out(cx)
    }

    fn send_trailers(&mut self, trailers: HeaderMap) -> Result<()> {
        let trailers = match self.takes_trailers() {
            true => trailers,
            false => HeaderMap::new(),
        };
        if self.is_chunked && !std::mem::replace(&mut self.is_ended, true) {
            self.put(&[&write_last_chunk(&trailers)]);
        }
        self.is_ended = true;
        Ok(())
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        ready!(self.poll_out(cx))?;
        Pin::new(&mut *self.stream)
            .poll_flush(cx)
            .map_err(write_error)
    }
}

fn write_error(error: io::Error) -> Box<Error> {
    Error::because(ErrorType::WriteError, "while a response is sent", error).into_down()
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use pingora_core::ErrorSource;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
    use tokio::sync::watch;

    use super::super::head;
    use super::*;

    const GET: &str = "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n";
    const UPGRADE: &str = "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\n\
         Upgrade: websocket\r\n\r\n";

    /// A stream that is positioned on the body of a request, and the client's end of it, over which
    /// so many octets are on their way.
    async fn begin(request: &str, holds: usize) -> (MessageStream, DuplexStream) {
        let (mut client, server) = tokio::io::duplex(holds);
        let mut stream = MessageStream::new(Box::new(server), Duration::from_secs(60));
        let written = async { client.write_all(request.as_bytes()).await };
        let read = async {
            while stream.unread().len() < request.len() {
                stream.read_more().await.expect("the request");
            }
        };
        let (written, ()) = tokio::join!(written, read);
        written.expect("room");
        let head = head::parse(stream.unread(), 4096).ok().flatten();
        let head = head.expect("a head");
        stream.take_bytes(head.len);
        stream.begin_body(&head);
        (stream, client)
    }

    /// A response, and how it is sent.
    struct Sent<'a> {
        request: &'a str,
        heads: &'a [&'a str],
        /// The last one ends the body.
        parts: &'a [&'static str],
        may_keep: bool,
        is_stopping: bool,
        holds: usize,
    }

    impl Default for Sent<'_> {
        fn default() -> Self {
            Self {
                request: GET,
                heads: &[],
                parts: &[""],
                may_keep: true,
                is_stopping: false,
                holds: 4096,
            }
        }
    }

    impl Sent<'_> {
        /// What reaches the client, and whether another request may follow.
        async fn arrive(&self) -> (String, bool) {
            let (mut stream, mut far) = begin(self.request, self.holds).await;
            let is_http_10 = self.request.contains("HTTP/1.0");
            let (_stop, shutdown) = watch::channel(self.is_stopping);
            let mut client = Http1Client::new(&mut stream, is_http_10, self.may_keep, &shutdown);
            for head in self.heads {
                let head = format!("{head}\r\n\r\n");
                let sent = ResponseHead::parse_sample(head.as_bytes(), |head| {
                    match head.status.as_u16() {
                        100 | 102.. if head.status.is_informational() => client.send_interim(head),
                        _ => client.send_head(head),
                    }
                });
                sent.expect("accepted");
            }
            let reading = tokio::spawn(async move {
                let mut got = String::new();
                far.read_to_string(&mut got).await.expect("text");
                got
            });
            for (at, part) in self.parts.iter().enumerate() {
                let is_last = at + 1 == self.parts.len();
                let mut part = Bytes::from_static(part.as_bytes());
                let sent = poll_fn(|cx| client.poll_send(cx, &mut part, is_last)).await;
                sent.expect("the client accepts it");
                assert!(part.is_empty());
            }
            let flushed = poll_fn(|cx| client.poll_flush(cx)).await;
            flushed.expect("the client accepts it");
            let keeps = client.keeps_connection();
            drop(stream);
            (reading.await.expect("no panic"), keeps)
        }

        /// As [`Self::arrive`], whether the client reads fast or slowly.
        async fn arrive_at_any_rate(mut self) -> (String, bool) {
            let whole = self.arrive().await;
            self.holds = 3;
            assert_eq!(self.arrive().await, whole);
            whole
        }
    }

    const DATED: &str = "HTTP/1.1 200 Fine\r\nDate: d\r\nx-A: b";

    #[tokio::test]
    async fn a_body_of_known_length_is_sent_as_it_is() {
        let sent = Sent {
            heads: &["HTTP/1.1 200 Fine\r\nDate: d\r\nContent-Length: 005\r\nx-A: b"],
            parts: &["he", "llo"],
            ..Sent::default()
        };
        let expected = "HTTP/1.1 200 Fine\r\nDate: d\r\nx-A: b\r\nX-Request-Id: 00ff\r\n\
             Content-Length: 5\r\nConnection: keep-alive\r\n\r\nhello";
        assert_eq!(sent.arrive_at_any_rate().await, (expected.to_owned(), true));
    }

    #[tokio::test]
    async fn a_body_of_unknown_length_is_sent_in_chunks() {
        let expected = "HTTP/1.1 200 Fine\r\nDate: d\r\nx-A: b\r\nX-Request-Id: 00ff\r\n\
             Transfer-Encoding: chunked\r\nConnection: keep-alive\r\n\r\n\
             5\r\nhello\r\nb\r\n, how's you\r\n0\r\n\r\n";
        let chunked = format!("{DATED}\r\nTransfer-Encoding: chunked");
        for head in [DATED, &chunked] {
            for parts in [
                &["hello", "", ", how's you", ""][..],
                &["hello", ", how's you"],
            ] {
                let sent = Sent {
                    heads: &[head],
                    parts,
                    ..Sent::default()
                };
                assert_eq!(sent.arrive_at_any_rate().await, (expected.to_owned(), true));
            }
        }
    }

    #[tokio::test]
    async fn to_a_client_of_http_10_a_body_of_unknown_length_ends_with_the_connection() {
        let sent = Sent {
            request: "GET / HTTP/1.0\r\nHost: a.test\r\nConnection: keep-alive\r\n\r\n",
            heads: &["HTTP/1.1 103 Early Hints\r\nLink: x", DATED],
            parts: &["hello"],
            ..Sent::default()
        };
        let expected = "HTTP/1.1 200 Fine\r\nDate: d\r\nx-A: b\r\nX-Request-Id: 00ff\r\n\
             Connection: close\r\n\r\nhello";
        assert_eq!(
            sent.arrive_at_any_rate().await,
            (expected.to_owned(), false)
        );
    }

    #[tokio::test]
    async fn a_response_without_a_body_ends_with_its_head() {
        for (head, length) in [
            (
                "HTTP/1.1 304 Not Modified\r\nDate: d\r\nContent-Length: 5",
                "Content-Length: 5\r\n",
            ),
            ("HTTP/1.1 304 Not Modified\r\nDate: d", ""),
            (
                "HTTP/1.1 204 No Content\r\nDate: d\r\nContent-Length: 5",
                "",
            ),
            (
                "HTTP/1.1 200 OK\r\nDate: d\r\nContent-Length: 0",
                "Content-Length: 0\r\n",
            ),
        ] {
            let sent = Sent {
                heads: &[head],
                ..Sent::default()
            };
            let (got, keeps) = sent.arrive_at_any_rate().await;
            let end = format!(
                "\r\nDate: d\r\nX-Request-Id: 00ff\r\n{length}Connection: keep-alive\r\n\r\n"
            );
            assert!(got.ends_with(&end), "{got}");
            assert!(keeps);
        }
    }

    #[tokio::test]
    async fn trailers_follow_a_body_in_chunks_if_the_client_takes_them() {
        let trailers = || HeaderMap::from_iter([(TE, http::HeaderValue::from_static("x"))]);
        for (te, head, end) in [
            (
                "TE: gzip, trailers\r\n",
                DATED,
                "5\r\nhello\r\n0\r\nte: x\r\n\r\n",
            ),
            ("TE: gzip\r\n", DATED, "5\r\nhello\r\n0\r\n\r\n"),
            (
                "TE: trailers\r\n",
                "HTTP/1.1 200 OK\r\nContent-Length: 5",
                "\r\n\r\nhello",
            ),
        ] {
            let (mut stream, mut far) = begin(GET, 4096).await;
            let (_stop, shutdown) = watch::channel(false);
            let lines = format!("GET / HTTP/1.1\r\n{te}\r\n");
            let client = Http1Client::new(&mut stream, false, true, &shutdown);
            let mut client = client.with_fields(Fields::Lines(lines.as_bytes()));
            let head = format!("{head}\r\n\r\n");
            let sent = ResponseHead::parse_sample(head.as_bytes(), |head| client.send_head(head));
            sent.expect("accepted");
            let mut part = Bytes::from_static(b"hello");
            let sent = poll_fn(|cx| client.poll_send(cx, &mut part, false)).await;
            sent.expect("the client accepts it");
            client.send_trailers(trailers()).expect("accepted");
            let flushed = poll_fn(|cx| client.poll_flush(cx)).await;
            flushed.expect("the client accepts it");
            assert!(client.keeps_connection());
            drop(stream);
            let mut got = String::new();
            far.read_to_string(&mut got).await.expect("text");
            assert!(got.ends_with(end), "{got}");
        }
    }

    #[tokio::test]
    async fn trailers_of_a_body_are_taken_once() {
        let post = "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n\
             5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n";
        let (mut stream, _client) = begin(post, 4096).await;
        let (_stop, shutdown) = watch::channel(false);
        let mut client = Http1Client::new(&mut stream, false, true, &shutdown);
        while poll_fn(|cx| client.poll_body(cx))
            .await
            .expect("a part")
            .is_some()
        {}
        let trailers = client.take_trailers().expect("some");
        assert_eq!(trailers["x-sum"], "1");
        assert!(client.take_trailers().is_none());
    }

    #[tokio::test]
    async fn a_response_that_its_server_has_not_dated_is_dated() {
        let sent = Sent {
            heads: &["HTTP/1.1 204 No Content\r\nX-Date: d"],
            ..Sent::default()
        };
        let (got, _) = sent.arrive().await;
        let dates = got.lines().filter_map(|line| line.strip_prefix("Date: "));
        let dates: Vec<&str> = dates.collect();
        assert_eq!(dates.len(), 1, "{got}");
        assert!(dates[0].ends_with(" GMT"), "{got}");
    }

    #[tokio::test]
    async fn interim_responses_are_passed_on_as_they_are() {
        let sent = Sent {
            heads: &[
                "HTTP/1.1 100 Continue",
                "HTTP/1.1 103 Early Hints\r\nLink: x\r\nConnection: x",
                "HTTP/1.1 204 No Content\r\nDate: d",
            ],
            ..Sent::default()
        };
        let expected = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n\
             HTTP/1.1 204 No Content\r\nDate: d\r\nX-Request-Id: 00ff\r\n\
             Connection: keep-alive\r\n\r\n";
        assert_eq!(sent.arrive_at_any_rate().await, (expected.to_owned(), true));
    }

    #[tokio::test]
    async fn after_an_upgrade_octets_are_sent_as_they_are() {
        let sent = Sent {
            request: UPGRADE,
            heads: &["HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
                 Connection: Upgrade"],
            parts: &["he", "", "llo"],
            ..Sent::default()
        };
        let expected = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
             Connection: Upgrade\r\nX-Request-Id: 00ff\r\n\r\nhello";
        assert_eq!(
            sent.arrive_at_any_rate().await,
            (expected.to_owned(), false)
        );
    }

    #[tokio::test]
    async fn a_response_says_whether_another_request_may_follow() {
        let sent = || Sent {
            heads: &["HTTP/1.1 204 No Content"],
            ..Sent::default()
        };
        let post = "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\n\r\nhell";
        for (sent, is_kept) in [
            (sent(), true),
            (
                Sent {
                    may_keep: false,
                    ..sent()
                },
                false,
            ),
            (
                Sent {
                    is_stopping: true,
                    ..sent()
                },
                false,
            ),
            (
                Sent {
                    request: post,
                    ..sent()
                },
                false,
            ),
        ] {
            let (got, keeps) = sent.arrive().await;
            let connection = if is_kept { "keep-alive" } else { "close" };
            assert!(
                got.ends_with(&format!("Connection: {connection}\r\n\r\n")),
                "{got}"
            );
            assert_eq!(keeps, is_kept);
        }
    }

    #[tokio::test]
    async fn no_request_follows_a_response_that_is_cut() {
        let (mut stream, _client) = begin(GET, 4096).await;
        let (_stop, shutdown) = watch::channel(false);
        let mut client = Http1Client::new(&mut stream, false, true, &shutdown);
        let head = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
        ResponseHead::parse_sample(head, |head| client.send_head(head)).expect("accepted");
        let mut part = Bytes::from_static(b"hell");
        let sent = poll_fn(|cx| client.poll_send(cx, &mut part, false)).await;
        sent.expect("the client accepts it");
        assert!(!client.keeps_connection());
    }

    #[tokio::test]
    async fn a_body_is_read_to_its_end_and_no_further() {
        let post = "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n\
             5\r\nhello\r\n0\r\n\r\nGET";
        let (mut stream, _client) = begin(post, 4096).await;
        let (_stop, shutdown) = watch::channel(false);
        let mut client = Http1Client::new(&mut stream, false, true, &shutdown);
        assert!(!client.is_body_done());
        let part = poll_fn(|cx| client.poll_body(cx)).await.expect("a part");
        assert_eq!(part, Some(Bytes::from_static(b"hello")));
        let end = poll_fn(|cx| client.poll_body(cx)).await.expect("the end");
        assert_eq!(end, None);
        assert!(client.is_body_done());
        assert_eq!(stream.unread(), b"GET");
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_fails_is_the_clients_failure() {
        for (body, closes, kind) in [
            ("zz\r\n", false, io::ErrorKind::InvalidData),
            ("5\r\nhell", true, io::ErrorKind::UnexpectedEof),
            ("", false, io::ErrorKind::TimedOut),
        ] {
            let post = format!(
                "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n{body}"
            );
            let (mut stream, far) = begin(&post, 4096).await;
            let _far = (!closes).then_some(far);
            let (_stop, shutdown) = watch::channel(false);
            let mut client = Http1Client::new(&mut stream, false, true, &shutdown);
            let error = loop {
                match poll_fn(|cx| client.poll_body(cx)).await {
                    Ok(part) => assert!(part.is_some(), "{body}"),
                    Err(error) => break error,
                }
            };
            assert_eq!(*error.esource(), ErrorSource::Downstream);
            assert_eq!(*error.etype(), ErrorType::ReadError);
            let cause = error.root_cause().downcast_ref::<io::Error>();
            assert_eq!(cause.map(io::Error::kind), Some(kind), "{body}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_is_gone_once_it_has_closed_its_connection() {
        let (mut stream, far) = begin(GET, 4096).await;
        let (_stop, shutdown) = watch::channel(false);
        let mut client = Http1Client::new(&mut stream, false, true, &shutdown);
        let now = poll_fn(|cx| Poll::Ready(client.poll_gone(cx))).await;
        assert!(now.is_pending());
        drop(far);
        let error = poll_fn(|cx| client.poll_gone(cx)).await;
        assert_eq!(*error.etype(), ErrorType::ConnectionClosed);
        assert_eq!(*error.esource(), ErrorSource::Downstream);
    }

    #[tokio::test]
    async fn nothing_may_be_sent_before_an_upgrade_is_granted() {
        for early in ["", "early"] {
            let (mut stream, mut far) = begin(&format!("{UPGRADE}{early}"), 4096).await;
            let (_stop, shutdown) = watch::channel(false);
            let mut client = Http1Client::new(&mut stream, false, true, &shutdown);
            if early.is_empty() {
                let now = poll_fn(|cx| Poll::Ready(client.poll_gone(cx))).await;
                assert!(now.is_pending());
                far.write_all(b"early").await.expect("open");
            }
            let error = poll_fn(|cx| client.poll_gone(cx)).await;
            assert_eq!(*error.etype(), ErrorType::ConnectError);
            assert_eq!(*error.esource(), ErrorSource::Downstream);
        }
    }
}
