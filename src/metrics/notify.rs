//! Notifications, by the names of their entries.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use prometheus::{IntCounterVec, IntGauge, IntGaugeVec};

use super::catalog::Catalog;
use crate::lock::MutexExt as _;

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
    /// How many recipients share the series of an entry.
    holders: Arc<Mutex<HashMap<Arc<str>, usize>>>,
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
            holders: Arc::default(),
        })
    }

    /// Shows an entry from now on: an increase is seen only by whoever has seen the count before.
    pub fn begin(&self, hook: &Arc<str>) -> HookMetrics {
        let mut holders = self.holders.lock_unpoisoned();
        *holders.entry(Arc::clone(hook)).or_default() += 1;
        self.dropped.with_label_values(&[hook]);
        for result in RESULTS {
            self.attempts.with_label_values(&[hook, result]);
        }
        HookMetrics {
            all: self.clone(),
            hook: Arc::clone(hook),
            waiting: self.waiting.with_label_values(&[hook]),
            depth: 0,
        }
    }
}

/// What becomes of the notifications for one recipient. Those of one entry, such as the addresses of
/// mail, share its series, which ends with the last of them.
#[derive(Debug)]
pub struct HookMetrics {
    all: NotifyMetrics,
    hook: Arc<str>,
    waiting: IntGauge,
    /// How much of the gauge is this recipient's.
    depth: i64,
}

impl HookMetrics {
    /// Counts an attempt to deliver a notification.
    pub fn count_attempt(&self, result: &str) {
        let attempts = &self.all.attempts;
        attempts.with_label_values(&[&self.hook, result]).inc();
    }

    /// Counts events that were lost.
    pub fn count_dropped(&self, dropped: u64) {
        let counter = self.all.dropped.with_label_values(&[&*self.hook]);
        counter.inc_by(dropped);
    }

    /// Says how many events wait.
    pub fn set_waiting(&mut self, waiting: usize) {
        let depth = i64::try_from(waiting).unwrap_or(i64::MAX);
        self.waiting.add(depth - self.depth);
        self.depth = depth;
    }
}

impl Drop for HookMetrics {
    fn drop(&mut self) {
        self.waiting.sub(self.depth);
        let mut holders = self.all.holders.lock_unpoisoned();
        let Some(count) = holders.get_mut(&self.hook) else {
            return;
        };
        *count -= 1;
        if *count > 0 {
            return;
        }
        holders.remove(&self.hook);
        // It has none of those that it never had.
        let _ = self.all.waiting.remove_label_values(&[&*self.hook]);
        let _ = self.all.dropped.remove_label_values(&[&*self.hook]);
        for result in RESULTS {
            let _ = self.all.attempts.remove_label_values(&[&self.hook, result]);
        }
    }
}
