//! The spans of a request that has ended: its own, and one for each attempt at a server. Names are
//! those of OpenTelemetry's semantic conventions for HTTP.

use std::time::{Duration, SystemTime};

use http::header::USER_AGENT;

use super::RequestCtx;
use crate::printable::beginning;
use crate::proxy::decision::Decision;
use crate::proxy::endpoint::Endpoint;
use crate::proxy::failure::Failure;
use crate::proxy::failure_reason::FailureReason;
use crate::proxy::path;
use crate::proxy::progress::Attempt;
use crate::proxy::refusal::Refusal;
use crate::proxy::request::Request;
use crate::trace::{RequestTrace, Span, SpanKind, Tracer, Value};

/// How much of what a client sent is kept in one attribute, in octets.
const LONGEST: usize = 1024;

/// The methods that may be in names of spans; clients choose all others.
const METHODS: [&str; 9] = [
    "CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE",
];

/// What stands for all other methods, as a value and in a name.
const OTHER: (&str, &str) = ("_OTHER", "HTTP");

type Attributes = Vec<(&'static str, Value)>;

/// Records a request that has ended with `status`, and its attempts at servers, if it is to be.
pub(crate) fn record_spans(tracer: &Tracer, ctx: &RequestCtx, request: &Request<'_>, status: u16) {
    let Some(trace) = ctx.recorded() else {
        return;
    };
    let (end, took) = (now(), ctx.elapsed());
    let begin = end.checked_sub(took).unwrap_or(end);
    let recorded = Recorded {
        trace,
        ctx,
        request,
        begin,
        end,
    };
    for one in &ctx.progress.failed {
        tracer.record(recorded.attempt(&Outcome {
            attempt: &one.attempt,
            ended: one.ended,
            server: &one.server,
            span: one.span,
            why: one.why,
        }));
    }
    let progress = &ctx.progress;
    if let Some(choice) = ctx.choice.as_ref().filter(|_| !progress.last.has_failed) {
        tracer.record(recorded.attempt(&Outcome {
            attempt: &progress.last,
            ended: took,
            server: &choice.endpoint,
            span: trace.client,
            why: ctx.failure_reason.map(FailureReason::word),
        }));
    }
    tracer.record(recorded.whole(status));
}

#[expect(
    clippy::disallowed_methods,
    reason = "spans are exact to fractions of a second, and nothing is decided by them"
)]
fn now() -> SystemTime {
    SystemTime::now()
}

/// A request that is recorded, and when it began and ended.
struct Recorded<'a> {
    trace: &'a RequestTrace,
    ctx: &'a RequestCtx,
    request: &'a Request<'a>,
    begin: SystemTime,
    end: SystemTime,
}

/// What became of an attempt.
struct Outcome<'a> {
    attempt: &'a Attempt,
    ended: Duration,
    server: &'a Endpoint,
    span: u64,
    /// Why it has failed, as a word, if its status does not say it.
    why: Option<&'static str>,
}

impl Recorded<'_> {
    /// The method as a value, and in a name.
    fn method(&self) -> (&'static str, &'static str) {
        let known = METHODS
            .iter()
            .find(|method| **method == self.request.method);
        known.map_or(OTHER, |method| (method, method))
    }

    /// The span of the request.
    fn whole(&self, status: u16) -> Span {
        let (ctx, request) = (self.ctx, self.request);
        let (method, name) = self.method();
        let scheme = if ctx.is_tls { "https" } else { "http" };
        let path = path::without_query(request.origin_form());
        let mut attributes: Attributes = vec![
            ("http.request.method", method.into()),
            ("http.response.status_code", i64::from(status).into()),
            ("url.scheme", scheme.into()),
            ("url.path", text(path)),
            ("network.protocol.name", "http".into()),
            ("network.protocol.version", version(request.version).into()),
            ("snigate.request_id", ctx.request_id().to_owned().into()),
        ];
        if method == OTHER.0 {
            let original = text(request.method.as_bytes());
            attributes.push(("http.request.method_original", original));
        }
        let index = ctx.decision.as_ref().and_then(Decision::route_index);
        let index = index.and_then(|index| usize::try_from(index).ok());
        let route = index.and_then(|index| ctx.site()?.route_path(index));
        if let Some(route) = route {
            attributes.push(("http.route", route.to_owned().into()));
        }
        if !request.authority.is_empty() {
            let host = without_port(request.authority);
            attributes.push(("server.address", text(host)));
        }
        if let Some(client) = ctx.client {
            attributes.push(("client.address", client.to_string().into()));
        }
        let agent = request.fields.get(&USER_AGENT);
        if !agent.is_empty() {
            attributes.push(("user_agent.original", text(agent)));
        }
        if let Some(site) = ctx.site() {
            attributes.push(("snigate.site", site.name.to_string().into()));
        }
        if let Some(refused) = ctx.refusal.map(Refusal::reason) {
            attributes.push(("snigate.refused", refused.into()));
        }
        // Nor is a response complete that a server has not completed.
        let is_cut = matches!(
            ctx.failure,
            Some(Failure::Gateway(..) | Failure::Upstream(..))
        );
        let error: Option<Value> = match ctx.failure_reason {
            _ if status >= 500 => Some(status.to_string().into()),
            Some(reason) if is_cut => Some(reason.word().into()),
            _ => None,
        };
        let is_error = error.is_some();
        attributes.extend(error.map(|error| ("error.type", error)));
        Span {
            trace_id: self.trace.trace_id.0,
            id: self.trace.server,
            parent: self.trace.parent,
            kind: SpanKind::Server,
            name: match route {
                Some(route) => format!("{name} {route}"),
                None => name.to_owned(),
            },
            begin: self.begin,
            end: self.end,
            attributes,
            is_error,
        }
    }

    /// The span of an attempt at a server.
    fn attempt(&self, outcome: &Outcome<'_>) -> Span {
        let (attempt, server) = (outcome.attempt, &*outcome.server.text);
        let (method, name) = self.method();
        let mut attributes: Attributes = Vec::with_capacity(12);
        attributes.push(("http.request.method", method.into()));
        attributes.push(("url.full", self.url(server)));
        match server.rsplit_once(':') {
            Some((host, port)) if !server.starts_with("unix:") => {
                let host = without_brackets(host.as_bytes());
                attributes.push(("server.address", text(host)));
                if let Ok(port) = port.parse::<i64>() {
                    attributes.push(("server.port", port.into()));
                }
            }
            _ => attributes.push(("server.address", server.to_owned().into())),
        }
        if let Some(proxy) = self.ctx.proxy() {
            attributes.push(("snigate.upstream", proxy.pool.name().to_string().into()));
        }
        let resent = outcome.attempt.number.saturating_sub(1);
        if resent > 0 {
            let resent = i64::from(resent);
            attributes.push(("http.request.resend_count", resent.into()));
        }
        for (name, moment) in [
            ("snigate.connect_time", attempt.opened()),
            ("snigate.first_byte_time", attempt.responded()),
        ] {
            if let Some(moment) = moment {
                let seconds = moment.saturating_sub(attempt.began()).as_secs_f64();
                attributes.push((name, seconds.into()));
            }
        }
        let status = attempt.status.map(|status| status.as_u16());
        if let Some(status) = status {
            attributes.push(("http.response.status_code", i64::from(status).into()));
        }
        let error: Option<Value> = match (outcome.why, status) {
            (Some(why), _) => Some(why.into()),
            (None, Some(status)) if status >= 400 => Some(status.to_string().into()),
            _ => None,
        };
        let is_error = error.is_some();
        attributes.extend(error.map(|error| ("error.type", error)));
        Span {
            trace_id: self.trace.trace_id.0,
            id: outcome.span,
            parent: Some(self.trace.server),
            kind: SpanKind::Client,
            name: name.to_owned(),
            begin: self.at(attempt.began()),
            end: self.at(outcome.ended),
            attributes,
            is_error,
        }
    }

    /// What is requested of a server, without the query, which may hold secrets.
    fn url(&self, server: &str) -> Value {
        let is_tls = self.ctx.proxy().is_some_and(|proxy| proxy.pool.has_tls());
        let scheme = if is_tls { "https" } else { "http" };
        let changes = self.ctx.request_changes();
        let target = changes.target.unwrap_or_else(|| self.request.origin_form());
        let server = if server.starts_with("unix:") {
            "localhost"
        } else {
            server
        };
        let path = path::without_query(target);
        let url = [scheme.as_bytes(), b"://", server.as_bytes(), path].concat();
        text(&url)
    }

    /// A moment of the request, counted from its arrival.
    fn at(&self, passed: Duration) -> SystemTime {
        let moment = self.begin.checked_add(passed).unwrap_or(self.begin);
        moment.min(self.end)
    }
}

/// What others sent, cut, as text.
fn text(octets: &[u8]) -> Value {
    let cut = beginning(octets, LONGEST);
    String::from_utf8_lossy(cut).into_owned().into()
}

/// The version without the name of the protocol.
fn version(version: &'static str) -> &'static str {
    match version.strip_prefix("HTTP/") {
        Some("2.0") => "2",
        Some(number) => number,
        None => version,
    }
}

fn without_port(authority: &[u8]) -> &[u8] {
    let end = memchr::memrchr(b':', authority).filter(|end| {
        let port = authority.get(end + 1..).unwrap_or_default();
        port.iter().all(u8::is_ascii_digit)
    });
    let host = end.and_then(|end| authority.get(..end));
    without_brackets(host.unwrap_or(authority))
}

/// An address of IPv6 in a URL has brackets.
fn without_brackets(host: &[u8]) -> &[u8] {
    let inner = host
        .strip_prefix(b"[")
        .and_then(|host| host.strip_suffix(b"]"));
    inner.unwrap_or(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_short_and_text() {
        assert_eq!(text(b"a\xff"), Value::Text("a\u{fffd}".into()));
        let Value::Text(cut) = text("€".repeat(5000).as_bytes()) else {
            panic!("it is text")
        };
        assert_eq!(cut, "€".repeat(LONGEST / 3));
        for (authority, host) in [
            ("a.test", "a.test"),
            ("a.test:8443", "a.test"),
            ("[::1]:443", "::1"),
            ("[::1]", "::1"),
        ] {
            assert_eq!(without_port(authority.as_bytes()), host.as_bytes());
        }
        assert_eq!((version("HTTP/2.0"), version("HTTP/1.1")), ("2", "1.1"));
    }
}
