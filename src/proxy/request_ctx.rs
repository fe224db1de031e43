//! The context of one request while it passes through the gateway, Pingora's `CTX`.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use http::header::{REFERER, USER_AGENT};
use http::{HeaderValue, StatusCode};
use pingora_core::{Error, ErrorSource, ErrorType};

use crate::access_log::{AccessLog, Entry};
use crate::clock::UnixTime;
use crate::proxy::app::KeepAlive;
use crate::proxy::body::Body;
use crate::proxy::connection_limit::UpstreamPermit;
use crate::proxy::deadline::Deadline;
use crate::proxy::direct_response::Request;
use crate::proxy::failure::{self, CLIENT_GONE, ErrorSummary, Failure};
use crate::proxy::flow::Flow;
use crate::proxy::response::LocalResponse;
use crate::proxy::route::{Action, Proxy, Site};
use crate::proxy::server::Endpoint;
use crate::proxy::upstream::{Choice, Lease};

/// A request on its way.
pub struct RequestCtx {
    started: Instant,
    request_id: HeaderValue,
    pub(crate) client: Option<IpAddr>,
    pub(crate) site: Option<Arc<Site>>,
    /// The index of the site's route.
    pub(crate) route: Option<usize>,
    /// The server that is or was last tried.
    choice: Option<Choice>,
    /// The server to try next, where one has failed.
    next: Option<Choice>,
    /// Addresses that have failed.
    tried: Vec<Arc<Endpoint>>,
    /// How often the request has been tried again, as far as the route's retries count it.
    retries: u32,
    /// Whether the connection that was kept for it turned out closed before anything was sent.
    pub(crate) is_stale: bool,
    /// The connection to it.
    pub(crate) lease: Option<Lease>,
    /// The request's permit to use an upstream connection.
    pub(crate) upstream_permit: Option<UpstreamPermit>,
    /// Whether a request has been repeated because its kept-alive connection was dead.
    repeated: bool,
    /// Whether the client asks for a WebSocket.
    pub(crate) websocket: bool,
    /// Until when the upstream must agree to the upgrade that the client asks for.
    deadline: Option<Deadline>,
    /// Where the owner of an HTTP/1 connection learns that it is kept.
    pub(crate) keep_alive: Option<KeepAlive>,
    /// Whether an error page was sent whole, to a client that may still send.
    pub(crate) page_sent: bool,
    /// How the answer flows to a client of HTTP/2.
    pub(crate) flow: Option<Arc<Flow>>,
    /// The length of the body as the request declares it.
    pub(crate) declared: Option<u64>,
    /// What has come of the body, over HTTP/2.
    pub(crate) body: Body,
    failure: Option<Failure>,
}

impl RequestCtx {
    /// The state of a request that has just come, with a name of its own.
    pub(crate) fn new() -> Self {
        Self {
            started: Instant::now(),
            request_id: new_id(),
            client: None,
            site: None,
            route: None,
            choice: None,
            next: None,
            tried: Vec::new(),
            retries: 0,
            repeated: false,
            is_stale: false,
            websocket: false,
            deadline: None,
            keep_alive: None,
            page_sent: false,
            lease: None,
            upstream_permit: None,
            flow: None,
            declared: None,
            body: Body::default(),
            failure: None,
        }
    }

    /// The request's name, 128 random bits in hexadecimal.
    pub(crate) fn request_id(&self) -> &str {
        self.request_id.to_str().unwrap_or("-")
    }

    /// The request's name as a field's value.
    pub(crate) fn request_id_value(&self) -> &HeaderValue {
        &self.request_id
    }

    /// The route's own answer; `None` where the route passes on.
    pub(crate) fn response(&self) -> Option<&LocalResponse> {
        match &self.site.as_ref()?.route(self.route?)?.action {
            Action::Respond(answer) => Some(answer),
            Action::Proxy(_) => None,
        }
    }

    /// The route's upstream and how to speak to it; `None` where the route does not pass on.
    pub(crate) fn proxy(&self) -> Option<&Proxy> {
        match &self.site.as_ref()?.route(self.route?)?.action {
            Action::Proxy(proxy) => Some(proxy),
            Action::Respond(_) => None,
        }
    }

    /// Chooses the server to try; `None` where the route does not pass on, or where no server of
    /// the upstream has an address yet.
    pub(crate) fn choose_server(&mut self) -> Option<&Choice> {
        let choice = match self.next.take() {
            Some(choice) => choice,
            None => self.proxy()?.pool.next_server()?,
        };
        Some(self.choice.insert(choice))
    }

    /// Notes that the chosen server can be reached.
    pub(crate) fn record_connected(&mut self) {
        let reused = self.is_link_reused();
        // What has come of it is sent anew with each try.
        self.body = Body::of(self.declared);
        let (Some(proxy), Some(choice)) = (self.proxy(), &self.choice) else {
            return;
        };
        if reused {
            proxy.pool.attempts.reused.inc();
        } else {
            proxy.pool.attempts.connected.inc();
            choice.endpoint.restore();
        }
        if self.websocket {
            let patience = proxy.read_timeout;
            let deadline = |lease: &Lease| Deadline::start(&lease.link, patience);
            self.deadline = self.lease.as_ref().map(deadline);
        }
    }

    /// Whether the request has a connection that had others before, which Pingora cannot tell.
    fn is_link_reused(&self) -> bool {
        self.lease
            .as_ref()
            .is_some_and(|lease| lease.link.is_reused())
    }

    /// Notes that the head of an answer has come. Only a tunnel may be silent for longer than the
    /// route allows.
    pub(crate) fn record_response(&mut self, status: StatusCode) {
        self.record_progress(status == StatusCode::SWITCHING_PROTOCOLS);
    }

    /// Notes that the upstream has sent something, and whether it may be silent from now on.
    pub(crate) fn record_progress(&mut self, may_be_silent: bool) {
        if may_be_silent {
            self.deadline = None;
        } else if let Some(deadline) = &self.deadline {
            deadline.restart();
        }
    }

    /// Records that the chosen server cannot be reached, and says whether to try again. Nothing has
    /// been sent, so any request can be tried elsewhere.
    pub(crate) fn record_connect_failure(&mut self, error: &mut Error) -> bool {
        error.as_up();
        if failure::is_out_of_resources(error) {
            // The server has not even been asked.
            error.etype = ErrorType::HTTPStatus(503);
            return false;
        }
        if let Some(proxy) = self.proxy() {
            proxy.pool.attempts.connect_failed.inc();
        }
        self.avoid_server()
    }

    /// Notes that the connection that was kept had been closed by its server: the same server is to
    /// be asked over another.
    pub(crate) fn record_stale(&mut self) {
        self.is_stale = true;
        self.next.clone_from(&self.choice);
    }

    /// Records that a request failed after it was connected, and says whether to try again, which
    /// is done only where the server has not answered and the request is `repeatable`.
    ///
    /// Where a kept-alive connection turns out dead, that costs none of the route's retries once:
    /// the server has not failed.
    pub(crate) fn record_exchange_failure(&mut self, error: &mut Error, repeatable: bool) -> bool {
        if self
            .deadline
            .take()
            .is_some_and(|deadline| deadline.has_passed())
        {
            error.etype = ErrorType::ReadTimedout;
            error.as_up();
        }
        if *error.esource() != ErrorSource::Upstream {
            return false;
        }
        if let Some(proxy) = self.proxy() {
            proxy.pool.attempts.failed.inc();
        }
        let died = matches!(
            error.etype(),
            ErrorType::ConnectionClosed | ErrorType::ReadError | ErrorType::WriteError
        );
        if !died || !repeatable {
            return false;
        }
        if self.is_link_reused() && !self.repeated {
            self.repeated = true;
            return true;
        }
        self.avoid_server()
    }

    /// Passes the chosen server over for a while, and says whether another is to be tried: another
    /// address of the same server in any case, another server as often as the route allows.
    fn avoid_server(&mut self) -> bool {
        let Some(choice) = self.choice.clone() else {
            return false;
        };
        self.tried.push(Arc::clone(&choice.endpoint));
        let Some(proxy) = self.proxy() else {
            return false;
        };
        proxy.pool.avoid_server(&choice);
        let may_retry = self.retries < proxy.retries;
        let next = match proxy.pool.same_server(&choice, &self.tried) {
            Some(next) => Some(next),
            None if may_retry => {
                let next = proxy.pool.other_server(&self.tried);
                self.retries += u32::from(next.is_some());
                next
            }
            None => None,
        };
        self.next = next;
        self.next.is_some()
    }

    /// Keeps and logs how the request failed.
    pub(crate) fn record_failure(&mut self, failure: Failure, error: &Error) {
        self.failure = Some(failure);
        let site = self.site.as_ref().map_or("-", |site| &site.name);
        let upstream = self.upstream().unwrap_or("-");
        let request_id = self.request_id();
        match failure {
            Failure::Client(status, _) => {
                tracing::debug!(site, request_id, status = status.as_u16(), %error, "refused");
            }
            Failure::Gone => {
                tracing::debug!(site, upstream, request_id, %error, "the client went away");
            }
            Failure::Gateway(status, _) => tracing::error!(
                site, upstream, request_id, status = status.as_u16(), error = %ErrorSummary(error),
                "a request failed",
            ),
            Failure::Upstream(status, _) => {
                let failures = self.proxy().map(|proxy| &proxy.pool.failures);
                if let Some(suppressed) = failures.map_or(Some(0), |failures| failures.admit()) {
                    tracing::warn!(
                        site, upstream, request_id, status = status.as_u16(), suppressed,
                        error = %ErrorSummary(error), "an upstream failed",
                    );
                }
            }
        }
    }

    /// The status that the request ends with, where an answer with the head `written` was begun.
    pub(crate) fn status(&self, written: Option<StatusCode>) -> u16 {
        match (written, self.failure) {
            (Some(status), _) => status.as_u16(),
            (None, Some(failure)) => failure
                .response_status()
                .map_or(CLIENT_GONE, |(status, _)| status.as_u16()),
            (None, None) => CLIENT_GONE,
        }
    }

    /// Counts the request.
    pub(crate) fn count_status(&self, status: u16) {
        if let Some(site) = &self.site {
            let duration = self.started.elapsed();
            site.metrics.observe(status, duration.as_secs_f64());
        }
    }

    /// Writes the request's access line. `bytes` is how many of the answer's body were sent.
    pub(crate) fn log_request(
        &self,
        status: u16,
        bytes: usize,
        request: &Request<'_>,
        access: &AccessLog,
        now: UnixTime,
    ) {
        access.write(&Entry {
            time: now,
            client: self.client,
            host: request.authority,
            method: request.method,
            target: request.target,
            version: request.version,
            status,
            bytes,
            duration: self.started.elapsed(),
            request_id: self.request_id(),
            referer: request.fields.get(&REFERER),
            user_agent: request.fields.get(&USER_AGENT),
            upstream: self.upstream(),
        });
    }

    fn upstream(&self) -> Option<&str> {
        Some(&self.choice.as_ref()?.endpoint.text)
    }
}

/// A name for a request: 128 random bits in hexadecimal.
fn new_id() -> HeaderValue {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let bits = fastrand::u128(..).to_be_bytes();
    let mut text = [b'0'; 32];
    for (pair, octet) in text.chunks_exact_mut(2).zip(bits) {
        let digit = |half: u8| DIGITS.get(usize::from(half & 0xf)).copied();
        if let ([high, low], Some(h), Some(l)) = (pair, digit(octet >> 4), digit(octet)) {
            (*high, *low) = (h, l);
        }
    }
    let mut id = HeaderValue::from_bytes(&text).unwrap_or_else(|_| HeaderValue::from_static("-"));
    // It never comes again: HTTP/2 is not to remember it, which would take the place of fields
    // that do (RFC 7541, section 6.2.3).
    id.set_sensitive(true);
    id
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_128_bits_in_hexadecimal() {
        let (one, other) = (RequestCtx::new(), RequestCtx::new());
        for id in [one.request_id(), other.request_id()] {
            assert_eq!(id.len(), 32);
            let is_digit = |octet: u8| octet.is_ascii_digit() || (b'a'..=b'f').contains(&octet);
            assert!(id.bytes().all(is_digit), "{id}");
        }
        assert_ne!(one.request_id(), other.request_id());
    }
}
