//! Events for the program: by callback and by stream.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::stream::{BoxStream, Stream, StreamExt as _, unfold};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use crate::event::Event;
use crate::shutdown::{ShutdownWatch, requested};

/// What a program wants to be called for.
pub(super) type Callback = Box<dyn Fn(&Event) + Send>;

/// Everything that happens to certificates from now on, see [`EngineHandle::events`]. Ends once the
/// engine has stopped. A program that falls more than 1024 events behind loses the oldest.
///
/// [`EngineHandle::events`]: super::EngineHandle::events
pub struct EventStream(BoxStream<'static, Arc<Event>>);

impl EventStream {
    /// The events of `receiver`, until `stopped` says so.
    pub(super) fn new(receiver: broadcast::Receiver<Arc<Event>>, stopped: ShutdownWatch) -> Self {
        let next = |(mut receiver, mut stopped): (broadcast::Receiver<_>, ShutdownWatch)| async {
            let event = loop {
                tokio::select! {
                    // What happens at a stop is an event too.
                    biased;
                    received = receiver.recv() => match received {
                        Ok(event) => break event,
                        Err(RecvError::Lagged(lost)) => {
                            tracing::warn!(lost, "a reader of events is too slow and lost some");
                        }
                        Err(RecvError::Closed) => return None,
                    },
                    () = requested(&mut stopped) => return None,
                }
            };
            Some((event, (receiver, stopped)))
        };
        Self(unfold((receiver, stopped), next).boxed())
    }

    /// The next event; `None` once the engine has stopped.
    pub async fn next(&mut self) -> Option<Arc<Event>> {
        self.0.next().await
    }
}

impl Stream for EventStream {
    type Item = Arc<Event>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Arc<Event>>> {
        self.0.poll_next_unpin(cx)
    }
}

/// Calls `callbacks` for each event until the stream ends. They may block, so they get no thread of
/// the runtime's workers.
pub(super) async fn call_back(mut events: EventStream, mut callbacks: Vec<Callback>) {
    while let Some(event) = events.next().await {
        let calling = tokio::task::spawn_blocking(move || {
            call_all(&callbacks, &event);
            callbacks
        });
        let Ok(called) = calling.await else {
            // The runtime shuts down.
            return;
        };
        callbacks = called;
    }
}

/// Calls all of `callbacks`. A panic ends only the one call.
fn call_all(callbacks: &[Callback], event: &Event) {
    for callback in callbacks {
        if catch_unwind(AssertUnwindSafe(|| callback(event))).is_err() {
            tracing::error!(kind = event.kind.as_str(), "a callback for events panicked");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::event::{EventBus, EventKind, Severity};

    #[tokio::test]
    async fn a_panic_in_a_callback_ends_only_that_call() {
        let (bus, stopped) = (EventBus::default(), tokio::sync::watch::Sender::new(false));
        let events = EventStream::new(bus.subscribe(), stopped.subscribe());
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&calls);
        let callbacks: Vec<Callback> = vec![
            Box::new(|_| panic!("a bug of the program's")),
            Box::new(move |_| {
                counted.fetch_add(1, Ordering::Relaxed);
            }),
        ];
        for _ in 0..2 {
            let kind = EventKind::CertificateObtained;
            bus.emit(Event::new(
                crate::clock::UnixTime::from_secs(0),
                kind,
                Severity::Info,
                "a.test",
                "obtained",
            ));
        }
        stopped.send_replace(true);
        call_back(events, callbacks).await;
        assert_eq!(calls.load(Ordering::Relaxed), 2);
    }
}
