//! Whether the storage can be used, told once when that changes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::clock::Clock;
use crate::event::{Event, EventBus, EventKind, Severity};
use crate::storage::StorageError;

/// What is known of the storage.
pub(super) struct Health {
    events: EventBus,
    clock: Arc<dyn Clock>,
    failing: AtomicBool,
}

impl Health {
    pub(super) fn new(events: EventBus, clock: Arc<dyn Clock>) -> Self {
        Self {
            events,
            clock,
            failing: AtomicBool::new(false),
        }
    }

    /// Notes that something failed, and tells where it is the first time.
    pub(super) fn failed(&self, error: &StorageError) {
        if self.failing.swap(true, Ordering::Relaxed) {
            tracing::debug!(%error, "the storage fails still");
            return;
        }
        let message = format!(
            "the storage fails: {error}; certificates are served from memory, and stored once it \
             works again"
        );
        self.tell(EventKind::StorageFailed, Severity::Critical, message);
    }

    /// Notes that something was written, and tells where that is new.
    pub(super) fn works(&self) {
        if self.failing.swap(false, Ordering::Relaxed) {
            let message = "the storage works again".to_owned();
            self.tell(EventKind::StorageRecovered, Severity::Info, message);
        }
    }

    fn tell(&self, kind: EventKind, severity: Severity, message: String) {
        let event = Event::new(self.clock.now(), kind, severity, "", message);
        self.events.emit(event);
    }
}
