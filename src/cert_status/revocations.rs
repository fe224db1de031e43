//! Which certificates were found to be revoked, across restarts.
//!
//! A responder or the server of a list that is away makes no certificate good again. What was found is
//! stored until a later answer says otherwise, or the certificate has expired.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::FoundRevoked;
use crate::certificate::status::Revoked;
use crate::certificate::{Fingerprint, TlsCertificate};
use crate::clock::UnixTime;
use crate::config::model::Revocation;
use crate::issuer::RevocationReason;
use crate::storage::{Storage, StorageError, damaged, keys};

/// All certificates that were found to be revoked.
#[derive(Default)]
pub(crate) struct Revocations {
    known: HashMap<Fingerprint, Known>,
    /// Whether those in the storage are among them.
    is_loaded: bool,
}

struct Known {
    record: Record,
    /// Whether this process has reported it of a certificate that is still there.
    is_told: bool,
}

/// What is stored of a certificate that was found to be revoked.
#[derive(Serialize, Deserialize)]
struct Record {
    by_responder: Option<UnixTime>,
    by_list: Option<Box<str>>,
    reason: RevocationReason,
    at: UnixTime,
    not_after: UnixTime,
}

impl Record {
    /// What of it counts where these sources are asked.
    fn revoked(&self, asked: &Revocation) -> Revoked {
        let list = self.by_list.as_deref().filter(|_| asked.crl);
        Revoked {
            by_responder: self.by_responder.filter(|_| asked.ocsp),
            by_list: list.map(Arc::from),
        }
    }
}

/// What is to be stored of a certificate.
pub(crate) struct RecordWrite {
    fingerprint: Fingerprint,
    /// Nothing where it is no longer revoked.
    value: Option<Vec<u8>>,
}

impl RecordWrite {
    /// Stores it. Blocks on the storage.
    pub(crate) fn run(&self, storage: &dyn Storage) -> Result<(), StorageError> {
        let key = keys::found_revoked(&self.fingerprint.to_string())?;
        match &self.value {
            Some(value) => storage.store(&key, value),
            None => storage.delete(&key),
        }
    }
}

impl Revocations {
    /// Whether those in the storage are known.
    pub(crate) fn is_loaded(&self) -> bool {
        self.is_loaded
    }

    /// Takes those in the storage, and removes those of certificates that have expired. Blocks on the
    /// storage.
    pub(crate) fn load(storage: &dyn Storage, now: UnixTime) -> Result<Self, StorageError> {
        let mut known = HashMap::new();
        for key in storage.list(&keys::all_found_revoked()?)? {
            let name = key.as_str().rsplit('/').next().unwrap_or_default();
            let Some(fingerprint) = name.strip_suffix(".json").and_then(fingerprint) else {
                continue;
            };
            // What is damaged is found again.
            let Some(record) = damaged::read_json::<Record>(storage, &key)? else {
                continue;
            };
            if record.not_after < now {
                storage.delete(&key)?;
                continue;
            }
            let is_told = false;
            known.insert(fingerprint, Known { record, is_told });
        }
        Ok(Self {
            known,
            is_loaded: true,
        })
    }

    /// Adds what was `loaded`. What was found since then is newer.
    pub(crate) fn merge(&mut self, loaded: Self) {
        for (fingerprint, known) in loaded.known {
            self.known.entry(fingerprint).or_insert(known);
        }
        self.is_loaded = true;
    }

    /// Has these certificates, which are all there are, known to be revoked where they were found to be.
    /// Returns those that were not reported yet.
    pub(crate) fn apply(
        &mut self,
        certificates: &[Arc<TlsCertificate>],
        asked: &Revocation,
    ) -> Vec<FoundRevoked> {
        let (mut found, mut present) = (Vec::new(), HashSet::new());
        if self.known.is_empty() {
            return found;
        }
        for certificate in certificates {
            let fingerprint = certificate.fingerprint();
            let (Some(status), Some(known)) =
                (certificate.status(), self.known.get_mut(&fingerprint))
            else {
                continue;
            };
            present.insert(fingerprint);
            let revoked = known.record.revoked(asked);
            if revoked == Revoked::default() {
                continue;
            }
            if !status.known().is_revoked() {
                status.update(|known| known.revoked = revoked.clone());
            }
            if !known.is_told {
                known.is_told = true;
                found.push(FoundRevoked {
                    certificate: Arc::clone(certificate),
                    reason: known.record.reason,
                    said_by: match &revoked.by_list {
                        Some(url) if revoked.by_responder.is_none() => said_by_list(url),
                        _ => SAID_BY_RESPONDER.to_owned(),
                    },
                    is_restored: true,
                });
            }
        }
        for (fingerprint, known) in &mut self.known {
            known.is_told &= present.contains(fingerprint);
        }
        found
    }

    /// Takes note of who says now that `certificate` is revoked, and why if that was said. What is to be
    /// stored, if that has changed.
    pub(crate) fn update(
        &mut self,
        certificate: &TlsCertificate,
        revoked: &Revoked,
        reason: Option<RevocationReason>,
        now: UnixTime,
    ) -> Option<RecordWrite> {
        let fingerprint = certificate.fingerprint();
        if *revoked == Revoked::default() {
            self.known.remove(&fingerprint)?;
            let value = None;
            return Some(RecordWrite { fingerprint, value });
        }
        let before = self.known.get(&fingerprint).map(|known| &known.record);
        let record = Record {
            by_responder: revoked.by_responder,
            by_list: revoked.by_list.as_deref().map(Box::from),
            reason: reason
                .or_else(|| before.map(|one| one.reason))
                .unwrap_or_default(),
            at: before.map_or(now, |one| one.at),
            not_after: certificate.not_after(),
        };
        let is_same = before.is_some_and(|one| {
            (one.by_responder, &one.by_list, one.reason)
                == (record.by_responder, &record.by_list, record.reason)
        });
        let value = serde_json::to_vec_pretty(&record).ok();
        let is_told = true;
        self.known.insert(fingerprint, Known { record, is_told });
        let value = value.filter(|_| !is_same)?;
        let value = Some(value);
        Some(RecordWrite { fingerprint, value })
    }
}

/// Who says so, for people.
pub(crate) const SAID_BY_RESPONDER: &str = "its OCSP responder";

pub(super) fn said_by_list(url: &str) -> String {
    format!("the revocation list {url}")
}

/// A fingerprint by its hexadecimal digits.
fn fingerprint(digits: &str) -> Option<Fingerprint> {
    let mut octets = [0; 32];
    if digits.len() != 2 * octets.len() {
        return None;
    }
    for (at, octet) in octets.iter_mut().enumerate() {
        let pair = digits.get(2 * at..2 * at + 2)?;
        *octet = u8::from_str_radix(pair, 16).ok()?;
    }
    Some(Fingerprint(octets))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::unix;
    use crate::storage::MemoryStorage;

    #[test]
    fn fingerprints_are_read_back() {
        let own = Fingerprint([0xa7; 32]);
        assert_eq!(fingerprint(&own.to_string()), Some(own));
        for wrong in ["", "a7", &"g".repeat(64), &"\u{e4}".repeat(32)] {
            assert_eq!(fingerprint(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_record_is_kept_until_its_certificate_has_expired() {
        let storage = MemoryStorage::default();
        let own = Fingerprint([1; 32]);
        let record = Record {
            by_responder: Some(unix(5)),
            by_list: Some("http://list/".into()),
            reason: RevocationReason::KeyCompromise,
            at: unix(6),
            not_after: unix(100),
        };
        let write = RecordWrite {
            fingerprint: own,
            value: serde_json::to_vec(&record).ok(),
        };
        write.run(&storage).expect("stored");
        let loaded = Revocations::load(&storage, unix(100)).expect("read");
        let known = &loaded.known[&own];
        assert!(!known.is_told, "this process has not reported it");
        let asked = |ocsp, crl| Revocation {
            ocsp,
            crl,
            ..Revocation::default()
        };
        let revoked = |ocsp, crl| known.record.revoked(&asked(ocsp, crl));
        assert_eq!(revoked(true, false).by_responder, Some(unix(5)));
        assert_eq!(revoked(true, false).by_list, None);
        assert_eq!(
            revoked(false, true).by_list.as_deref(),
            Some("http://list/")
        );
        assert_eq!(revoked(false, false), Revoked::default());
        let late = Revocations::load(&storage, unix(101)).expect("read");
        assert!(late.known.is_empty());
        let again = Revocations::load(&storage, unix(100)).expect("read");
        assert!(again.known.is_empty(), "it was removed");
    }
}
