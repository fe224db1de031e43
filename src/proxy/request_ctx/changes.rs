//! What the route of a request changes in it, and what the gateway responds itself.

use std::sync::Arc;

use http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};

use super::RequestCtx;
use crate::config::model::Files;
use crate::jwt::Fault;
use crate::metrics::{Ended, Traced};
use crate::proxy::connection_limit::{ConnectionLimit, Held};
use crate::proxy::decision::{Decision, Step, rate_fields};
use crate::proxy::error_page::{Replacements, error_response, maintenance_response};
use crate::proxy::failure::CLIENT_GONE;
use crate::proxy::failure_reason::FailureReason;
use crate::proxy::rate_limit::{self, Exceeded};
use crate::proxy::refusal::Refusal;
use crate::proxy::request::{Relayed, Request};
use crate::proxy::response::LocalResponse;
use crate::proxy::response_fields::ResponseFields;
use crate::proxy::rewriting::{FieldChanges, RequestChanges, Rewriting, Rewritten};
use crate::proxy::route::Site;
use crate::proxy::template::Values;
use crate::trace::{RequestTrace, TRACEPARENT, TraceContext};

impl RequestCtx {
    /// Takes up what was decided for a request, and fills in what its route makes of it.
    ///
    /// # Errors
    /// If that cannot be made of what the client sent: the request is to be refused.
    pub(crate) fn take_decision(
        &mut self,
        decision: Decision,
        request: &Request<'_>,
    ) -> Result<(), Refusal> {
        self.client = request.client;
        self.is_tls = request.is_secure();
        let decision = self.decision.insert(decision);
        let user = decision.user().unwrap_or_default();
        let token = decision.token();
        let values = || {
            let values = Values::of(request, &self.request_id);
            values.with_user(user).with_token(token)
        };
        if let Some(rewriting) = decision.rewriting() {
            let rewritten = rewriting.fill(&values())?;
            self.rewritten = Some(Box::new(rewritten));
        }
        let response = match decision.step() {
            Step::Redirect(redirect) => Some(redirect.fill(&values())?),
            Step::Respond(response) => response.encoded_for(request),
            Step::Refuse(_) | Step::Pass(_) | Step::Files(_) => None,
        };
        self.response = response.map(Box::new);
        Ok(())
    }

    /// What trusted proxies say of the request, if one has relayed it.
    pub(crate) fn relayed(&self) -> Option<&Relayed> {
        self.decision.as_ref()?.relayed.as_deref()
    }

    /// The response that was decided, if any.
    pub(crate) fn response(&self) -> Option<&LocalResponse> {
        match self.decision.as_ref()?.step() {
            Step::Respond(response) => Some(self.response.as_deref().unwrap_or(response)),
            Step::Redirect(_) => self.response.as_deref(),
            Step::Refuse(_) | Step::Pass(_) | Step::Files(_) => None,
        }
    }

    /// Acquires a permit to open a file, and returns whether there is one.
    pub(crate) fn acquire_file_permit(
        &mut self,
        limit: &Arc<ConnectionLimit>,
        held: Option<&Arc<Held>>,
    ) -> bool {
        self.upstream_permit = limit.try_acquire(0, held);
        self.upstream_permit.is_some()
    }

    /// The files that the request is for.
    pub(crate) fn files(&self) -> Option<&Arc<Files>> {
        self.decision.as_ref()?.files()
    }

    /// The page for a request that is not served.
    pub(crate) fn refusal_page(&self, refusal: Refusal, request: &Request<'_>) -> LocalResponse {
        let (status, why) = refusal.status();
        let page = || self.error_page(status, why, request);
        match (refusal, self.decision.as_ref().and_then(Decision::site)) {
            (Refusal::Method, Some(site)) => page().allowing(site.allowed_methods(request)),
            (Refusal::Unauthorized, _) => self.challenge(page()),
            (Refusal::Token(fault), _) => match bearer_challenge(fault) {
                Some(challenge) => page().with_field(WWW_AUTHENTICATE, challenge),
                None => page(),
            },
            (Refusal::TooManyGuesses, _) => page().with_field(RETRY_AFTER, HeaderValue::from(60)),
            (Refusal::SiteFull, _) => page().with_field(RETRY_AFTER, HeaderValue::from(1)),
            (Refusal::RateLimited(index, exceeded), Some(site)) => {
                limited_page(page(), site, index, exceeded)
            }
            (Refusal::Maintenance(index), Some(site)) => match site.maintenance(index) {
                Some(maintenance) => {
                    let pages = site.error_pages().map(|pages| &**pages);
                    maintenance_response(maintenance, pages, request, self.request_id())
                }
                None => page(),
            },
            _ => page(),
        }
    }

    /// The page with what says how a client authenticates itself.
    fn challenge(&self, page: LocalResponse) -> LocalResponse {
        let access = self.decision.as_ref().and_then(Decision::access);
        match access.and_then(|access| access.basic_auth.as_ref()) {
            Some(basic) => page.with_field(WWW_AUTHENTICATE, basic.challenge.clone()),
            None => page,
        }
    }

    /// The page for an error of the gateway.
    pub(crate) fn error_page(
        &self,
        status: StatusCode,
        why: &str,
        request: &Request<'_>,
    ) -> LocalResponse {
        let pages = self.decision.as_ref().and_then(Decision::error_pages);
        let pages = pages.map(|pages| &**pages);
        error_response(pages, status, why, request, self.request_id())
    }

    /// The pages that replace bodies of servers, if there are any.
    pub(crate) fn replacements(&self, request: &Request<'_>) -> Option<Replacements> {
        Replacements::of(self.decision.as_ref()?.error_pages()?, request)
    }

    /// Records why the request is refused.
    pub(crate) fn record_refusal(&mut self, refusal: Refusal) {
        self.refusal = Some(refusal);
    }

    /// What the route changes in the head of the request.
    pub(crate) fn request_changes(&self) -> RequestChanges<'_> {
        let changes = match self.rewriting() {
            Some((rewriting, rewritten)) => rewriting.request_changes(rewritten),
            None => RequestChanges::default(),
        };
        let granted = self.decision.as_ref().and_then(Decision::granted);
        RequestChanges {
            fields: changes.fields.with_granted(granted),
            ..changes
        }
    }

    /// What the gateway writes into the response, whoever responds.
    pub(crate) fn response_fields(&self) -> ResponseFields<'_> {
        let changes = match self.rewriting() {
            Some((rewriting, rewritten)) => rewriting.response_changes(rewritten),
            None => FieldChanges::default(),
        };
        let decision = self.decision.as_ref();
        ResponseFields {
            changes,
            cookie: self.session.as_ref().and_then(|session| session.cookie()),
            granted: decision.and_then(Decision::granted),
            hsts: decision.filter(|_| self.is_tls).and_then(Decision::hsts),
            rate: decision.and_then(rate_fields),
            ..ResponseFields::of_request(&self.request_id)
        }
    }

    /// The trace that the server gets to know of, unless the route has a say in that.
    pub(crate) fn trace_for_server(&self, changes: &RequestChanges<'_>) -> Option<&RequestTrace> {
        let trace = self.decision.as_ref()?.trace.as_deref();
        trace.filter(|_| !changes.fields.drops(TRACEPARENT.as_str().as_bytes()))
    }

    /// The trace of the request, if the gateway records it.
    pub(crate) fn recorded(&self) -> Option<&RequestTrace> {
        let trace = self.decision.as_ref()?.trace.as_deref();
        trace.filter(|trace| trace.is_sampled)
    }

    /// Keeps the attempt at the chosen server, which has failed, for its span. Without `why`, its
    /// status says why.
    pub(super) fn end_attempt(&mut self, why: Option<&'static str>) {
        let now = self.elapsed();
        let trace = self.decision.as_mut().and_then(|one| one.trace.as_mut());
        if let (Some(trace), Some(choice)) = (trace.filter(|one| one.is_sampled), &self.choice)
            && !self.progress.last.has_failed
        {
            let span = trace.next_attempt();
            self.progress.keep_failed(now, why, &choice.endpoint, span);
        }
    }

    /// The id of the trace of the request, if somebody records it.
    pub(crate) fn trace_id(&self, request: &Request<'_>) -> Option<u128> {
        let decision = self.decision.as_ref()?;
        match decision.trace.as_deref() {
            Some(trace) => trace.is_sampled.then_some(trace.trace_id.0),
            None if decision.is_traced => {
                let context = TraceContext::parse(request.fields.get_only(&TRACEPARENT))?;
                context.is_sampled.then_some(context.trace_id.0)
            }
            None => None,
        }
    }

    /// The status that the request ends with. `written` is that of the response, if one was begun.
    pub(crate) fn status(&self, written: Option<StatusCode>) -> u16 {
        match (written, self.failure) {
            (Some(status), _) => status.as_u16(),
            (None, Some(failure)) => failure
                .response_status()
                .map_or(CLIENT_GONE, |(status, _)| status.as_u16()),
            (None, None) => CLIENT_GONE,
        }
    }

    /// Why the request has failed, if it has. `written` is the status of its response, if one was
    /// begun: without one its client is gone.
    pub(crate) fn failure_reason(&self, written: Option<StatusCode>) -> Option<FailureReason> {
        let gone = written.is_none().then_some(FailureReason::ClientGone);
        self.failure_reason.or(gone)
    }

    /// Counts the request, of whose response's body so many octets were sent.
    pub(crate) fn count(&self, status: u16, octets: usize, traced: Option<Traced>) {
        let duration = self.elapsed();
        // What was cut says nothing of how long a response takes.
        let is_whole = self.failure.is_none();
        let time = self
            .progress
            .last
            .time_to_end(duration)
            .filter(|_| is_whole);
        if let (Some(proxy), Some(time)) = (self.proxy(), time) {
            proxy.pool.metrics.duration.observe(time, traced);
        }
        if let Some(site) = self.site() {
            site.metrics.observe(&Ended {
                status,
                duration,
                octets,
                received: self.progress.received,
                is_maintenance: matches!(self.refusal, Some(Refusal::Maintenance(_))),
                traced,
            });
        }
    }

    fn rewriting(&self) -> Option<(&Rewriting, &Rewritten)> {
        let rewritten = self.rewritten.as_deref()?;
        Some((self.decision.as_ref()?.rewriting()?, rewritten))
    }
}

/// What says how a client gets past what is wrong with its token (RFC 6750, section 3); `None` if it
/// cannot.
fn bearer_challenge(fault: Fault) -> Option<HeaderValue> {
    let error = match fault {
        Fault::NoKeys => return None,
        Fault::Missing => return Some(HeaderValue::from_static("Bearer realm=\"Restricted\"")),
        Fault::Claims => "insufficient_scope",
        _ => "invalid_token",
    };
    let why = fault.description().unwrap_or_default();
    let text =
        format!("Bearer realm=\"Restricted\", error=\"{error}\", error_description=\"{why}\"");
    HeaderValue::try_from(text).ok()
}

/// The page for a request that is more than the limit of a route, or of the site, allows.
fn limited_page(
    page: LocalResponse,
    site: &Site,
    index: Option<usize>,
    exceeded: Exceeded,
) -> LocalResponse {
    let limiter = site.limits().and_then(|limits| limits.rate(index));
    let page = page
        .with_field(RETRY_AFTER, HeaderValue::from(exceeded.0))
        .with_field(rate_limit::STATE, rate_limit::exhausted(exceeded));
    match limiter {
        Some(limiter) => page.with_field(rate_limit::POLICY, limiter.policy().clone()),
        None => page,
    }
}
