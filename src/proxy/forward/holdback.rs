//! A client that gets no response after which its request is to be retried.

use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use pingora_core::{Error, ErrorType, Result};

use super::client::Client;
use super::response::ResponseHead;
use crate::proxy::connection_limit::Held;
use crate::proxy::retry::StatusRetry;
use crate::proxy::upstream::Picked;

/// A client for one attempt at a server. If the response is one to retry after and there is another
/// server, it fails instead of passing it on.
pub(super) struct Holdback<'a, C> {
    client: &'a mut C,
    /// In a box, since few routes have it.
    watch: Option<Box<Watch>>,
}

struct Watch {
    retry: StatusRetry,
    /// How many octets of the body may still be sent if it is to be sent again; `None` if the request
    /// cannot be retried any more.
    room: Option<usize>,
    /// The server to try next.
    next: Option<Picked>,
}

impl<'a, C: Client> Holdback<'a, C> {
    /// The client of a request of whose body `room` octets may be sent if it is to be sent again.
    pub(super) fn new(client: &'a mut C, retry: Option<StatusRetry>, room: Option<usize>) -> Self {
        let watch = retry.map(|retry| {
            Box::new(Watch {
                retry,
                room,
                next: None,
            })
        });
        Self { client, watch }
    }

    /// The server to try next, if a response was held back.
    pub(super) fn into_next(self) -> Option<Picked> {
        self.watch?.next
    }
}

impl<C: Client> Client for Holdback<'_, C> {
    fn held(&self) -> Option<&Arc<Held>> {
        self.client.held()
    }

    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>>> {
        let part = self.client.poll_body(cx)?;
        if let (Some(watch), Poll::Ready(Some(part))) = (&mut self.watch, &part) {
            watch.room = watch.room.and_then(|room| room.checked_sub(part.len()));
        }
        part.map(Ok)
    }

    fn allow_pauses(&mut self) {
        self.client.allow_pauses();
    }

    fn take_trailers(&mut self) -> Option<HeaderMap> {
        self.client.take_trailers()
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
        if let Some(watch) = &mut self.watch {
            watch.room = None;
        }
        self.client.send_interim(head)
    }

    fn check_head(&mut self, head: &ResponseHead<'_>) -> Result<()> {
        if let Some(watch) = &mut self.watch {
            if watch.room.is_some() && watch.next.is_none() {
                watch.next = watch.retry.pick(head.status);
            }
            if watch.next.is_some() {
                let status = ErrorType::HTTPStatus(head.status.as_u16());
                return Err(Error::explain(status, "another server is tried").into_up());
            }
        }
        Ok(())
    }

    fn send_head(&mut self, head: &ResponseHead<'_>) -> Result<()> {
        self.check_head(head)?;
        self.client.send_head(head)
    }

    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize>> {
        self.client.poll_room(cx)
    }

    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        part: &mut Bytes,
        is_last: bool,
    ) -> Poll<Result<()>> {
        self.client.poll_send(cx, part, is_last)
    }

    fn send_trailers(&mut self, trailers: HeaderMap) -> Result<()> {
        self.client.send_trailers(trailers)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.client.poll_flush(cx)
    }
}
