//! Rechecks names after the configuration, or anything else that decides on them, has changed.

use std::sync::Arc;

use super::super::TlsManager;
use super::super::report::Report;
use super::{expiry, from_cas, on_demand_spec};
use crate::clock::UnixTime;
use crate::config::model::Config;
use crate::host::{HostName, Pattern};

impl TlsManager {
    /// Has all names gone through with what is next published.
    pub fn recheck_on_demand(&mut self) {
        self.names.recheck_all();
    }

    /// Goes through all names where what may have certificates is another, else through those that
    /// the configuration has come to have certificates for: lets go of those that
    /// may have none any more, leaves those to the configuration that it has certificates for, and
    /// has others asked for the rest where others are to be asked.
    pub(in crate::manager) fn reconfigure_on_demand(
        &mut self,
        config: &Config,
        now: UnixTime,
        report: &mut Report,
    ) {
        let doubted = std::mem::take(&mut self.names.doubted);
        let names: Vec<_> = match std::mem::take(&mut self.names.is_stale) {
            true => self.names.known.keys().cloned().collect(),
            false => doubted.into_iter().collect(),
        };
        if names.is_empty() {
            return;
        }
        let issuers = from_cas(config).map_or(&[][..], |on_demand| &on_demand.issuers);
        for name in names {
            let pattern = Pattern::Exact(name.clone());
            if !self.may_have(&name) {
                // What is stored stays until it has been of no use for long: a mistake in the
                // configuration is to cost no orders.
                self.release_name(&name, report);
            } else if self.candidates.covers_without_demand(&pattern, now) {
                self.release_name(&name, report);
                self.names
                    .queue_removal(name, expiry::RemovalReason::TakenOver);
            } else {
                self.change_issuers(&name, issuers, now);
            }
        }
    }

    fn change_issuers(&mut self, name: &HostName, issuers: &[Arc<str>], now: UnixTime) {
        let Some(known) = self.names.known.get_mut(name) else {
            return;
        };
        if known.spec.issuers != issuers {
            let before = std::mem::replace(&mut known.spec, on_demand_spec(name, issuers));
            self.renewals.change_issuers(&before, &known.spec, now);
        }
    }

    /// Forgets a name. What is stored of it stays.
    pub(super) fn release_name(&mut self, name: &HostName, report: &mut Report) {
        if let Some(known) = self.names.remove(name)
            && let Some(change) = self.renewals.release_spec(&known.spec)
        {
            self.apply_change(change, known.spec.precedence, report);
        }
    }
}
