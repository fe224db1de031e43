//! The task that exports spans: it batches them and sends them to a collector.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};

use super::otlp::{export_request, rejected_spans};
use super::span::{Span, Value};
use super::{LOST, Tracer};
use crate::config::model::Tracing;
use crate::http_client::{Body, HttpClient, HttpError, Options, Patience};
use crate::machine::host_name;
use crate::throttle::Throttle;

/// How many spans are sent at once.
const BATCH: usize = 512;

/// How long spans wait for others.
const LINGER: Duration = Duration::from_secs(1);

/// How long a batch is tried for: longer than a collector takes to restart.
const TRY_FOR: Duration = Duration::from_secs(60);

/// The shortest and the longest pause that a collector may ask for.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = TRY_FOR;

const PATIENCE: Patience = Patience {
    connect: Duration::from_secs(3),
    request: Duration::from_secs(10),
};

/// The longest response that is read.
const MAX_ANSWER: usize = 64 * 1024;

/// Where spans are sent to.
pub struct Target {
    pub(super) settings: Tracing,
    client: HttpClient,
    headers: Vec<(HeaderName, HeaderValue)>,
    resource: Vec<(&'static str, Value)>,
}

impl PartialEq for Target {
    fn eq(&self, other: &Self) -> bool {
        // Everything else is made of these.
        self.settings == other.settings && self.client.roots() == other.client.roots()
    }
}

/// Why there can be no target.
#[derive(Debug, Error)]
#[error("tracing.endpoint: {0}")]
pub struct TargetError(#[from] HttpError);

impl Target {
    /// The target that is configured. Reads the roots to trust.
    ///
    /// # Errors
    /// If the roots cannot be read.
    pub fn new(settings: &Tracing) -> Result<Self, TargetError> {
        let client = HttpClient::new(Options {
            ca_file: settings.ca_file.as_deref(),
            allow_plain: true,
            only_plain: settings.endpoint.scheme_str() == Some("http"),
            patience: PATIENCE,
            max_answer: Some(MAX_ANSWER),
            ..Options::default()
        })?;
        let mut resource = vec![
            ("service.name", settings.service.clone().into()),
            ("service.version", env!("CARGO_PKG_VERSION").into()),
        ];
        if let Some(host) = host_name() {
            resource.push(("host.name", host.into()));
        }
        let headers = settings.headers.iter().filter_map(|(name, value)| {
            // The configuration has been checked.
            let mut value = HeaderValue::from_str(value.expose()).ok()?;
            value.set_sensitive(true);
            Some((name.clone(), value))
        });
        Ok(Self {
            headers: headers.collect(),
            settings: settings.clone(),
            client,
            resource,
        })
    }

    async fn send(&self, body: &Bytes) -> Result<Response<Bytes>, HttpError> {
        let mut request = Request::new(Body::new(body.clone()));
        *request.method_mut() = http::Method::POST;
        *request.uri_mut() = self.settings.endpoint.clone();
        let headers = request.headers_mut();
        headers.extend(self.headers.iter().cloned());
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/x-protobuf"),
        );
        self.client.send(request).await
    }

    #[cfg(test)]
    pub(super) fn for_test(sample: f64) -> Self {
        let settings = Tracing {
            endpoint: http::Uri::from_static("http://127.0.0.1:1/v1/traces"),
            headers: Vec::new(),
            ca_file: None,
            service: "test".to_owned(),
            sample,
        };
        Self::new(&settings).expect("no roots are needed")
    }
}

/// Exports the spans of a [`Tracer`].
pub struct Exporter {
    tracer: Tracer,
    waiting: mpsc::Receiver<Span>,
    /// Requests to export everything that waits, and then say so.
    flushes: mpsc::Receiver<oneshot::Sender<()>>,
    failures: Throttle,
}

impl Exporter {
    pub(super) fn new(
        tracer: Tracer,
        waiting: mpsc::Receiver<Span>,
        flushes: mpsc::Receiver<oneshot::Sender<()>>,
    ) -> Self {
        Self {
            tracer,
            waiting,
            flushes,
            failures: Throttle::every(Duration::from_secs(60)),
        }
    }

    /// Runs until its task is dropped.
    pub async fn run(mut self) {
        let mut batch = Vec::new();
        loop {
            let flush = tokio::select! {
                biased;
                Some(flush) = self.flushes.recv() => flush,
                () = collect(&mut self.waiting, &mut batch) => {
                    let flush = tokio::select! {
                        Some(flush) = self.flushes.recv() => Some(flush),
                        () = export(&self.tracer, &self.failures, &batch) => None,
                    };
                    match flush {
                        Some(flush) => flush,
                        None => {
                            batch.clear();
                            continue;
                        }
                    }
                }
            };
            while !batch.is_empty() || !self.waiting.is_empty() {
                let room = BATCH.saturating_sub(batch.len());
                if room > 0 && !self.waiting.is_empty() {
                    self.waiting.recv_many(&mut batch, room).await;
                }
                export(&self.tracer, &self.failures, &batch).await;
                batch.clear();
            }
            // If it has failed, nobody waits any more.
            _ = flush.send(());
        }
    }
}

/// Waits for spans until there are enough or the first has waited long enough.
async fn collect(waiting: &mut mpsc::Receiver<Span>, batch: &mut Vec<Span>) {
    // The exporter itself has a handle of the tracer: the queue is never closed.
    waiting.recv_many(batch, BATCH).await;
    let fill = async {
        while batch.len() < BATCH {
            let room = BATCH - batch.len();
            waiting.recv_many(batch, room).await;
        }
    };
    // Late ones go with the next batch.
    _ = timeout(LINGER, fill).await;
}

/// Sends spans, again and again while that may help.
async fn export(tracer: &Tracer, failures: &Throttle, batch: &[Span]) {
    let Some(target) = tracer.target() else {
        tracer.count(LOST, batch.len());
        return;
    };
    let body = Bytes::from(export_request(&target.resource, batch));
    let until = Instant::now() + TRY_FOR;
    let mut pause = Duration::from_millis(500);
    let why = loop {
        let (why, asked) = match target.send(&body).await {
            Ok(answer) if answer.status().is_success() => {
                count_exported(tracer, failures, batch.len(), answer.body());
                return;
            }
            Ok(answer) => {
                let why = format!("it responded with status {}", answer.status());
                if !is_passing(answer.status()) {
                    break why;
                }
                (why, retry_after(answer.headers()))
            }
            // It may have taken the spans, and would say as much again.
            Err(error @ HttpError::TooLong(_)) => break error.to_string(),
            Err(error) if error.is_permanent() => break error.to_string(),
            Err(error) => (error.to_string(), None),
        };
        pause = (pause * 2).min(Duration::from_secs(20));
        let wait = asked.unwrap_or_else(|| pause.mul_f64(0.75 + fastrand::f64() / 2.0));
        let is_last = until.saturating_duration_since(Instant::now()) <= wait;
        if is_last && asked.is_none() || !tracer.is_target(&target) {
            break why;
        }
        // The next batch is to be as late as the collector asks for.
        tokio::time::sleep(wait).await;
        if is_last {
            break why;
        }
    };
    tracer.count(LOST, batch.len());
    if let Some(held_back) = failures.admit() {
        tracing::warn!(
            collector = target
                .settings
                .endpoint
                .authority()
                .map(tracing::field::display),
            spans = batch.len(),
            why,
            held_back,
            "spans are lost: the collector does not take them; see tracing.endpoint"
        );
    }
}

fn count_exported(tracer: &Tracer, failures: &Throttle, sent: usize, answer: &[u8]) {
    let (rejected, why) = rejected_spans(answer);
    let rejected = usize::try_from(rejected).unwrap_or(usize::MAX).min(sent);
    tracer.count("exported", sent - rejected);
    if rejected > 0 {
        tracer.count("rejected", rejected);
        if let Some(held_back) = failures.admit() {
            tracing::warn!(rejected, why, held_back, "the collector rejected spans");
        }
    }
}

/// The statuses after which the specification of OTLP allows another attempt.
fn is_passing(status: StatusCode) -> bool {
    matches!(status.as_u16(), 429 | 502 | 503 | 504)
}

/// How long a collector asks to be left alone, within limits.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds).clamp(SHORTEST_PAUSE, LONGEST_PAUSE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collector_is_left_alone_for_a_time_within_limits() {
        for (text, pause) in [
            ("0", Some(SHORTEST_PAUSE)),
            ("7", Some(Duration::from_secs(7))),
            ("86400", Some(LONGEST_PAUSE)),
            ("18446744073709551615", Some(LONGEST_PAUSE)),
            ("18446744073709551616", None),
            ("-1", None),
            ("soon", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, HeaderValue::from_static(text));
            assert_eq!(retry_after(&headers), pause, "{text}");
        }
    }
}
