//! Events for the program: by callback and by stream.

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

/// Calls `callbacks` for each event until the stream ends.
pub(super) async fn call_back(mut events: EventStream, callbacks: Vec<Callback>) {
    while let Some(event) = events.next().await {
        for callback in &callbacks {
            callback(&event);
        }
    }
}
