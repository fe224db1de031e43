//! Certificates that are no longer configured, served until their replacements are issued.
//!
//! A change of the configuration may ask for another certificate than the present one: other names
//! on it, another issuer. The present one stays in service for the hosts that it covers until its
//! replacement is issued. After a restart the stored ones do the same.

use std::collections::HashSet;
use std::sync::Arc;

use super::report::Report;
use super::{TlsManager, desired};
use crate::cert_store;
use crate::certificate::Change;
use crate::certificate::sni::Precedence;
use crate::certificate::{TlsCertificate, Validity};
use crate::clock::UnixTime;
use crate::config::model::Config;
use crate::host::Pattern;

impl TlsManager {
    /// Takes away a certificate that nobody asks for any more, at once or once it is dispensable.
    pub(super) fn supersede(
        &mut self,
        change: Change,
        config: &Config,
        now: UnixTime,
        report: &mut Report,
    ) {
        let Some(old) = &change.old else {
            return;
        };
        if old.validity(now) == Validity::Valid && concerns(old, &hosts(config)) {
            self.candidates.remove(old);
            self.candidates.add(old, Precedence::Superseded);
            self.superseded.push(Arc::clone(old));
        } else {
            self.apply_change(change, Precedence::Superseded, report);
        }
    }

    /// Takes away what has become dispensable.
    pub(super) fn drop_superseded(&mut self, config: &Config, now: UnixTime, report: &mut Report) {
        if self.superseded.is_empty() {
            return;
        }
        let hosts = hosts(config);
        let map = self.map.clone();
        // Every other certificate that is valid goes before it: where it is served, it is needed.
        let is_served = |certificate: &Arc<TlsCertificate>, name: &Pattern| {
            let set = map.get(name);
            set.is_some_and(|set| set.by_kind.iter().any(|one| Arc::ptr_eq(one, certificate)))
        };
        let (kept, gone) = std::mem::take(&mut self.superseded)
            .into_iter()
            .partition::<Vec<_>, _>(|certificate| {
                let mut names = certificate.names().iter();
                certificate.validity(now) == Validity::Valid
                    && concerns(certificate, &hosts)
                    && names.any(|name| is_served(certificate, name))
            });
        self.superseded = kept;
        for old in gone {
            let change = Change {
                old: Some(old),
                new: None,
            };
            self.apply_change(change, Precedence::Superseded, report);
        }
    }

    /// Serves what the storage has for hosts without any certificate, whoever issued it and for
    /// whatever other names it is too.
    pub(super) fn serve_stored_substitutes(&mut self, now: UnixTime, report: &mut Report) {
        let lacking: HashSet<Pattern> = {
            let lacking = self.renewals.uncovered_names(now);
            lacking.into_keys().cloned().collect()
        };
        if lacking.is_empty() {
            return;
        }
        let deps = self.renewals.deps();
        let found = cert_store::search_certificates(&*deps.storage, &deps.loader, &lacking, now);
        for certificate in found.unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot search the storage for certificates");
            Vec::new()
        }) {
            let new = Arc::new(certificate);
            self.superseded.push(Arc::clone(&new));
            let change = Change {
                old: None,
                new: Some(new),
            };
            self.apply_change(change, Precedence::Superseded, report);
        }
    }
}

fn hosts(config: &Config) -> HashSet<&Pattern> {
    desired::tls_hosts(config).map(|(_, host)| host).collect()
}

/// Whether `certificate` covers one of `hosts`.
fn concerns(certificate: &TlsCertificate, hosts: &HashSet<&Pattern>) -> bool {
    certificate.names().iter().any(|name| match name {
        Pattern::Wildcard(_) => hosts.iter().any(|host| match host {
            Pattern::Exact(host) => name.covers(host.as_str()),
            other => *other == name,
        }),
        exact => hosts.contains(exact),
    })
}
