//! What to do with a request: decided once, from its head and its connection.
//!
//! `edge` has requests that consist of their head alone decided before Pingora sees them, all
//! others are decided in Pingora's first phase. Either way the [`Decision`] stays with the request.

mod admittance;
mod limited;
mod to_tls;
mod tunnel;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{HeaderValue, StatusCode};

pub(super) use self::admittance::is_maintained;
use self::admittance::{challenge_token, is_forbidden};
use self::limited::{Passed, apply_limits};
pub(super) use self::limited::{apply_user_limit, rate_fields};
use self::to_tls::redirect_to_tls;
use super::authentication::Identity;
use super::authority::{Authority, Channel};
use super::header;
use super::path::Ambiguous;
use super::redirect::Redirect;
use super::refusal::Refusal;
use super::request::{Relayed, Request};
use super::response::LocalResponse;
use super::rewriting::Rewriting;
use super::route::{Action, Admission, Hosts, Proxy, Site, SiteTable};
use super::tls_policy::{self, may_be_plain};
use crate::certificate::sni::CertificateSet;
use crate::clock::UnixTime;
use crate::config::model::{ErrorPages, Files};
use crate::host::{Host, NameBuffer};
use crate::tls::GlobalCertificate;
use crate::trace::{RequestTrace, TRACEPARENT, Tracer};

/// Where CAs look for the response to an HTTP-01 challenge (RFC 8555, section 8.3).
const CHALLENGES: &[u8] = b"/.well-known/acme-challenge/";

/// Decides what to do with requests. A handle; clones share the state.
#[derive(Clone)]
pub(super) struct Router {
    sites: Arc<ArcSwap<SiteTable>>,
    certificates: GlobalCertificate,
    /// Certificates that had expired by then do not count.
    started: UnixTime,
    tracer: Option<Tracer>,
}

/// What to do with a request. It keeps the request's site alive, not the whole configuration.
#[derive(Clone)]
pub struct Decision {
    site: Option<Arc<Site>>,
    outcome: Outcome,
    /// What trusted proxies say of the request, if one has relayed it.
    pub(super) relayed: Option<Arc<Relayed>>,
    /// The trace of the request; `None` if there are no traces.
    pub(super) trace: Option<Box<RequestTrace>>,
    /// Who sends the request, where that has been found out.
    pub(super) identity: Option<Arc<Identity>>,
    /// What limits have made of the request, if they keep anything of it.
    passed: Option<Box<Passed>>,
    /// The error pages of a request without a site.
    server_pages: Option<Arc<ErrorPages>>,
    /// The site that the client of a refused request without a site has connected to by TLS.
    connected_site: Option<Arc<Site>>,
    /// The host of a request that is passed on, in normal form, with the port if the client named
    /// one.
    pub(super) host: Option<HeaderValue>,
    /// How long the client may make no progress.
    pub(super) idle: Duration,
    /// How many requests may be at upstreams at a time, 0 for as many as there is room for.
    pub(super) upstream_connections: usize,
    /// Whether the request may belong to a trace.
    pub(super) is_traced: bool,
}

#[derive(Clone)]
enum Outcome {
    /// The action of the site's route at this index.
    Route(usize),
    /// In a box, since few requests have a response of their own.
    Respond(Box<LocalResponse>),
    Refuse(Refusal),
}

/// The next step with a request.
pub(super) enum Step<'a> {
    Respond(&'a LocalResponse),
    /// Respond with what this makes of the request.
    Redirect(&'a Redirect),
    Refuse(Refusal),
    Pass(&'a Proxy),
    Files(&'a Arc<Files>),
}

impl Router {
    /// Routes requests to the sites that `sites` holds at the time. `certificates` holds pending
    /// validations, and knows which hosts can be reached by TLS.
    pub(super) fn new(sites: Arc<ArcSwap<SiteTable>>, certificates: GlobalCertificate) -> Self {
        Self {
            sites,
            certificates,
            started: UnixTime::MIN,
            tracer: None,
        }
    }

    /// Ignores certificates that had expired at `started`.
    pub(super) fn with_start_time(self, started: UnixTime) -> Self {
        Self { started, ..self }
    }

    /// Begins traces of requests with `tracer`.
    pub(super) fn with_tracer(self, tracer: Tracer) -> Self {
        let tracer = Some(tracer);
        Self { tracer, ..self }
    }

    pub(super) fn tracer(&self) -> Option<&Tracer> {
        self.tracer.as_ref()
    }

    /// Decides what to do with a request.
    ///
    /// The first request of a TLS connection is for the sites that were in force at its handshake,
    /// so that its certificate and its response belong to one state of the configuration.
    pub(super) fn route(&self, request: &Request<'_>) -> Decision {
        let channel = request.channel();
        let at_handshake = channel.attachment::<SiteTable>();
        let sites = at_handshake.unwrap_or_else(|| self.sites.load_full());
        let hosts = sites.hosts_for(request);
        let relayed = Relayed::of(request, &sites.trusted_proxies);
        let mut buffer = NameBuffer::new();
        let authority = request.parse_authority(&mut buffer);
        let mut is_traced = false;
        let (site, outcome) = match authority {
            // Whoever names no host gets what there is for any.
            Some(authority)
                if !request.authority.is_empty() || hosts.find_site(authority.host).is_some() =>
            {
                let request = request.through(relayed.as_deref());
                self.decide(&sites, &request, authority, channel, &mut is_traced)
            }
            _ => (None, Outcome::Refuse(Refusal::INVALID_HOST)),
        };
        let mut decision = match (site, outcome) {
            (None, Outcome::Refuse(refusal)) => {
                Decision::refuse((&*sites, hosts), refusal, authority, channel)
            }
            (site, outcome) => Decision::new(&sites, site, outcome),
        };
        apply_limits(&mut decision, &request.through(relayed.as_deref()));
        decision.trace = self.tracer.as_ref().and_then(|tracer| {
            let trace = tracer.begin(request.fields.get_only(&TRACEPARENT), relayed.is_some());
            trace.map(Box::new)
        });
        (decision.relayed, decision.is_traced) = (relayed, is_traced);
        if let (Some(authority), Some(_)) = (authority, decision.proxy()) {
            decision.host = authority.to_field(request.authority);
        }
        decision
    }

    /// The decision to refuse a request, whatever it is for.
    pub(super) fn refuse(&self, refusal: Refusal, request: &Request<'_>) -> Decision {
        let mut buffer = NameBuffer::new();
        let authority = request.parse_authority(&mut buffer);
        let sites = self.sites.load();
        Decision {
            relayed: Relayed::of(request, &sites.trusted_proxies),
            ..Decision::refuse(
                (&**sites, sites.hosts_for(request)),
                refusal,
                authority,
                request.channel(),
            )
        }
    }

    fn decide(
        &self,
        sites: &SiteTable,
        request: &Request<'_>,
        authority: Authority<'_>,
        channel: Channel<'_>,
        is_traced: &mut bool,
    ) -> (Option<Arc<Site>>, Outcome) {
        match header::check_request(request) {
            Ok(checked) => *is_traced = checked,
            Err(refusal) => return (None, Outcome::Refuse(refusal)),
        }
        if let Some(response) = self.validation_response(request, authority.host) {
            return (None, Outcome::Respond(Box::new(response)));
        }
        let host = authority.host;
        let hosts = sites.hosts_for(request);
        let target = request.origin_form();
        let admission = match channel {
            // Its client speaks TLS with a trusted proxy.
            Channel::Plain if request.is_secure() => hosts
                .find_site(host)
                .map_or(Admission::Unknown, Admission::Serve),
            _ => hosts.admit_host(host, channel, sites.https_port),
        };
        let site = match admission {
            Admission::Serve(site) if site.tunnel.is_some() => {
                return (None, Outcome::Refuse(Refusal::Misdirected));
            }
            Admission::Serve(site) => match tls_policy::check(sites, site, request) {
                Ok(()) => site,
                Err(refusal) => return (None, Outcome::Refuse(refusal)),
            },
            Admission::ToTls(site, _) if may_be_plain(sites, site) && !self.has_tls(host) => site,
            Admission::ToTls(site, port) => {
                let redirect = redirect_to_tls(authority, port, target);
                return (Some(Arc::clone(site)), Outcome::Respond(Box::new(redirect)));
            }
            Admission::Misdirected => return (None, Outcome::Refuse(Refusal::Misdirected)),
            Admission::Unknown => return (None, Outcome::Refuse(Refusal::UnknownHost)),
        };
        let found = site.find_route(request);
        let index = found.as_ref().ok().copied().flatten();
        let outcome = match found {
            _ if is_maintained(site, index, request) => {
                Outcome::Refuse(Refusal::Maintenance(index))
            }
            _ if is_forbidden(site, index, request) => Outcome::Refuse(Refusal::Forbidden),
            Ok(Some(index)) if site.refuses_client(index, request) => {
                Outcome::Refuse(Refusal::NoCertificate)
            }
            Ok(Some(index)) if site.refuses_body(index, request) => {
                Outcome::Refuse(Refusal::BodyTooLarge)
            }
            Ok(Some(index)) => Outcome::Route(index),
            Ok(None) => Outcome::Refuse(site.refusal(request)),
            Err(Ambiguous) => Outcome::Refuse(Refusal::AmbiguousPath),
        };
        (Some(Arc::clone(site)), outcome)
    }

    /// Whether a request may be a CA's that validates a name. Then [`Self::look_up_validation`]
    /// comes before the decision.
    pub(super) fn is_validation(&self, request: &Request<'_>) -> bool {
        challenge_token(request).is_some()
    }

    /// Looks in the storage for the validation that a request may belong to: another instance may
    /// have just stored it.
    pub(super) async fn look_up_validation(&self, request: &Request<'_>) {
        if let Some(token) = challenge_token(request) {
            self.certificates.challenges().look_up_token(token).await;
        }
    }

    /// The response to a CA that validates `host`.
    ///
    /// Only pending validations are answered, those of other instances included, and on every
    /// listener: a proxy in front, or our own redirect, may have sent the CA to TLS. Other requests
    /// under that path are routed like all requests, since the server behind a route may obtain
    /// certificates itself.
    fn validation_response(&self, request: &Request<'_>, host: Host<'_>) -> Option<LocalResponse> {
        let challenges = self.certificates.challenges();
        if challenges.is_empty() {
            return None;
        }
        let key_authorization = challenges.http01(host, challenge_token(request)?)?;
        let content_type = HeaderValue::from_static("application/octet-stream");
        let body = Bytes::copy_from_slice(key_authorization.as_bytes());
        Some(LocalResponse::new(StatusCode::OK, content_type, body).uncacheable())
    }

    /// Whether a client that is sent to TLS is presented a certificate for `host` that was valid
    /// at some time since the start. One that expires later still counts: a host that was served by
    /// HTTPS does not return to plain HTTP.
    fn has_tls(&self, host: Host<'_>) -> bool {
        let snapshot = self.certificates.snapshot();
        let map = &snapshot.certificates;
        let (covers, set) = match host {
            Host::Name(name) => (snapshot.covers(name), map.lookup(name)),
            Host::Ip(address) => {
                let own = map.lookup_ip(address);
                (
                    snapshot.covers_ip(address),
                    own.or_else(|| map.default_set()),
                )
            }
        };
        let is_usable = |set: &Arc<CertificateSet>| {
            let mut certificates = set.by_kind.iter();
            certificates.any(|certificate| certificate.not_after() >= self.started)
        };
        covers && set.is_none_or(is_usable)
    }
}

impl Decision {
    fn new(sites: &SiteTable, site: Option<Arc<Site>>, outcome: Outcome) -> Self {
        Self {
            server_pages: match site {
                Some(_) => None,
                None => sites.error_pages.clone(),
            },
            connected_site: None,
            site,
            outcome,
            relayed: None,
            trace: None,
            identity: None,
            passed: None,
            host: None,
            idle: sites.idle,
            upstream_connections: sites.upstream_connections,
            is_traced: false,
        }
    }

    /// The decision to refuse a request that has no site. If its host is not valid, the client has
    /// connected to the one that its handshake named.
    fn refuse(
        (sites, hosts): (&SiteTable, &Hosts),
        refusal: Refusal,
        authority: Option<Authority<'_>>,
        channel: Channel<'_>,
    ) -> Self {
        let host = authority.map(|authority| authority.host);
        let connected = host.or_else(|| channel.server_name());
        let admission = connected.map(|host| hosts.admit_host(host, channel, sites.https_port));
        Self {
            connected_site: match (channel, admission) {
                (Channel::Tls(_), Some(Admission::Serve(site))) => Some(Arc::clone(site)),
                _ => None,
            },
            ..Self::new(sites, None, Outcome::Refuse(refusal))
        }
    }

    /// The next step.
    pub(super) fn step(&self) -> Step<'_> {
        match &self.outcome {
            Outcome::Respond(response) => Step::Respond(response),
            Outcome::Refuse(refusal) => Step::Refuse(*refusal),
            Outcome::Route(index) => match self.site().and_then(|site| site.action(*index)) {
                Some(Action::Respond(response)) => Step::Respond(response),
                Some(Action::Redirect(redirect)) => Step::Redirect(redirect),
                Some(Action::Proxy(proxy)) => Step::Pass(proxy),
                Some(Action::Files(files)) => Step::Files(files),
                None => Step::Refuse(Refusal::NoRoute),
            },
        }
    }

    /// The site that the request is for.
    pub(super) fn site(&self) -> Option<&Site> {
        self.site.as_deref()
    }

    /// `Strict-Transport-Security`, for a response over TLS.
    pub(super) fn hsts(&self) -> Option<&HeaderValue> {
        let site = self.site.as_ref().or(self.connected_site.as_ref());
        site?.hsts()
    }

    /// The error pages for the request.
    pub(super) fn error_pages(&self) -> Option<&Arc<ErrorPages>> {
        match self.site() {
            Some(site) => site.error_pages(),
            None => self.server_pages.as_ref(),
        }
    }

    /// The upstream that the request goes to, and how.
    pub(super) fn proxy(&self) -> Option<&Proxy> {
        match self.step() {
            Step::Pass(proxy) => Some(proxy),
            Step::Respond(_) | Step::Redirect(_) | Step::Refuse(_) | Step::Files(_) => None,
        }
    }

    /// The files that the request is for.
    pub(super) fn files(&self) -> Option<&Arc<Files>> {
        match self.step() {
            Step::Files(files) => Some(files),
            Step::Respond(_) | Step::Redirect(_) | Step::Refuse(_) | Step::Pass(_) => None,
        }
    }

    /// What the route changes in requests and responses.
    pub(super) fn rewriting(&self) -> Option<&Rewriting> {
        match &self.outcome {
            Outcome::Route(index) => self.site()?.rewriting(*index),
            Outcome::Respond(_) | Outcome::Refuse(_) => None,
        }
    }
}
