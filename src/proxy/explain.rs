//! Where a request would lead, and why: for `snigate check --explain`.
//!
//! The request is routed by the same code as one from a client. It is assumed to arrive on a
//! connection for its host.

use std::sync::Arc;

use http::{HeaderMap, StatusCode};

use super::authority::{Authority, Channel};
use super::decision::is_maintained;
use super::header;
use super::matcher::Mismatch;
use super::path::Ambiguous;
use super::refusal::Refusal;
use super::request::{Fields, Request};
use super::route::{Site, SiteTable};
use crate::config::model::{ListenAddress, PathMatch, Route, TunnelKind, decode_path};
use crate::host::NameBuffer;

/// A request whose way is to be explained.
#[derive(Clone, Debug)]
pub struct Question {
    pub method: String,
    pub is_tls: bool,
    /// Host and port.
    pub authority: String,
    /// Path and query.
    pub target: String,
    pub fields: HeaderMap,
    /// The place of the listener that it arrives at; any that serves the sites without `listen` if
    /// `None`.
    pub place: Option<ListenAddress>,
}

/// Where a request leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// The first host of the site that the request is for.
    pub site: Option<Arc<str>>,
    pub answer: Answer,
    /// Why each of the site's routes is not the one, in the order in which they are tried. Empty for
    /// the one that is, and if no route is tried.
    pub routes: Vec<Vec<Reason>>,
}

/// How a request is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// By the site's route at this index.
    Route(usize),
    /// By a redirect to this URL, for TLS. If that is optional, only once there is a certificate.
    RedirectToTls { url: String, is_optional: bool },
    /// By the page of the maintenance of the site's route at this index, or of the site.
    Maintenance(Option<usize>),
    /// Not at all: the connection is passed on to this upstream.
    Tunnel(TunnelKind, Arc<str>),
    /// By an error, with a sentence for the client and the methods that are allowed.
    Error(StatusCode, &'static str, Option<String>),
}

/// Why a route is not the one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// `path`, `method`, `header`, `query`, `ambiguous`, or `precedence` if another route wins.
    pub kind: &'static str,
    /// A clause that says more.
    pub detail: String,
}

impl SiteTable {
    /// Explains where a request leads. `routes_of` has the routes of the model for a site, by the
    /// first of its hosts.
    pub fn explain<'m>(
        &self,
        question: &Question,
        routes_of: impl FnOnce(&str) -> &'m [Route],
    ) -> Explanation {
        let request = Request {
            method: &question.method,
            target: question.target.as_bytes(),
            authority: question.authority.as_bytes(),
            version: "HTTP/1.1",
            fields: Fields::Map(&question.fields),
            client: None,
            port: None,
            tls: None,
            socket: None,
            accepted: None,
            relayed: None,
        };
        let mut buffer = NameBuffer::new();
        let Some(authority) = Authority::parse(request.authority, &mut buffer) else {
            let why = "The host is not valid.";
            return unrouted(None, Answer::Error(StatusCode::BAD_REQUEST, why, None));
        };
        let site = self
            .hosts_at(question.place.as_ref())
            .find_site(authority.host);
        let answer = match (header::check_request(&request), site) {
            (Err(refusal), _) => Some(error(refusal, None)),
            (Ok(_), None) if !question.is_tls => Some(error(Refusal::UnknownHost, None)),
            (Ok(_), Some(site)) if question.is_tls && site.tunnel.is_some() => {
                let tunnel = site.tunnel.as_ref();
                tunnel
                    .map(|tunnel| Answer::Tunnel(tunnel.kind, Arc::clone(tunnel.proxy.pool.name())))
            }
            (Ok(_), Some(site)) if !site.may_have(Channel::Plain) => {
                Some(error(Refusal::Misdirected, None))
            }
            (Ok(_), Some(site)) if site.tls && !question.is_tls => {
                match site.https_port.or(self.https_port) {
                    Some(port) => {
                        let port = (port != 443).then_some(port);
                        let host = Authority { port, ..authority };
                        let url = format!("https://{host}{}", question.target);
                        let is_optional = self.https_optional && site.tunnel.is_none();
                        Some(Answer::RedirectToTls { url, is_optional })
                    }
                    None => Some(error(Refusal::Misdirected, None)),
                }
            }
            (Ok(_), Some(site)) if site.tls == question.is_tls => None,
            (Ok(_), _) => Some(error(Refusal::Misdirected, None)),
        };
        match (answer, site) {
            (None, Some(site)) => explain_routes(site, &request, routes_of(&site.name)),
            (Some(answer), site) => unrouted(site, answer),
            (None, None) => unrouted(None, error(Refusal::UnknownHost, None)),
        }
    }
}

/// An answer before any route is tried.
fn unrouted(site: Option<&Arc<Site>>, answer: Answer) -> Explanation {
    Explanation {
        site: site.map(|site| Arc::clone(&site.name)),
        answer,
        routes: Vec::new(),
    }
}

fn error(refusal: Refusal, allowed: Option<String>) -> Answer {
    let (status, why) = refusal.status();
    Answer::Error(status, why, allowed)
}

fn explain_routes(site: &Arc<Site>, request: &Request<'_>, models: &[Route]) -> Explanation {
    let found = site.find_route(request);
    let winner = found.as_ref().ok().copied().flatten();
    let answer = match (&found, winner) {
        _ if is_maintained(site, winner, request) => Answer::Maintenance(winner),
        (_, Some(index)) => Answer::Route(index),
        (Err(Ambiguous), None) => error(Refusal::AmbiguousPath, None),
        (Ok(_), None) => {
            let allowed = site.allowed_methods(request);
            let allowed = allowed.and_then(|list| list.to_str().ok().map(str::to_owned));
            error(site.refusal(request), allowed)
        }
    };
    let routes = site.mismatches(request).enumerate().map(|(index, found)| {
        if winner == Some(index) {
            return Vec::new();
        }
        if !found.is_empty() {
            return found
                .into_iter()
                .map(|one| mismatch(one, request))
                .collect();
        }
        let models = (winner.and_then(|at| models.get(at)), models.get(index));
        vec![match models {
            (Some(winner), Some(other)) => Reason {
                kind: "precedence",
                detail: precedence(winner, other).to_owned(),
            },
            _ => Reason {
                kind: "ambiguous",
                detail: "servers may read the path in ways that do not lead here".to_owned(),
            },
        }]
    });
    Explanation {
        site: Some(Arc::clone(&site.name)),
        answer,
        routes: routes.collect(),
    }
}

fn mismatch(mismatch: Mismatch<'_>, request: &Request<'_>) -> Reason {
    let (kind, detail) = match mismatch {
        Mismatch::Path => ("path", "the path is another".to_owned()),
        Mismatch::Method(methods) => {
            let methods = methods.join(" or ");
            ("method", format!("the method is not {methods}"))
        }
        Mismatch::Header(wanted) => {
            let what = match request.fields.get(&wanted.name) {
                b"" => "is missing",
                _ => "has another value",
            };
            ("header", format!("the header {} {what}", wanted.name))
        }
        Mismatch::Query(wanted) => {
            let detail = format!("the parameter {} is missing, or another", wanted.name);
            ("query", detail)
        }
    };
    Reason { kind, detail }
}

/// Why `winner` is tried before `other`.
fn precedence(winner: &Route, other: &Route) -> &'static str {
    let key = |path: &PathMatch| match path {
        PathMatch::Regex(regex) => regex.text().as_bytes().to_vec(),
        path => decode_path(path.text().as_bytes()).into_owned(),
    };
    let count = |route: &Route| route.conditions.as_ref().map_or(0, |all| all.count());
    match (&winner.path, &other.path) {
        (PathMatch::Exact(_), PathMatch::Prefix(_) | PathMatch::Regex(_)) => {
            "an exact path comes first"
        }
        (PathMatch::Prefix(_), PathMatch::Regex(_)) => "prefixes come before expressions",
        (one, other) if key(one) != key(other) => match one {
            PathMatch::Regex(_) => "the other expression stands earlier",
            PathMatch::Prefix(_) | PathMatch::Exact(_) => "the other path is longer",
        },
        _ if count(winner) > count(other) => "the other has more conditions",
        _ => "the other stands earlier",
    }
}
