//! Keeps the names up to date with the configuration and with their use.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use super::super::name_table::NameTable;
use super::super::record::{UseRecord, subject};
use super::super::removal::{Removal, RemovalOutcome, RemovalReason, Removed};
use super::{OnDemandCerts, on_demand_spec};
use crate::certificate::Change;
use crate::certificate::sni::Candidates;
use crate::clock::UnixTime;
use crate::host::{HostName, Pattern};
use crate::renewal::{CertEvents, NameStatus, Renewals};

/// How many names are removed at a time.
const REMOVED_AT_ONCE: usize = 1_000;

/// How long a name without a certificate is retried after the last request for it.
const TRIED_FOR: Duration = Duration::from_secs(86_400);

impl OnDemandCerts {
    /// Has all names checked against the configuration with the next map.
    pub(crate) fn recheck_all(&mut self) {
        self.names.recheck_all();
    }

    /// Has the names checked that `patterns` cover: a certificate of the configuration is new.
    pub(crate) fn recheck_covered(&mut self, patterns: &[Pattern]) {
        self.names.recheck_covered(patterns);
    }

    /// Checks the names that a change may concern: releases those that may no longer have a
    /// certificate, leaves those to the configuration that it has certificates for, and has other
    /// issuers asked for the rest where the configuration says so.
    pub(crate) fn recheck_names(
        &mut self,
        renewals: &mut Renewals,
        candidates: &Candidates,
        now: UnixTime,
    ) -> Vec<Change> {
        let mut changes = Vec::new();
        for name in self.names.take_rechecked() {
            let pattern = Pattern::Exact(name.clone());
            if !self.may_have(&name) {
                // What is stored stays until it has been unused for long: a mistake in the
                // configuration is to cost no orders.
                changes.extend(self.release_name(&name, renewals));
            } else if candidates.covers_without_demand(&pattern, now) {
                changes.extend(self.release_name(&name, renewals));
                self.removals.push(name, RemovalReason::TakenOver);
            } else {
                self.change_issuers(&name, renewals, now);
            }
        }
        changes
    }

    fn change_issuers(&mut self, name: &HostName, renewals: &mut Renewals, now: UnixTime) {
        let present = self.names.spec(name);
        if present.is_some_and(|spec| spec.issuers != self.issuers()) {
            let spec = on_demand_spec(name, self.issuers());
            if let Some(before) = self.names.replace_spec(name, Arc::clone(&spec)) {
                renewals.change_issuers(&before, &spec, now);
            }
        }
    }

    /// Forgets a name. What is stored of it stays.
    fn release_name(&mut self, name: &HostName, renewals: &mut Renewals) -> Option<Change> {
        let known = self.names.remove(name)?;
        renewals.release_spec(&known.spec)
    }

    /// Records that clients were presented the certificates of these names.
    pub(crate) fn record_uses(&mut self, names: &[HostName]) {
        if let Some(retention) = self.retention() {
            let now = self.clock.now();
            self.names
                .record_uses(names, retention.written_every(), now);
        }
    }

    /// The uses to be written to the storage, some at a time; those written go to
    /// [`Self::mark_uses_written`].
    pub(crate) fn unwritten_uses(&self) -> Vec<UseRecord> {
        self.names.unwritten_uses()
    }

    /// Marks these uses as written.
    pub(crate) fn mark_uses_written(&mut self, written: &[UseRecord]) {
        self.names.mark_written(written);
    }

    /// The names to be removed from the storage now, some at a time; none while the clock cannot be
    /// trusted, of a process that has been `up` so long. The results go to
    /// [`Self::finish_removals`].
    pub(crate) fn begin_removals(&mut self, up: Duration, renewals: &mut Renewals) -> Vec<Removal> {
        let Some(retention) = self.retention() else {
            self.removals.clear();
            return Vec::new();
        };
        let now = self.clock.now();
        let is_trusted = self.removals.is_clock_trusted(now, up);
        self.give_up_pending(renewals, now);
        if !is_trusted {
            return Vec::new();
        }
        let unless_used = retention.unless_used(now);
        let issuers = renewals.open_all_remote(&[]);
        let renewals = &*renewals;
        let configured = renewals.configured_subjects();
        let names = &self.names;
        let mut going = self.removals.take_due(REMOVED_AT_ONCE, |name, why| {
            is_to_remove(name, why, names, renewals, &configured, unless_used, now)
        });
        let room = REMOVED_AT_ONCE.saturating_sub(going.len());
        let unused = names.unused_since(unless_used).take(room);
        going.extend(unused.map(|name| (name.clone(), RemovalReason::Unused)));
        let removals = going.into_iter().map(|(name, why)| {
            let subject = subject(&name);
            Removal {
                keeps_certificate: configured.contains(&*subject),
                why,
                unless_used,
                issuers: issuers.clone(),
                name,
                subject,
            }
        });
        removals.collect()
    }

    /// Stops retrying names without a certificate that no client has asked for lately.
    fn give_up_pending(&mut self, renewals: &mut Renewals, now: UnixTime) {
        for name in self.names.pending_since(now - TRIED_FOR) {
            let status = |spec| renewals.name_status(spec, now);
            // A job that is running comes to its end.
            if self.names.spec(&name).map(status) != Some(NameStatus::Pending) {
                self.release_name(&name, renewals);
            }
        }
    }

    /// Applies the results of removals. Returns what is no longer served, or renewed.
    pub(crate) fn finish_removals(
        &mut self,
        removed: Vec<Removed>,
        renewals: &mut Renewals,
    ) -> Vec<Change> {
        let now = self.clock.now();
        let mut changes = Vec::new();
        for Removed { name, why, outcome } in removed {
            match outcome {
                RemovalOutcome::Used(at) => self.names.record_use(&name, at),
                RemovalOutcome::Renewed(certificate) => {
                    if let Some(spec) = self.names.spec(&name) {
                        changes.extend(renewals.install_renewed(spec, *certificate, now));
                    }
                }
                // It is found again.
                RemovalOutcome::Stays if why == RemovalReason::Unused => {}
                RemovalOutcome::Stays => self.removals.push(name, why),
                RemovalOutcome::Dropped => {
                    changes.extend(self.drop_name(&name, why, renewals, now))
                }
            }
        }
        changes
    }

    fn drop_name(
        &mut self,
        name: &HostName,
        why: RemovalReason,
        renewals: &mut Renewals,
        now: UnixTime,
    ) -> Option<Change> {
        let spec = self.names.spec(name)?;
        let is_unwanted = why == RemovalReason::Unwanted;
        if is_unwanted && !renewals.is_over(spec, now) {
            // A client has asked for it meanwhile.
            self.names.mark_unwritten(name);
            return None;
        }
        if renewals.has_certificate(spec) {
            let what = if is_unwanted {
                "has expired and is removed because it is no longer allowed".to_owned()
            } else {
                let used = self.names.last_use(name).unwrap_or_default();
                format!("is removed: unused since {}", used)
            };
            CertEvents::new(renewals.deps(), spec, now).emit_dropped(&what, None);
        }
        self.release_name(name, renewals)
    }
}

/// Whether a name that was queued for removal is still to be removed.
fn is_to_remove(
    name: &HostName,
    why: RemovalReason,
    names: &NameTable,
    renewals: &Renewals,
    configured: &HashSet<&str>,
    unless_used: UnixTime,
    now: UnixTime,
) -> bool {
    match why {
        RemovalReason::Unused => names.last_use(name).is_none_or(|used| used < unless_used),
        RemovalReason::Unwanted => {
            let spec = names.spec(name);
            spec.is_some_and(|spec| renewals.is_over(spec, now))
        }
        // Where another certificate covers it, its own stays until it is unused: nothing else would
        // ever delete that and its key.
        RemovalReason::TakenOver => !names.contains(name) && configured.contains(&*subject(name)),
    }
}
