//! Certificates that are no longer configured, served until their replacements are issued.
//!
//! A change of the configuration may ask for another certificate than the present one: other names
//! on it, another issuer. The present one stays in service for the hosts that it covers until its
//! replacement is issued. After a restart the stored ones do the same.

use std::collections::HashSet;
use std::sync::Arc;

use super::desired;
use crate::cert_store;
use crate::certificate::sni::SniMap;
use crate::certificate::{Change, TlsCertificate, Validity};
use crate::clock::UnixTime;
use crate::config::model::Config;
use crate::host::Pattern;
use crate::renewal::{Deps, Renewals};

/// The superseded certificates.
#[derive(Default)]
pub(super) struct Superseded {
    certificates: Vec<Arc<TlsCertificate>>,
}

impl Superseded {
    pub(super) fn certificates(&self) -> &[Arc<TlsCertificate>] {
        &self.certificates
    }

    /// Keeps a certificate that is no longer configured, where a host needs it. Whether it is kept.
    pub(super) fn keep(
        &mut self,
        old: &Arc<TlsCertificate>,
        config: &Config,
        now: UnixTime,
    ) -> bool {
        let is_needed = old.validity(now) == Validity::Valid && concerns(old, &hosts(config));
        if is_needed {
            self.certificates.push(Arc::clone(old));
        }
        is_needed
    }

    /// Removes the certificates that are no longer needed: every other valid certificate has
    /// precedence, so one that `map` serves is.
    pub(super) fn remove_unneeded(
        &mut self,
        config: &Config,
        map: &SniMap,
        now: UnixTime,
    ) -> Vec<Change> {
        if self.certificates.is_empty() {
            return Vec::new();
        }
        let hosts = hosts(config);
        let is_served = |certificate: &Arc<TlsCertificate>, name: &Pattern| {
            let set = map.get(name);
            set.is_some_and(|set| set.by_kind.iter().any(|one| Arc::ptr_eq(one, certificate)))
        };
        let is_needed = |certificate: &mut Arc<TlsCertificate>| {
            let mut names = certificate.names().iter();
            certificate.validity(now) == Validity::Valid
                && concerns(certificate, &hosts)
                && names.any(|name| is_served(certificate, name))
        };
        let unneeded = self.certificates.extract_if(.., |one| !is_needed(one));
        let removed = unneeded.map(|old| Change {
            old: Some(old),
            new: None,
        });
        removed.collect()
    }

    /// Loads what the storage has for hosts without any certificate, whatever issuer it is from and
    /// whatever other names it has.
    pub(super) fn load_substitutes(&mut self, renewals: &Renewals, now: UnixTime) -> Vec<Change> {
        let uncovered = renewals.uncovered_names(now);
        let uncovered: HashSet<Pattern> = uncovered.into_keys().cloned().collect();
        if uncovered.is_empty() {
            return Vec::new();
        }
        let Deps {
            storage, loader, ..
        } = renewals.deps();
        let found = cert_store::search_certificates(&**storage, loader, &uncovered, now);
        let found = found.unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot search the storage for certificates");
            Vec::new()
        });
        let added = found.into_iter().map(|certificate| {
            let new = Arc::new(certificate);
            self.certificates.push(Arc::clone(&new));
            Change {
                old: None,
                new: Some(new),
            }
        });
        added.collect()
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
