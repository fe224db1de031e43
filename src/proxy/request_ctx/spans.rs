//! The spans of a request that has ended, with the names of OpenTelemetry's semantic conventions.

use std::time::{Duration, SystemTime};

use http::header::USER_AGENT;

use super::RequestCtx;
use crate::proxy::path;
use crate::proxy::refusal::Refusal;
use crate::proxy::request::Request;
use crate::trace::{RequestTrace, Span, SpanKind, Tracer, Value};

/// How much of what a client sent is kept in one attribute, in octets.
const LONGEST: usize = 1024;

/// The methods that may be names of spans; clients choose all others.
const METHODS: [&str; 9] = [
    "CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE",
];

/// Records a request that has ended with `status`, and its last attempt at a server, if it is to be.
pub(crate) fn record_spans(tracer: &Tracer, ctx: &RequestCtx, request: &Request<'_>, status: u16) {
    let trace = ctx.decision.as_ref().and_then(|one| one.trace.as_deref());
    let Some(trace) = trace.filter(|trace| trace.is_sampled) else {
        return;
    };
    let (end, took) = (now(), ctx.elapsed());
    let begin = end.checked_sub(took).unwrap_or(end);
    if let Some(attempt) = attempt(trace, ctx, begin, end, status) {
        tracer.record(attempt);
    }
    tracer.record(whole(trace, ctx, request, (begin, end), status));
}

#[expect(
    clippy::disallowed_methods,
    reason = "spans are exact to fractions of a second, and nothing is decided by them"
)]
fn now() -> SystemTime {
    SystemTime::now()
}

fn whole(
    trace: &RequestTrace,
    ctx: &RequestCtx,
    request: &Request<'_>,
    (begin, end): (SystemTime, SystemTime),
    status: u16,
) -> Span {
    let method = METHODS.iter().find(|method| **method == request.method);
    let method = method.copied().unwrap_or("_OTHER");
    let path = path::without_query(request.origin_form());
    let mut attributes: Vec<(&'static str, Value)> = vec![
        ("http.request.method", method.into()),
        ("http.response.status_code", i64::from(status).into()),
        (
            "url.scheme",
            if ctx.is_tls { "https" } else { "http" }.into(),
        ),
        ("url.path", text(path)),
        ("network.protocol.name", "http".into()),
        ("network.protocol.version", version(request.version).into()),
        ("snigate.request_id", ctx.request_id().to_owned().into()),
    ];
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
    let refused = ctx.refusal.map(Refusal::reason);
    if let Some(refused) = refused {
        attributes.push(("snigate.refused", refused.into()));
    }
    let is_error = status >= 500;
    if is_error {
        attributes.push(("error.type", status.to_string().into()));
    }
    Span {
        trace_id: trace.trace_id.0,
        id: trace.server,
        parent: trace.parent,
        kind: SpanKind::Server,
        name: method.to_owned(),
        begin,
        end,
        attributes,
        error: is_error.then(|| refused.unwrap_or("the request failed").into()),
    }
}

/// The span of the last attempt at a server, if there was one.
fn attempt(
    trace: &RequestTrace,
    ctx: &RequestCtx,
    begin: SystemTime,
    end: SystemTime,
    status: u16,
) -> Option<Span> {
    let (server, progress) = (&ctx.choice.as_ref()?.endpoint, &ctx.progress);
    let last = &progress.last;
    let at = |passed: Duration| begin.checked_add(passed).unwrap_or(begin).min(end);
    let mut attributes: Vec<(&'static str, Value)> = Vec::with_capacity(8);
    match server.text.rsplit_once(':') {
        Some((host, port)) if !server.text.starts_with("unix:") => {
            let host = host.trim_start_matches('[').trim_end_matches(']');
            attributes.push(("server.address", host.to_owned().into()));
            if let Ok(port) = port.parse::<i64>() {
                attributes.push(("server.port", port.into()));
            }
        }
        _ => attributes.push(("server.address", server.text.to_string().into())),
    }
    if let Some(proxy) = ctx.proxy() {
        attributes.push(("snigate.upstream", proxy.pool.name().to_string().into()));
    }
    let resent = i64::from(progress.attempts.saturating_sub(1));
    if resent > 0 {
        attributes.push(("http.request.resend_count", resent.into()));
    }
    let seconds =
        |from: Duration, to: Option<Duration>| Some(to?.saturating_sub(from).as_secs_f64());
    if let Some(connect) = seconds(last.began(), last.opened()) {
        attributes.push(("snigate.connect_time", connect.into()));
    }
    if let Some(first_byte) = seconds(last.began(), last.responded()) {
        attributes.push(("snigate.first_byte_time", first_byte.into()));
    }
    let responded = last.responded().is_some();
    if responded {
        attributes.push(("http.response.status_code", i64::from(status).into()));
    }
    let error = match responded {
        false => Some("the server did not respond".into()),
        true if status >= 400 => {
            attributes.push(("error.type", status.to_string().into()));
            Some("the server responded with an error".into())
        }
        true => None,
    };
    Some(Span {
        trace_id: trace.trace_id.0,
        id: trace.client,
        parent: Some(trace.server),
        kind: SpanKind::Client,
        name: "attempt".to_owned(),
        begin: at(last.began()),
        end,
        attributes,
        error,
    })
}

/// What a client sent, cut, as text.
fn text(octets: &[u8]) -> Value {
    let cut = octets.get(..LONGEST).unwrap_or(octets);
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
    end.and_then(|end| authority.get(..end))
        .unwrap_or(authority)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_short_and_text() {
        assert_eq!(text(b"a\xff"), Value::Text("a\u{fffd}".into()));
        let Value::Text(cut) = text(&[b'a'; 5000]) else {
            panic!("it is text")
        };
        assert_eq!(cut.len(), LONGEST);
        for (authority, host) in [
            ("a.test", "a.test"),
            ("a.test:8443", "a.test"),
            ("[::1]:443", "[::1]"),
            ("[::1]", "[::1]"),
        ] {
            assert_eq!(without_port(authority.as_bytes()), host.as_bytes());
        }
        assert_eq!((version("HTTP/2.0"), version("HTTP/1.1")), ("2", "1.1"));
    }
}
