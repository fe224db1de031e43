//! The request on its way to the server.

use std::io::{self, IoSlice};
use std::task::{Context, Poll};

use bytes::{Buf as _, Bytes, BytesMut};
use http::HeaderMap;
use pingora_core::{Error, ErrorType, Result};

use super::client::Client;
use super::request::Body;
use crate::proxy::connection::Connection;
use crate::proxy::trailers::{RequestTrailers, write_last_chunk};

/// The most octets of a body that are kept for another attempt.
const MAX_REPLAY: usize = 64 * 1024;

/// What has been sent of a body, for another attempt.
#[derive(Debug, Default)]
pub(super) struct Replay {
    octets: Vec<u8>,
    /// Whether more was sent than is kept.
    is_cut: bool,
    /// Whether the body has ended.
    is_whole: bool,
    /// What follows it.
    trailers: Option<Box<HeaderMap>>,
}

impl Replay {
    /// Keeps nothing: the request is never repeated.
    pub(super) fn never() -> Self {
        Self {
            is_cut: true,
            ..Self::default()
        }
    }

    /// How many more octets are kept; `None` if something that was sent is not kept.
    pub(super) fn room(&self) -> Option<usize> {
        (!self.is_cut).then(|| MAX_REPLAY.saturating_sub(self.octets.len()))
    }

    /// Whether everything that was sent is kept.
    pub(super) fn is_complete(&self) -> bool {
        !self.is_cut
    }

    /// What is kept of the body.
    pub(super) fn octets(&self) -> &[u8] {
        &self.octets
    }

    /// Whether the body has ended.
    pub(super) fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// What follows the body.
    pub(super) fn trailers(&self) -> Option<&HeaderMap> {
        self.trailers.as_deref()
    }

    /// Records the end of the body, and what follows it.
    pub(super) fn record_end(&mut self, trailers: Option<HeaderMap>) {
        self.is_whole = true;
        self.trailers = trailers.map(Box::new);
    }

    pub(super) fn record(&mut self, part: &[u8]) {
        if self.is_cut {
            return;
        }
        if self.octets.len() + part.len() > MAX_REPLAY {
            self.octets = Vec::new();
            self.is_cut = true;
        } else {
            self.octets.extend_from_slice(part);
        }
    }
}

/// The octets of a body so far, and the most that it may have; 0 for as many as it has.
#[derive(Clone, Copy, Debug)]
pub(super) struct BodySize {
    octets: u64,
    most: u64,
}

impl BodySize {
    /// The size of a body of which `replay` holds the beginning.
    pub(super) fn new(replay: &Replay, most: u64) -> Self {
        Self {
            octets: replay.octets.len() as u64,
            most,
        }
    }

    pub(super) fn octets(self) -> u64 {
        self.octets
    }

    /// Whether the body has no octets so far.
    pub(super) fn is_zero(self) -> bool {
        self.octets == 0
    }

    /// Counts octets of the body.
    ///
    /// # Errors
    /// If there are more than it may have.
    pub(super) fn count(&mut self, part: &[u8]) -> Result<()> {
        self.octets = self.octets.saturating_add(part.len() as u64);
        if self.most == 0 || self.octets <= self.most {
            return Ok(());
        }
        let why = "the request's body is larger than its route allows";
        let error = Error::explain(ErrorType::HTTPStatus(413), why);
        Err(error.into_down())
    }
}

/// One attempt to send a request.
#[derive(Debug)]
pub(super) struct Upload {
    /// The head, or what frames the next part.
    prefix: Bytes,
    part: Bytes,
    suffix: Bytes,
    is_chunked: bool,
    size: BodySize,
    /// Octets that have been written to the connection, with all that frames the body.
    pub(super) written: u64,
    state: State,
    /// Whether the server accepts nothing more for now.
    pub(super) is_blocked: bool,
    /// Whether the server has accepted something since this was last cleared.
    pub(super) has_moved: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The body continues.
    Sending,
    /// All of the body has come from the client.
    Ended,
    /// The gateway's side of a tunnel has been ended.
    Closed,
    /// The server accepts no more.
    Stopped,
}

impl Upload {
    /// A request with this head, whose body may have at most `most` octets, if that is not 0. What `replay` holds comes before the rest of the body.
    pub(super) fn new(head: Bytes, body: Body, replay: &Replay, most: u64) -> Self {
        let mut upload = Self {
            prefix: head,
            part: Bytes::new(),
            suffix: Bytes::new(),
            is_chunked: body == Body::Chunked,
            size: BodySize::new(replay, most),
            written: 0,
            state: State::Sending,
            is_blocked: false,
            has_moved: false,
        };
        if !replay.octets.is_empty() {
            upload.push_part(Bytes::copy_from_slice(&replay.octets));
        }
        if body == Body::None || replay.is_whole {
            upload.end(replay.trailers());
        }
        upload
    }

    /// Whether nothing is left to send: the server has everything, or accepts no more.
    pub(super) fn is_over(&self) -> bool {
        match self.state {
            State::Sending => false,
            State::Ended => !self.has_queued(),
            State::Closed | State::Stopped => true,
        }
    }

    /// Octets of the body that have come from the client.
    pub(super) fn body_octets(&self) -> u64 {
        self.size.octets()
    }

    /// Whether nothing of the body has come from the client.
    pub(super) fn is_untouched(&self) -> bool {
        self.size.is_zero()
    }

    /// Whether the server has the complete request.
    pub(super) fn is_complete(&self) -> bool {
        self.state == State::Ended && !self.has_queued()
    }

    /// Whether the gateway has ended its side of a tunnel.
    pub(super) fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    /// From now on the connection is a tunnel.
    pub(super) fn begin_tunnel(&mut self) {
        if self.state == State::Ended {
            self.state = State::Sending;
        }
    }

    /// Sends what can be sent now.
    ///
    /// # Errors
    /// If the client fails. A server that fails may still have responded.
    pub(super) fn poll<C: Client>(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut C,
        connection: &mut Connection,
        replay: &mut Replay,
        trailers: Option<RequestTrailers<'_>>,
        in_tunnel: bool,
    ) -> Result<()> {
        loop {
            // The beginning of a body often comes with its head, and leaves with it.
            if self.state == State::Sending && self.part.is_empty() && self.suffix.is_empty() {
                match client.poll_body(cx)? {
                    Poll::Ready(Some(part)) if part.is_empty() => continue,
                    Poll::Ready(Some(part)) => {
                        if !in_tunnel {
                            self.size.count(&part)?;
                            replay.record(&part);
                        }
                        self.push_part(part);
                    }
                    Poll::Ready(None) => {
                        let passed = trailers.zip(client.take_trailers());
                        let passed = passed.and_then(|(rules, all)| rules.select(all, true));
                        replay.record_end(passed);
                        self.end(replay.trailers());
                    }
                    Poll::Pending => {}
                }
            }
            let sent = match self.has_queued() {
                true => self.poll_write(cx, connection),
                false if in_tunnel && self.state == State::Ended => connection
                    .poll_shutdown(cx)
                    .map_ok(|()| self.state = State::Closed),
                false => {
                    self.flush(cx, connection);
                    return Ok(());
                }
            };
            self.is_blocked = sent.is_pending();
            match sent {
                Poll::Pending => return Ok(()),
                Poll::Ready(Ok(())) if self.state == State::Closed => return Ok(()),
                Poll::Ready(Ok(())) => self.has_moved = true,
                Poll::Ready(Err(_)) => {
                    self.stop();
                    return Ok(());
                }
            }
        }
    }

    /// Sends no more.
    pub(super) fn stop(&mut self) {
        self.state = State::Stopped;
        self.is_blocked = false;
        (self.prefix, self.part, self.suffix) = Default::default();
    }

    fn flush(&mut self, cx: &mut Context<'_>, connection: &mut Connection) {
        if self.state == State::Stopped {
            return;
        }
        match connection.poll_flush(cx) {
            Poll::Pending => self.is_blocked = true,
            Poll::Ready(Ok(())) => self.is_blocked = false,
            Poll::Ready(Err(_)) => self.stop(),
        }
    }

    fn has_queued(&self) -> bool {
        !(self.prefix.is_empty() && self.part.is_empty() && self.suffix.is_empty())
    }

    fn push_part(&mut self, part: Bytes) {
        if self.is_chunked {
            let mut prefix = BytesMut::from(&*self.prefix);
            prefix.extend_from_slice(format!("{:x}\r\n", part.len()).as_bytes());
            self.prefix = prefix.freeze();
            self.suffix = Bytes::from_static(b"\r\n");
        }
        self.part = part;
    }

    fn end(&mut self, trailers: Option<&HeaderMap>) {
        self.state = State::Ended;
        if !self.is_chunked {
            return;
        }
        self.suffix = match (self.suffix.is_empty(), trailers) {
            (true, None) => Bytes::from_static(b"0\r\n\r\n"),
            (false, None) => Bytes::from_static(b"\r\n0\r\n\r\n"),
            (_, Some(trailers)) => {
                let last_chunk = write_last_chunk(trailers);
                [&*self.suffix, &*last_chunk].concat().into()
            }
        };
    }

    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        connection: &mut Connection,
    ) -> Poll<io::Result<()>> {
        let mut slices = [IoSlice::new(&[]); 3];
        let mut count = 0;
        for part in [&self.prefix, &self.part, &self.suffix] {
            if let (false, Some(slice)) = (part.is_empty(), slices.get_mut(count)) {
                *slice = IoSlice::new(part);
                count += 1;
            }
        }
        let slices = slices.get(..count).unwrap_or_default();
        connection.poll_write(cx, slices).map_ok(|written| {
            self.written += written as u64;
            let mut left = written;
            for part in [&mut self.prefix, &mut self.part, &mut self.suffix] {
                let here = left.min(part.len());
                part.advance(here);
                left -= here;
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::AsyncReadExt as _;

    use super::super::fake::{FakeClient, arrived, connect};
    use super::*;

    const HEAD: &str = "POST / HTTP/1.1\r\n\r\n";

    fn upload(body: Body, replay: &Replay) -> Upload {
        Upload::new(Bytes::from_static(HEAD.as_bytes()), body, replay, 0)
    }

    /// Sends what can be sent now.
    async fn send(
        upload: &mut Upload,
        client: &mut FakeClient,
        connection: &mut Connection,
        replay: &mut Replay,
        in_tunnel: bool,
    ) {
        let polled = poll_fn(|cx| {
            let sent = upload.poll(cx, client, connection, replay, None, in_tunnel);
            Poll::Ready(sent)
        });
        polled.await.expect("the client is fine");
    }

    /// What arrives of a request whose body has these parts, with `replay` before them.
    async fn sent(body: Body, replay: &mut Replay, parts: &[&str]) -> String {
        let mut upload = upload(body, replay);
        let (mut client, _person) = FakeClient::with_body(parts);
        let (mut connection, mut server) = connect(1 << 20);
        send(&mut upload, &mut client, &mut connection, replay, false).await;
        assert!(upload.is_complete() && upload.is_over());
        arrived(&mut server).await
    }

    #[tokio::test]
    async fn a_body_is_sent_as_it_is_framed() {
        let chunks = |text: &str| format!("{HEAD}{text}");
        let parts = ["hello", "", " world, how are you"];
        assert_eq!(
            sent(Body::Chunked, &mut Replay::default(), &parts).await,
            chunks("5\r\nhello\r\n13\r\n world, how are you\r\n0\r\n\r\n")
        );
        assert_eq!(
            sent(Body::Chunked, &mut Replay::default(), &[]).await,
            chunks("0\r\n\r\n")
        );
        assert_eq!(
            sent(Body::Length(24), &mut Replay::default(), &parts).await,
            chunks("hello world, how are you")
        );
        assert_eq!(sent(Body::None, &mut Replay::default(), &[]).await, HEAD);
    }

    #[tokio::test]
    async fn the_beginning_of_a_body_leaves_before_its_end_is_known() {
        let replay = &mut Replay::default();
        let mut upload = upload(Body::Chunked, replay);
        let (mut client, mut person) = FakeClient::new();
        let (mut connection, mut server) = connect(1 << 20);
        send(&mut upload, &mut client, &mut connection, replay, false).await;
        assert_eq!(arrived(&mut server).await, HEAD);
        person.send("hello");
        send(&mut upload, &mut client, &mut connection, replay, false).await;
        assert_eq!(arrived(&mut server).await, "5\r\nhello\r\n");
        assert!(!upload.is_over() && !upload.is_blocked);
        person.end();
        send(&mut upload, &mut client, &mut connection, replay, false).await;
        assert_eq!(arrived(&mut server).await, "0\r\n\r\n");
        assert!(upload.is_complete());
    }

    #[tokio::test]
    async fn a_server_that_does_not_read_keeps_the_body_at_the_client() {
        let replay = &mut Replay::default();
        let mut upload = upload(Body::Chunked, replay);
        let parts = ["0123456789"; 10];
        let (mut client, _person) = FakeClient::with_body(&parts);
        let (mut connection, mut server) = connect(HEAD.len() + 8);
        send(&mut upload, &mut client, &mut connection, replay, false).await;
        assert!(upload.is_blocked && !upload.is_over());
        assert_eq!(client.untaken(), 9);
        let mut got = String::new();
        while !upload.is_complete() {
            let new = arrived(&mut server).await;
            assert!(!new.is_empty(), "after {got}");
            got.push_str(&new);
            upload.has_moved = false;
            send(&mut upload, &mut client, &mut connection, replay, false).await;
            assert!(upload.has_moved);
        }
        got.push_str(&arrived(&mut server).await);
        assert!(!upload.is_blocked);
        let chunks = "a\r\n0123456789\r\n".repeat(10);
        assert_eq!(got, format!("{HEAD}{chunks}0\r\n\r\n"));
    }

    #[tokio::test]
    async fn a_server_that_is_gone_gets_no_more() {
        let replay = &mut Replay::default();
        let mut upload = upload(Body::Length(5), replay);
        let (mut client, _person) = FakeClient::with_body(&["hello"]);
        let (mut connection, server) = connect(1 << 20);
        drop(server);
        send(&mut upload, &mut client, &mut connection, replay, false).await;
        assert!(upload.is_over() && !upload.is_complete() && !upload.is_blocked);
    }

    #[tokio::test]
    async fn another_attempt_sends_the_body_from_its_beginning() {
        for (body, first, second) in [
            (
                Body::Chunked,
                "5\r\nhello\r\n6\r\n world\r\n",
                "b\r\nhello world\r\n1\r\n!\r\n0\r\n\r\n",
            ),
            (Body::Length(12), "hello world", "hello world!"),
        ] {
            let replay = &mut Replay::default();
            let (mut client, mut person) = FakeClient::new();
            person.send("hello");
            person.send(" world");
            let (mut connection, mut server) = connect(1 << 20);
            let mut cut = upload(body, replay);
            send(&mut cut, &mut client, &mut connection, replay, false).await;
            assert_eq!(arrived(&mut server).await, format!("{HEAD}{first}"));
            person.send("!");
            person.end();
            let (mut connection, mut server) = connect(1 << 20);
            let mut whole = upload(body, replay);
            send(&mut whole, &mut client, &mut connection, replay, false).await;
            assert!(whole.is_complete());
            assert_eq!(arrived(&mut server).await, format!("{HEAD}{second}"));
            // The client has nothing left now.
            let third = sent(body, replay, &[]).await;
            let all = match body {
                Body::Chunked => "c\r\nhello world!\r\n0\r\n\r\n",
                _ => second,
            };
            assert_eq!(third, format!("{HEAD}{all}"));
            assert!(replay.is_complete());
        }
    }

    #[tokio::test]
    async fn a_body_without_octets_is_repeated_as_one() {
        let replay = &mut Replay::default();
        for _ in 0..2 {
            let got = sent(Body::Chunked, replay, &[]).await;
            assert_eq!(got, format!("{HEAD}0\r\n\r\n"));
        }
    }

    #[tokio::test]
    async fn a_large_body_is_not_repeated() {
        let part = "a".repeat(MAX_REPLAY);
        let replay = &mut Replay::default();
        sent(Body::Chunked, replay, &[&part]).await;
        assert!(replay.is_complete());
        let replay = &mut Replay::default();
        sent(Body::Chunked, replay, &["b", &part, "c"]).await;
        assert!(!replay.is_complete());
        assert!(replay.octets.is_empty());
        let replay = &mut Replay::never();
        sent(Body::Length(1), replay, &["a"]).await;
        assert!(!replay.is_complete());
    }

    #[tokio::test]
    async fn a_tunnel_carries_octets_as_they_are_and_ends_with_the_client() {
        let replay = &mut Replay::default();
        let mut upload = upload(Body::None, replay);
        let (mut client, mut person) = FakeClient::new();
        let (mut connection, mut server) = connect(1 << 20);
        person.send("hello");
        send(&mut upload, &mut client, &mut connection, replay, false).await;
        assert_eq!(arrived(&mut server).await, HEAD);
        assert_eq!(client.untaken(), 1, "before the server has agreed");
        upload.begin_tunnel();
        send(&mut upload, &mut client, &mut connection, replay, true).await;
        assert_eq!(arrived(&mut server).await, "hello");
        assert!(!upload.is_over());
        person.send("bye");
        person.end();
        send(&mut upload, &mut client, &mut connection, replay, true).await;
        assert!(upload.is_closed() && upload.is_over());
        let mut rest = String::new();
        let ended = server.read_to_string(&mut rest).await;
        assert!(ended.is_ok());
        assert_eq!(rest, "bye");
        assert!(replay.octets.is_empty(), "nothing of it is repeated");
    }
}
