//! What jobs depend on.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use prometheus::{IntCounterVec, IntGauge};

use super::hook::CurrentHook;
use crate::cert_store::{self, StorageHealth, Use};
use crate::certificate::{Loader, TlsCertificate};
use crate::clock::Clock;
use crate::config::model::InMemory;
use crate::event::EventBus;
use crate::lock::MutexExt as _;
use crate::storage::{PendingWrites, Storage};

/// What jobs depend on.
#[derive(Clone)]
pub struct Deps {
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) loader: Arc<Loader>,
    pub(crate) events: EventBus,
    pub(crate) health: Arc<StorageHealth>,
    pub(crate) pending_writes: PendingWrites,
    pub(crate) last_check: LastCheck,
    /// Asked before CAs are.
    pub(crate) hook: CurrentHook,
    /// Whether stored certificates are held in memory too.
    pub(crate) in_memory: InMemory,
    /// Counts certificates that were asked for, by issuer and result.
    pub(crate) renewals: Option<IntCounterVec>,
    /// How many are asked for.
    pub(crate) running: Option<IntGauge>,
}

/// A certificate that an issuer is being asked for.
pub(crate) struct Running(Option<IntGauge>);

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(running) = &self.0 {
            running.dec();
        }
    }
}

impl Deps {
    /// Counts a certificate that an issuer is asked for, until what is returned is dropped.
    pub(crate) fn count_running(&self) -> Running {
        if let Some(running) = &self.running {
            running.inc();
        }
        Running(self.running.clone())
    }

    /// The bus for events.
    pub fn events(&self) -> &EventBus {
        &self.events
    }

    /// Holds a stored certificate of `subject` from the CA `ca` in memory, or leaves it in the
    /// storage, as configured.
    pub(crate) fn place_in_memory(
        &self,
        certificate: TlsCertificate,
        ca: &str,
        subject: &str,
    ) -> TlsCertificate {
        match self.in_memory {
            InMemory::All => certificate,
            InMemory::Cache => {
                cert_store::leave_in_storage(certificate, &self.storage, &self.loader, ca, subject)
            }
        }
    }

    /// Stores what could not be stored before. Returns how much still waits. Blocks on the storage,
    /// without the manager's lock.
    pub fn flush_pending_writes(&self) -> usize {
        match self.pending_writes.flush_to(&*self.storage) {
            Ok(true) => self.health.record_success(Use::Writing),
            Ok(false) => {}
            Err(error) => self.health.record_failure(Use::Writing, &error),
        }
        self.pending_writes.len()
    }

    /// Whether anything waits to be stored.
    pub fn has_waiting(&self) -> bool {
        !self.pending_writes.is_empty()
    }

    /// Whether a certificate of `subject` by the CA `ca` waits to be stored.
    pub(crate) fn is_waiting(&self, ca: &str, subject: &str) -> bool {
        self.pending_writes
            .has_write(&cert_store::pending_name(ca, subject))
    }
}

/// When revocations by other instances were last checked. A handle; clones share it.
#[derive(Clone, Default)]
pub(crate) struct LastCheck(Arc<Mutex<Option<Instant>>>);

impl LastCheck {
    /// Whether a check is due, `every` so often; if so, it counts as done.
    pub(super) fn is_due(&self, every: Duration) -> bool {
        let mut last = self.0.lock_unpoisoned();
        let is_due = last.is_none_or(|last| last.elapsed() >= every);
        if is_due {
            *last = Some(Instant::now());
        }
        is_due
    }
}
