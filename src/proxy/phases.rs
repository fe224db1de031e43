//! The phases of a request in the order in which Pingora calls them.

use std::any::Any;
use std::net::IpAddr;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::header::{TRANSFER_ENCODING, UPGRADE};
use http::{StatusCode, Version};
use pingora_core::modules::http::HttpModules;
use pingora_core::protocols::Digest;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_core::{Error, ErrorType, Result};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::{FailToProxy, ProxyHttp, ProxyWarnLogContext, Session};

use crate::clock::{Clock, SystemClock};
use crate::proxy::answer::{self, Answer};
use crate::proxy::authority::{self, Channel};
use crate::proxy::exchange::Exchange;
use crate::proxy::failure::{self, Failure};
use crate::proxy::flow::Flow;
use crate::proxy::header::{self, Forwarded};
use crate::proxy::own::Request;
use crate::proxy::upstream::{Pool, UPGRADED_IDLE};
use crate::proxy::{Gateway, SiteTable, challenge, channel};

#[async_trait]
impl ProxyHttp for Gateway {
    type CTX = Exchange;

    fn new_ctx(&self) -> Exchange {
        Exchange::new()
    }

    fn init_downstream_modules(&self, _modules: &mut HttpModules) {}

    fn on_connection_reuse(
        &self,
        _session: &mut Session,
        exchange: &mut Exchange,
        left: Box<dyn Any + Send + Sync>,
    ) {
        exchange.keep_alive = left.downcast().ok().map(|left| *left);
    }

    async fn request_filter(&self, session: &mut Session, exchange: &mut Exchange) -> Result<bool> {
        let sites = self.sites(session);
        session.set_read_timeout(Some(sites.idle));
        session.set_write_timeout(Some(sites.idle));
        session.set_total_drain_timeout(Some(sites.idle));
        // A client of HTTP/1.0 knows no answers before the last one.
        let old = session.req_header().version == Version::HTTP_10;
        session.set_ignore_info_resp(old);
        exchange.client = client(session);
        let websocket = header::is_websocket(session.req_header());
        if websocket {
            // What follows such a request may be no HTTP, whatever it is answered: the edge reads
            // no other request after it.
            session.set_keepalive(None);
        }
        challenge::look_for(self.certificates.challenges(), session.req_header()).await;
        let answer = match self.decide(&sites, session, exchange) {
            Some(answer) => Some(answer),
            None => self.enter(&sites, session, exchange),
        };
        // What waits for the client, or for the server, holds no configuration.
        drop(sites);
        if let Some(answer) = answer {
            answer.send(session, exchange.request_id_value()).await?;
            return Ok(true);
        }
        if exchange.declared == Some(0) && session.req_header().version == Version::HTTP_2 {
            // A server takes a request without a body for whole once its head has come.
            await_end(session).await?;
        }
        if websocket {
            exchange.websocket = true;
            session.set_read_timeout(Some(UPGRADED_IDLE));
        } else {
            session.req_header_mut().remove_header(&UPGRADE);
        }
        // An interim answer that makes the client send its body must not end the connection.
        session.set_close_on_response_before_downstream_finish(false);
        Ok(false)
    }

    async fn upstream_peer(
        &self,
        session: &mut Session,
        exchange: &mut Exchange,
    ) -> Result<Box<HttpPeer>> {
        let choice = exchange.choose().cloned();
        let Some(proxy) = exchange.proxy() else {
            return Err(Error::explain(ErrorType::InternalError, "the route is gone").into_in());
        };
        let Some(choice) = choice else {
            proxy.pool.attempts.unresolved.inc();
            let why = "no server of the upstream has an address yet";
            return Err(Error::explain(ErrorType::HTTPStatus(502), why).into_up());
        };
        let flow = exchange.flow.clone();
        let lease = Pool::lease(&choice, exchange.is_stale, &self.room, flow);
        let (patience, read_timeout) = (proxy.connect_timeout, proxy.read_timeout);
        let opening = proxy.pool.open(&choice, &lease, &self.dialer, patience);
        let opened = tokio::select! {
            biased;
            opened = opening => opened,
            gone = await_client_gone(session) => return Err(gone),
        };
        let mut peer = opened.map_err(|mut error| {
            let again = exchange.connect_failed(&mut error);
            error.set_retry(again);
            error
        })?;
        peer.options.read_timeout = Some(match exchange.websocket {
            true => UPGRADED_IDLE,
            false => read_timeout,
        });
        exchange.lease = Some(lease);
        Ok(peer)
    }

    async fn connected_to_upstream(
        &self,
        _session: &mut Session,
        _reused: bool,
        _peer: &HttpPeer,
        _socket: RawFd,
        _digest: Option<&Digest>,
        exchange: &mut Exchange,
    ) -> Result<()> {
        exchange.connected();
        Ok(())
    }

    fn fail_to_connect(
        &self,
        _session: &mut Session,
        _peer: &HttpPeer,
        exchange: &mut Exchange,
        mut error: Box<Error>,
    ) -> Box<Error> {
        // The link had a connection, which its server has closed meanwhile.
        exchange.found_stale();
        error.set_retry(true);
        error
    }

    fn error_while_proxy(
        &self,
        _peer: &HttpPeer,
        session: &mut Session,
        mut error: Box<Error>,
        exchange: &mut Exchange,
        _client_reused: bool,
    ) -> Box<Error> {
        let repeatable = session.req_header().method.is_idempotent()
            && !session.retry_buffer_truncated()
            && session.response_written().is_none();
        let again = exchange.exchange_failed(&mut error, repeatable);
        error.set_retry(again);
        error
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        request: &mut RequestHeader,
        exchange: &mut Exchange,
    ) -> Result<()> {
        let target = header::origin_form(session.req_header());
        if target != request.raw_path() {
            request.set_raw_path(target)?;
        }
        header::join_cookies(request)?;
        if let Some(length) = exchange.declared {
            header::write_length(request, length)?;
        }
        let channel = channel(session);
        Forwarded {
            client: exchange.client,
            tls: matches!(channel, Channel::Tls(_)),
            host: authority::host_field(session.req_header())?,
            port: session
                .server_addr()
                .and_then(|a| a.as_inet())
                .map(|address| address.port()),
            request_id: exchange.request_id_value(),
        }
        .write(request)
    }

    async fn request_body_filter(
        &self,
        session: &mut Session,
        body: &mut Option<Bytes>,
        end_of_stream: bool,
        exchange: &mut Exchange,
    ) -> Result<()> {
        // Pingora would write an empty last part as the chunk that ends a body, and then end the
        // body once more: the next request on that connection would begin with a stray chunk.
        if end_of_stream && body.as_ref().is_some_and(Bytes::is_empty) {
            *body = None;
        }
        // The edge watches over bodies of HTTP/1.
        if session.req_header().version == Version::HTTP_2 {
            exchange.body.pass(body, end_of_stream);
        }
        Ok(())
    }

    async fn upstream_response_filter(
        &self,
        _session: &mut Session,
        response: &mut ResponseHeader,
        exchange: &mut Exchange,
    ) -> Result<()> {
        exchange.answered(response.status);
        header::clean_response(response, exchange.websocket)
    }

    fn upstream_response_body_filter(
        &self,
        _session: &mut Session,
        _body: &mut Option<Bytes>,
        end_of_stream: bool,
        exchange: &mut Exchange,
    ) -> Result<Option<Duration>> {
        exchange.progressed(end_of_stream);
        Ok(None)
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        exchange: &mut Exchange,
    ) -> Result<()> {
        if !response.status.is_informational() {
            session.set_close_on_response_before_downstream_finish(true);
            if session.is_process_shutting_down() {
                session.set_keepalive(None);
            }
            response.insert_header(header::REQUEST_ID, exchange.request_id_value())?;
        }
        if session.req_header().version == Version::HTTP_10 {
            // The end of the connection ends the body there.
            if response.remove_header(&TRANSFER_ENCODING).is_some() {
                session.set_keepalive(None);
            }
        }
        Ok(())
    }

    async fn fail_to_proxy(
        &self,
        session: &mut Session,
        error: &Error,
        exchange: &mut Exchange,
    ) -> FailToProxy {
        let failure = Failure::of(error, session.is_body_done());
        exchange.failed(failure, error);
        // A part of an answer is left as it is: its connection or stream is cut, so that nobody
        // takes it for the whole.
        let begun = session.response_written().is_some_and(|head| {
            !head.status.is_informational() || head.status == StatusCode::SWITCHING_PROTOCOLS
        });
        let mut error_code = failure::CLIENT_GONE;
        if let Some((status, why)) = failure.answer() {
            error_code = status.as_u16();
            if !begun {
                let accept = answer::accept(session);
                let page = Answer::error(status, why, accept, exchange.request_id());
                // An upstream's fault costs the client no connection, and so no handshake.
                if !status.is_server_error() {
                    session.set_keepalive(None);
                }
                // Where the client cannot take it there is nobody to tell.
                let sent = page.send(session, exchange.request_id_value()).await;
                // A client that was too slow is not waited for once more.
                exchange.page_sent = sent.is_ok() && status != StatusCode::REQUEST_TIMEOUT;
                if sent.is_ok() && !answer::is_http2(session) {
                    match &exchange.keep_alive {
                        Some(kept) if session.get_keepalive().is_some() => kept.grant(),
                        _ => session.shutdown().await,
                    }
                }
            }
        }
        FailToProxy {
            error_code,
            // Pingora does not look at it where an upstream failed: hence what is done above.
            can_reuse_downstream: false,
        }
    }

    fn suppress_error_log(&self, _: &Session, _: &Exchange, _: &Error) -> bool {
        true
    }

    fn suppress_proxy_warn_log(
        &self,
        _session: &Session,
        _exchange: &Exchange,
        _error: &Error,
        _context: ProxyWarnLogContext,
    ) -> bool {
        true
    }

    async fn logging(&self, session: &mut Session, error: Option<&Error>, exchange: &mut Exchange) {
        let written = session.response_written().map(|head| head.status);
        let status = exchange.status(written);
        exchange.count(status);
        let access = self.access.load();
        if access.is_on() {
            let request = Request::of(session.req_header(), session.digest());
            let bytes = session.body_bytes_sent();
            exchange.log(status, bytes, &request, &access, SystemClock.now());
        }
        if answer::is_http2(session) && (error.is_none() || exchange.page_sent) {
            // The upstream is done with.
            exchange.place = None;
            answer::await_body_end(session, answer::IDLE_AFTER).await;
        }
    }
}

impl Gateway {
    /// Lets a request that a route passes on go to its upstream: the answer to give instead where
    /// it has to come later.
    fn enter(
        &self,
        sites: &SiteTable,
        session: &Session,
        exchange: &mut Exchange,
    ) -> Option<Answer> {
        let request = session.req_header();
        exchange.declared = header::declared_length(request);
        exchange.flow = request.extensions.get::<Arc<Flow>>().cloned();
        let connection = exchange.flow.as_ref().map(|flow| &flow.at_upstreams);
        exchange.place = self.room.enter(sites.upstream_connections, connection);
        if exchange.place.is_some() {
            return None;
        }
        self.refused.no_room.inc();
        if let Some(suppressed) = self.room.refusals.admit() {
            tracing::warn!(
                suppressed,
                "a request is refused with 503: too many are at upstreams; see \
                 server.limits.upstream_connections",
            );
        }
        let why = "Too many requests wait for the servers behind this gateway.";
        let accept = answer::accept(session);
        let status = StatusCode::SERVICE_UNAVAILABLE;
        Some(Answer::error(status, why, accept, exchange.request_id()))
    }
}

/// Waits until the client takes its request back or goes away. Over HTTP/1 that cannot be seen
/// before the whole body has been read.
async fn await_client_gone(session: &mut Session) -> Box<Error> {
    if !answer::is_http2(session) && !session.is_body_done() {
        return std::future::pending().await;
    }
    loop {
        if let Err(error) = session.downstream_session.read_body_or_idle(true).await {
            return error.into_down();
        }
    }
}

/// Waits for the end of a body that is to have no octets.
async fn await_end(session: &mut Session) -> Result<()> {
    while let Some(part) = session.read_request_body().await? {
        if !part.is_empty() {
            let why = "the request's body is longer than declared";
            return Err(Error::explain(ErrorType::HTTPStatus(400), why).into_down());
        }
    }
    Ok(())
}

/// The address of the client.
fn client(session: &Session) -> Option<IpAddr> {
    session
        .client_addr()?
        .as_inet()
        .map(|address| address.ip().to_canonical())
}
