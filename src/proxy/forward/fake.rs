//! Both ends of an exchange in memory.

use std::future::{Future as _, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use pingora_core::{Error, ErrorType, Result};
use tokio::io::DuplexStream;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{Sleep, sleep};
use tokio_util::io::poll_read_buf;

use super::client::Client;
use super::response::{Asked, ResponseHead};
use crate::proxy::connection::Connection;
use crate::proxy::connection_limit::Held;
use crate::proxy::response_fields::ResponseFields;

static REQUEST_ID: HeaderValue = HeaderValue::from_static("00ff");

/// What is asked of a server in a plain GET.
pub(super) fn asked() -> Asked<'static> {
    Asked {
        head_alone: false,
        upgrade: false,
        expects: false,
        gateway: ResponseFields::of_request(&REQUEST_ID),
        replacements: None,
        trailers: None,
    }
}

/// What a client has received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Received {
    Interim(u16),
    Head(u16),
    Octets(Bytes),
    Trailers(Vec<String>),
    End,
}

/// Octets that a client has received.
pub(super) fn octets(octets: &str) -> Received {
    Received::Octets(Bytes::copy_from_slice(octets.as_bytes()))
}

/// A client that accepts everything, unless it is made to pause.
pub(super) struct FakeClient {
    body: UnboundedReceiver<Bytes>,
    is_body_done: bool,
    /// What follows the body.
    pub(super) trailers: Option<HeaderMap>,
    /// Ends when the client goes away.
    alive: UnboundedReceiver<()>,
    /// While it runs, nothing is accepted.
    pause: Option<Pin<Box<Sleep>>>,
    /// How many more octets are accepted.
    room: usize,
    /// In their order; octets that arrive in several parts are one.
    pub(super) received: Vec<Received>,
}

/// The hands of a client. It goes away when this is dropped.
pub(super) struct Person {
    /// Takes parts of the body; `None` once it has ended.
    body: Option<UnboundedSender<Bytes>>,
    _alive: UnboundedSender<()>,
}

impl Person {
    pub(super) fn send(&self, part: &str) {
        let body = self.body.as_ref().expect("the body continues");
        // The gateway may have stopped reading.
        _ = body.send(Bytes::copy_from_slice(part.as_bytes()));
    }

    pub(super) fn end(&mut self) {
        self.body = None;
    }
}

impl FakeClient {
    pub(super) fn new() -> (Self, Person) {
        let (to_body, body) = unbounded_channel();
        let (to_alive, alive) = unbounded_channel();
        let client = Self {
            body,
            is_body_done: false,
            trailers: None,
            alive,
            pause: None,
            room: usize::MAX,
            received: Vec::new(),
        };
        let person = Person {
            body: Some(to_body),
            _alive: to_alive,
        };
        (client, person)
    }

    /// A client whose body consists of these parts.
    pub(super) fn with_body(parts: &[&str]) -> (Self, Person) {
        let (client, mut person) = Self::new();
        for part in parts {
            person.send(part);
        }
        person.end();
        (client, person)
    }

    /// A client without a body that accepts so many octets.
    pub(super) fn with_room(room: usize) -> Self {
        let (client, _) = Self::with_body(&[]);
        Self { room, ..client }
    }

    /// Accepts nothing for so long.
    pub(super) fn pause(&mut self, time: Duration) {
        self.pause = Some(Box::pin(sleep(time)));
    }

    /// How many parts of the body have not been taken.
    pub(super) fn untaken(&self) -> usize {
        self.body.len()
    }
}

impl Client for FakeClient {
    fn held(&self) -> Option<&Arc<Held>> {
        None
    }

    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>>> {
        let part = ready!(self.body.poll_recv(cx));
        self.is_body_done |= part.is_none();
        Poll::Ready(Ok(part))
    }

    fn take_trailers(&mut self) -> Option<HeaderMap> {
        self.trailers.take()
    }

    fn is_body_done(&self) -> bool {
        self.is_body_done
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<Box<Error>> {
        ready!(self.alive.poll_recv(cx));
        Poll::Ready(Error::new_down(ErrorType::ConnectionClosed))
    }

    fn has_cancelled(&self) -> bool {
        false
    }

    fn send_interim(&mut self, head: &ResponseHead<'_>) -> Result<()> {
        self.received.push(Received::Interim(head.status.as_u16()));
        Ok(())
    }

    fn send_head(&mut self, head: &ResponseHead<'_>) -> Result<()> {
        self.received.push(Received::Head(head.status.as_u16()));
        Ok(())
    }

    fn poll_room(&mut self, _: &mut Context<'_>) -> Poll<Result<usize>> {
        Poll::Ready(Ok(1024))
    }

    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        part: &mut Bytes,
        is_last: bool,
    ) -> Poll<Result<()>> {
        if let Some(pause) = &mut self.pause {
            ready!(pause.as_mut().poll(cx));
            self.pause = None;
        }
        let accepted = part.split_to(part.len().min(self.room));
        self.room -= accepted.len();
        match self.received.last_mut() {
            Some(Received::Octets(all)) => *all = [&**all, &*accepted].concat().into(),
            _ if accepted.is_empty() => {}
            _ => self.received.push(Received::Octets(accepted)),
        }
        if !part.is_empty() {
            return Poll::Pending;
        }
        if is_last {
            self.received.push(Received::End);
        }
        Poll::Ready(Ok(()))
    }

    fn send_trailers(&mut self, trailers: HeaderMap) -> Result<()> {
        let line = |(name, value): (&HeaderName, &HeaderValue)| {
            format!("{name}: {}", value.to_str().expect("text"))
        };
        let lines = trailers.iter().map(line).collect();
        assert!(!self.received.contains(&Received::End), "it has ended");
        self.received.push(Received::Trailers(lines));
        self.received.push(Received::End);
        Ok(())
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// A connection that holds so many octets on their way, and its server.
pub(super) fn connect(holds: usize) -> (Connection, DuplexStream) {
    let (gateway, server) = tokio::io::duplex(holds);
    (Connection::new(Box::new(gateway)), server)
}

/// What has arrived at a server.
pub(super) async fn arrived(server: &mut DuplexStream) -> String {
    let mut got = Vec::new();
    poll_fn(|cx| {
        while let Poll::Ready(Ok(1..)) = poll_read_buf(Pin::new(&mut *server), cx, &mut got) {}
        Poll::Ready(())
    })
    .await;
    String::from_utf8(got).expect("text")
}
