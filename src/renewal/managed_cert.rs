//! What is known of one certificate that issuers are asked for.

use std::collections::HashMap;
use std::sync::Arc;

use super::job::CurrentIssuer;
use crate::certificate::sni::Precedence;
use crate::certificate::{Change, TlsCertificate, Validity};
use crate::clock::UnixTime;
use crate::issuer::spec::CertSpec;
use crate::schedule::{Facts, Lifetime, Retries};

/// Every certificate that issuers are asked for.
pub(super) type ManagedCerts = HashMap<Arc<CertSpec>, ManagedCert>;

/// The state of one of them.
#[derive(Default)]
pub(super) struct ManagedCert {
    /// Its segment of storage keys.
    pub(super) subject: String,
    installed: Option<Installed>,
    pub(super) stored: StoredCopy,
    /// Whether a person has asked for it: no back-off counts.
    pub(super) is_requested: bool,
    /// Whether it is not to be renewed, since its name is no longer allowed to have one. A request
    /// does not change that.
    pub(super) is_dropped: bool,
    /// Its failures, by the accounts that they happened with.
    pub(super) retries: Retries,
    /// The issuer that is being asked for it, if any.
    pub(super) current_issuer: CurrentIssuer,
}

/// The certificate that is served. What is known of it ends with it.
struct Installed {
    certificate: Arc<TlsCertificate>,
    /// When it was installed.
    since: UnixTime,
    /// Whether its CA is no longer configured.
    is_foreign: bool,
    is_revoked: bool,
}

/// Whether the storage has said what it holds.
#[derive(Default)]
pub(super) enum StoredCopy {
    /// It has not been read.
    #[default]
    Unread,
    /// It cannot be read, and why.
    Unreadable(Arc<str>),
    Read,
}

impl ManagedCert {
    /// A certificate that nothing is known of yet.
    pub(super) fn new(subject: String) -> Self {
        Self {
            subject,
            ..Self::default()
        }
    }

    /// The certificate that is served.
    pub(super) fn certificate(&self) -> Option<&Arc<TlsCertificate>> {
        self.installed.as_ref().map(|one| &one.certificate)
    }

    /// The same, where its CA is still configured.
    pub(super) fn own_certificate(&self) -> Option<&Arc<TlsCertificate>> {
        let own = self.installed.as_ref().filter(|one| !one.is_foreign);
        own.map(|one| &one.certificate)
    }

    /// Whether there is a certificate of a CA that is no longer configured.
    pub(super) fn is_foreign(&self) -> bool {
        self.installed.as_ref().is_some_and(|one| one.is_foreign)
    }

    /// Whether the certificate was revoked.
    pub(super) fn is_revoked(&self) -> bool {
        self.installed.as_ref().is_some_and(|one| one.is_revoked)
    }

    /// Whether there is no certificate, or none but one that had expired when it was installed.
    pub(super) fn is_missing(&self) -> bool {
        self.installed.as_ref().is_none_or(Installed::is_stale)
    }

    pub(super) fn lifetime(&self) -> Option<Lifetime> {
        self.certificate().map(|certificate| certificate.lifetime())
    }

    /// What a plan needs to know; `accounts` are those at its issuers.
    pub(super) fn facts(&self, accounts: Vec<String>) -> Facts {
        Facts {
            life: self.lifetime(),
            retry: self.retries.combined(accounts),
        }
    }

    /// Installs another certificate. All that was known of the one before is over.
    pub(super) fn install(&mut self, new: Arc<TlsCertificate>, now: UnixTime) -> Change {
        let installed = Installed {
            certificate: Arc::clone(&new),
            since: now,
            is_foreign: false,
            is_revoked: false,
        };
        self.is_dropped = false;
        Change {
            old: self.installed.replace(installed).map(|old| old.certificate),
            new: Some(new),
        }
    }

    /// Removes the certificate. Returns what changes.
    pub(super) fn uninstall(&mut self) -> Option<Change> {
        let installed = self.installed.take()?;
        Some(Change {
            old: Some(installed.certificate),
            new: None,
        })
    }

    /// Notes that the CA of the certificate is no longer configured.
    pub(super) fn mark_foreign(&mut self) {
        if let Some(installed) = &mut self.installed {
            installed.is_foreign = true;
        }
    }

    /// Notes that the certificate was revoked.
    pub(super) fn mark_revoked(&mut self) {
        if let Some(installed) = &mut self.installed {
            installed.is_revoked = true;
        }
    }

    /// Notes the failures that are known after an attempt. An attempt for a client has read what
    /// the storage has of it; all else is read again until it has been read whole.
    pub(super) fn note_failures(&mut self, spec: &CertSpec, retries: Retries) {
        self.retries = retries;
        if spec.precedence == Precedence::OnDemand {
            self.stored = StoredCopy::Read;
        }
    }
}

impl Installed {
    /// Whether it had expired when it was installed.
    fn is_stale(&self) -> bool {
        self.certificate.validity(self.since) == Validity::Expired
    }
}

impl StoredCopy {
    pub(super) fn is_read(&self) -> bool {
        matches!(self, Self::Read)
    }

    /// Why it cannot be read.
    pub(super) fn unreadable(&self) -> Option<&Arc<str>> {
        match self {
            Self::Unreadable(why) => Some(why),
            Self::Unread | Self::Read => None,
        }
    }

    /// Forgets why it could not be read: it is read again.
    pub(super) fn forget_failure(&mut self) {
        if let Self::Unreadable(_) = self {
            *self = Self::Unread;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificate::Loader;
    use crate::certificate::testing::{DAY, NOW, TestCa};

    #[test]
    fn what_is_known_of_a_certificate_ends_with_it() {
        let (ca, loader) = (TestCa::new("managed"), Loader::new().expect("a loader"));
        let certificate = |end| ca.certificate(&loader, &["a.example"], NOW - DAY, end);
        let mut entry = ManagedCert::new("a.example".to_owned());
        assert!(entry.is_missing() && entry.own_certificate().is_none());

        let change = entry.install(certificate(NOW + DAY), NOW);
        assert!(change.old.is_none() && !entry.is_missing());
        entry.mark_foreign();
        entry.mark_revoked();
        entry.is_dropped = true;
        assert!(entry.is_foreign() && entry.is_revoked());
        assert!(entry.certificate().is_some() && entry.own_certificate().is_none());

        let change = entry.install(certificate(NOW + 2 * DAY), NOW);
        assert!(change.old.is_some() && entry.own_certificate().is_some());
        assert!(!entry.is_foreign() && !entry.is_revoked() && !entry.is_dropped);

        entry.install(certificate(NOW - 1), NOW);
        assert!(entry.is_missing(), "it had expired when it was installed");
        assert!(entry.uninstall().is_some() && entry.uninstall().is_none());
    }

    #[test]
    fn a_request_of_a_person_outlasts_a_new_certificate() {
        let (ca, loader) = (TestCa::new("managed"), Loader::new().expect("a loader"));
        let mut entry = ManagedCert::new("a.example".to_owned());
        entry.is_requested = true;
        let certificate = ca.certificate(&loader, &["a.example"], NOW, NOW + DAY);
        entry.install(certificate, NOW);
        assert!(entry.is_requested);
    }
}
