//! Certificates that are left in their files and read when a client asks for one.

use std::path::Path;
use std::sync::Arc;

use super::entry::{Entries, invalidity};
use super::files::{self, Content, EntryId, Kind, Print};
use crate::certificate::material::{CertSource, Fetched};
use crate::certificate::{Loader, Source, TlsCertificate};
use crate::clock::Clock;
use crate::config::model::InMemory;
use crate::printable::Printable as _;

/// How many certificates that are to be in memory are read at a time.
const FETCHED_AT_ONCE: usize = 64;

/// Leaves certificates in their files, as the configuration asks.
pub(super) struct FileCertSources {
    in_memory: InMemory,
    loader: Arc<Loader>,
    clock: Arc<dyn Clock>,
    /// Of all whose key is beside the chain.
    beside: Arc<dyn CertSource>,
}

/// The files of a certificate, as its source.
struct FileCertSource {
    /// Where the key is; `None` where it is beside the chain.
    key: Option<Arc<Path>>,
    loader: Arc<Loader>,
    clock: Arc<dyn Clock>,
    in_memory: InMemory,
}

impl FileCertSources {
    pub(super) fn new(in_memory: InMemory, loader: &Arc<Loader>, clock: &Arc<dyn Clock>) -> Self {
        Self {
            beside: Arc::new(FileCertSource {
                key: None,
                loader: Arc::clone(loader),
                clock: Arc::clone(clock),
                in_memory,
            }),
            in_memory,
            loader: Arc::clone(loader),
            clock: Arc::clone(clock),
        }
    }

    /// The source of the certificate of `id`: its files.
    pub(super) fn source(&self, id: &EntryId) -> Arc<dyn CertSource> {
        match &id.key {
            None => Arc::clone(&self.beside),
            Some(key) => Arc::new(FileCertSource {
                key: Some(Arc::clone(key)),
                loader: Arc::clone(&self.loader),
                clock: Arc::clone(&self.clock),
                in_memory: self.in_memory,
            }),
        }
    }

    /// Holds a certificate that was loaded from the files of `id` in memory, or leaves it there.
    pub(super) fn place_in_memory(&self, id: &EntryId, loaded: TlsCertificate) -> TlsCertificate {
        match self.in_memory {
            InMemory::All => loaded,
            InMemory::Cache => loaded.with_source(self.source(id)),
        }
    }

    /// Whether certificates that are left in files are to be read once there is time.
    pub(super) fn are_held(&self) -> bool {
        self.in_memory == InMemory::All
    }
}

/// The certificates that are left in files and are to be in memory.
#[derive(Default)]
pub(super) struct Away(Vec<EntryId>);

impl Away {
    pub(super) fn push(&mut self, id: EntryId) {
        self.0.push(id);
    }

    /// Reads some of them. Whether there are more.
    pub(super) fn fetch(&mut self, entries: &Entries) -> bool {
        let from = self.0.len().saturating_sub(FETCHED_AT_ONCE);
        for id in self.0.split_off(from) {
            let Some(entry) = entries.get(&id) else {
                continue;
            };
            let Some(certificate) = &entry.certificate else {
                continue;
            };
            if certificate.is_in_memory() {
                continue;
            }
            let (digest, fingerprint) = (entry.digest, certificate.fingerprint());
            // A file that is not as it was is found by a scan.
            if let Some(der) = files::read_again(&id, entry.kind, digest, fingerprint) {
                certificate.hold_der(der);
            }
        }
        if self.0.is_empty() {
            self.0 = Vec::new();
        }
        !self.0.is_empty()
    }
}

impl CertSource for FileCertSource {
    fn fetch(&self, certificate: &TlsCertificate) -> Result<Fetched, String> {
        let (file, kind) = match certificate.source() {
            Source::Directory(file) => (file.clone(), Kind::Directory),
            Source::File(file) => (file.clone(), Kind::Files),
            Source::Issuer(_) | Source::Program => {
                return Err("it is in no file; this is a bug, please report it".to_owned());
            }
        };
        let key = self.key.clone();
        let id = EntryId { file, key };
        let reading = files::read_entry(&id, kind, &self.loader, Print::NONE);
        let chain = id.chain();
        match reading.content {
            Some(Ok(Content::Certificate(loaded))) => {
                let now = loaded.certificate;
                if now.fingerprint() == certificate.fingerprint() {
                    let der = now.into_der();
                    return der
                        .map(Fetched::Same)
                        .ok_or_else(|| "it is gone".to_owned());
                }
                let time = self.clock.now();
                match invalidity(&now, time) {
                    Some(why) if invalidity(certificate, time).is_none() => {
                        Err(format!("{}: {why}", chain.printable()))
                    }
                    _ => Ok(Fetched::Newer(Box::new(now))),
                }
            }
            Some(Err((path, error))) => Err(format!("{}: {error}", path.printable())),
            Some(Ok(Content::Bundle)) | None => Err(format!(
                "{} no longer contains a private key",
                chain.printable()
            )),
        }
    }

    fn stays_in_memory(&self) -> bool {
        self.in_memory == InMemory::All
    }
}
