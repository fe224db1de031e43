//! Certificates that are revoked before their end, and keys that are never used again.
//!
//! A revocation is recorded in the storage: every instance that serves the certificate, this one
//! after a restart included, obtains another at once. The revoked one is served until then, since
//! most clients never learn of a revocation, and none can do without a certificate.

mod found;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub(crate) use self::found::FoundRevocation;
use super::Renewals;
use super::deps::Deps;
use crate::cert_store::{self, Use};
use crate::certificate::material::MaterialError;
use crate::certificate::{Fingerprint, Reason, Source, TlsCertificate};
use crate::clock::UnixTime;
use crate::config::model::Config;
use crate::event::{Event, EventKind, Severity};
use crate::issuer::{Issuer, Revocation, RevocationReason};
use crate::printable::Printable as _;
use crate::schedule::{Failure, FailureClass};
use crate::storage::{Key, Storage, StorageError, blocking, damaged, keys};

/// How often revocations by other instances are checked.
const CHECK_EVERY: Duration = Duration::from_secs(30);

/// The longest life of a certificate of a public CA (398 days).
const LONGEST_LIFE: Duration = Duration::from_secs(398 * 86_400);

/// Why a person's action was not carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ActionError {
    /// There is nothing by this name.
    Unknown,
    /// The gateway cannot do it, and what to do instead.
    Refused(String),
    /// The CA or the storage failed.
    Failed(Failure),
}

/// A certificate to be revoked.
pub struct RevocationJob {
    certificate: Arc<TlsCertificate>,
    domain: String,
    reason: RevocationReason,
    issuer: Arc<str>,
    /// The CA to ask; `None` for the local CA, which keeps no list.
    ca: Option<Arc<dyn Issuer>>,
    is_replaced: bool,
}

/// What is stored about a revoked certificate.
#[derive(Serialize, Deserialize)]
struct RevocationRecord {
    name: String,
    issuer: String,
    reason: RevocationReason,
    at: UnixTime,
    not_after: UnixTime,
}

/// The fingerprints of certificates that any instance has had revoked, if a check is due; else
/// none. Blocks on the storage.
pub fn list_revoked(deps: &Deps) -> HashSet<String> {
    if !deps.last_check.is_due(CHECK_EVERY) {
        return HashSet::new();
    }
    let listed = read_revoked(&*deps.storage, deps.clock.now());
    match &listed {
        Ok(_) => deps.health.record_success(Use::Reading),
        Err(error) => deps.health.record_failure(Use::Reading, error),
    }
    listed.unwrap_or_default()
}

impl RevocationJob {
    /// What revoking `certificate` takes.
    ///
    /// # Errors
    /// Where no configured issuer can have it revoked.
    pub(crate) fn plan(
        certificate: Arc<TlsCertificate>,
        reason: RevocationReason,
        config: &Config,
        renewals: &mut Renewals,
    ) -> Result<Self, ActionError> {
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
        let gone = |what: &str| {
            ActionError::Refused(format!(
                "the certificate for {domain} is from {what}, which is no longer configured: add \
                 it back to revoke the certificate there"
            ))
        };
        if !config.issuers.contains_key(&issuer) {
            return Err(gone(&format!("the issuer {issuer}")));
        }
        let ca = renewals.open_issuer(&issuer);
        let fingerprint = certificate.fingerprint();
        if let Some(ca) = &ca
            && is_of_another(renewals.deps(), &**ca, fingerprint)
        {
            return Err(gone(&format!("another CA that was named {issuer}")));
        }
        let mut managed = renewals.certificates();
        let is_managed = managed.any(|one| one.fingerprint() == fingerprint);
        drop(managed);
        Ok(Self {
            is_replaced: is_managed || ca.is_none(),
            certificate,
            domain,
            reason,
            issuer,
            ca,
        })
    }

    /// The certificate to be revoked.
    pub(crate) fn fingerprint(&self) -> Fingerprint {
        self.certificate.fingerprint()
    }

    /// Has it revoked, and records that. The manager is to replace it afterwards.
    ///
    /// # Errors
    /// Why it is not revoked. A compromised key is set aside all the same.
    pub async fn run(&self, deps: &Deps) -> Result<(), Failure> {
        let is_compromised = self.reason == RevocationReason::KeyCompromise;
        if is_compromised {
            self.retire_key(deps).await;
        }
        if let Some(ca) = &self.ca {
            let broken = |error: MaterialError| {
                let message = format!("the certificate cannot be encoded: {error}");
                Failure::new(FailureClass::Internal, message)
            };
            let revocation = Revocation {
                domain: self.domain.clone(),
                certificate: self.certificate.leaf_der().map_err(broken)?,
                key: self.certificate.key_pem().map_err(broken)?,
                reason: self.reason,
            };
            if let Err(mut failure) = ca.revoke(&revocation).await {
                if is_compromised {
                    failure
                        .message
                        .push_str(". The key is set aside all the same and will not be used again");
                }
                return Err(failure);
            }
        }
        self.store_record(deps).await;
        Ok(())
    }

    /// The failure of the local CA to issue another.
    pub(crate) fn failed_to_store(&self, why: &str) -> Failure {
        let message = format!(
            "cannot issue another certificate for {} ({why}): the current one is still served; fix \
             this, then revoke it again",
            self.domain
        );
        Failure::new(FailureClass::Internal, message)
    }

    /// Stores the compromised key apart: it is never used again.
    async fn retire_key(&self, deps: &Deps) {
        let (Ok(pem), Ok(digest)) = (self.certificate.bundle_pem(), self.certificate.key_digest())
        else {
            tracing::error!(
                domain = self.domain,
                "the compromised key cannot be encoded"
            );
            return;
        };
        let stored = blocking(&deps.storage, move |storage| {
            storage.store(&keys::compromised(&digest)?, &pem)
        });
        match stored.await {
            Ok(()) => deps.health.record_success(Use::Writing),
            Err(error) => deps.health.record_failure(Use::Writing, &error),
        }
    }

    async fn store_record(&self, deps: &Deps) {
        let record = RevocationRecord {
            name: self.domain.clone(),
            issuer: self.issuer.to_string(),
            reason: self.reason,
            at: deps.clock.now(),
            not_after: self.certificate.not_after(),
        };
        let value = serde_json::to_vec_pretty(&record).unwrap_or_default();
        let fingerprint = self.certificate.fingerprint().to_string();
        let stored = blocking(&deps.storage, move |storage| {
            storage.store(&keys::revoked(&fingerprint)?, &value)
        });
        match stored.await {
            Ok(()) => deps.health.record_success(Use::Writing),
            Err(error) => deps.health.record_failure(Use::Writing, &error),
        }
    }

    pub(crate) fn emit_event(&self, deps: &Deps) {
        let (domain, issuer, reason) = (&self.domain, &self.issuer, self.reason);
        let end = self.certificate.not_after();
        let what = match &self.ca {
            Some(_) => format!("the certificate for {domain} was revoked at {issuer} ({reason})"),
            None => format!(
                "the certificate for {domain} was dropped ({reason}); {issuer} is a local CA \
                 without a revocation list: whoever has the key can use it until {end}"
            ),
        };
        let then = match (&self.ca, self.is_replaced) {
            (Some(_), true) => {
                "it is served until a replacement, which is being obtained, takes its place"
            }
            (Some(_), false) => "no replacement is obtained because nothing requires one",
            (None, _) => "a replacement is in service",
        };
        let severity = match (&self.ca, reason) {
            // A CA's list is read by some: they refuse it from now on.
            (Some(_), RevocationReason::KeyCompromise) => Severity::Critical,
            (Some(_), _) => Severity::Warning,
            (None, RevocationReason::KeyCompromise) => Severity::Error,
            (None, _) => Severity::Warning,
        };
        let message = match reason {
            RevocationReason::KeyCompromise => format!(
                "{what}; its key is set aside and never used again; {then}, with another key"
            ),
            _ => format!("{what}; {then}"),
        };
        let kind = EventKind::CertificateRevoked;
        let mut event = Event::new(deps.clock.now(), kind, severity, domain.clone(), message);
        event.issuer = Some(Arc::clone(issuer));
        event.reason = Some(Reason::Revoked.as_str().to_owned());
        event.not_after = Some(self.certificate.not_after());
        deps.events.emit(event);
    }
}

/// Whether the storage has this certificate from another CA than `ca`, which goes by the name of
/// its issuer now.
fn is_of_another(deps: &Deps, ca: &dyn Issuer, fingerprint: Fingerprint) -> bool {
    let fingerprint = fingerprint.to_string();
    let is_of_another = cert_store::is_of_another(&*deps.storage, ca.ca(), &fingerprint);
    is_of_another.unwrap_or_else(|error| {
        deps.health.record_failure(Use::Reading, &error);
        false
    })
}

/// The fingerprints of revoked certificates that have not expired. Expired ones are forgotten.
fn read_revoked(storage: &dyn Storage, now: UnixTime) -> Result<HashSet<String>, StorageError> {
    let mut revoked = HashSet::new();
    for key in storage.list(&keys::all_revoked()?)? {
        let name = key.as_str().rsplit('/').next().unwrap_or_default();
        let Some(fingerprint) = name.strip_suffix(".json") else {
            continue;
        };
        let fingerprint = fingerprint.to_owned();
        match damaged::read_json::<RevocationRecord>(storage, &key)? {
            Some(record) if record.not_after < now => storage.delete(&key)?,
            Some(_) => {
                revoked.insert(fingerprint);
            }
            None => revoked.extend(restore_record(storage, &key, now)?.then_some(fingerprint)),
        }
    }
    Ok(revoked)
}

/// Restores a damaged record of a revocation: its key says of which certificate it is. Whether
/// there was one: another process may have deleted it.
fn restore_record(storage: &dyn Storage, key: &Key, now: UnixTime) -> Result<bool, StorageError> {
    if !damaged::is_aside(storage, key)? {
        return Ok(false);
    }
    let record = RevocationRecord {
        name: String::new(),
        issuer: String::new(),
        reason: RevocationReason::Unspecified,
        at: now,
        not_after: now + LONGEST_LIFE,
    };
    let value = serde_json::to_vec_pretty(&record).unwrap_or_default();
    storage.store(key, &value)?;
    Ok(true)
}

/// Whether the key of `certificate` is known to be compromised.
pub(super) async fn is_compromised(
    deps: &Deps,
    certificate: &TlsCertificate,
) -> Result<bool, StorageError> {
    let Ok(digest) = certificate.key_digest() else {
        return Ok(false);
    };
    blocking(&deps.storage, move |storage| {
        storage.exists(&keys::compromised(&digest)?)
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::unix;
    use crate::storage::MemoryStorage;

    #[test]
    fn what_was_revoked_is_known_until_its_end() {
        let storage = MemoryStorage::default();
        let note = |fingerprint: &str, not_after| {
            let record = RevocationRecord {
                name: "a.test".to_owned(),
                issuer: "ca".to_owned(),
                reason: RevocationReason::Superseded,
                at: unix(0),
                not_after,
            };
            let value = serde_json::to_vec(&record).expect("JSON");
            let key = keys::revoked(fingerprint).expect("a key");
            storage.store(&key, &value).expect("stored");
        };
        note("aa", unix(1000));
        note("bb", unix(2000));
        storage
            .store(&keys::revoked("cc").expect("a key"), b"no JSON")
            .expect("stored");
        let listed = |now| {
            let mut listed: Vec<_> = read_revoked(&storage, now)
                .expect("listed")
                .into_iter()
                .collect();
            listed.sort();
            listed
        };
        // A damaged note counts: its key says of which certificate it is.
        assert_eq!(listed(unix(1000)), ["aa", "bb", "cc"]);
        assert_eq!(listed(unix(1001)), ["bb", "cc"]);
        assert!(
            !storage
                .exists(&keys::revoked("aa").expect("a key"))
                .expect("looked")
        );
        assert_eq!(
            listed(unix(500)),
            ["bb", "cc"],
            "what has ended is forgotten"
        );
        let aside = storage.load(&"revoked/cc.json.damaged-1".parse().expect("a key"));
        assert_eq!(**aside.expect("readable").expect("kept"), *b"no JSON");
        assert_eq!(listed(unix(1000) + LONGEST_LIFE + 1), ["bb"; 0]);
    }
}
