//! What metrics and logs say of a tunnel. Its line in the access log is written when it ends, however
//! it does.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use pingora_core::Error;
use tokio::time::Instant;

use super::Opening;
use super::connect::Judge;
use super::pipe::{End, Meter};
use crate::access_log::{self, Value, client};
use crate::clock::{Clock as _, SystemClock, UnixTime};
use crate::config::model::LogField;
use crate::metrics::TunnelEnd;
use crate::proxy::Gateway;
use crate::proxy::failure::{CLIENT_GONE, ErrorSummary, Failure};
use crate::proxy::refusal::Refusal;
use crate::proxy::request_id;
use crate::proxy::route::Tunnel;

/// A server that ends a connection within this time, before it has got anything, is at fault.
const EARLY: Duration = Duration::from_secs(1);

/// The record of a tunnel. Dropped before its end is known, it was cut by a stop of the gateway.
pub(super) struct Record<'a> {
    gateway: &'a Gateway,
    site: &'a Arc<str>,
    tunnel: &'a Tunnel,
    opening: Opening<'a>,
    id: HeaderValue,
    began: Instant,
    /// When the server was reached.
    connected: Instant,
    received: u64,
    sent: u64,
    judge: Option<Judge>,
    refusal: Option<Refusal>,
    status: u16,
    ended: TunnelEnd,
}

impl<'a> Record<'a> {
    pub(super) fn new(
        gateway: &'a Gateway,
        site: &'a Arc<str>,
        tunnel: &'a Tunnel,
        opening: Opening<'a>,
    ) -> Self {
        tunnel.metrics.begin();
        let now = Instant::now();
        Self {
            gateway,
            site,
            tunnel,
            opening,
            id: request_id::new(),
            began: now,
            connected: now,
            received: 0,
            sent: 0,
            judge: None,
            refusal: None,
            status: 200,
            ended: TunnelEnd::Stopped,
        }
    }

    /// Records that the connection is not passed on.
    pub(super) fn refuse(mut self, refusal: Refusal) {
        self.gateway.refused.count(refusal);
        let (status, _) = refusal.status();
        self.status = status.as_u16();
        self.ended = TunnelEnd::Refused;
        self.refusal = Some(refusal);
    }

    /// Records that no server can be reached.
    pub(super) fn fail(mut self, error: &Error) {
        let failure = Failure::of(error, true);
        let status = failure.response_status();
        self.status = status.map_or(CLIENT_GONE, |(status, _)| status.as_u16());
        self.ended = TunnelEnd::Unreachable;
        let pool = &self.tunnel.proxy.pool;
        if let Some(suppressed) = pool.failures.admit() {
            tracing::warn!(
                site = &**self.site,
                upstream = &**pool.name(),
                request_id = self.id(),
                suppressed,
                error = %ErrorSummary(error),
                "a connection could not be passed on",
            );
        }
    }

    /// Records which server has the connection.
    pub(super) fn set_server(&mut self, judge: Judge) {
        self.judge = Some(judge);
        self.connected = Instant::now();
    }

    /// Records how the tunnel has ended.
    pub(super) fn end(mut self, end: End) {
        let is_of_server = matches!(end, End::ServerClosed | End::ServerReset);
        // Later the server may have a reason, and what the client has sent may be one.
        let is_early = self.received == 0 && self.connected.elapsed() < EARLY;
        let is_failure = is_of_server && is_early && self.sent == 0;
        if let (true, Some(judge)) = (is_failure, &mut self.judge) {
            judge.record(true);
        }
        self.ended = match end {
            End::ClientClosed => TunnelEnd::ClientClosed,
            End::ServerClosed => TunnelEnd::ServerClosed,
            End::ClientReset => TunnelEnd::ClientReset,
            End::ServerReset => TunnelEnd::ServerReset,
            End::Idle => TunnelEnd::Idle,
            End::Total => TunnelEnd::Total,
            End::MadeRoom => TunnelEnd::MadeRoom,
            End::Outdated => TunnelEnd::Outdated,
        };
    }

    fn id(&self) -> &str {
        self.id.to_str().unwrap_or("-")
    }
}

impl Meter for Record<'_> {
    fn count_received(&mut self, octets: usize) {
        let octets = octets as u64;
        self.received += octets;
        self.tunnel.metrics.received.add(octets);
    }

    fn count_sent(&mut self, octets: usize) {
        let octets = octets as u64;
        if let (0, Some(judge)) = (self.sent, &mut self.judge) {
            judge.record(false);
        }
        self.sent += octets;
        self.tunnel.metrics.sent.add(octets);
    }
}

impl Drop for Record<'_> {
    fn drop(&mut self) {
        self.tunnel.metrics.end(self.ended);
        let access = self.gateway.access.load();
        if access.is_on() {
            access.write(&Line {
                record: self,
                now: SystemClock.now(),
            });
        }
    }
}

/// The line of a tunnel in the access log.
struct Line<'r, 'a> {
    record: &'r Record<'a>,
    now: UnixTime,
}

impl access_log::Record for Line<'_, '_> {
    fn value(&self, field: LogField) -> Value<'_> {
        let record = self.record;
        let opening = &record.opening;
        let certificate = opening.client_certificate;
        match field {
            LogField::Time | LogField::TimeCombined => Value::Moment(self.now),
            LogField::Client => client(opening.address()),
            LogField::Host => Value::Text(opening.name),
            LogField::Method => Value::Word(record.tunnel.kind.key()),
            LogField::Target => Value::Word("-"),
            LogField::Version => Value::Word(opening.tls.map_or("TLS", |tls| &*tls.version)),
            LogField::Status => Value::Number(record.status.into()),
            LogField::Bytes => Value::Number(record.sent),
            LogField::Received => Value::Number(record.received),
            LogField::Duration => Value::Time(record.began.elapsed()),
            LogField::RequestId => Value::Word(record.id()),
            LogField::Site => Value::Word(record.site),
            LogField::Upstream => record.judge.as_ref().map(Judge::server).into(),
            LogField::UpstreamName => Value::Word(record.tunnel.proxy.pool.name()),
            LogField::Refused => record.refusal.map(Refusal::reason).into(),
            LogField::ClientCertSubject => match certificate {
                Some(certificate) => Value::Text(certificate.subject.as_bytes()),
                None => Value::None,
            },
            LogField::ClientCertFingerprint => certificate.map(|one| &*one.fingerprint).into(),
            LogField::Ended => Value::Word(record.ended.as_str()),
            LogField::Sni => Value::Text(opening.name),
            LogField::TlsVersion => opening.tls.map(|tls| &*tls.version).into(),
            LogField::TlsCipher => opening.tls.map(|tls| &*tls.cipher).into(),
            _ => Value::None,
        }
    }
}
