//! Traces: what became of a request, for those who follow it over many services.
//!
//! A [`Tracer`] decides for each request whether it is recorded. What is recorded is queued without
//! waiting and exported by a [task of its own](Exporter) over OTLP. If the queue is full, spans are
//! lost and counted; requests never wait.

mod context;
mod exporter;
mod otlp;
mod span;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use prometheus::IntCounterVec;
use tokio::sync::{mpsc, oneshot};

pub use self::context::{TRACEPARENT, TRACESTATE, TraceContext, TraceId};
pub use self::exporter::{Exporter, Target, TargetError};
pub use self::span::{Span, SpanKind, Value};

/// How many spans may wait to be exported; each takes about a kilobyte.
const CAPACITY: usize = 8192;

/// The results that spans are counted by.
const LOST: &str = "lost";

/// Decides which requests are recorded, and takes what is recorded. A handle.
#[derive(Clone)]
pub struct Tracer(Arc<Shared>);

struct Shared {
    /// Where spans go; `None` if there are no traces.
    target: ArcSwapOption<Target>,
    /// The share of requests to record, of 2^56, and whether there are traces at all: [`OFF`].
    share: AtomicU64,
    queue: mpsc::Sender<Span>,
    flushes: mpsc::Sender<oneshot::Sender<()>>,
    spans: IntCounterVec,
}

/// No share is as large.
const OFF: u64 = u64::MAX;

/// All requests.
const ALL: u64 = 1 << 56;

impl Tracer {
    /// A tracer that is off, and what exports its spans. `spans` counts these by their result.
    pub fn new(spans: IntCounterVec) -> (Self, Exporter) {
        let (queue, waiting) = mpsc::channel(CAPACITY);
        let (flushes, flush_requests) = mpsc::channel(1);
        let tracer = Self(Arc::new(Shared {
            target: ArcSwapOption::empty(),
            share: AtomicU64::new(OFF),
            queue,
            flushes,
            spans,
        }));
        let exporter = Exporter::new(tracer.clone(), waiting, flush_requests);
        (tracer, exporter)
    }

    /// Exports to another target from now on; `None` ends all traces.
    pub fn set_target(&self, target: Option<Target>) {
        let current = self.target();
        if current.as_deref() == target.as_ref() {
            // What waits for it is not lost.
            return;
        }
        // From 0 to 1, hence within the range.
        let share = target
            .as_ref()
            .map_or(OFF, |target| (target.settings.sample * ALL as f64) as u64);
        self.0.target.store(target.map(Arc::new));
        self.0.share.store(share, Ordering::Relaxed);
    }

    /// Begins the trace of a request that came with this `traceparent`, or with none. `None` if there
    /// are no traces.
    ///
    /// Whether it is recorded is decided by the share that is configured, or by `traceparent` if the
    /// client is trusted with that: others could have everything recorded.
    pub fn begin(&self, traceparent: &[u8], is_trusted: bool) -> Option<RequestTrace> {
        let share = self.0.share.load(Ordering::Relaxed);
        if share == OFF {
            return None;
        }
        let context = TraceContext::parse(traceparent);
        let trace_id = context.map_or_else(|| TraceId(fastrand::u128(1..)), |one| one.trace_id);
        let is_sampled = match context {
            Some(context) if is_trusted => context.is_sampled,
            // Not by the id, which is the client's.
            _ => fastrand::u64(..ALL) < share,
        };
        Some(RequestTrace {
            trace_id,
            parent: context.map(|context| context.parent),
            server: fastrand::u64(1..),
            client: fastrand::u64(1..),
            is_sampled,
        })
    }

    /// Queues a span to be exported, or loses it if too many wait.
    pub fn record(&self, span: Span) {
        if self.0.queue.try_send(span).is_err() {
            self.count(LOST, 1);
        }
    }

    /// Exports all spans that wait, at most for this long.
    pub async fn flush(&self, patience: Duration) {
        let (done, is_done) = oneshot::channel();
        let flush = async {
            // An error means that there is no exporter any more.
            if self.0.flushes.send(done).await.is_ok() {
                _ = is_done.await;
            }
        };
        // Whatever is left is lost with the process.
        _ = tokio::time::timeout(patience, flush).await;
    }

    fn target(&self) -> Option<Arc<Target>> {
        self.0.target.load_full()
    }

    fn is_target(&self, target: &Arc<Target>) -> bool {
        let current = self.0.target.load();
        current.as_ref().is_some_and(|one| Arc::ptr_eq(one, target))
    }

    fn count(&self, result: &str, spans: usize) {
        let counter = self.0.spans.with_label_values(&[result]);
        counter.inc_by(u64::try_from(spans).unwrap_or(u64::MAX));
    }
}

/// The trace of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestTrace {
    pub trace_id: TraceId,
    /// The span of the client, if it has one.
    pub parent: Option<u64>,
    /// The id of the span of the request.
    pub server: u64,
    /// The id of the span of the current attempt at a server.
    pub client: u64,
    /// Whether it is recorded.
    pub is_sampled: bool,
}

impl RequestTrace {
    /// Gives the next attempt at a server a span of its own. Returns the id of the last one's.
    pub fn next_attempt(&mut self) -> u64 {
        std::mem::replace(&mut self.client, fastrand::u64(1..))
    }

    /// What the server that the request is passed to gets to know.
    pub fn passed_on(&self) -> TraceContext {
        let parent = match (self.is_sampled, self.parent) {
            (true, _) => self.client,
            // Nothing is recorded here that could lie between the two.
            (false, Some(parent)) => parent,
            (false, None) => self.server,
        };
        TraceContext {
            trace_id: self.trace_id,
            parent,
            is_sampled: self.is_sampled,
        }
    }
}

#[cfg(test)]
mod tests {
    use prometheus::Opts;

    use super::*;

    const PARENT: &[u8] = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn tracer(sample: f64) -> (Tracer, Exporter) {
        let spans = IntCounterVec::new(Opts::new("spans", "spans"), &["result"]);
        let (tracer, exporter) = Tracer::new(spans.expect("a metric"));
        tracer.set_target(Some(Target::for_test(sample)));
        (tracer, exporter)
    }

    #[test]
    fn without_a_target_there_are_no_traces() {
        let (tracer, _exporter) = tracer(1.0);
        assert!(tracer.begin(b"", false).is_some());
        tracer.set_target(None);
        assert_eq!(tracer.begin(PARENT, true), None);
    }

    #[test]
    fn the_share_decides_unless_the_client_may() {
        for (sample, is_trusted, is_sampled) in [
            (0.0, false, false),
            (1.0, false, true),
            (0.0, true, true),
            (1.0, true, true),
        ] {
            let (tracer, _exporter) = tracer(sample);
            let trace = tracer.begin(PARENT, is_trusted).expect("a trace");
            assert_eq!(trace.is_sampled, is_sampled, "{sample} {is_trusted}");
            assert_eq!(trace.trace_id.0, 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736);
            assert_eq!(trace.parent, Some(0x00f0_67aa_0ba9_02b7));
        }
        let (tracer, _exporter) = tracer(0.25);
        let low: &[u8] = b"00-4bf92f3577b34da6a300000000000000-00f067aa0ba902b7-01";
        for (traceparent, is_trusted) in [(&b"nonsense"[..], true), (low, false)] {
            let begin = || tracer.begin(traceparent, is_trusted).expect("a trace");
            let sampled = (0..4000).filter(|_| begin().is_sampled).count();
            assert!((800..1200).contains(&sampled), "{sampled}");
        }
    }

    #[test]
    fn servers_learn_of_the_span_that_calls_them() {
        let trace = RequestTrace {
            trace_id: TraceId(1),
            parent: Some(2),
            server: 3,
            client: 4,
            is_sampled: true,
        };
        assert_eq!(trace.passed_on().parent, 4);
        let unsampled = RequestTrace {
            is_sampled: false,
            ..trace
        };
        assert_eq!(unsampled.passed_on().parent, 2);
        assert!(!unsampled.passed_on().is_sampled);
        let first = RequestTrace {
            parent: None,
            ..unsampled
        };
        assert_eq!(first.passed_on().parent, 3);
    }
}
