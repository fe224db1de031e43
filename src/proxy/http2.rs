//! Connections to one address over which the gateway speaks HTTP/2, and which requests share.
//!
//! A request takes a stream of the connection that has the fewest. Another connection is opened once
//! all have as many as their server allows. Some connections are reserved for clients that have few
//! streams, so those that have many do not shut them out.

mod connection;
mod errors;
mod liveness;

use std::mem;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use pingora_core::{Error, ErrorType, Result};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout_at};

pub(super) use self::connection::Place;
pub(super) use self::errors::{is_unprocessed, stream_error};

use self::connection::{Connection, MOST_STREAMS};
use super::connection_limit::{Held, may_share};
use super::dial::Duplex;
use crate::lock::MutexExt as _;

/// The most connections to one address for any request.
const MOST_CONNECTIONS: usize = 64;

/// How many more there may be for requests of clients that have few.
const RESERVED: usize = 16;

/// How often connections without requests are checked.
const SWEEP: Duration = Duration::from_secs(2);

/// Connections to one address.
#[derive(Debug)]
pub(super) struct Http2Connections {
    /// Itself, for the task that sweeps.
    me: Weak<Self>,
    state: Mutex<State>,
    /// Whether the server chose HTTP/1.1 when it was last asked.
    is_http1: AtomicBool,
    /// Notified when there may be room for a request.
    changed: Notify,
}

#[derive(Debug)]
struct State {
    open: Vec<Arc<Connection>>,
    /// How many connections are being opened.
    opening: usize,
    /// How many requests wait.
    waiting: usize,
    /// How many streams the last connection that was opened may have.
    streams: usize,
    is_swept: bool,
}

/// What a request does for a stream.
enum Next {
    Use(Place),
    /// Opens a connection.
    Open,
    /// Waits until there may be room.
    Wait,
}

/// What was opened for a request.
pub(super) enum Opened {
    /// A place on a connection of HTTP/2.
    Place(Place),
    /// A connection whose server has chosen HTTP/1.1.
    Http1(Box<dyn Duplex>),
}

impl Http2Connections {
    /// None yet.
    pub(super) fn new() -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            me: Weak::clone(me),
            state: Mutex::new(State {
                open: Vec::new(),
                opening: 0,
                waiting: 0,
                streams: MOST_STREAMS,
                is_swept: false,
            }),
            is_http1: AtomicBool::new(false),
            changed: Notify::new(),
        })
    }

    /// Whether the server chose HTTP/1.1 when it was last asked.
    pub(super) fn is_http1(&self) -> bool {
        self.is_http1.load(Ordering::Relaxed)
    }

    /// Whether a connection is open that takes requests, as far as is known.
    pub(super) fn is_connected(&self) -> bool {
        self.state().open.iter().any(|one| !one.is_retired())
    }

    /// A place on an open connection, if one has room, for a request whose client's connection has
    /// `held` so far.
    pub(super) fn take_place(&self, held: Option<&Arc<Held>>) -> Option<Place> {
        self.state().take_place(held)
    }

    /// A place within `patience`, as [`Self::take`] gives it, or on a connection that is opened by
    /// `dial`. What that opens is of HTTP/1.1 unless the server has chosen HTTP/2 or
    /// `is_prior_knowledge`.
    ///
    /// # Errors
    /// If the server cannot be reached or does not speak HTTP/2. If it only has no room, the
    /// error's type is `HTTPStatus(503)`.
    pub(super) async fn open<F>(
        &self,
        patience: Duration,
        is_prior_knowledge: bool,
        held: Option<&Arc<Held>>,
        dial: impl FnOnce(Duration) -> F,
    ) -> Result<Opened>
    where
        F: Future<Output = Result<Box<dyn Duplex>>>,
    {
        let deadline = Instant::now() + patience;
        let _opening = loop {
            if self.is_http1() {
                break None;
            }
            let mut changed = pin!(self.changed.notified());
            changed.as_mut().enable();
            let next = self.state().next(held);
            match next {
                Next::Use(place) => return Ok(Opened::Place(place)),
                Next::Open => break Some(Opening(self)),
                Next::Wait => {
                    let _waiting = Waiting(self);
                    let waited = timeout_at(deadline, changed).await;
                    waited.map_err(|_| self.late_error(patience))?;
                }
            }
        };
        let left = deadline.saturating_duration_since(Instant::now());
        let socket = dial(left).await?;
        let is_http1 = !is_prior_knowledge && !socket.has_chosen_http2();
        self.is_http1.store(is_http1, Ordering::Relaxed);
        if is_http1 {
            return Ok(Opened::Http1(socket));
        }
        let opened = timeout_at(deadline, Connection::open(socket, Weak::clone(&self.me))).await;
        let connection = opened.unwrap_or_else(|_| {
            let why = format!("the server does not begin HTTP/2 within {patience:?}");
            Error::e_explain(ErrorType::ConnectTimedout, why)
        })?;
        let place = connection.try_take(held, false).ok_or_else(|| {
            let why = "the server ends HTTP/2 as soon as it has begun";
            Error::explain(ErrorType::ConnectError, why)
        })?;
        self.add(connection);
        Ok(Opened::Place(place))
    }

    /// The error of a request that has waited for as long as it may.
    fn late_error(&self, patience: Duration) -> Box<Error> {
        match self.state().opening {
            0 => no_room(),
            _ => {
                let why = format!("no connection is open within {patience:?}");
                Error::explain(ErrorType::ConnectTimedout, why)
            }
        }
    }

    fn add(&self, connection: Arc<Connection>) {
        let mut state = self.state();
        state.streams = connection.most_streams();
        state.open.push(connection);
        if !mem::replace(&mut state.is_swept, true) {
            tokio::spawn(sweep(Weak::clone(&self.me)));
        }
    }

    /// Lets requests that wait try again: one for each place that may be free, or all if only some
    /// of them may have it.
    fn note_room(&self, places: usize) {
        let state = self.state();
        let waiting = state.waiting;
        let places = match waiting > 0 && state.is_crowded() {
            true => usize::MAX,
            false => places,
        };
        drop(state);
        for _ in 0..waiting.min(places) {
            self.changed.notify_one();
        }
    }

    /// Closes connections that are of no use any more. Returns whether any are left.
    fn close_useless(&self) -> bool {
        let mut state = self.state();
        state.open.retain(|connection| !connection.is_useless());
        state.is_swept = !state.open.is_empty();
        state.is_swept
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock_unpoisoned()
    }
}

impl State {
    /// A place on the connection that has the fewest requests.
    fn take_place(&mut self, held: Option<&Arc<Held>>) -> Option<Place> {
        if !self.may_have(held) {
            return None;
        }
        loop {
            let with_room = self.open.iter().filter(|one| one.has_room());
            let connection = with_room.min_by_key(|one| one.used())?;
            if let Some(place) = connection.try_take(held, true) {
                return Some(place);
            }
            // It has ended since the last look, or its server takes no more requests.
            self.open.retain(|one| !one.is_retired());
        }
    }

    /// How many requests use its connections.
    fn used(&self) -> usize {
        self.open.iter().map(|one| one.used()).sum()
    }

    /// Whether only reserved places are free.
    fn is_crowded(&self) -> bool {
        self.used() >= MOST_CONNECTIONS.saturating_mul(self.streams)
    }

    /// Whether a client's connection that has `held` so far may have a place, if there is one.
    fn may_have(&self, held: Option<&Arc<Held>>) -> bool {
        let most = (MOST_CONNECTIONS + RESERVED).saturating_mul(self.streams);
        !self.is_crowded() || may_share(held, most.saturating_sub(self.used()))
    }

    fn next(&mut self, held: Option<&Arc<Held>>) -> Next {
        if let Some(place) = self.take_place(held) {
            return Next::Use(place);
        }
        let is_awaited = self.waiting < self.opening.saturating_mul(self.streams);
        let most = match self.is_crowded() && self.may_have(held) {
            true => MOST_CONNECTIONS + RESERVED,
            false => MOST_CONNECTIONS,
        };
        if is_awaited || self.open.len() + self.opening >= most {
            self.waiting += 1;
            return Next::Wait;
        }
        self.opening += 1;
        Next::Open
    }
}

/// A connection that is being opened, until this is dropped.
struct Opening<'a>(&'a Http2Connections);

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        self.0.state().opening -= 1;
        // All that waited for it: it may not have come about.
        self.0.note_room(usize::MAX);
    }
}

/// A request that waits, until this is dropped.
struct Waiting<'a>(&'a Http2Connections);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.state().waiting -= 1;
    }
}

fn no_room() -> Box<Error> {
    let why = "the server has as many streams of HTTP/2 as it allows";
    Error::explain(ErrorType::HTTPStatus(503), why).into_up()
}

/// Closes connections that are of no use, as long as there are any.
async fn sweep(connections: Weak<Http2Connections>) {
    loop {
        sleep(SWEEP).await;
        let some = connections.upgrade().is_some_and(|of| of.close_useless());
        if !some {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use h2::server;
    use http::Request;
    use tokio::io::duplex;

    use super::*;
    use crate::proxy::connection_limit::ConnectionLimit;

    const PATIENCE: Duration = Duration::from_secs(5);

    /// A server whose connections have so many streams each, on which it never responds.
    #[derive(Clone)]
    struct Server {
        most: u32,
        /// How many connections have been opened, and how many of them have ended.
        opened: Arc<AtomicUsize>,
        ended: Arc<AtomicUsize>,
        /// What its one client uses.
        held: Arc<Held>,
    }

    impl Server {
        fn new(most: u32) -> Self {
            Self {
                most,
                opened: Arc::default(),
                ended: Arc::default(),
                held: Arc::default(),
            }
        }

        async fn dial(self) -> Result<Box<dyn Duplex>> {
            let (near, far) = duplex(1 << 16);
            self.opened.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(async move {
                let mut builder = server::Builder::new();
                let begun = builder.max_concurrent_streams(self.most).handshake(far);
                let mut connection: server::Connection<_, bytes::Bytes> =
                    begun.await.expect("HTTP/2");
                let mut requests = Vec::new();
                while let Some(Ok(request)) = connection.accept().await {
                    requests.push(request);
                }
                self.ended.fetch_add(1, Ordering::Relaxed);
            });
            Ok(Box::new(near))
        }

        async fn place(&self, connections: &Http2Connections) -> Result<Place> {
            self.place_of(connections, &self.held).await
        }

        async fn place_of(
            &self,
            connections: &Http2Connections,
            held: &Arc<Held>,
        ) -> Result<Place> {
            let dial = |_| self.clone().dial();
            let opened = connections.open(PATIENCE, true, Some(held), dial);
            match opened.await? {
                Opened::Place(place) => Ok(place),
                Opened::Http1(_) => panic!("the server speaks HTTP/2"),
            }
        }

        fn counts(&self) -> (usize, usize) {
            let of = |count: &AtomicUsize| count.load(Ordering::Relaxed);
            (of(&self.opened), of(&self.ended))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_shared_as_far_as_its_server_allows() {
        let (connections, server) = (Http2Connections::new(), Server::new(2));
        assert!(connections.take_place(None).is_none());
        let first = server.place(&connections).await.expect("a place");
        assert!(!first.is_reused());
        let second = connections.take_place(None).expect("room for another");
        assert!(second.is_reused() && connections.take_place(None).is_none());
        let third = server.place(&connections).await.expect("a place");
        assert!(!third.is_reused());
        drop(first);
        // Of the two connections, both have one request.
        assert!(connections.take_place(None).is_some());
        assert_eq!(server.counts(), (2, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn requests_that_come_together_share_the_connection_that_is_opened() {
        let (connections, server) = (Http2Connections::new(), Server::new(100));
        let places = (0..50).map(|_| server.place(&connections));
        let places = futures::future::join_all(places).await;
        assert!(places.iter().all(Result::is_ok));
        assert_eq!(server.counts(), (1, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_waits_for_a_place_if_there_are_enough_connections() {
        let (connections, server) = (Http2Connections::new(), Server::new(1));
        let places = (0..MOST_CONNECTIONS).map(|_| server.place(&connections));
        let mut places = futures::future::join_all(places).await;
        assert_eq!(server.counts(), (MOST_CONNECTIONS, 0));
        let begun = Instant::now();
        let error = server.place(&connections).await.expect_err("no room");
        assert_eq!(*error.etype(), ErrorType::HTTPStatus(503));
        assert_eq!(begun.elapsed(), PATIENCE);
        let freed = async {
            sleep(PATIENCE / 2).await;
            drop(places.pop());
        };
        let (place, ()) = tokio::join!(server.place(&connections), freed);
        assert!(place.expect("a place").is_reused());
        assert_eq!(begun.elapsed(), PATIENCE * 3 / 2);
    }

    #[tokio::test(start_paused = true)]
    async fn clients_that_have_many_streams_leave_some_to_others() {
        let (connections, server) = (Http2Connections::new(), Server::new(10));
        let clients: Vec<Arc<Held>> = (0..8).map(|_| Arc::default()).collect();
        let wanted = clients.iter().flat_map(|held| [held; 80]);
        let wanted = wanted.map(|held| server.place_of(&connections, held));
        let places = futures::future::join_all(wanted).await;
        let mut places: Vec<_> = places.into_iter().flatten().collect();
        assert_eq!(places.len(), 640);
        assert_eq!(server.counts().0, MOST_CONNECTIONS);
        let error = server.place_of(&connections, &clients[0]).await;
        let error = error.expect_err("no room");
        assert_eq!(*error.etype(), ErrorType::HTTPStatus(503));
        // Another client has a share of what is left, at once.
        let begun = Instant::now();
        let other: Arc<Held> = Arc::default();
        for _ in 0..30 {
            places.push(
                server
                    .place_of(&connections, &other)
                    .await
                    .expect("a place"),
            );
        }
        assert_eq!(begun.elapsed(), Duration::ZERO);
        assert!(connections.take_place(Some(&clients[0])).is_none());
        assert_eq!(server.counts().0, MOST_CONNECTIONS + 3);
        drop(places);
        assert_eq!((clients[0].requests(), other.requests()), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_cannot_be_opened_keeps_nobody_waiting() {
        let connections = Http2Connections::new();
        let refuse = |_| async {
            sleep(Duration::from_secs(1)).await;
            Error::e_explain(ErrorType::ConnectRefused, "nobody")
        };
        let open = || connections.open(PATIENCE, true, None, refuse);
        let (one, other) = tokio::join!(open(), open());
        assert!(one.is_err() && other.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_is_closed_after_a_while() {
        let (connections, server) = (Http2Connections::new(), Server::new(1));
        let limit: Arc<ConnectionLimit> = Arc::default();
        for _ in 0..2 {
            let place = server.place(&connections).await.expect("a place");
            let permit = limit.try_acquire(0, None).expect("room");
            place.count_connection(Some(permit.into_used()));
            assert_eq!((limit.used(), limit.idle()), (1, 0));
            drop(place);
            assert_eq!((limit.used(), limit.idle()), (0, 1));
            sleep(Duration::from_secs(30)).await;
        }
        assert_eq!(server.counts(), (1, 0));
        sleep(Duration::from_secs(70)).await;
        assert_eq!((server.counts(), limit.idle()), ((1, 1), 0));
    }

    /// Sends a request, and gives it up after a moment.
    async fn give_up(mut place: Place) {
        let head = Request::get("http://a.test/").body(()).expect("valid");
        let _request = place.send_head(head, true).expect("open");
        sleep(Duration::from_millis(500)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_whose_server_is_gone_is_retired_soon() {
        let connections = Http2Connections::new();
        let dial = |_| async {
            let (near, far) = duplex(1 << 16);
            tokio::spawn(async move {
                let mut connection = server::handshake(far).await.expect("HTTP/2");
                let _request: (_, server::SendResponse<bytes::Bytes>) =
                    connection.accept().await.expect("one").expect("valid");
                // It neither reads nor writes any more.
                std::future::pending::<()>().await;
            });
            Ok(Box::new(near) as Box<dyn Duplex>)
        };
        let opened = connections
            .open(PATIENCE, true, None, dial)
            .await
            .expect("open");
        let Opened::Place(place) = opened else {
            panic!("it is HTTP/2")
        };
        let other = connections.take_place(None).expect("room");
        let begun = Instant::now();
        give_up(place).await;
        assert!(connections.is_connected());
        while connections.is_connected() {
            sleep(Duration::from_millis(100)).await;
        }
        assert!(begun.elapsed() < Duration::from_secs(5));
        assert!(connections.take_place(None).is_none());
        drop(other);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_whose_server_is_there_is_kept() {
        let (connections, server) = (Http2Connections::new(), Server::new(100));
        let place = server.place(&connections).await.expect("a place");
        drop(place);
        for _ in 0..2 {
            for _ in 0..2 {
                give_up(connections.take_place(None).expect("room")).await;
                sleep(Duration::from_secs(5)).await;
                assert!(connections.is_connected());
            }
            connections.take_place(None).expect("room").note_sign();
        }
        // It is not asked over and over without a sign of a response.
        for _ in 0..3 {
            give_up(connections.take_place(None).expect("room")).await;
            sleep(Duration::from_secs(5)).await;
        }
        assert!(!connections.is_connected());
        assert_eq!(server.counts().0, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn connections_end_with_those_who_use_them() {
        let (connections, server) = (Http2Connections::new(), Server::new(1));
        let place = server.place(&connections).await.expect("a place");
        drop(connections);
        sleep(Duration::from_secs(100)).await;
        assert_eq!(server.counts(), (1, 0));
        drop(place);
        sleep(Duration::from_secs(1)).await;
        assert_eq!(server.counts(), (1, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_does_not_begin_http2_is_given_up() {
        let connections = Http2Connections::new();
        let (near, _far) = duplex(1 << 16);
        let mut near = Some(near);
        let dial = |_| {
            let socket = near.take().expect("one connection");
            async { Ok(Box::new(socket) as Box<dyn Duplex>) }
        };
        let error = connections.open(PATIENCE, true, None, dial).await.err();
        let error = error.expect("no HTTP/2");
        assert_eq!(*error.etype(), ErrorType::ConnectTimedout);
    }
}
