//! By when a request must be complete, and how it fails if it is not.

use std::time::Duration;

use pingora_core::{Error, ErrorType, Result};
use tokio::time::Instant;

use crate::proxy::grpc;
use crate::proxy::request::Request;
use crate::proxy::route::Proxy;

/// By when a request must be complete.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Deadline {
    /// The earlier one of its route's and its client's.
    pub(super) until: Option<Instant>,
    /// That of its client.
    of_client: Option<Instant>,
}

impl Deadline {
    /// The deadline of a request that is passed on now. A call of gRPC may say its own.
    pub(super) fn of(request: &Request<'_>, proxy: &Proxy, is_call: bool) -> Self {
        let of_client = is_call.then(|| grpc::timeout(request.fields)).flatten();
        let of_client = of_client.map(|timeout| Instant::now() + timeout);
        let of_route = proxy.total_timeout.map(|total| Instant::now() + total);
        Self {
            until: of_route.into_iter().chain(of_client).min(),
            of_client,
        }
    }

    /// How long it is until then.
    pub(super) fn left(self) -> Duration {
        self.until
            .map_or(Duration::MAX, |until| until - Instant::now())
    }

    /// # Errors
    /// If the deadline has passed before the request is sent.
    pub(super) fn check(self) -> Result<()> {
        match self.until.is_some_and(|until| until <= Instant::now()) {
            true => Err(self.explain(overrun_error(Awaited::Server))),
            false => Ok(()),
        }
    }

    /// The error of a request, which is the client's if its own deadline has passed.
    pub(super) fn explain(self, error: Box<Error>) -> Box<Error> {
        let is_late = matches!(
            error.etype(),
            ErrorType::ReadTimedout | ErrorType::WriteTimedout | ErrorType::HTTPStatus(503 | 504)
        );
        let has_passed = |deadline: Instant| deadline <= Instant::now();
        match is_late && self.of_client.is_some_and(has_passed) {
            true => grpc::deadline_error(),
            false => error,
        }
    }
}

/// What a request is waiting for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Awaited {
    /// The server, whose turn it is.
    Server,
    /// The server, to accept more of a request. It may do so as fast as it can.
    Room,
    /// The client, to send more of its request.
    Body,
    /// The client, to accept more of the response.
    Reader,
}

impl Awaited {
    /// What an exchange waits for. `is_over` says whether the server has all that it needs of the
    /// request, `is_blocked` whether it accepts nothing more, and `is_waiting` whether more of the
    /// response is waited for.
    pub(super) fn of(is_over: bool, is_blocked: bool, is_waiting: bool) -> Self {
        match (is_waiting, is_blocked, is_over) {
            (false, ..) => Self::Reader,
            (true, true, _) => Self::Room,
            (true, false, true) => Self::Server,
            (true, false, false) => Self::Body,
        }
    }
}

/// The error of a request that has taken as long as it may, while it was waiting for something. Only
/// a server that has all of a request is to blame: clients decide on its size and its rate.
pub(super) fn overrun_error(awaited: Awaited) -> Box<Error> {
    let why = "the request takes longer than its route allows";
    match awaited {
        Awaited::Server => Error::explain(ErrorType::ReadTimedout, why).into_up(),
        Awaited::Room => Error::explain(ErrorType::HTTPStatus(504), why).into_down(),
        Awaited::Body => Error::explain(ErrorType::ReadTimedout, why).into_down(),
        Awaited::Reader => Error::explain(ErrorType::WriteTimedout, why).into_down(),
    }
}
