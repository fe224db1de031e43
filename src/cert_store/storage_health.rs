//! Whether the storage works, reported once when that changes.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU8, Ordering};
use std::time::Duration;

use crate::clock::{Clock, UnixTime};
use crate::event::{Event, EventBus, EventKind, Severity, Survey};
use crate::storage::StorageError;

/// After how long a storage that could not be read is read again.
pub(crate) const READ_AGAIN: Duration = Duration::from_secs(5);

/// Whether the storage works, as far as is known.
pub(crate) struct StorageHealth {
    events: EventBus,
    clock: Arc<dyn Clock>,
    /// A bit for each use that failed last.
    failing: AtomicU8,
    /// When reading last failed.
    unread: AtomicI64,
}

/// What the storage is used for: one may work where the other does not.
#[derive(Clone, Copy)]
pub(crate) enum Use {
    Reading = 1,
    Writing = 2,
}

impl StorageHealth {
    pub(crate) fn new(events: EventBus, clock: Arc<dyn Clock>) -> Self {
        Self {
            events,
            clock,
            failing: AtomicU8::new(0),
            unread: AtomicI64::new(UnixTime::MIN.as_secs()),
        }
    }

    /// Records a failure, and emits an event at the first one.
    pub(crate) fn record_failure(&self, of: Use, error: &StorageError) {
        if matches!(of, Use::Reading) {
            let now = self.clock.now();
            self.unread.store(now.as_secs(), Ordering::Relaxed);
        }
        if self.failing.fetch_or(of as u8, Ordering::Relaxed) & of as u8 != 0 {
            tracing::debug!(%error, "the storage is still failing");
            return;
        }
        let message = format!(
            "the storage is failing: {error}; certificates are served from memory and will be \
             stored once it works again; nothing it may already hold is ordered"
        );
        self.emit_event(EventKind::StorageFailed, Severity::Critical, message);
    }

    /// Records a success, and emits an event once everything works again. A value that can be read
    /// says little about one that could not be read just before.
    pub(crate) fn record_success(&self, of: Use) {
        let unread = UnixTime::from_secs(self.unread.load(Ordering::Relaxed));
        let is_recent = (unread..unread + READ_AGAIN).contains(&self.clock.now());
        if matches!(of, Use::Reading) && is_recent {
            return;
        }
        let before = self.failing.fetch_and(!(of as u8), Ordering::Relaxed);
        if before == of as u8 {
            let message = "the storage works again".to_owned();
            self.emit_event(EventKind::StorageRecovered, Severity::Info, message);
        }
        if matches!(of, Use::Writing) {
            self.events.complete(Survey::Storage);
        }
    }

    fn emit_event(&self, kind: EventKind, severity: Severity, message: String) {
        let event = Event::new(self.clock.now(), kind, severity, "", message);
        self.events.emit(event);
    }
}
