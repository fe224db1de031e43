//! Notifications, by the names of their recipients.

use prometheus::{IntCounterVec, IntGaugeVec};

use super::catalog::Catalog;

/// What an attempt to deliver a notification leads to.
const RESULTS: [&str; 3] = ["delivered", "failed", "given_up"];

/// What becomes of notifications.
#[derive(Clone, Debug)]
pub struct NotifyMetrics {
    /// Attempts to deliver a notification, by result: `delivered`, `failed` or `given_up`.
    attempts: IntCounterVec,
    /// Events that were lost for want of room.
    dropped: IntCounterVec,
    /// Events that wait to be delivered.
    waiting: IntGaugeVec,
}

impl NotifyMetrics {
    pub(super) fn new(catalog: &mut Catalog) -> Result<Self, prometheus::Error> {
        Ok(Self {
            attempts: catalog.counters(
                "snigate_notifications_total",
                "Attempts to deliver a notification, by recipient and result.",
                &["hook", "result"],
            )?,
            dropped: catalog.counters(
                "snigate_notification_events_dropped_total",
                "Events that a recipient did not get because too many waited for it.",
                &["hook"],
            )?,
            waiting: catalog.gauges(
                "snigate_notification_events_waiting",
                "Events that wait to be delivered to a recipient.",
                &["hook"],
            )?,
        })
    }

    /// Shows a recipient from now on: an increase is seen only by whoever has seen the count before.
    pub fn begin(&self, hook: &str) {
        self.waiting.with_label_values(&[hook]);
        self.dropped.with_label_values(&[hook]);
        for result in RESULTS {
            self.attempts.with_label_values(&[hook, result]);
        }
    }

    /// Counts an attempt to deliver a notification.
    pub fn count_attempt(&self, hook: &str, result: &str) {
        self.attempts.with_label_values(&[hook, result]).inc();
    }

    /// Counts events that were lost.
    pub fn count_dropped(&self, hook: &str, dropped: u64) {
        self.dropped.with_label_values(&[hook]).inc_by(dropped);
    }

    /// Says how many events wait.
    pub fn set_waiting(&self, hook: &str, waiting: usize) {
        let waiting = i64::try_from(waiting).unwrap_or(i64::MAX);
        self.waiting.with_label_values(&[hook]).set(waiting);
    }

    /// Forgets a recipient that is no longer configured.
    pub fn forget(&self, hook: &str) {
        // It has none of those that it never had.
        let _ = self.waiting.remove_label_values(&[hook]);
        let _ = self.dropped.remove_label_values(&[hook]);
        for result in RESULTS {
            let _ = self.attempts.remove_label_values(&[hook, result]);
        }
    }
}
