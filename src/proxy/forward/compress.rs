//! Compressed responses: a client in front of the edge's own, which encodes what it is sent.
//!
//! It decides when the head of a response arrives. An encoder exists while the server sends the
//! body. What comes out of it is held until the client accepts it, and meanwhile nothing more is
//! read from the server. While the server has nothing to send, nothing stays in the encoder, so
//! slow streams are not delayed.

mod head;

use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use pingora_core::{Error, ErrorType, Result};

use self::head::{Change, plan, send_changed};
use super::client::Client;
use super::response::{Body, ResponseHead};
use crate::config::model::Compression;
use crate::proxy::accept_encoding::{Preference, choose_coding, forbids_changes};
use crate::proxy::connection_limit::Held;
use crate::proxy::encoder::Encoder;
use crate::proxy::request::Request;

/// The most octets that are encoded at once, before other tasks have their turn.
const PIECE: usize = 64 * 1024;

/// A client whose response is compressed if it may be.
pub(crate) struct Compressing<'a> {
    client: &'a mut dyn Client,
    request: &'a Request<'a>,
    compression: Arc<Compression>,
    preference: Preference,
    /// Whether the client wants no changes.
    is_final: bool,
    state: State,
    /// What has been encoded and the client has not accepted.
    encoded: Bytes,
    /// Octets that have been encoded since other tasks had their turn.
    burst: usize,
    /// Octets of the encoded body that the client has accepted.
    sent: usize,
    /// What follows the encoded body.
    trailers: Option<Box<HeaderMap>>,
}

/// How far a body is encoded.
enum State {
    /// It is sent as it is.
    AsItIs,
    /// In a box, since most time is spent before and after.
    Encoding(Box<Encoder>),
    /// The rest of it waits for the client.
    Encoded,
    /// The client has all of it.
    Sent,
}

impl<'a> Compressing<'a> {
    pub(crate) fn new(
        client: &'a mut dyn Client,
        compression: Arc<Compression>,
        request: &'a Request<'a>,
    ) -> Self {
        // What has no length ends with the connection of a client of HTTP/1.0, and so could not be
        // distinguished from a response that is cut.
        let preference = match request.version {
            "HTTP/1.0" => Preference::default(),
            _ => choose_coding(request.fields, &compression.codings),
        };
        Self {
            client,
            request,
            preference,
            is_final: forbids_changes(request.fields),
            compression,
            state: State::AsItIs,
            encoded: Bytes::new(),
            burst: 0,
            sent: 0,
            trailers: None,
        }
    }

    /// Prepares for the body of the response with this head. Returns what becomes of the head.
    fn begin_body(&mut self, head: &ResponseHead<'_>) -> Result<Change> {
        if self.is_final {
            return Ok(Change::None);
        }
        let change = plan(head, &self.compression, self.preference);
        if let (Change::Encode(coding), Body::Length(_) | Body::Chunked | Body::UntilClose) =
            (change, head.body)
        {
            let length = head.body.declared_length();
            let encoder = Encoder::new(coding, self.compression.level, length);
            let Some(encoder) = encoder.map_err(encode_error)? else {
                return Ok(Change::Vary);
            };
            self.state = State::Encoding(Box::new(encoder));
        }
        Ok(change)
    }

    /// Sends what has been encoded. Ready once the client has accepted it.
    fn poll_encoded(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let is_last = matches!(self.state, State::Encoded);
        if self.encoded.is_empty() && !is_last {
            return Poll::Ready(Ok(()));
        }
        let before = self.encoded.len();
        let ends = is_last && self.trailers.is_none();
        let sent = self.client.poll_send(cx, &mut self.encoded, ends);
        self.sent += before - self.encoded.len();
        ready!(sent)?;
        if is_last {
            if let Some(trailers) = self.trailers.take() {
                self.client.send_trailers(*trailers)?;
            }
            self.state = State::Sent;
        }
        Poll::Ready(Ok(()))
    }

    /// Encodes the beginning of `part`, with which the body ends if `is_last`.
    fn encode(&mut self, part: &mut Bytes, is_last: bool) -> io::Result<()> {
        let State::Encoding(encoder) = &mut self.state else {
            return Ok(());
        };
        let piece = part.split_to(part.len().min(PIECE));
        self.burst += piece.len();
        encoder.encode(&piece)?;
        self.encoded = encoder.take_output();
        if is_last && part.is_empty() {
            self.finish_encoder()?;
        }
        Ok(())
    }

    /// Encodes the end of the body.
    fn finish_encoder(&mut self) -> io::Result<()> {
        if let State::Encoding(encoder) = std::mem::replace(&mut self.state, State::Encoded) {
            let rest = encoder.finish()?;
            self.encoded = match self.encoded.is_empty() {
                true => rest,
                false => [&*self.encoded, &*rest].concat().into(),
            };
        }
        Ok(())
    }

    fn flush_encoder(&mut self) -> io::Result<()> {
        if let State::Encoding(encoder) = &mut self.state {
            encoder.flush()?;
            self.encoded = encoder.take_output();
        }
        Ok(())
    }
}

impl Client for Compressing<'_> {
    fn held(&self) -> Option<&Arc<Held>> {
        self.client.held()
    }

    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>>> {
        self.client.poll_body(cx)
    }

    fn take_trailers(&mut self) -> Option<HeaderMap> {
        self.client.take_trailers()
    }

    fn allow_pauses(&mut self) {
        self.client.allow_pauses();
    }

    fn is_body_done(&self) -> bool {
        self.client.is_body_done()
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<Box<Error>> {
        self.client.poll_gone(cx)
    }

    fn has_cancelled(&self) -> bool {
        self.client.has_cancelled()
    }

    fn send_interim(&mut self, head: &ResponseHead<'_>) -> Result<()> {
        self.client.send_interim(head)
    }

    fn check_head(&mut self, head: &ResponseHead<'_>) -> Result<()> {
        self.client.check_head(head)
    }

    fn send_head(&mut self, head: &ResponseHead<'_>) -> Result<()> {
        let change = self.begin_body(head)?;
        let known_tags = values(self.request, "if-none-match");
        send_changed(head, change, known_tags, |head| self.client.send_head(head))
    }

    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize>> {
        ready!(self.poll_encoded(cx))?;
        if self.burst >= PIECE {
            self.burst = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.client.poll_room(cx)
    }

    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        part: &mut Bytes,
        is_last: bool,
    ) -> Poll<Result<()>> {
        loop {
            match self.state {
                State::AsItIs => return self.client.poll_send(cx, part, is_last),
                State::Sent => return Poll::Ready(Ok(())),
                State::Encoding(_) | State::Encoded => ready!(self.poll_encoded(cx))?,
            }
            if !matches!(self.state, State::Encoding(_)) {
                continue;
            }
            if part.is_empty() && !is_last {
                return Poll::Ready(Ok(()));
            }
            self.encode(part, is_last).map_err(encode_error)?;
        }
    }

    fn send_trailers(&mut self, trailers: HeaderMap) -> Result<()> {
        if matches!(self.state, State::AsItIs) {
            return self.client.send_trailers(trailers);
        }
        self.finish_encoder().map_err(encode_error)?;
        // They follow the rest of the body.
        self.trailers = Some(Box::new(trailers));
        Ok(())
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        ready!(self.poll_encoded(cx))?;
        self.flush_encoder().map_err(encode_error)?;
        ready!(self.poll_encoded(cx))?;
        self.client.poll_flush(cx)
    }

    fn recoded_octets(&self) -> Option<usize> {
        (!matches!(self.state, State::AsItIs)).then_some(self.sent)
    }
}

/// The values of a field of the request.
fn values<'a>(request: &Request<'a>, name: &'static str) -> impl Iterator<Item = &'a [u8]> {
    let fields = request.fields.iter();
    fields
        .filter(|(other, _)| other.eq_ignore_ascii_case(name.as_bytes()))
        .map(|(_, value)| value)
}

fn encode_error(error: io::Error) -> Box<Error> {
    let why = "while a response is compressed";
    Error::because(ErrorType::InternalError, why, error).into_in()
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::io::Read as _;

    use super::super::fake::FakeClient;
    use super::super::fake::Received::{End, Head, Octets, Trailers};
    use super::*;
    use crate::config::model::{Coding, CompressionLevel, MediaTypes};
    use crate::proxy::request::Fields;

    /// Has a response compressed for `receiver` by `play`.
    async fn compress(receiver: &mut FakeClient, play: impl AsyncFnOnce(&mut Compressing<'_>)) {
        let compression = Arc::new(Compression {
            codings: vec![Coding::Gzip],
            types: vec![MediaTypes::Main("text/".into())],
            min_size: 0,
            level: CompressionLevel::Default,
        });
        let request = Request {
            method: "GET",
            target: b"/",
            authority: b"a.test",
            version: "HTTP/1.1",
            fields: Fields::Lines(b"GET / HTTP/1.1\r\nAccept-Encoding: gzip\r\n\r\n"),
            client: None,
            port: None,
            tls: None,
            socket: None,
            accepted: None,
            relayed: None,
        };
        let mut client = Compressing::new(receiver, compression, &request);
        let head = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n";
        let sent = ResponseHead::parse_sample(head, |head| client.send_head(head));
        assert!(sent.is_ok());
        play(&mut client).await;
        assert_eq!(receiver.received.remove(0), Head(200));
    }

    /// The beginning of what has been received after a head, decoded.
    fn unzip_body(receiver: &FakeClient) -> Vec<u8> {
        let Some(Octets(octets)) = receiver.received.first() else {
            panic!("no body: {:?}", receiver.received)
        };
        let mut decoded = Vec::new();
        // The beginning of a body has no end.
        _ = flate2::read::GzDecoder::new(&**octets).read_to_end(&mut decoded);
        decoded
    }

    /// Whether a step is done now.
    async fn is_ready<T>(mut step: impl FnMut(&mut Context<'_>) -> Poll<Result<T>>) -> bool {
        poll_fn(|cx| {
            let polled = step(cx);
            assert!(!matches!(polled, Poll::Ready(Err(_))));
            Poll::Ready(polled.is_ready())
        })
        .await
    }

    /// Octets that cannot be made smaller.
    fn noise(len: usize) -> Bytes {
        let mut random = fastrand::Rng::with_seed(7);
        (0..len).map(|_| random.u8(..)).collect()
    }

    #[tokio::test]
    async fn nothing_is_read_while_the_client_accepts_nothing() {
        let mut receiver = FakeClient::with_room(0);
        let mut part = noise(50_000);
        let expected = part.clone();
        compress(&mut receiver, async |client| {
            assert!(is_ready(|cx| client.poll_room(cx)).await);
            while is_ready(|cx| client.poll_send(cx, &mut part, false)).await {
                assert!(!is_ready(|cx| client.poll_flush(cx)).await);
            }
            assert!(!is_ready(|cx| client.poll_room(cx)).await);
            assert!(part.is_empty());
        })
        .await;
        assert_eq!(receiver.received, []);

        let mut receiver = FakeClient::with_room(usize::MAX);
        let mut part = expected.clone();
        compress(&mut receiver, async |client| {
            assert!(is_ready(|cx| client.poll_send(cx, &mut part, false)).await);
            assert!(is_ready(|cx| client.poll_flush(cx)).await);
            assert!(is_ready(|cx| client.poll_room(cx)).await);
            assert!(
                client
                    .recoded_octets()
                    .is_some_and(|octets| octets > 50_000)
            );
        })
        .await;
        assert!(unzip_body(&receiver) == expected);
    }

    #[tokio::test]
    async fn other_tasks_have_their_turn() {
        let mut receiver = FakeClient::with_room(usize::MAX);
        compress(&mut receiver, async |client| {
            for _ in 0..3 {
                for _ in 0..4 {
                    assert!(is_ready(|cx| client.poll_room(cx)).await);
                    let mut part = noise(PIECE / 4);
                    assert!(is_ready(|cx| client.poll_send(cx, &mut part, false)).await);
                }
                assert!(!is_ready(|cx| client.poll_room(cx)).await);
            }
        })
        .await;
    }

    #[tokio::test]
    async fn trailers_follow_the_encoded_body() {
        let mut receiver = FakeClient::with_room(usize::MAX);
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", http::HeaderValue::from_static("1"));
        let mut part = Bytes::from_static(b"hello");
        compress(&mut receiver, async |client| {
            assert!(is_ready(|cx| client.poll_send(cx, &mut part, false)).await);
            client.send_trailers(trailers).expect("no failure");
            assert!(is_ready(|cx| client.poll_flush(cx)).await);
        })
        .await;
        assert_eq!(unzip_body(&receiver), b"hello");
        let rest = [Trailers(vec!["x-sum: 1".to_owned()]), End];
        assert_eq!(receiver.received[1..], rest);
    }

    #[tokio::test]
    async fn an_encoder_is_gone_before_a_slow_client_has_all() {
        let mut receiver = FakeClient::with_room(0);
        let mut part = Bytes::from_static(b"hello, hello, hello");
        compress(&mut receiver, async |client| {
            assert!(!is_ready(|cx| client.poll_send(cx, &mut part, true)).await);
            assert!(part.is_empty() && matches!(client.state, State::Encoded));
            assert!(!is_ready(|cx| client.poll_send(cx, &mut part, true)).await);
        })
        .await;
        assert_eq!(receiver.received, []);

        for parts in [&[&b"hello, "[..], b"hello"][..], &[b"hello, hello", b""]] {
            let mut receiver = FakeClient::with_room(usize::MAX);
            let count = parts.len();
            compress(&mut receiver, async |client| {
                for (at, part) in parts.iter().enumerate() {
                    let mut part = Bytes::copy_from_slice(part);
                    let is_last = at + 1 == count;
                    assert!(is_ready(|cx| client.poll_send(cx, &mut part, is_last)).await);
                }
                assert!(is_ready(|cx| client.poll_flush(cx)).await);
            })
            .await;
            assert_eq!(unzip_body(&receiver), b"hello, hello");
            assert_eq!(receiver.received[1..], [End]);
        }
    }
}
