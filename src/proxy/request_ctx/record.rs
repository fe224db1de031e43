//! What the access log has of a request.

use std::time::Duration;

use http::HeaderName;
use http::header::{REFERER, USER_AGENT};

use super::RequestCtx;
use crate::access_log::{Record, Value, client};
use crate::clock::UnixTime;
use crate::config::model::LogField;
use crate::proxy::decision::Decision;
use crate::proxy::failure_reason::FailureReason;
use crate::proxy::path;
use crate::proxy::refusal::Refusal;
use crate::proxy::request::Request;
use crate::tls::TlsInfo;
use crate::trace::{TRACEPARENT, TraceContext};

/// A request that has ended.
pub(crate) struct RequestRecord<'a> {
    pub(crate) ctx: &'a RequestCtx,
    pub(crate) request: &'a Request<'a>,
    pub(crate) status: u16,
    /// Why it has failed, if it has, as it is counted.
    pub(crate) failed: Option<FailureReason>,
    /// Octets of the response's body that were sent.
    pub(crate) bytes: usize,
    pub(crate) now: UnixTime,
    /// How many lines of this kind were left out before this one.
    pub(crate) held_back: u64,
}

impl Record for RequestRecord<'_> {
    fn value(&self, field: LogField) -> Value<'_> {
        let (ctx, request) = (self.ctx, self.request);
        let decision = ctx.decision.as_ref();
        match field {
            LogField::Time | LogField::TimeCombined => Value::Moment(self.now),
            LogField::Client => client(ctx.client),
            LogField::Host => Value::Text(request.authority),
            LogField::Method => Value::Text(request.method.as_bytes()),
            LogField::Scheme => Value::Word(if ctx.is_tls { "https" } else { "http" }),
            LogField::Target => Value::Text(request.target),
            LogField::Path => Value::Text(path::without_query(request.origin_form())),
            LogField::Query => self.query(),
            LogField::Version => Value::Word(request.version),
            LogField::Status => Value::Number(self.status.into()),
            LogField::Bytes => Value::Number(self.bytes as u64),
            LogField::Received => Some(ctx.progress.received)
                .filter(|octets| *octets > 0)
                .into(),
            LogField::Duration => Value::Time(ctx.elapsed()),
            LogField::ConnectTime => ctx.progress.last.opened().into(),
            LogField::FirstByteTime => ctx.progress.last.responded().into(),
            LogField::WaitTime => ctx.progress.waited.map(Duration::from).into(),
            LogField::RequestId => Value::Word(ctx.request_id()),
            LogField::TraceId => match decision.and_then(|one| one.trace.as_deref()) {
                Some(trace) => Value::Shown(&trace.trace_id),
                None => trace_id(request.fields.get_only(&TRACEPARENT)).into(),
            },
            LogField::Referer => Value::Text(request.fields.get(&REFERER)),
            LogField::UserAgent => Value::Text(request.fields.get(&USER_AGENT)),
            LogField::User => match decision.and_then(Decision::user) {
                Some(user) => Value::Text(user.as_bytes()),
                None => Value::None,
            },
            LogField::Site => ctx.site().map(|site| &*site.name).into(),
            LogField::Route => decision.and_then(Decision::route_index).into(),
            LogField::Upstream => ctx.upstream().into(),
            LogField::UpstreamName => ctx.proxy().map(|proxy| &**proxy.pool.name()).into(),
            LogField::Attempts => Some(u64::from(ctx.progress.last.number))
                .filter(|attempts| *attempts > 0)
                .into(),
            LogField::Failed => self.failed.map(FailureReason::word).into(),
            LogField::Refused => ctx.refusal.map(Refusal::reason).into(),
            LogField::Reason => match ctx.refusal.and_then(Refusal::detail) {
                Some(detail) => Value::Text(detail.as_bytes()),
                None => Value::None,
            },
            LogField::HeldBack if self.held_back > 0 => Value::Number(self.held_back),
            LogField::ClientCertSubject => match request.client_certificate() {
                Some(certificate) => Value::Text(certificate.subject.as_bytes()),
                None => Value::None,
            },
            LogField::ClientCertFingerprint => {
                let certificate = request.client_certificate();
                certificate.map(|one| &*one.fingerprint).into()
            }
            LogField::Sni
            | LogField::TlsVersion
            | LogField::TlsGroup
            | LogField::TlsCipher
            | LogField::TlsResumed
            | LogField::Alpn
            | LogField::Certificate => self.tls(field),
            LogField::HeldBack | LogField::Ended => Value::None,
        }
    }

    fn header(&self, name: &HeaderName) -> &[u8] {
        self.request.fields.get(name)
    }
}

impl RequestRecord<'_> {
    fn query(&self) -> Value<'_> {
        let target = self.request.origin_form();
        let path = path::without_query(target);
        match target.get(path.len() + 1..) {
            Some(query) => Value::Text(query),
            None => Value::None,
        }
    }

    fn tls(&self, field: LogField) -> Value<'_> {
        let Some(tls) = self.request.tls else {
            return Value::None;
        };
        let info = tls.extension.get::<TlsInfo>();
        match (field, info) {
            (LogField::TlsVersion, _) => Value::Word(&tls.version),
            (LogField::TlsCipher, _) => Value::Word(&tls.cipher),
            (_, None) => Value::None,
            (_, Some(info)) => info.log_value(field),
        }
    }
}

/// The trace that a `traceparent` names, if it is valid.
fn trace_id(traceparent: &[u8]) -> Option<&str> {
    TraceContext::parse(traceparent)?;
    std::str::from_utf8(traceparent.get(3..35)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_is_taken_from_a_valid_field_alone() {
        let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
        for (field, expected) in [
            (format!("00-{trace}-00f067aa0ba902b7-01"), Some(trace)),
            (format!("01-{trace}-00f067aa0ba902b7-01-what"), Some(trace)),
            (format!("00-{trace}-00f067aa0ba902b7-01-what"), None),
            (format!("ff-{trace}-00f067aa0ba902b7-01"), None),
            (format!("00-{trace}-0000000000000000-01"), None),
            (format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32)), None),
            (format!("00-{}-00f067aa0ba902b7-01", "A".repeat(32)), None),
            (format!("00-{trace}-00f067aa0ba902b7-"), None),
            (format!("00-{trace}-00f067aa0ba902b7"), None),
            (String::new(), None),
        ] {
            assert_eq!(trace_id(field.as_bytes()), expected, "{field}");
        }
    }
}
