//! The response on its way to the client.

use std::io;
use std::mem;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use pingora_core::{Error, ErrorType, Result};

use super::client::Client;
use super::response::{Asked, Body, ResponseHead, parse_head, unfold_lines};
use crate::proxy::connection::Connection;
use crate::proxy::framing::Framing;
use crate::proxy::trailers::{parse_trailers, select};

/// How many octets are read at once while a head is waited for, unless the connection's last
/// response had more.
const HEAD: usize = 8 * 1024;

/// The most interim responses (1xx) before a response.
pub(super) const MAX_INTERIMS: usize = 100;

/// One attempt to receive a response.
#[derive(Debug)]
pub(super) struct Download {
    state: State,
    /// Octets for the client.
    part: Bytes,
    /// Whether the response ends with them, or with the trailers.
    is_last: bool,
    /// Lines of trailers.
    lines: Vec<u8>,
    /// What the client gets of them.
    trailers: Option<Box<HeaderMap>>,
    /// Whether the end of the connection is the end of the response.
    ends_with_connection: bool,
    /// Whether what is in the connection's buffer has been parsed in vain.
    needs_more: bool,
    /// Interim responses that have been passed on.
    interims: usize,
    /// Whether the server keeps its connection.
    is_kept: bool,
    /// The status of the response, once its head is on its way.
    pub(super) status: Option<StatusCode>,
    /// What is kept of the fields, if the response is replaced: then its head is not passed on, and
    /// its body is not received.
    pub(super) replaced: Option<Vec<(HeaderName, HeaderValue)>>,
    /// Whether the server has asked for the body with `100 Continue`.
    pub(super) has_continued: bool,
    /// Whether anything, interim responses included, has been passed on.
    pub(super) has_begun: bool,
    /// Octets of the body that the client has accepted.
    pub(super) octets: usize,
    /// Whether the server is waited for.
    pub(super) is_waiting: bool,
    /// Whether the server has sent a head or a part of the body since this was last cleared. A part
    /// of a head does not count: a server that trickles one makes no progress.
    pub(super) has_moved: bool,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Head,
    Body(Framing),
    /// The client has the complete response.
    Ended,
}

impl Download {
    pub(super) fn new() -> Self {
        Self {
            state: State::Head,
            part: Bytes::new(),
            is_last: false,
            lines: Vec::new(),
            trailers: None,
            ends_with_connection: false,
            needs_more: true,
            interims: 0,
            is_kept: false,
            status: None,
            replaced: None,
            has_continued: false,
            has_begun: false,
            octets: 0,
            is_waiting: false,
            has_moved: false,
        }
    }

    /// Whether the client has the complete response.
    pub(super) fn is_ended(&self) -> bool {
        matches!(self.state, State::Ended)
    }

    /// Whether the connection has become a tunnel.
    pub(super) fn is_tunnel(&self) -> bool {
        self.status == Some(StatusCode::SWITCHING_PROTOCOLS)
    }

    /// Whether the server keeps its connection after the complete response, and has sent nothing
    /// after it.
    pub(super) fn leaves_connection(&self, connection: &Connection) -> bool {
        self.is_ended() && self.is_kept && connection.buffer.is_empty()
    }

    /// Receives and passes on what can be passed on now. Ready once the client has all of it.
    ///
    /// # Errors
    /// If the client or the server fails.
    pub(super) fn poll<C: Client>(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut C,
        connection: &mut Connection,
        asked: Asked<'_>,
    ) -> Poll<Result<()>> {
        loop {
            self.is_waiting = false;
            match self.state {
                State::Head => ready!(self.poll_head(cx, client, connection, asked))?,
                State::Body(_) => ready!(self.poll_body(cx, client, connection, asked))?,
                State::Ended => return client.poll_flush(cx),
            }
        }
    }

    /// Ready after each step.
    fn poll_head<C: Client>(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut C,
        connection: &mut Connection,
        asked: Asked<'_>,
    ) -> Poll<Result<()>> {
        if self.needs_more {
            if self.interims > 0 {
                // What the client does not take must not pile up.
                ready!(client.poll_flush(cx))?;
            }
            let begin = connection.buffer.len();
            let most = match connection.last_length {
                ..=HEAD => HEAD,
                longer => ready!(client.poll_room(cx))?.min(longer).max(HEAD),
            };
            match ready!(self.poll_fill(cx, client, connection, most))? {
                0 => {
                    let why = format!("before the end of a response's head, after {begin} octets");
                    let error = Error::explain(ErrorType::ConnectionClosed, why);
                    return Poll::Ready(Err(error.into_up()));
                }
                _ => {
                    // A head ends with a line.
                    let new = connection.buffer.get(begin..).unwrap_or_default();
                    self.needs_more = begin > 0
                        && memchr::memchr(b'\n', new).is_none()
                        && connection.buffer.len() <= HEAD;
                    return Poll::Ready(Ok(()));
                }
            }
        }
        let replaced = &mut self.replaced;
        let is_replaced = |status| asked.replacements.is_some_and(|pages| pages.has(status));
        let mut send = |head: &ResponseHead<'_>| {
            if head.status.is_informational() && head.body != Body::Tunnel {
                return client.send_interim(head);
            }
            if is_replaced(head.status) {
                client.check_head(head)?;
                *replaced = Some(head.fields_without_body());
                return Ok(());
            }
            client.send_head(head)
        };
        let parsed = match parse_head(&connection.buffer, asked, &mut send) {
            Err(_) if unfold_lines(&mut connection.buffer) => {
                parse_head(&connection.buffer, asked, send)
            }
            parsed => parsed,
        }?;
        let Some(parsed) = parsed else {
            self.needs_more = true;
            return Poll::Ready(Ok(()));
        };
        connection.buffer.advance(parsed.len);
        self.has_begun = true;
        self.has_moved = true;
        self.has_continued |= parsed.status == StatusCode::CONTINUE;
        if parsed.status.is_informational() && parsed.body != Body::Tunnel {
            self.needs_more = connection.buffer.is_empty();
            self.interims += 1;
            if self.interims > MAX_INTERIMS {
                let why = "too many interim responses";
                let error = Error::explain(ErrorType::InvalidHTTPHeader, why);
                return Poll::Ready(Err(error.into_up()));
            }
            return Poll::Ready(Ok(()));
        }
        self.status = Some(parsed.status);
        self.is_kept = parsed.is_kept;
        if self.replaced.is_some() {
            match parsed.body {
                Body::None(_) | Body::Empty => {}
                // What has arrived of a body is dropped, and the connection with the rest of it.
                Body::Length(length) if length == connection.buffer.len() as u64 => {
                    connection.buffer.clear();
                }
                Body::Length(_) | Body::Chunked | Body::UntilClose | Body::Tunnel => {
                    self.is_kept = false;
                }
            }
            self.state = State::Ended;
            return Poll::Ready(Ok(()));
        }
        self.ends_with_connection = matches!(parsed.body, Body::UntilClose | Body::Tunnel);
        self.state = State::Body(match parsed.body {
            Body::None(_) | Body::Empty => Framing::DONE,
            Body::Length(length) => Framing::Length(length),
            Body::Chunked => Framing::chunked(),
            Body::UntilClose | Body::Tunnel => Framing::Tunnel,
        });
        Poll::Ready(Ok(()))
    }

    /// Ready after each step.
    fn poll_body<C: Client>(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut C,
        connection: &mut Connection,
        asked: Asked<'_>,
    ) -> Poll<Result<()>> {
        if self.part.is_empty()
            && !self.is_last
            && let State::Body(framing) = &mut self.state
        {
            let data = framing.take_data(&mut connection.buffer, &mut self.lines);
            self.part = data.map_err(|error| {
                let why = "in the body of a response";
                Error::because(ErrorType::InvalidHTTPHeader, why, error).into_up()
            })?;
            self.is_last = framing.is_done();
            self.has_moved |= self.is_last || !self.part.is_empty();
            if self.is_last && !self.lines.is_empty() {
                let all = parse_trailers(&mem::take(&mut self.lines));
                let trailers = select(all, |name| !asked.gateway.drops(name));
                self.trailers = trailers.map(Box::new);
            }
        }
        if !self.part.is_empty() || self.is_last {
            let before = self.part.len();
            let ends = self.is_last && self.trailers.is_none();
            let sent = client.poll_send(cx, &mut self.part, ends);
            self.octets += before - self.part.len();
            ready!(sent)?;
            if let Some(trailers) = self.trailers.take() {
                client.send_trailers(*trailers)?;
            }
            if self.is_last {
                self.state = State::Ended;
                connection.last_length = self.octets;
            }
            return Poll::Ready(Ok(()));
        }
        let room = ready!(client.poll_room(cx))?;
        let count = ready!(self.poll_fill(cx, client, connection, room))?;
        if count == 0 {
            if !self.ends_with_connection {
                let why = "in the middle of a response's body";
                let error = Error::explain(ErrorType::ConnectionClosed, why);
                return Poll::Ready(Err(error.into_up()));
            }
            self.is_last = true;
        }
        Poll::Ready(Ok(()))
    }

    /// Reads more from the server. Meanwhile the client gets what it has not got yet.
    fn poll_fill<C: Client>(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut C,
        connection: &mut Connection,
        most: usize,
    ) -> Poll<Result<usize>> {
        match connection.poll_fill(cx, most) {
            Poll::Ready(Ok(count)) => Poll::Ready(Ok(count)),
            Poll::Ready(Err(error)) => Poll::Ready(Err(read_error(error))),
            Poll::Pending => {
                self.is_waiting = true;
                if let Poll::Ready(Err(error)) = client.poll_flush(cx) {
                    return Poll::Ready(Err(error));
                }
                Poll::Pending
            }
        }
    }
}

fn read_error(error: io::Error) -> Box<Error> {
    Error::because(ErrorType::ReadError, "while a response is read", error).into_up()
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::AsyncWriteExt as _;

    use super::super::fake::Received::{End, Head, Interim};
    use super::super::fake::{FakeClient, Received, asked, connect, octets};
    use super::*;

    /// What became of a response.
    #[derive(Debug, PartialEq, Eq)]
    struct Outcome {
        received: Vec<Received>,
        failed: Option<ErrorType>,
        /// Whether the connection is left for another request.
        leaves: bool,
    }

    fn complete(received: &[Received], leaves: bool) -> Outcome {
        Outcome {
            received: received.to_vec(),
            failed: None,
            leaves,
        }
    }

    fn failed(received: &[Received], failed: ErrorType) -> Outcome {
        Outcome {
            received: received.to_vec(),
            failed: Some(failed),
            leaves: false,
        }
    }

    /// Receives what a server sends, over a connection that holds so many octets. Afterwards the
    /// server closes it if `closes`.
    async fn receive(
        sent: &'static str,
        closes: bool,
        asked: Asked<'_>,
        holds: usize,
    ) -> (Outcome, Download) {
        let (mut client, _person) = FakeClient::new();
        let (mut connection, mut server) = connect(holds);
        let serving = tokio::spawn(async move {
            _ = server.write_all(sent.as_bytes()).await;
            match closes {
                true => drop(server),
                false => std::future::pending().await,
            }
        });
        if holds > 1 {
            // Everything is there at once.
            tokio::task::yield_now().await;
        }
        let mut download = Download::new();
        let done = poll_fn(|cx| download.poll(cx, &mut client, &mut connection, asked)).await;
        serving.abort();
        let failed = done.err().map(|error| {
            assert_eq!(error.esource().as_str(), "Upstream", "{error}");
            error.etype().clone()
        });
        assert_eq!(download.is_ended(), failed.is_none());
        let outcome = Outcome {
            received: client.received,
            failed,
            leaves: download.leaves_connection(&connection),
        };
        (outcome, download)
    }

    /// Receives it in one piece and octet by octet, with the same outcome.
    async fn outcome(sent: &'static str, closes: bool, asked: Asked<'_>) -> Outcome {
        let (whole, _) = receive(sent, closes, asked, 1 << 20).await;
        let (crumbs, _) = receive(sent, closes, asked, 1).await;
        assert_eq!(whole, crumbs, "{sent}");
        whole
    }

    #[tokio::test]
    async fn a_response_is_complete_where_its_framing_ends() {
        for (sent, body, leaves) in [
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc",
                "abc",
                true,
            ),
            ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "", true),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
                 2;x=y\r\nab\r\n1\r\nc\r\n0\r\nT: x\r\n\r\n",
                "abc",
                true,
            ),
            (
                "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabc",
                "abc",
                false,
            ),
            (
                "HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nabc",
                "abc",
                false,
            ),
        ] {
            let mut received = vec![Head(200)];
            received.extend((!body.is_empty()).then(|| octets(body)));
            let trailers = || Received::Trailers(vec!["t: x".to_owned()]);
            received.extend(sent.contains("T: x").then(trailers));
            received.push(End);
            assert_eq!(
                outcome(sent, false, asked()).await,
                complete(&received, leaves)
            );
        }
    }

    #[tokio::test]
    async fn a_response_without_a_length_ends_with_its_connection() {
        let sent = "HTTP/1.1 200 OK\r\n\r\nabc";
        let all = [Head(200), octets("abc"), End];
        assert_eq!(outcome(sent, true, asked()).await, complete(&all, false));
        let empty = outcome("HTTP/1.1 200 OK\r\n\r\n", true, asked()).await;
        assert_eq!(empty, complete(&[Head(200), End], false));
    }

    #[tokio::test]
    async fn a_response_that_has_no_body_ends_with_its_head() {
        let to_head = Asked {
            head_alone: true,
            ..asked()
        };
        for (sent, asked, status) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", to_head, 200),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
                to_head,
                200,
            ),
            ("HTTP/1.1 204 No Content\r\n\r\n", asked(), 204),
            (
                "HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\n\r\n",
                asked(),
                304,
            ),
        ] {
            let outcome = outcome(sent, false, asked).await;
            assert_eq!(outcome, complete(&[Head(status), End], true), "{sent}");
        }
    }

    #[tokio::test]
    async fn interim_responses_come_before_the_response() {
        let sent = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n\
             HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc";
        let all = [Interim(100), Interim(103), Head(200), octets("abc"), End];
        assert_eq!(outcome(sent, false, asked()).await, complete(&all, true));
    }

    #[tokio::test]
    async fn a_tunnel_ends_with_its_connection() {
        let upgrade = Asked {
            upgrade: true,
            ..asked()
        };
        let sent = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n0\r\n\r\nabc";
        let all = [Head(101), octets("0\r\n\r\nabc"), End];
        assert_eq!(outcome(sent, true, upgrade).await, complete(&all, false));
        let (_, download) = receive(sent, true, upgrade, 1 << 20).await;
        assert!(download.is_tunnel());
        let unasked = outcome(sent, true, asked()).await;
        assert_eq!(unasked, failed(&[], ErrorType::InvalidHTTPHeader));
    }

    #[tokio::test]
    async fn a_response_that_is_cut_is_not_complete() {
        let closed = ErrorType::ConnectionClosed;
        let abc = [Head(200), octets("abc")];
        for (sent, received) in [
            ("", &[][..]),
            ("HTTP/1.1 200 OK\r\nContent-Le", &[]),
            ("HTTP/1.1 100 Continue\r\n\r\n", &[Interim(100)]),
            ("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n", &abc[..1]),
            ("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nabc", &abc),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
                &abc,
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n",
                &abc,
            ),
        ] {
            let outcome = outcome(sent, true, asked()).await;
            assert_eq!(outcome, failed(received, closed.clone()), "{sent}");
        }
    }

    #[tokio::test]
    async fn what_precedes_a_malformed_chunk_is_passed_on() {
        for end in [
            "x",
            "3\r\nabcX",
            "3\r\nabc\r\nzz\r\n",
            "3\r\nabc\r\n0\r\n: x",
        ] {
            let sent = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{end}");
            let outcome = outcome(String::leak(sent), false, asked()).await;
            let mut received = vec![Head(200)];
            received.extend((end != "x").then(|| octets("abc")));
            let malformed = failed(&received, ErrorType::InvalidHTTPHeader);
            assert_eq!(outcome, malformed, "{end}");
        }
    }

    #[tokio::test]
    async fn a_head_that_does_not_end_is_refused() {
        let sent = format!("HTTP/1.1 200 OK\r\nX: {}", "a".repeat(70_000));
        let outcome = outcome(String::leak(sent), false, asked()).await;
        assert_eq!(outcome, failed(&[], ErrorType::InvalidHTTPHeader));
    }

    #[tokio::test]
    async fn a_connection_on_which_more_came_than_the_response_is_not_kept() {
        let abc = complete(&[Head(200), octets("abc"), End], false);
        for sent in [
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcHTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n0\r\n",
        ] {
            let (outcome, _) = receive(sent, false, asked(), 1 << 20).await;
            assert_eq!(outcome, abc, "{sent}");
        }
    }

    #[tokio::test]
    async fn only_a_server_that_sent_no_head_may_be_asked_again() {
        for (sent, has_begun) in [
            ("", false),
            ("HTTP/1.1 200 OK\r\nContent-Le", false),
            ("HTTP/1.1 103 Early Hints\r\n\r\n", true),
            ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", true),
        ] {
            let (_, download) = receive(sent, true, asked(), 1 << 20).await;
            assert_eq!(download.has_begun, has_begun, "{sent}");
        }
    }

    #[tokio::test]
    async fn octets_of_the_body_are_counted() {
        let sent = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n1\r\nd\r\n";
        for holds in [1, 1 << 20] {
            let (_, download) = receive(sent, true, asked(), holds).await;
            assert_eq!(download.status, Some(StatusCode::OK));
            assert_eq!(download.octets, 4);
        }
    }
}
