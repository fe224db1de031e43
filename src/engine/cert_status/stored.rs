//! OCSP responses in the storage, read and written off the runtime's threads.
//!
//! Where the storage fails, responders are asked again after the next start: nothing else is lost.

use std::sync::Arc;

use super::super::{Engine, blocking};
use crate::cert_status::{self, RecordWrite, Revocations};
use crate::certificate::status::Staple;
use crate::certificate::{Fingerprint, TlsCertificate};
use crate::clock::UnixTime;
use crate::storage;

/// Staples the stored responses of these certificates, unless they have one.
pub(super) async fn read(engine: &Engine, certificates: Vec<Arc<TlsCertificate>>, now: UnixTime) {
    let storage = Arc::clone(engine.storage());
    let reading = blocking(move || {
        for certificate in &certificates {
            let status = certificate.status();
            if status.is_some_and(|status| status.staple(now).is_none()) {
                cert_status::restore_staple(&*storage, certificate, now);
            }
        }
    });
    reading.await;
}

/// Reads which certificates were found to be revoked; `None` where the storage fails.
pub(super) async fn read_revocations(engine: &Engine) -> Option<Revocations> {
    let (storage, now) = (Arc::clone(engine.storage()), engine.clock.now());
    let read = storage::blocking(&storage, move |storage| Revocations::load(storage, now));
    read.await
        .inspect_err(|error| tracing::warn!(%error, "cannot read which certificates are revoked"))
        .ok()
}

/// Stores which certificates were found to be revoked, and which no longer are.
pub(super) async fn write_revocations(engine: &Engine, writes: Vec<RecordWrite>) {
    if writes.is_empty() {
        return;
    }
    let storage = Arc::clone(engine.storage());
    let written = storage::blocking(&storage, move |storage| {
        writes.iter().try_for_each(|one| one.run(storage))
    });
    if let Err(error) = written.await {
        tracing::warn!(%error, "cannot store which certificates are revoked");
    }
}

/// Stores the response of the certificate with this fingerprint.
pub(super) async fn store(engine: &Engine, fingerprint: Fingerprint, staple: Arc<Staple>) {
    let storage = Arc::clone(engine.storage());
    let stored = storage::blocking(&storage, move |storage| {
        cert_status::store_staple(storage, &fingerprint.to_string(), &staple.response)
    });
    if let Err(error) = stored.await {
        tracing::debug!(%error, "cannot store an OCSP response");
    }
}

/// Removes the responses of the certificates with these fingerprints.
pub(super) async fn forget(engine: &Engine, gone: Vec<Fingerprint>) {
    if gone.is_empty() {
        return;
    }
    let storage = Arc::clone(engine.storage());
    let forgotten = storage::blocking(&storage, move |storage| {
        let mut gone = gone.iter();
        gone.try_for_each(|one| cert_status::forget_staple(storage, &one.to_string()))
    });
    if let Err(error) = forgotten.await {
        tracing::debug!(%error, "cannot remove OCSP responses");
    }
}

/// Removes old responses of certificates that are not among `known`.
pub(super) async fn sweep(engine: &Engine, known: Vec<Fingerprint>) {
    let (storage, now) = (Arc::clone(engine.storage()), engine.clock.now());
    let swept = storage::blocking(&storage, move |storage| {
        let known = known.iter().map(ToString::to_string).collect();
        cert_status::sweep(storage, &known, now)
    });
    if let Err(error) = swept.await {
        tracing::debug!(%error, "cannot look for old OCSP responses");
    }
}
