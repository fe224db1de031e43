//! Certificates that are taken back before their end, and keys that are never used again.
//!
//! What was revoked is noted in the storage: whoever serves it, this instance after a restart or
//! another one, obtains another in its place at once. It is served until that is there, since most
//! clients never learn of a revocation, and none gets along without a certificate.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::TlsManager;
use super::health::Use;
use super::job::Tools;
use super::report::Report;
use super::stored;
use crate::certificate::material::MaterialError;
use crate::certificate::{Source, TlsCertificate};
use crate::clock::{UnixTime, rfc3339};
use crate::config::model::Issuer as Configured;
use crate::event::{Event, EventKind, Severity};
use crate::issuer::{Issuer, Revocation, RevocationReason};
use crate::printable::Printable as _;
use crate::schedule::{Failure, FailureClass};
use crate::storage::{Key, Storage, StorageError, blocking, damaged, keys};

/// How often it is looked for what others have had revoked.
const LOOK_EVERY: Duration = Duration::from_secs(30);

/// The longest life of a certificate of a public CA, in seconds (398 days).
const LONGEST_LIFE: i64 = 398 * 86_400;

/// Why a person's wish is not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CareError {
    /// There is nothing by this name.
    Unknown,
    /// It is not for the gateway to do, and what to do instead.
    Refused(String),
    /// The CA or the storage did not do it.
    Failed(Failure),
}

/// A certificate to be revoked.
pub struct Revoke {
    certificate: Arc<TlsCertificate>,
    domain: String,
    reason: RevocationReason,
    issuer: Arc<str>,
    /// Whom to ask; `None` for the local CA, which keeps no list.
    ca: Option<Arc<dyn Issuer>>,
    is_replaced: bool,
}

/// What is kept of a certificate that was revoked.
#[derive(Serialize, Deserialize)]
struct Facts {
    name: String,
    issuer: String,
    reason: RevocationReason,
    at: UnixTime,
    not_after: UnixTime,
}

/// When it was last looked for what others have had revoked. A handle; clones share it.
#[derive(Clone, Default)]
pub(super) struct Looks(Arc<Mutex<Option<Instant>>>);

impl TlsManager {
    /// What revoking the certificate with this fingerprint takes.
    ///
    /// # Errors
    /// Where there is none, or nobody here can have it revoked.
    pub fn revocation(
        &mut self,
        fingerprint: &str,
        reason: RevocationReason,
    ) -> Result<Revoke, CareError> {
        let is_meant = |one: &&Arc<TlsCertificate>| one.fingerprint().to_string() == fingerprint;
        let certificate = self.certificates().find(is_meant).cloned();
        let certificate = certificate.ok_or(CareError::Unknown)?;
        let domain = certificate.names().first().map(ToString::to_string);
        let domain = domain.unwrap_or_default();
        let issuer = match certificate.source() {
            Source::Issuer(issuer) => Arc::clone(issuer),
            Source::Directory(path) | Source::File(path) => {
                return Err(CareError::Refused(format!(
                    "the certificate for {domain} comes from {}: whoever obtained it has it \
                     revoked at its CA; then replace the file, and it is taken at once",
                    path.to_path().printable()
                )));
            }
            Source::Program => return Err(CareError::Unknown),
        };
        let config = self.config.clone().ok_or(CareError::Unknown)?;
        let gone = |what: &str| {
            CareError::Refused(format!(
                "the certificate for {domain} is of {what}, which is no longer configured: add it \
                 again to have it revoked there"
            ))
        };
        let ca = match config.issuers.get(&issuer) {
            Some(Configured::Acme(acme)) => Some(self.managed.issuer(&issuer, acme)),
            Some(Configured::LocalCa { .. }) => None,
            None => return Err(gone(&format!("the issuer {issuer}"))),
        };
        if let Some(ca) = &ca
            && self.is_of_another(&**ca, fingerprint)
        {
            return Err(gone(&format!("another CA that was called {issuer}")));
        }
        Ok(Revoke {
            is_replaced: self.managed.asks_for(fingerprint) || ca.is_none(),
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
        let tools = self.tools();
        let is_of_another = stored::is_of_another(&*tools.storage, ca.ca(), fingerprint);
        is_of_another.unwrap_or_else(|error| {
            tools.health.failed(Use::Reading, &error);
            false
        })
    }

    /// Sees that another certificate takes the place of one that was revoked, and tells of it.
    /// Whether a CA is asked for it.
    ///
    /// # Errors
    /// Where the local CA cannot make another; the present one stays.
    pub fn replace_revoked(&mut self, revoked: &Revoke) -> Result<bool, CareError> {
        let now = self.clock.now();
        let fingerprint = revoked.certificate.fingerprint();
        let is_asked = self.managed.revoked(fingerprint, now);
        if let Some(config) = self.config.clone() {
            match self.issued.replace(fingerprint, &config.issuers) {
                Some(Ok((need, change))) => {
                    let mut report = Report::default();
                    self.take(change, need.standing, &mut report);
                    self.publish(&config, now, &mut report);
                }
                Some(Err(why)) => return Err(CareError::Failed(revoked.kept(&why))),
                None => {}
            }
        }
        revoked.tell(self.tools());
        Ok(is_asked)
    }

    /// Has others obtained in the place of those of `revoked`, by fingerprints.
    pub fn heed_revoked(&mut self, revoked: &HashSet<String>) {
        let now = self.clock.now();
        self.managed.heed(revoked, now);
    }

    /// The issuer of this name, where it has accounts.
    ///
    /// # Errors
    /// Where there is none, or it has none.
    pub fn ca(&mut self, name: &str) -> Result<Arc<dyn Issuer>, CareError> {
        let config = self.config.clone().ok_or(CareError::Unknown)?;
        match config.issuers.get_key_value(name) {
            Some((name, Configured::Acme(acme))) => Ok(self.managed.issuer(name, acme)),
            Some((_, Configured::LocalCa { .. })) => Err(CareError::Refused(format!(
                "{name} is a local CA, which has no accounts"
            ))),
            None => Err(CareError::Unknown),
        }
    }
}

impl Tools {
    /// The fingerprints of what any instance has had revoked, where it is time to look. Blocks on
    /// the storage.
    pub fn revoked(&self) -> HashSet<String> {
        {
            let mut last = self.looks.0.lock().unwrap_or_else(PoisonError::into_inner);
            if last.is_some_and(|last| last.elapsed() < LOOK_EVERY) {
                return HashSet::new();
            }
            *last = Some(Instant::now());
        }
        let listed = list(&*self.storage, self.clock.now());
        match &listed {
            Ok(_) => self.health.works(Use::Reading),
            Err(error) => self.health.failed(Use::Reading, error),
        }
        listed.unwrap_or_default()
    }
}

impl Revoke {
    /// Has it revoked, and notes that. [`TlsManager::replace_revoked`] is to follow.
    ///
    /// # Errors
    /// Why it is not revoked. A key that is compromised is set aside all the same.
    pub async fn work(&self, tools: &Tools) -> Result<(), Failure> {
        let is_compromised = self.reason == RevocationReason::KeyCompromise;
        if is_compromised {
            self.set_aside(tools).await;
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
                    failure.message.push_str(
                        ". The key is set aside all the same, and no renewal uses it again",
                    );
                }
                return Err(failure);
            }
        }
        self.note(tools).await;
        Ok(())
    }

    /// The failure where the local CA makes no other.
    fn kept(&self, why: &str) -> Failure {
        let message = format!(
            "no other certificate can be made for {} ({why}): the present one goes on being \
             served; mend that and revoke it again",
            self.domain
        );
        Failure::new(FailureClass::Internal, message)
    }

    /// Keeps the compromised key apart, where it is known from then on.
    async fn set_aside(&self, tools: &Tools) {
        let (Ok(pem), Ok(digest)) = (self.certificate.bundle_pem(), self.certificate.key_digest())
        else {
            tracing::error!(
                domain = self.domain,
                "the compromised key cannot be encoded"
            );
            return;
        };
        let stored = blocking(&tools.storage, move |storage| {
            storage.store(&keys::compromised(&digest)?, &pem)
        });
        match stored.await {
            Ok(()) => tools.health.works(Use::Writing),
            Err(error) => tools.health.failed(Use::Writing, &error),
        }
    }

    async fn note(&self, tools: &Tools) {
        let facts = Facts {
            name: self.domain.clone(),
            issuer: self.issuer.to_string(),
            reason: self.reason,
            at: tools.clock.now(),
            not_after: self.certificate.not_after(),
        };
        let value = serde_json::to_vec_pretty(&facts).unwrap_or_default();
        let fingerprint = self.certificate.fingerprint().to_string();
        let stored = blocking(&tools.storage, move |storage| {
            storage.store(&keys::revoked(&fingerprint)?, &value)
        });
        match stored.await {
            Ok(()) => tools.health.works(Use::Writing),
            Err(error) => tools.health.failed(Use::Writing, &error),
        }
    }

    fn tell(&self, tools: &Tools) {
        let (domain, issuer, reason) = (&self.domain, &self.issuer, self.reason);
        let end = rfc3339(self.certificate.not_after());
        let what = match &self.ca {
            Some(_) => format!("the certificate for {domain} was revoked at {issuer} ({reason})"),
            None => format!(
                "the certificate for {domain} was given up ({reason}); {issuer} is a local CA, \
                 which keeps no list of revoked certificates: who has its key can use it until {end}"
            ),
        };
        let then = match (&self.ca, self.is_replaced) {
            (Some(_), true) => "it is served until another takes its place, which is obtained now",
            (Some(_), false) => "no other is obtained, since nothing asks for one",
            (None, _) => "another has taken its place",
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
        let mut event = Event::new(tools.clock.now(), kind, severity, domain.clone(), message);
        event.issuer = Some(Arc::clone(issuer));
        event.not_after = Some(self.certificate.not_after());
        tools.events.emit(event);
    }
}

/// The fingerprints of what was revoked and has not ended. What has ended is forgotten.
fn list(storage: &dyn Storage, now: UnixTime) -> Result<HashSet<String>, StorageError> {
    let mut revoked = HashSet::new();
    for key in storage.list(&keys::all_revoked()?)? {
        let name = key.as_str().rsplit('/').next().unwrap_or_default();
        let Some(fingerprint) = name.strip_suffix(".json") else {
            continue;
        };
        let fingerprint = fingerprint.to_owned();
        match damaged::read_json::<Facts>(storage, &key)? {
            Some(facts) if facts.not_after < now => storage.delete(&key)?,
            Some(_) => {
                revoked.insert(fingerprint);
            }
            None => revoked.extend(note_again(storage, &key, now)?.then_some(fingerprint)),
        }
    }
    Ok(revoked)
}

/// Notes once more that a certificate was revoked whose note was damaged: which one says the note's
/// key. Whether there was any: another process may have deleted it.
fn note_again(storage: &dyn Storage, key: &Key, now: UnixTime) -> Result<bool, StorageError> {
    if !damaged::is_aside(storage, key)? {
        return Ok(false);
    }
    let facts = Facts {
        name: String::new(),
        issuer: String::new(),
        reason: RevocationReason::Unspecified,
        at: now,
        not_after: now.saturating_add(LONGEST_LIFE),
    };
    let value = serde_json::to_vec_pretty(&facts).unwrap_or_default();
    storage.store(key, &value)?;
    Ok(true)
}

/// Whether the key of `certificate` is known to be compromised.
pub(super) async fn is_compromised(
    tools: &Tools,
    certificate: &TlsCertificate,
) -> Result<bool, StorageError> {
    let Ok(digest) = certificate.key_digest() else {
        return Ok(false);
    };
    blocking(&tools.storage, move |storage| {
        storage.exists(&keys::compromised(&digest)?)
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::MemoryStorage;

    #[test]
    fn what_was_revoked_is_known_until_its_end() {
        let storage = MemoryStorage::default();
        let note = |fingerprint: &str, not_after| {
            let facts = Facts {
                name: "a.test".to_owned(),
                issuer: "ca".to_owned(),
                reason: RevocationReason::Superseded,
                at: 0,
                not_after,
            };
            let value = serde_json::to_vec(&facts).expect("JSON");
            let key = keys::revoked(fingerprint).expect("a key");
            storage.store(&key, &value).expect("stored");
        };
        note("aa", 1000);
        note("bb", 2000);
        storage
            .store(&keys::revoked("cc").expect("a key"), b"no JSON")
            .expect("stored");
        let listed = |now| {
            let mut listed: Vec<_> = list(&storage, now).expect("listed").into_iter().collect();
            listed.sort();
            listed
        };
        // A damaged note counts: its key says of which certificate it is.
        assert_eq!(listed(1000), ["aa", "bb", "cc"]);
        assert_eq!(listed(1001), ["bb", "cc"]);
        assert!(
            !storage
                .exists(&keys::revoked("aa").expect("a key"))
                .expect("looked")
        );
        assert_eq!(listed(500), ["bb", "cc"], "what has ended is forgotten");
        let aside = storage.load(&"revoked/cc.json.damaged-1".parse().expect("a key"));
        assert_eq!(**aside.expect("readable").expect("kept"), *b"no JSON");
        assert_eq!(listed(1000 + LONGEST_LIFE + 1), ["bb"; 0]);
    }
}
