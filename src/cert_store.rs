//! Issued certificates in the storage: one value holds chain and key, so that they change as one.

mod storage_health;

use std::collections::HashSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use thiserror::Error;

pub(crate) use self::storage_health::{READ_AGAIN, StorageHealth, Use};
use crate::certificate::material::{CertSource, Fetched, MaterialError};
use crate::certificate::pem::find_der;
use crate::certificate::{CertificateError, Loader, Source, TlsCertificate};
use crate::clock::UnixTime;
use crate::host::Pattern;
use crate::issuer::Issuer;
use crate::schedule::{Advice, Retries, Retry};
use crate::storage::{Key, Lease, Storage, StorageError, Value, damaged, keys};

/// A certificate that can be written to the storage.
pub(crate) struct CertRecord {
    key: Key,
    metadata_key: Key,
    order: Key,
    pem: Value,
    metadata: Metadata,
}

/// What is stored beside a certificate, for people and programs that look into the storage. What
/// matters is read from the certificate itself.
#[derive(Debug, Serialize, Deserialize)]
struct Metadata {
    issuer: String,
    names: Vec<String>,
    fingerprint: String,
    not_after: UnixTime,
    obtained: UnixTime,
}

/// The source of a certificate that is not held in memory: the storage.
struct StoredCertSource {
    storage: Arc<dyn Storage>,
    loader: Arc<Loader>,
    key: Key,
}

impl CertSource for StoredCertSource {
    fn fetch(&self, certificate: &TlsCertificate) -> Result<Fetched, String> {
        let stored = self.storage.load(&self.key);
        let stored = stored.map_err(|error| error.to_string())?;
        let pem = stored.ok_or_else(|| format!("{} is no longer in the storage", self.key))?;
        if let Some(der) = find_der(&pem, certificate.fingerprint()) {
            return Ok(Fetched::Same(der));
        }
        // Another instance has renewed it.
        let loaded = self.loader.load(&pem, certificate.source().clone());
        let loaded = loaded.map_err(|error| format!("{}: {error}", self.key))?;
        Ok(Fetched::Newer(Box::new(loaded.certificate)))
    }
}

/// Leaves `certificate`, which is stored for `subject` and the CA `ca`, in the storage rather than
/// in memory; unless there can be no key for it.
pub(crate) fn leave_in_storage(
    certificate: TlsCertificate,
    storage: &Arc<dyn Storage>,
    loader: &Arc<Loader>,
    ca: &str,
    subject: &str,
) -> TlsCertificate {
    let Ok(key) = keys::certificate(ca, subject) else {
        return certificate;
    };
    certificate.with_source(Arc::new(StoredCertSource {
        storage: Arc::clone(storage),
        loader: Arc::clone(loader),
        key,
    }))
}

/// The name by which the certificate of `subject` by the CA `ca` waits to be stored: each has its
/// own, as in the storage.
pub(crate) fn pending_name(ca: &str, subject: &str) -> String {
    format!("certificate {ca}/{subject}")
}

/// Why a stored certificate cannot be used.
#[derive(Debug, Error)]
pub(crate) enum StoredError {
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error(
        "the stored certificate {place} cannot be used: {error}; it will be obtained again, and \
         the stored one is kept beside it"
    )]
    Damaged {
        place: String,
        error: CertificateError,
    },
}

/// The stored certificate of `subject` from `issuer`, whose CA is `ca`.
pub(crate) fn load_certificate(
    storage: &dyn Storage,
    loader: &Loader,
    ca: &str,
    subject: &str,
    issuer: &Arc<str>,
) -> Result<Option<TlsCertificate>, StoredError> {
    let key = keys::certificate(ca, subject)?;
    let Some(pem) = storage.load(&key)? else {
        return Ok(None);
    };
    match loader.load(&pem, Source::Issuer(Arc::clone(issuer))) {
        Ok(loaded) => Ok(Some(loaded.certificate)),
        Err(error) => {
            damaged::set_aside(storage, &key, &pem, &error);
            let place = storage.place(&key);
            Err(StoredError::Damaged { place, error })
        }
    }
}

/// Like [`load_certificate`], but also looks where former versions stored certificates with these
/// names. Returns the subject that it was found under, too.
pub(crate) fn find_certificate(
    storage: &dyn Storage,
    loader: &Loader,
    ca: &str,
    (subject, names): (&str, &[Pattern]),
    issuer: &Arc<str>,
) -> Result<Option<(TlsCertificate, String)>, StoredError> {
    if let Some(certificate) = load_certificate(storage, loader, ca, subject, issuer)? {
        return Ok(Some((certificate, subject.to_owned())));
    }
    for former in keys::former_subjects(names) {
        if let Some(certificate) = load_certificate(storage, loader, ca, &former, issuer)? {
            return Ok(Some((certificate, former)));
        }
    }
    Ok(None)
}

/// When the stored certificate of `subject` from the CA `ca` expires, by its metadata; `None` where
/// there is none.
pub(crate) fn stored_end(
    storage: &dyn Storage,
    ca: &str,
    subject: &str,
) -> Result<Option<UnixTime>, StorageError> {
    let Some(metadata) = damaged::read_json::<Metadata>(storage, &keys::metadata(ca, subject)?)?
    else {
        return Ok(None);
    };
    let is_there = storage.exists(&keys::certificate(ca, subject)?)?;
    Ok(is_there.then_some(metadata.not_after))
}

impl CertRecord {
    /// Encodes `certificate` as issued by `issuer`, whose CA is `ca`.
    ///
    /// # Errors
    /// If there can be no key for it, or OpenSSL is out of memory.
    pub(crate) fn encode(
        certificate: &TlsCertificate,
        ca: &str,
        subject: &str,
        issuer: &str,
        now: UnixTime,
    ) -> Result<Self, EncodeError> {
        Ok(Self {
            key: keys::certificate(ca, subject)?,
            metadata_key: keys::metadata(ca, subject)?,
            order: keys::order(ca, subject)?,
            pem: certificate.bundle_pem()?,
            metadata: Metadata {
                issuer: issuer.to_owned(),
                names: certificate
                    .names()
                    .iter()
                    .map(ToString::to_string)
                    .collect(),
                fingerprint: certificate.fingerprint().to_string(),
                not_after: certificate.not_after(),
                obtained: now,
            },
        })
    }

    /// Writes it, under `lease`.
    ///
    /// # Errors
    /// If the storage cannot be written; what was there before is still there.
    pub(crate) fn store(&self, storage: &dyn Storage, lease: &Lease) -> Result<(), StorageError> {
        storage.store_under(lease, &self.key, &self.pem)?;
        let metadata = serde_json::to_vec_pretty(&self.metadata).unwrap_or_default();
        storage.store_under(lease, &self.metadata_key, &metadata)
    }

    /// Like [`Self::store`], long after it was issued: its order is deleted too, since the next
    /// certificate has another.
    ///
    /// # Errors
    /// As for [`Self::store`].
    pub(crate) fn store_late(
        &self,
        storage: &dyn Storage,
        lease: &Lease,
    ) -> Result<(), StorageError> {
        self.store(storage, lease)?;
        storage.delete(&self.order)
    }
}

/// Why a certificate cannot be encoded.
#[derive(Debug, Error)]
pub(crate) enum EncodeError {
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error("{0}")]
    Material(#[from] MaterialError),
}

/// The certificates of any CA that are valid at `now` and have one of `names`. Reads all metadata,
/// but only these certificates.
pub(crate) fn search_certificates(
    storage: &dyn Storage,
    loader: &Loader,
    names: &HashSet<Pattern>,
    now: UnixTime,
) -> Result<Vec<TlsCertificate>, StorageError> {
    let mut found = Vec::new();
    for key in storage.list(&keys::certificates()?)? {
        let Some(stem) = key.as_str().strip_suffix(".json") else {
            continue;
        };
        let Some(metadata) = damaged::read_json::<Metadata>(storage, &key)? else {
            continue;
        };
        let is_meant = |name: &String| name.parse().is_ok_and(|name| names.contains(&name));
        if metadata.not_after <= now || !metadata.names.iter().any(is_meant) {
            continue;
        }
        let pem = storage.load(&format!("{stem}.pem").parse()?)?;
        let issuer = Source::Issuer(metadata.issuer.into());
        let loaded = pem.and_then(|pem| loader.load(&pem, issuer).ok());
        found.extend(loaded.map(|loaded| loaded.certificate));
    }
    Ok(found)
}

/// Whether the certificate with this fingerprint is stored as another CA's than `ca`.
pub(crate) fn is_of_another(
    storage: &dyn Storage,
    ca: &str,
    fingerprint: &str,
) -> Result<bool, StorageError> {
    let mut is_of_another = false;
    for key in storage.list(&keys::certificates()?)? {
        let mut segments = key.as_str().rsplit('/');
        let is_metadata = segments.next().is_some_and(|name| name.ends_with(".json"));
        let Some(value) = is_metadata
            .then(|| storage.load(&key))
            .transpose()?
            .flatten()
        else {
            continue;
        };
        let metadata = serde_json::from_slice::<Metadata>(&value);
        if metadata.is_ok_and(|metadata| metadata.fingerprint == fingerprint) {
            if segments.next() == Some(ca) {
                return Ok(false);
            }
            is_of_another = true;
        }
    }
    Ok(is_of_another)
}

/// The stored failures of `subject` with these issuers; damaged records count as none. The record
/// of a former version counts for the issuer that it names.
pub(crate) fn load_retries<'a>(
    storage: &dyn Storage,
    subject: &str,
    issuers: impl IntoIterator<Item = &'a Arc<dyn Issuer>>,
) -> Result<Retries, StorageError> {
    let load = |key: Key| damaged::read_json::<Retry>(storage, &key);
    let former = load(keys::former_retry(subject)?)?;
    let mut retries = Retries::default();
    for issuer in issuers {
        let is_former = |former: &Retry| former.issuer.as_deref() == Some(&**issuer.name());
        let own = load(keys::retry(issuer.account_id(), subject)?)?;
        if let Some(retry) = own.or_else(|| former.clone().filter(is_former)) {
            retries.set(issuer.account_id(), retry);
        }
    }
    Ok(retries)
}

/// Stores the failures of `subject` with an account, under `lease`.
pub(crate) fn store_retry(
    storage: &dyn Storage,
    lease: &Lease,
    account: &str,
    subject: &str,
    retry: &Retry,
) -> Result<(), StorageError> {
    let value = serde_json::to_vec_pretty(retry).unwrap_or_default();
    storage.store_under(lease, &keys::retry(account, subject)?, &value)
}

/// Deletes the failures of `subject` with these accounts, under `lease`, and the record of a former
/// version.
pub(crate) fn forget_retries(
    storage: &dyn Storage,
    lease: &Lease,
    accounts: &[String],
    subject: &str,
) -> Result<(), StorageError> {
    let own = accounts.iter().map(|account| keys::retry(account, subject));
    for key in own.chain([keys::former_retry(subject)]) {
        let key = key?;
        if lease.is_held() && storage.exists(&key)? {
            storage.delete(&key)?;
        }
    }
    Ok(())
}

/// The stored advice of a CA.
pub(crate) fn load_advice(
    storage: &dyn Storage,
    key: &Key,
) -> Result<Option<Advice>, StorageError> {
    damaged::read_json(storage, key)
}

/// Stores the advice of a CA, under `lease`.
pub(crate) fn store_advice(
    storage: &dyn Storage,
    lease: &Lease,
    key: &Key,
    advice: &Advice,
) -> Result<(), StorageError> {
    let value = serde_json::to_vec_pretty(advice).unwrap_or_default();
    storage.store_under(lease, key, &value)
}
