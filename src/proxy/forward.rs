//! The gateway's own lane: carries requests on the edge's own streams, to servers of HTTP/1.1 and, in
//! [`http2`], of HTTP/2.
//!
//! The head is read once and written once, and request and response are carried at the same time,
//! each as fast as its slower side. Whatever decides (routes, servers, fields, retries, errors) is
//! shared with Pingora's lane, see [`super::phases`].

mod client;
mod compress;
mod connected;
mod deadline;
mod download;
mod exchange;
#[cfg(test)]
mod fake;
mod holdback;
mod http2;
mod permit;
mod request;
pub(super) mod response;
mod send_pace;
mod upload;
mod wait;

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode};
use pingora_core::{Error, ErrorType, Result};
use tokio::time::Instant;

pub use self::client::Client;
pub use self::response::{Body as ResponseBody, ResponseHead};

use self::client::poll_empty_body;
pub(super) use self::compress::Compressing;
use self::connected::Connected;
use self::deadline::Deadline;
use self::exchange::Exchange;
use self::holdback::Holdback;
use self::http2::Outgoing;
use self::request::{Body, build_head, write_head};
use self::response::Asked;
use self::upload::{Replay, Upload};
use self::wait::Patience;
use super::Gateway;
use super::decision::Decision;
use super::failure::Failure;
use super::grpc;
use super::header;
use super::no_server::NoServer;
use super::prepared::Prepared;
use super::refusal::Refusal;
use super::request::Request;
use super::request_ctx::RequestCtx;
use super::trailers::RequestTrailers;
use super::upstream::Choice;
use crate::config::model::Protocol;

/// What became of a request that was to be passed on.
pub enum Carried {
    /// The client has the complete response.
    Complete,
    /// The response has begun and cannot be completed, or the client is gone.
    Cut,
    /// The gateway responds itself. The response is to be passed to
    /// [`DirectResponder::record_sent`](super::DirectResponder::record_sent).
    Respond(Box<Prepared>),
}

/// What the client has of the response.
#[derive(Default)]
struct Sent {
    status: Option<StatusCode>,
    octets: usize,
    /// Whether it ends with the trailers of gRPC.
    is_call: bool,
}

/// A request on its way.
struct Passage<'a, C> {
    gateway: &'a Gateway,
    request: &'a Request<'a>,
    ctx: RequestCtx,
    client: &'a mut C,
    sent: Sent,
    /// What is kept of the fields of a server's response, if the gateway responds in its place.
    replaced: Option<Vec<(HeaderName, HeaderValue)>>,
}

/// Passes a request on, as `decision` says, and its response to the client.
pub(super) async fn forward<C: Client>(
    gateway: &Gateway,
    decision: Decision,
    request: &Request<'_>,
    client: &mut C,
) -> Carried {
    let Some(compression) = decision.compression().map(Arc::clone) else {
        return pass_on(gateway, decision, request, client).await;
    };
    // In a box, since few routes have it.
    let mut client = Box::new(Compressing::new(client, compression, request));
    Box::pin(pass_on(gateway, decision, request, &mut *client)).await
}

async fn pass_on<C: Client>(
    gateway: &Gateway,
    decision: Decision,
    request: &Request<'_>,
    client: &mut C,
) -> Carried {
    let mut ctx = RequestCtx::new();
    if let Err(refusal) = ctx.take_decision(decision, request) {
        return gateway.refuse(ctx, refusal, request);
    }
    if !ctx.acquire_upstream_permit(&gateway.connection_limit, client.held()) {
        return gateway.refuse(ctx, Refusal::NoRoom, request);
    }
    ctx.set_balance_key(request);
    let mut passage = Passage {
        gateway,
        request,
        ctx,
        client,
        sent: Sent::default(),
        replaced: None,
    };
    let carried = passage.carry().await;
    passage.finish(carried)
}

impl<C: Client> Passage<'_, C> {
    /// Tries servers until one responds or none is left to try.
    async fn carry(&mut self) -> Result<()> {
        let declared = header::declared_length(self.request.fields);
        let is_websocket = header::is_websocket(self.request);
        if declared == Some(0) && !is_websocket && !self.client.is_body_done() {
            // A server considers a request without a body complete once its head has arrived.
            poll_fn(|cx| poll_empty_body(self.client, cx)).await?;
        }
        let body = match declared {
            _ if is_websocket => Body::None,
            Some(length) => Body::Length(length),
            None if self.client.is_body_done() => Body::None,
            None => Body::Chunked,
        };
        let request = self.request;
        let is_idempotent = request.is_idempotent();
        let proxy = self.ctx.proxy().ok_or_else(no_route)?;
        let (max_body, protocol) = (proxy.max_body, proxy.pool.protocol());
        let is_tls = proxy.pool.has_tls();
        let is_call = protocol != Protocol::Http1 && grpc::is_call(request.fields);
        let deadline = Deadline::of(request, proxy, is_call);
        // A server of HTTP/2 may refuse any request before it has processed it.
        let mut replay = match is_idempotent || protocol != Protocol::Http1 {
            true => Replay::default(),
            false => Replay::never(),
        };
        let replacements = self.ctx.replacements(request);
        let may_have_trailers = match body {
            Body::None => false,
            Body::Length(_) => protocol != Protocol::Http1,
            Body::Chunked => true,
        };
        let changes = may_have_trailers.then(|| self.ctx.request_changes().fields.keep());
        let trailers = changes.as_ref().map(|changes| RequestTrailers {
            fields: request.fields,
            changes: changes.as_changes(),
        });
        // Only HTTP/1.1 has upgrades.
        let needs_http1 = is_websocket && protocol == Protocol::Negotiated;
        let mut may_reuse = true;
        let mut head = None;
        loop {
            let choice = self.choose_server(deadline).await?;
            self.renew_permit()?;
            let opened = self.connect(choice, may_reuse, needs_http1, deadline);
            let connected = opened.await?;
            let Some((choice, connected)) = connected else {
                continue;
            };
            let is_reused = connected.is_reused();
            self.ctx.record_connected(is_reused);
            let gateway = self.ctx.response_fields().keep();
            let asked = Asked {
                head_alone: request.method == "HEAD",
                upgrade: is_websocket,
                expects: body != Body::None && header::expects_continue(request.fields),
                gateway: gateway.as_fields(),
                replacements: replacements.as_ref(),
                trailers,
            };
            let patience = self.patience(deadline.until)?;
            let retry = self.ctx.status_retry().filter(|_| is_idempotent);
            let mut client = Holdback::new(self.client, retry, replay.room());
            let outcome = match connected {
                Connected::Http1(mut connection) => {
                    let head = match &head {
                        // Else it names the span of the last attempt.
                        Some(head) if self.ctx.recorded().is_none() => Bytes::clone(head),
                        _ => {
                            let written = write_head(request, &self.ctx, body, is_websocket)?;
                            head.insert(written).clone()
                        }
                    };
                    let upload = Upload::new(head, body, &replay, max_body);
                    let ctx = &mut self.ctx;
                    let exchange = Exchange::new(
                        &mut client,
                        &mut connection,
                        asked,
                        patience,
                        upload,
                        &mut replay,
                    );
                    let record = |status, sent| ctx.record_response(status, sent);
                    let outcome = exchange.carry(record).await;
                    if outcome.result.is_err() && client.has_cancelled() {
                        // Its port is free at once, and the server learns that nobody waits.
                        connection.reset_on_close();
                    } else if outcome.leaves_connection {
                        let limit = &self.gateway.connection_limit;
                        choice.endpoint.idle.keep(connection, limit);
                    }
                    outcome
                }
                Connected::Http2(place) => {
                    let head = build_head(request, &self.ctx, body, is_tls)?;
                    let outgoing = Outgoing {
                        head,
                        body,
                        max_body,
                        may_pause: is_call,
                        asked,
                        patience,
                    };
                    let record = |status, sent| self.ctx.record_response(status, sent);
                    let carried = http2::carry(place, outgoing, &mut client, &mut replay, record);
                    // In a box, so that requests to other servers reserve no memory for it.
                    Box::pin(carried).await
                }
            };
            let next = client.into_next();
            self.ctx.progress.received = outcome.received;
            self.replaced = outcome.replaced;
            let octets = self.client.recoded_octets().unwrap_or(outcome.octets);
            self.sent = Sent {
                status: outcome.status,
                octets,
                is_call: outcome.is_call,
            };
            let Err(error) = outcome.result else {
                return Ok(());
            };
            let error = deadline.explain(error);
            if let Some(next) = next {
                self.ctx.retry_at(next, &error);
                may_reuse = true;
                continue;
            }
            let is_safe = is_idempotent || outcome.is_unprocessed;
            let repeatable = is_safe && !outcome.has_begun && replay.is_complete();
            let is_stale = is_reused || outcome.is_unprocessed;
            let ctx = &mut self.ctx;
            // The exchange knows whose time was up.
            if !ctx.record_exchange_failure(&error, is_stale, repeatable, true) {
                return Err(error);
            }
            may_reuse = !is_reused;
        }
    }

    /// The server to try, for which the request waits if all have as many requests as they may.
    async fn choose_server(&mut self, deadline: Deadline) -> Result<Choice> {
        deadline.check()?;
        match self.ctx.choose_server() {
            Ok(choice) => return Ok(choice.clone()),
            Err(NoServer::Full) => {}
            Err(why) => return Err(self.ctx.record_no_server(why)),
        }
        let client = &mut *self.client;
        // In a box, since few requests wait.
        let mut waiting = Box::pin(self.ctx.wait_for_server(deadline.left()));
        let chosen = poll_fn(|cx| match waiting.as_mut().poll(cx) {
            Poll::Ready(chosen) => Poll::Ready(Ok(chosen.cloned())),
            Poll::Pending => client.poll_gone(cx).map(Err),
        });
        let chosen = chosen.await?;
        drop(waiting);
        let choice = chosen.map_err(|why| deadline.explain(self.ctx.record_no_server(why)))?;
        deadline.check()?;
        Ok(choice)
    }

    /// A connection to the chosen server, and the address that it leads to; `None` if another one
    /// is to be tried.
    async fn connect(
        &mut self,
        choice: Choice,
        may_reuse: bool,
        needs_http1: bool,
        deadline: Deadline,
    ) -> Result<Option<(Choice, Connected)>> {
        let proxy = self.ctx.proxy().ok_or_else(no_route)?;
        let held = self.client.held();
        let open = Connected::take_open(&proxy.pool, &choice, held, may_reuse, needs_http1);
        if let Some(connected) = open {
            self.share_permit(&connected);
            return Ok(Some((choice, connected)));
        }
        let dialer = &self.gateway.dialer;
        // In a box, since most requests find an open connection.
        let patience = proxy.connect_timeout.min(deadline.left());
        let held = held.cloned();
        let (ctx, request, held) = (&mut self.ctx, self.request, held.as_ref());
        let opening = Connected::open(ctx, choice, request, held, dialer, patience, needs_http1);
        let mut opening = Box::pin(opening);
        let client = &mut *self.client;
        let opened = poll_fn(|cx| match opening.as_mut().poll(cx) {
            Poll::Ready(opened) => Poll::Ready(Ok(opened)),
            Poll::Pending => client.poll_gone(cx).map(Err),
        });
        let opened = opened.await?;
        drop(opening);
        if opened.is_err() {
            // The server is not to blame for what is left of the request's time.
            deadline.check()?;
        }
        match opened {
            Ok((choice, connected)) => {
                self.share_permit(&connected);
                Ok(Some((choice, connected)))
            }
            // Nor is it for as many requests as it allows.
            Err(error) if matches!(error.etype(), ErrorType::HTTPStatus(_)) => Err(error),
            Err(mut error) => match self.ctx.record_connect_failure(&mut error) {
                true => Ok(None),
                false => Err(error),
            },
        }
    }

    fn patience(&self, until: Option<Instant>) -> Result<Patience> {
        let proxy = self.ctx.proxy().ok_or_else(no_route)?;
        Ok(Patience {
            read: proxy.read_timeout,
            send: proxy.send_timeout,
            until,
        })
    }

    /// Counts and logs the request, unless the gateway has to respond itself.
    fn finish(mut self, carried: Result<()>) -> Carried {
        self.ctx.release_upstream();
        if let (Ok(()), Some(fields)) = (&carried, self.replaced.take())
            && let (Some(status), Some(pages)) =
                (self.sent.status, self.ctx.replacements(self.request))
        {
            let page = pages.respond(status, fields, self.request, self.ctx.request_id());
            return Carried::Respond(Box::new(Prepared::new(self.ctx, Some(page), self.request)));
        }
        let failed = carried.is_err();
        if let Err(error) = carried {
            // The exchange knows whose time was up.
            let failure = Failure::of(&error, true);
            self.ctx.record_failure(failure, &error);
            let response = failure.response_status();
            if let (Some((status, why)), true) =
                (response, self.sent.is_call && self.request.is_http2())
                && self.sent.status.is_some()
                && let Some(failure) = grpc::Failure::of(self.request.fields, status, why)
            {
                // It fails for a client that is gone.
                _ = self.client.send_trailers(failure.trailers());
            }
            if let (None, Some((status, why))) = (self.sent.status, response) {
                let page = self.ctx.error_page(status, why, self.request);
                let page = Prepared::new(self.ctx, Some(page), self.request);
                // If an upstream is to blame, the client keeps its connection.
                let page = page.closing(!status.is_server_error());
                return Carried::Respond(Box::new(page));
            }
        }
        let Sent { status, octets, .. } = self.sent;
        self.gateway
            .record_request(&self.ctx, status, octets, self.request);
        match failed {
            true => Carried::Cut,
            false => Carried::Complete,
        }
    }
}

fn no_route() -> Box<Error> {
    Error::explain(ErrorType::InternalError, "the route is gone").into_in()
}
