//! What is due now, and how a start stands.

use std::collections::HashSet;
use std::sync::Arc;

use super::Engine;
use crate::clock::UnixTime;
use crate::host::Pattern;
use crate::issuer::Issuer;
use crate::manager::{AriQuery, Job, StartupStatus};

/// After how many seconds what could not be stored is tried again.
const SAVE_AGAIN: i64 = 5;

/// What is to be done about certificates now.
pub(super) struct DueWork {
    pub(super) jobs: Vec<Job>,
    pub(super) ari_queries: Vec<AriQuery>,
    /// The issuers of which the storage may have limits that are not known.
    pub(super) limits_to_check: Vec<Arc<dyn Issuer>>,
    /// When there will be more, where that is known: a query that finds no room waits for the end
    /// of another.
    pub(super) next: Option<UnixTime>,
}

impl DueWork {
    /// Takes what is due from the manager, with as many queries as there is `room` for. First stores
    /// what waits for the storage. Blocks on it.
    pub(super) fn collect(engine: &Engine, room: usize) -> Self {
        let waiting = engine.deps.flush_pending_writes();
        let revoked = engine.deps.list_revoked();
        let mut manager = engine.lock();
        let now = engine.clock.now();
        if manager.next_pass().is_some_and(|next| next <= now) {
            manager.run_pass();
        }
        manager.mark_revoked(&revoked);
        let jobs = manager.due_jobs();
        let ari_queries = manager.ari_queries(room);
        let next_ari_query = manager.next_ari_query();
        let has_room = ari_queries.len() < room;
        let next = [
            manager.next_due(),
            next_ari_query.filter(|_| has_room),
            manager.next_pass(),
            (waiting > 0).then(|| now.saturating_add(SAVE_AGAIN)),
        ];
        Self {
            jobs,
            ari_queries,
            limits_to_check: manager.limits_to_check(),
            next: next.into_iter().flatten().min(),
        }
    }
}

/// Whether all hosts have certificates, and how many have none.
pub(super) fn startup_status(engine: &Engine) -> (StartupStatus, usize) {
    let manager = engine.lock();
    let missing = manager.missing();
    if manager.is_loading() {
        return (StartupStatus::Pending, missing.len());
    }
    if !missing.is_empty() {
        let views = manager.managed_views();
        let asked: HashSet<_> = views.iter().flat_map(|view| &view.names).collect();
        let is_asked = |host: &Pattern| {
            let wildcard = host.wildcard_over();
            asked.contains(host) || wildcard.is_some_and(|above| asked.contains(&above))
        };
        // No CA will ever issue a certificate for these.
        if let Some(lost) = missing.iter().find(|one| !is_asked(&one.host)) {
            return (StartupStatus::Failed(lost.to_string()), missing.len());
        }
    }
    (manager.startup_status(), missing.len())
}
