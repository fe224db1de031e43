//! The phases of a request in the order in which Pingora calls them.

use std::any::Any;
use std::os::fd::RawFd;
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

use super::Gateway;
use super::authentication::Denial;
use super::decision::{Decision, Step};
use super::failure::{self, Failure};
use super::handover::Handover;
use super::header::{self, Forwarded};
use super::no_server::NoServer;
use super::phase_ctx::PhaseCtx;
use super::refusal::Refusal;
use super::request::{Request, origin_form};
use super::response::LocalResponse;
use super::response_head;
use super::session_body;
use super::upstream::UPGRADED_IDLE;

#[async_trait]
impl ProxyHttp for Gateway {
    type CTX = PhaseCtx;

    fn new_ctx(&self) -> PhaseCtx {
        PhaseCtx::new()
    }

    fn init_downstream_modules(&self, _modules: &mut HttpModules) {}

    fn on_connection_reuse(
        &self,
        _session: &mut Session,
        ctx: &mut PhaseCtx,
        user_context: Box<dyn Any + Send + Sync>,
    ) {
        if let Ok(handover) = user_context.downcast::<Handover>() {
            ctx.keep_alive = Some(handover.keep_alive);
            ctx.request.decision = Some(handover.decision);
        }
    }

    async fn request_filter(&self, session: &mut Session, ctx: &mut PhaseCtx) -> Result<bool> {
        let (decision, denial) = match decided(session, ctx) {
            Some(decision) => (decision, None),
            None => {
                let request = Request::of(session.req_header(), session.digest());
                self.decide(&request).await
            }
        };
        session.set_read_timeout(Some(decision.idle));
        session.set_write_timeout(Some(decision.idle));
        session.set_total_drain_timeout(Some(decision.idle));
        // A client of HTTP/1.0 knows no interim responses.
        let old = session.req_header().version == Version::HTTP_10;
        session.set_ignore_info_resp(old);
        let relayed = decision.relayed.clone();
        let request = Request::of(session.req_header(), session.digest());
        let request = request.through(relayed.as_deref());
        let websocket = header::is_websocket(&request);
        let taken = ctx.request.take_decision(decision, &request);
        let denial = denial.or_else(|| taken.err().map(Denial::from));
        if websocket {
            // What follows such a request may not be HTTP, whatever the response: the edge reads
            // no other request after it.
            session.set_keepalive(None);
        }
        if let Some(response) = self.own_response(session, ctx, denial) {
            let gateway = ctx.request.response_fields();
            response.send(session, gateway).await?;
            return Ok(true);
        }
        if ctx.declared == Some(0) && session.req_header().version == Version::HTTP_2 {
            // A server considers a request without a body complete once its head has arrived.
            session_body::await_empty_body(session).await?;
        }
        if websocket {
            ctx.websocket = true;
            session.set_read_timeout(Some(UPGRADED_IDLE));
        } else {
            session.req_header_mut().remove_header(&UPGRADE);
        }
        // An interim response that makes the client send its body must not end the connection.
        session.set_close_on_response_before_downstream_finish(false);
        Ok(false)
    }

    async fn upstream_peer(
        &self,
        session: &mut Session,
        ctx: &mut PhaseCtx,
    ) -> Result<Box<HttpPeer>> {
        let chosen = match ctx.request.choose_server().cloned() {
            Err(NoServer::Full) => tokio::select! {
                biased;
                choice = ctx.request.wait_for_server(Duration::MAX) => choice.cloned(),
                gone = session_body::await_client_gone(session) => return Err(gone),
            },
            choice => choice,
        };
        let choice = chosen.map_err(|why| ctx.request.record_no_server(why))?;
        let Some(proxy) = ctx.request.proxy() else {
            return Err(Error::explain(ErrorType::InternalError, "the route is gone").into_in());
        };
        let (read_timeout, send_timeout) = (proxy.read_timeout, proxy.send_timeout);
        let request = Request::of(session.req_header(), session.digest());
        let request = request.through(ctx.request.relayed());
        let header = proxy.pool.proxy_header(Some(&request));
        let opening = ctx.connect(choice, header, &self.connection_limit, &self.dialer);
        let opened = tokio::select! {
            biased;
            opened = opening => opened,
            gone = session_body::await_client_gone(session) => return Err(gone),
        };
        let mut peer = opened.map_err(|mut error| {
            let again = ctx.request.record_connect_failure(&mut error);
            error.set_retry(again);
            error
        })?;
        peer.options.read_timeout = Some(match ctx.websocket {
            true => UPGRADED_IDLE,
            false => read_timeout,
        });
        peer.options.write_timeout = Some(send_timeout);
        Ok(peer)
    }

    async fn connected_to_upstream(
        &self,
        _session: &mut Session,
        _reused: bool,
        _peer: &HttpPeer,
        _socket: RawFd,
        _digest: Option<&Digest>,
        ctx: &mut PhaseCtx,
    ) -> Result<()> {
        ctx.record_connected();
        Ok(())
    }

    fn fail_to_connect(
        &self,
        _session: &mut Session,
        _peer: &HttpPeer,
        ctx: &mut PhaseCtx,
        mut error: Box<Error>,
    ) -> Box<Error> {
        // The link's connection was kept from an earlier request, and its server has closed it.
        ctx.record_stale();
        error.set_retry(true);
        error
    }

    fn error_while_proxy(
        &self,
        _peer: &HttpPeer,
        session: &mut Session,
        mut error: Box<Error>,
        ctx: &mut PhaseCtx,
        _client_reused: bool,
    ) -> Box<Error> {
        let repeatable = session.req_header().method.is_idempotent()
            && !session.retry_buffer_truncated()
            && session.response_written().is_none();
        let body_complete = session.is_body_done();
        let again = ctx.record_exchange_failure(&mut error, repeatable, body_complete);
        error.set_retry(again);
        error
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        request: &mut RequestHeader,
        ctx: &mut PhaseCtx,
    ) -> Result<()> {
        let changes = ctx.request.request_changes();
        let own = || origin_form(session.req_header().raw_path());
        let target = changes.target.unwrap_or_else(own);
        if target != request.raw_path() {
            request.set_raw_path(target)?;
        }
        header::join_cookies(request)?;
        if let Some(length) = ctx.declared {
            header::write_length(request, length)?;
        }
        let head = Request::of(session.req_header(), session.digest());
        let head = head.through(ctx.request.relayed());
        let host = ctx
            .request
            .decision
            .as_ref()
            .and_then(|one| one.host.clone());
        let invalid = || Error::explain(ErrorType::HTTPStatus(400), "the host is not valid");
        Forwarded {
            client: head.client,
            chain: head.relayed.map(|relayed| &*relayed.chain),
            tls: head.is_secure(),
            host: host.ok_or_else(invalid)?,
            server_host: changes.host,
            port: head.port,
            request_id: ctx.request.request_id_value(),
            trace: ctx.request.trace_for_server(&changes),
        }
        .write_fields(request)?;
        // A route may set what a client may not.
        changes.fields.edit_request(request)
    }

    async fn request_body_filter(
        &self,
        session: &mut Session,
        body: &mut Option<Bytes>,
        end_of_stream: bool,
        ctx: &mut PhaseCtx,
    ) -> Result<()> {
        // Pingora would write an empty last part as the chunk that ends a body, and then end the
        // body again: the next request on that connection would begin with a stray chunk.
        if end_of_stream && body.as_ref().is_some_and(Bytes::is_empty) {
            *body = None;
        }
        ctx.count_octets(body.as_ref().map_or(0, Bytes::len))?;
        // The edge checks bodies of HTTP/1.
        if session.req_header().version == Version::HTTP_2 {
            ctx.body.check_part(body, end_of_stream);
        }
        Ok(())
    }

    async fn upstream_response_filter(
        &self,
        _session: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut PhaseCtx,
    ) -> Result<()> {
        ctx.record_response(response.status);
        response_head::clean_response(response, ctx.websocket)
    }

    fn upstream_response_body_filter(
        &self,
        _session: &mut Session,
        _body: &mut Option<Bytes>,
        end_of_stream: bool,
        ctx: &mut PhaseCtx,
    ) -> Result<Option<Duration>> {
        ctx.record_progress(end_of_stream);
        Ok(None)
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut PhaseCtx,
    ) -> Result<()> {
        if !response.status.is_informational() {
            session.set_close_on_response_before_downstream_finish(true);
            if session.is_process_shutting_down() {
                session.set_keepalive(None);
            }
        }
        ctx.request.response_fields().edit_response(response)?;
        if session.req_header().version == Version::HTTP_10 {
            // There the end of the connection ends the body.
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
        ctx: &mut PhaseCtx,
    ) -> FailToProxy {
        let failure = Failure::of(error, session.is_body_done());
        ctx.request.record_failure(failure, error);
        // An incomplete response stays incomplete: its connection or stream is cut, so that nobody
        // takes it for complete.
        let begun = session.response_written().is_some_and(|head| {
            !head.status.is_informational() || head.status == StatusCode::SWITCHING_PROTOCOLS
        });
        let mut error_code = failure::CLIENT_GONE;
        if let Some((status, why)) = failure.response_status() {
            error_code = status.as_u16();
            if !begun {
                let request = Request::of(session.req_header(), session.digest());
                let page = ctx.request.error_page(status, why, &request);
                let page = page.in_form_for(request.fields);
                // If an upstream is to blame, the client keeps its connection.
                if !status.is_server_error() {
                    session.set_keepalive(None);
                }
                // If it cannot be sent, the client is gone.
                let sent = page.send(session, ctx.request.response_fields()).await;
                // A client that was too slow is not waited for again.
                ctx.page_sent = sent.is_ok() && status != StatusCode::REQUEST_TIMEOUT;
                if sent.is_ok() && !session_body::is_http2(session) {
                    match &ctx.keep_alive {
                        Some(kept) if session.get_keepalive().is_some() => kept.grant(),
                        _ => session.shutdown().await,
                    }
                }
            }
        }
        FailToProxy {
            error_code,
            // Pingora ignores it if an upstream failed, hence the code above.
            can_reuse_downstream: false,
        }
    }

    fn suppress_error_log(&self, _: &Session, _: &PhaseCtx, _: &Error) -> bool {
        true
    }

    fn suppress_proxy_warn_log(
        &self,
        _session: &Session,
        _exchange: &PhaseCtx,
        _error: &Error,
        _context: ProxyWarnLogContext,
    ) -> bool {
        true
    }

    async fn logging(&self, session: &mut Session, error: Option<&Error>, ctx: &mut PhaseCtx) {
        let written = session.response_written().map(|head| head.status);
        ctx.request.progress.received = session.body_bytes_read() as u64;
        let request = Request::of(session.req_header(), session.digest());
        let octets = session.body_bytes_sent();
        self.record_request(&ctx.request, written, octets, &request);
        if session_body::is_http2(session) && (error.is_none() || ctx.page_sent) {
            ctx.request.release_upstream();
            session_body::await_body_end(session, session_body::IDLE_AFTER).await;
        }
    }
}

impl Gateway {
    /// The gateway's own response to a request, if it has one. If not, the request has a permit to
    /// use a connection to an upstream.
    fn own_response(
        &self,
        session: &Session,
        ctx: &mut PhaseCtx,
        denial: Option<Denial>,
    ) -> Option<LocalResponse> {
        let step = ctx.request.decision.as_ref()?.step();
        let denial = match (denial, step) {
            (Some(denial), _) => denial,
            (None, Step::Refuse(refusal)) => refusal.into(),
            // Pingora's proxy has no files.
            (None, Step::Files(_)) => Refusal::NoRoute.into(),
            (None, Step::Respond(_) | Step::Redirect(_)) => return ctx.request.response().cloned(),
            (None, Step::Pass(_)) => {
                if ctx.acquire_upstream_permit(session.req_header(), &self.connection_limit) {
                    let request = Request::of(session.req_header(), session.digest());
                    ctx.request.set_balance_key(&request);
                    return None;
                }
                Refusal::NoRoom.into()
            }
        };
        let request = Request::of(session.req_header(), session.digest());
        let page = self.page(&mut ctx.request, denial, &request);
        Some(page.in_form_for(request.fields))
    }
}

/// What the edge has decided to do with a request, which it passes in the session's user context
/// over HTTP/1, and in the extensions of the head over HTTP/2.
fn decided(session: &mut Session, ctx: &mut PhaseCtx) -> Option<Decision> {
    let over_http1 = ctx.request.decision.take();
    over_http1.or_else(|| session.req_header_mut().extensions_mut().remove())
}
