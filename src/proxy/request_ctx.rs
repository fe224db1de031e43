//! The context of one request on its way through the gateway, whichever lane carries it.

mod changes;
mod record;
mod report;
mod spans;

use std::mem;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderValue, StatusCode};
use pingora_core::{Error, ErrorSource, ErrorType};

use super::admission::Admission;
use super::connection_limit::{ConnectionLimit, Held, UpstreamPermit};
use super::decision::Decision;
use super::failure::{self, Failure};
use super::failure_reason::FailureReason;
use super::no_server::NoServer;
use super::progress::Progress;
use super::refusal::Refusal;
use super::request::Request;
use super::request_id;
use super::response::LocalResponse;
use super::retry::{Retrying, StatusRetry};
use super::rewriting::Rewritten;
use super::route::{Proxy, Site};
use super::sticky::Session;
use super::upstream::{Choice, Picked};
use crate::config::model::RetryCause;

pub(crate) use self::record::RequestRecord;

pub(crate) use self::spans::record_spans;

/// The context of one request.
pub(crate) struct RequestCtx {
    started: Instant,
    request_id: HeaderValue,
    pub(crate) client: Option<IpAddr>,
    /// Whether the client speaks TLS.
    is_tls: bool,
    /// What to do with the request.
    pub(crate) decision: Option<Decision>,
    /// What the route changes in the request and its response.
    rewritten: Option<Box<Rewritten>>,
    /// The response of a route whose responses depend on the request.
    response: Option<Box<LocalResponse>>,
    /// The server that is being tried or was tried last.
    choice: Option<Choice>,
    /// The use of that server.
    admission: Option<Admission>,
    /// The server to try next after one has failed.
    next: Option<Choice>,
    /// What the choice of a server depends on, if it does.
    key: Option<u64>,
    /// What keeps the client at its server, if the upstream has that.
    session: Option<Box<Session>>,
    /// Whether the result of the attempt at the chosen server has been recorded.
    is_judged: bool,
    /// The servers that have failed.
    retrying: Retrying,
    /// The request's permit to use an upstream connection.
    pub(crate) upstream_permit: Option<UpstreamPermit>,
    /// Whether the request was repeated because its kept-alive connection was dead.
    repeated: bool,
    failure: Option<Failure>,
    pub(super) progress: Progress,
    failure_reason: Option<FailureReason>,
    /// Why the request is refused, if it is.
    refusal: Option<Refusal>,
}

impl RequestCtx {
    /// The context of a request that has just arrived, with an id of its own.
    pub(crate) fn new() -> Self {
        Self {
            started: Instant::now(),
            request_id: request_id::new(),
            client: None,
            is_tls: false,
            decision: None,
            rewritten: None,
            response: None,
            choice: None,
            admission: None,
            next: None,
            key: None,
            session: None,
            is_judged: false,
            retrying: Retrying::default(),
            repeated: false,
            upstream_permit: None,
            failure: None,
            progress: Progress::default(),
            failure_reason: None,
            refusal: None,
        }
    }

    /// The request's id, 128 random bits in hexadecimal.
    pub(crate) fn request_id(&self) -> &str {
        self.request_id.to_str().unwrap_or("-")
    }

    /// The request's id as a field's value.
    pub(crate) fn request_id_value(&self) -> &HeaderValue {
        &self.request_id
    }

    /// How long ago the request arrived.
    pub(crate) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// The upstream that the request goes to, and how; `None` if it is not passed on.
    pub(crate) fn proxy(&self) -> Option<&Proxy> {
        self.decision.as_ref()?.proxy()
    }

    /// Acquires a permit to use a connection to an upstream, and returns whether there is one for
    /// this request. `held` is what those of its client's connection use.
    pub(crate) fn acquire_upstream_permit(
        &mut self,
        limit: &Arc<ConnectionLimit>,
        held: Option<&Arc<Held>>,
    ) -> bool {
        let configured = self.decision.as_ref().map(|one| one.upstream_connections);
        self.upstream_permit = limit.try_acquire(configured.unwrap_or(0), held);
        self.upstream_permit.is_some()
    }

    /// Takes from the request what the choice of its server depends on.
    pub(crate) fn set_balance_key(&mut self, request: &Request<'_>) {
        let pool = self.proxy().map(|proxy| &proxy.pool);
        let key = pool.and_then(|pool| pool.balance_key(request, self.client));
        let session = pool.and_then(|pool| pool.session(request));
        (self.key, self.session) = (key, session);
    }

    /// Chooses the server to try.
    ///
    /// # Errors
    /// Why there is none. If it is [`NoServer::Full`], the request may wait for one.
    pub(crate) fn choose_server(&mut self) -> Result<&Choice, NoServer> {
        self.is_judged = false;
        if let Some(next) = self.next.take() {
            return Ok(self.set_choice(next));
        }
        // The request no longer uses the last one.
        self.admission = None;
        let proxy = self.proxy().ok_or(NoServer::Unresolved)?;
        let session = self.session.as_ref();
        let picked = match session.and_then(|session| proxy.pool.home_server(session)) {
            Some(picked) => picked,
            None => proxy.pool.next_server(self.key)?,
        };
        Ok(self.use_server(picked))
    }

    /// Waits for a server with room, as long as the route allows for a connection and in total, and
    /// for no longer than `left`.
    ///
    /// # Errors
    /// Why there is none.
    pub(crate) async fn wait_for_server(&mut self, left: Duration) -> Result<&Choice, NoServer> {
        let proxy = self.proxy().ok_or(NoServer::Unresolved)?;
        let total = proxy.total_timeout.unwrap_or(Duration::MAX);
        let left = left.min(total.saturating_sub(self.elapsed()));
        let (patience, session) = (proxy.connect_timeout.min(left), self.session.as_deref());
        let (permit, pool) = (self.upstream_permit.as_ref(), &proxy.pool);
        let (waiting, began) = (
            pool.wait_for_server(self.key, session, permit, patience),
            Instant::now(),
        );
        let picked = waiting.await;
        self.progress.waited = Some(began.elapsed().into());
        let picked = picked?;
        Ok(self.use_server(picked))
    }

    fn use_server(&mut self, picked: Picked) -> &Choice {
        self.admission = Some(picked.admission);
        self.set_choice(picked.choice)
    }

    fn set_choice(&mut self, choice: Choice) -> &Choice {
        if let Some(mut session) = self.session.take() {
            if let Some(proxy) = self.proxy() {
                proxy.pool.settle(&mut session, &choice, self.is_tls);
            }
            self.session = Some(session);
        }
        self.progress.begin_attempt(self.started.elapsed());
        self.choice.insert(choice)
    }

    /// Records that there is no server to try, and returns the error that the request fails with.
    pub(crate) fn record_no_server(&self, why: NoServer) -> Box<Error> {
        match self.proxy() {
            Some(proxy) => why.record(&proxy.pool.metrics),
            None => Error::explain(ErrorType::InternalError, "the route is gone").into_in(),
        }
    }

    /// Returns what the request holds of its upstream, which it no longer needs.
    pub(crate) fn release_upstream(&mut self) {
        self.upstream_permit = None;
        self.admission = None;
    }

    /// Records that the chosen server can be reached, and whether its connection was kept from an
    /// earlier request.
    pub(crate) fn record_connected(&mut self, is_reused: bool) {
        self.progress
            .last
            .record_connected(self.elapsed(), is_reused);
        let (Some(proxy), Some(choice)) = (self.proxy(), &self.choice) else {
            return;
        };
        if is_reused {
            proxy.pool.metrics.reused.inc();
        } else {
            proxy.pool.metrics.connected.inc();
            proxy.pool.record_connected(choice);
        }
    }

    /// Records that the head of a response has arrived. The server had the complete request at
    /// `sent`, if it has waited for that. Only the first call in an attempt counts.
    pub(crate) fn record_response(&mut self, status: StatusCode, sent: Option<Instant>) {
        let is_interim = status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS;
        if is_interim || self.progress.last.status.is_some() {
            return;
        }
        let now = self.elapsed();
        let sent = sent.map(|sent| sent.saturating_duration_since(self.started));
        self.progress.last.record_response(now, sent, status);
        let mut has_failed = false;
        if let Some(proxy) = self.proxy() {
            if let Some(time) = self.progress.last.time_to_response() {
                proxy.pool.metrics.first_byte.observe(time, None);
            }
            has_failed = proxy.pool.is_failure(status);
        }
        self.judge_server(has_failed);
    }

    /// Records the result of the attempt at the chosen server. The first one counts.
    fn judge_server(&mut self, has_failed: bool) {
        if mem::replace(&mut self.is_judged, true) {
            return;
        }
        let trial = self.admission.as_mut().and_then(Admission::take_trial);
        if let (Some(proxy), Some(choice)) = (self.proxy(), &self.choice) {
            proxy.pool.record_result(choice, trial, has_failed);
        }
    }

    /// Records that the chosen server cannot be reached, and returns whether to try again. Nothing
    /// has been sent, so any request may be tried elsewhere.
    pub(crate) fn record_connect_failure(&mut self, error: &mut Error) -> bool {
        error.as_up();
        self.end_attempt(Some(FailureReason::of_server(error.etype()).word()));
        if failure::is_out_of_resources(error) {
            // The server is not to blame.
            error.etype = ErrorType::HTTPStatus(503);
            return false;
        }
        if let Some(proxy) = self.proxy() {
            proxy.pool.metrics.connect_failed.inc();
        }
        self.judge_server(true);
        self.retry(RetryCause::Connect)
    }

    /// Has the chosen server tried once more.
    pub(crate) fn try_server_again(&mut self) {
        self.end_attempt(Some(FailureReason::Reset.word()));
        self.next.clone_from(&self.choice);
    }

    /// Records that a request failed after it was connected, and returns whether to try again:
    /// only if the server has not responded and the request is `repeatable`. `body_complete` says
    /// whether the whole request body had arrived.
    ///
    /// The first time that a connection kept from an earlier request turns out to be dead, this
    /// uses up none of the route's retries, since the server has not failed.
    pub(crate) fn record_exchange_failure(
        &mut self,
        error: &Error,
        is_reused: bool,
        repeatable: bool,
        body_complete: bool,
    ) -> bool {
        use ErrorType::{ConnectionClosed, ReadError, ReadTimedout, WriteError, WriteTimedout};

        if *error.esource() != ErrorSource::Upstream {
            return false;
        }
        if let Some(proxy) = self.proxy() {
            proxy.pool.metrics.failed.inc();
        }
        let died = matches!(error.etype(), ConnectionClosed | ReadError | WriteError);
        let failure = Failure::of(error, body_complete);
        self.end_attempt(Some(FailureReason::of(failure, error).word()));
        // Servers close connections that wait, and that is no failure.
        let is_to_blame = matches!(failure, Failure::Upstream(..));
        if is_to_blame && !(died && is_reused) {
            self.judge_server(true);
        }
        let is_late = is_to_blame && matches!(error.etype(), ReadTimedout | WriteTimedout);
        let cause = match (died, is_late) {
            _ if !repeatable || self.is_overdue() => return false,
            (true, _) => RetryCause::Reset,
            (false, true) => RetryCause::Timeout,
            (false, false) => return false,
        };
        if died && is_reused && !self.repeated {
            self.repeated = true;
            return true;
        }
        self.retry(cause)
    }

    /// Whether the request has taken as long as its route allows.
    fn is_overdue(&self) -> bool {
        let total = self.proxy().and_then(|proxy| proxy.total_timeout);
        total.is_some_and(|total| self.elapsed() >= total)
    }

    /// What makes the request try another server instead of getting a response, if any status does.
    pub(crate) fn status_retry(&self) -> Option<StatusRetry> {
        let (proxy, choice) = (self.proxy()?, self.choice.as_ref()?);
        self.retrying.by_status(proxy, choice, self.key)
    }

    /// Has the request retried at the server that a [`StatusRetry`] has picked because of this
    /// error, which is the status of a response.
    pub(crate) fn retry_at(&mut self, next: Picked, error: &Error) {
        if let ErrorType::HTTPStatus(code) = error.etype() {
            self.progress.last.status = StatusCode::from_u16(*code).ok();
        }
        self.end_attempt(None);
        self.retrying.count_retry();
        self.change_address(next);
    }

    /// Has the request sent to another address of its server, which is no retry.
    pub(crate) fn change_address(&mut self, next: Picked) {
        self.judge_server(true);
        self.end_attempt(Some("overtaken"));
        if let Some(choice) = &self.choice {
            self.retrying.record_failed(choice);
        }
        self.admission = Some(next.admission);
        self.next = Some(next.choice);
    }

    /// Records that the chosen server has failed, and returns whether to try another one.
    fn retry(&mut self, cause: RetryCause) -> bool {
        self.admission = None;
        let mut retrying = mem::take(&mut self.retrying);
        let next = self.choice.as_ref().and_then(|choice| {
            let proxy = self.proxy()?;
            retrying.pick_next(proxy, choice, self.key, cause)
        });
        self.retrying = retrying;
        let Some(next) = next else {
            return false;
        };
        self.admission = Some(next.admission);
        self.next = Some(next.choice);
        true
    }

    /// Records and logs how the request failed.
    pub(crate) fn record_failure(&mut self, failure: Failure, error: &Error) {
        self.failure = Some(failure);
        self.failure_reason = Some(FailureReason::of(failure, error));
        // A page of the gateway gets no cookie.
        self.session = None;
        report::log_failure(self, failure, error);
    }

    fn site(&self) -> Option<&Site> {
        self.decision.as_ref()?.site()
    }

    /// Whether the request is refused before its site is known.
    pub(super) fn is_stray(&self) -> bool {
        self.refusal.is_some() && self.site().is_none()
    }

    fn upstream(&self) -> Option<&str> {
        Some(&self.choice.as_ref()?.endpoint.text)
    }
}
