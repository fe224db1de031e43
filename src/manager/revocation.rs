//! Revokes certificates on behalf of people, and replaces those that were revoked.

use std::collections::HashSet;
use std::sync::Arc;

use super::TlsManager;
use super::report::Report;
use crate::cert_store::{self, Use};
use crate::certificate::{Source, TlsCertificate};
use crate::config::model::Issuer as Configured;
use crate::issuer::{Issuer, RevocationReason};
use crate::printable::Printable as _;
use crate::renewal::{ActionError, RevocationJob};

impl TlsManager {
    /// What revoking the certificate with this fingerprint takes.
    ///
    /// # Errors
    /// Where there is none, or nobody here can have it revoked.
    pub fn plan_revocation(
        &mut self,
        fingerprint: &str,
        reason: RevocationReason,
    ) -> Result<RevocationJob, ActionError> {
        let is_meant = |one: &&Arc<TlsCertificate>| one.fingerprint().to_string() == fingerprint;
        let certificate = self.certificates().find(is_meant).cloned();
        let certificate = certificate.ok_or(ActionError::Unknown)?;
        let domain = certificate.names().first().map(ToString::to_string);
        let domain = domain.unwrap_or_default();
        let issuer = match certificate.source() {
            Source::Issuer(issuer) => Arc::clone(issuer),
            Source::Directory(path) | Source::File(path) => {
                return Err(ActionError::Refused(format!(
                    "the certificate for {domain} comes from {}: have it revoked at its CA by \
                     whoever obtained it; then replace the file, which is loaded at once",
                    path.to_path().printable()
                )));
            }
            Source::Program => return Err(ActionError::Unknown),
        };
        let config = self.config.clone().ok_or(ActionError::Unknown)?;
        let gone = |what: &str| {
            ActionError::Refused(format!(
                "the certificate for {domain} is from {what}, which is no longer configured: add \
                 it back to revoke the certificate there"
            ))
        };
        let ca = match config.issuers.get(&issuer) {
            Some(remote @ (Configured::Acme(_) | Configured::Own)) => {
                Some(self.renewals.open_issuer(&issuer, remote))
            }
            Some(Configured::LocalCa { .. }) => None,
            None => return Err(gone(&format!("the issuer {issuer}"))),
        };
        if let Some(ca) = &ca
            && self.is_of_another(&**ca, fingerprint)
        {
            return Err(gone(&format!("another CA that was named {issuer}")));
        }
        Ok(RevocationJob {
            is_replaced: self.renewals.manages(fingerprint) || ca.is_none(),
            certificate,
            domain,
            reason,
            issuer,
            ca,
        })
    }

    /// Whether the storage has this certificate from another CA than the one that goes by its
    /// issuer's name now.
    fn is_of_another(&self, ca: &dyn Issuer, fingerprint: &str) -> bool {
        let deps = self.deps();
        let is_of_another = cert_store::is_of_another(&*deps.storage, ca.ca(), fingerprint);
        is_of_another.unwrap_or_else(|error| {
            deps.health.record_failure(Use::Reading, &error);
            false
        })
    }

    /// Sees that another certificate takes the place of one that was revoked, and tells of it.
    /// Whether a CA is asked for it.
    ///
    /// # Errors
    /// Where the local CA cannot make another; the present one stays.
    pub fn replace_revoked(&mut self, revoked: &RevocationJob) -> Result<bool, ActionError> {
        let now = self.clock.now();
        let fingerprint = revoked.certificate.fingerprint();
        let is_asked = self.renewals.replace_revoked(fingerprint, now);
        if let Some(config) = self.config.clone() {
            match self.local_certs.replace(fingerprint, &config.issuers) {
                Some(Ok((spec, change))) => {
                    let mut report = Report::default();
                    self.apply_change(change, spec.precedence, &mut report);
                    self.publish(&config, now, &mut report);
                }
                Some(Err(why)) => return Err(ActionError::Failed(revoked.failed_to_store(&why))),
                None => {}
            }
        }
        revoked.emit_event(self.deps());
        Ok(is_asked)
    }

    /// Has others obtained in the place of those of `revoked`, by fingerprints.
    pub fn mark_revoked(&mut self, revoked: &HashSet<String>) {
        let now = self.clock.now();
        self.renewals.mark_revoked(revoked, now);
    }

    /// The issuer of this name, where it has accounts.
    ///
    /// # Errors
    /// Where there is none, or it has none.
    pub fn acme_issuer(&mut self, name: &str) -> Result<Arc<dyn Issuer>, ActionError> {
        let config = self.config.clone().ok_or(ActionError::Unknown)?;
        match config.issuers.get_key_value(name) {
            Some((name, remote @ (Configured::Acme(_) | Configured::Own))) => {
                Ok(self.renewals.open_issuer(name, remote))
            }
            Some((_, Configured::LocalCa { .. })) => Err(ActionError::Refused(format!(
                "{name} is a local CA, which has no accounts"
            ))),
            None => Err(ActionError::Unknown),
        }
    }
}
