//! A certificate from files: what is served of it, and the state of its files.

use std::path::PathBuf;
use std::sync::Arc;

use ahash::RandomState;
use hashbrown::HashTable;

use super::files::{EntryId, Kind, Print};
use crate::certificate::{CertificateWarning, TlsCertificate, Validity};
use crate::clock::UnixTime;
use crate::config::model::Origin;

/// An entry that is to be looked at.
pub(super) struct Found {
    pub(super) id: EntryId,
    pub(super) kind: Kind,
    pub(super) origin: Arc<Origin>,
}

/// One entry of a configured directory, or a configured pair of files. There may be a million.
pub(super) struct Entry {
    pub(super) id: EntryId,
    pub(super) origin: Arc<Origin>,
    /// What the files looked like when they were last read.
    pub(super) stamps: Print,
    /// What was read then.
    pub(super) digest: Print,
    pub(super) certificate: Option<Arc<TlsCertificate>>,
    /// What is odd, where anything is.
    pub(super) odd: Option<Box<Odd>>,
    /// The last scan that found it.
    pub(super) seen: u32,
    pub(super) kind: Kind,
    /// Whether the stamps are enough to tell that nothing changed.
    pub(super) sure: bool,
    /// Whether the index knows it.
    pub(super) indexed: bool,
}

/// What is odd about an entry.
#[derive(Default)]
pub(super) struct Odd {
    pub(super) warnings: Vec<CertificateWarning>,
    /// Whether the file is named after a host that the certificate does not cover.
    pub(super) misnamed: bool,
    /// Why the files, as they are now, cannot be used.
    pub(super) problem: Option<(PathBuf, String)>,
}

impl Odd {
    /// Boxes it, if anything is odd.
    pub(super) fn boxed(self) -> Option<Box<Self>> {
        let is_odd = self.misnamed || self.problem.is_some() || !self.warnings.is_empty();
        is_odd.then(|| Box::new(self))
    }
}

impl Entry {
    /// What is odd about what is served at `now`.
    pub(super) fn warnings(&self, now: UnixTime) -> impl Iterator<Item = String> {
        let certificate = self.certificate.as_deref();
        let validity = certificate.and_then(|certificate| invalidity(certificate, now));
        let odd = self.odd.as_deref();
        let is_misnamed = odd.is_some_and(|odd| odd.misnamed);
        let misnamed = certificate.filter(|_| is_misnamed).map(misnamed);
        let own = odd.map_or(&[][..], |odd| &odd.warnings).iter();
        let chain = certificate.and_then(|certificate| chain_expiry(certificate, now));
        own.filter(|warning| warning.is_told())
            .map(ToString::to_string)
            .chain(chain.map(|warning| warning.to_string()))
            .chain(validity.map(|warning| warning.to_string()))
            .chain(misnamed)
    }

    /// Notes why the files cannot be used; what is served of them stays.
    pub(super) fn note_problem(&mut self, problem: (PathBuf, String)) {
        self.odd.get_or_insert_default().problem = Some(problem);
    }
}

/// Every entry, by its files.
#[derive(Default)]
pub(super) struct Entries {
    table: HashTable<Box<Entry>>,
    hasher: RandomState,
}

impl Entries {
    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    pub(super) fn get(&self, id: &EntryId) -> Option<&Entry> {
        let found = self
            .table
            .find(self.hasher.hash_one(id), |one| one.id == *id);
        found.map(|entry| &**entry)
    }

    pub(super) fn get_mut(&mut self, id: &EntryId) -> Option<&mut Entry> {
        let hash = self.hasher.hash_one(id);
        let found = self.table.find_mut(hash, |one| one.id == *id);
        found.map(|entry| &mut **entry)
    }

    /// The entry of `id`, made where there is none. `seen` is the scan that found it.
    pub(super) fn or_insert(
        &mut self,
        id: &EntryId,
        kind: Kind,
        origin: Arc<Origin>,
        seen: u32,
    ) -> &mut Entry {
        let make = || Entry {
            id: id.clone(),
            kind,
            origin,
            stamps: Print::NONE,
            digest: Print::NONE,
            certificate: None,
            odd: None,
            seen,
            sure: false,
            indexed: false,
        };
        let hasher = &self.hasher;
        let entry = self.table.entry(
            hasher.hash_one(id),
            |one| one.id == *id,
            |one| hasher.hash_one(&one.id),
        );
        let entry = entry.or_insert_with(|| Box::new(make())).into_mut();
        entry.kind = kind;
        entry
    }

    pub(super) fn remove(&mut self, id: &EntryId) -> Option<Entry> {
        let found = self
            .table
            .find_entry(self.hasher.hash_one(id), |one| one.id == *id);
        found.ok().map(|entry| *entry.remove().0)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.table.iter().map(|entry| &**entry)
    }
}

/// Why `certificate` is not valid at `now`; `None` where it is.
pub(super) fn invalidity(
    certificate: &TlsCertificate,
    now: UnixTime,
) -> Option<CertificateWarning> {
    match certificate.validity(now) {
        Validity::Expired => Some(CertificateWarning::Expired(
            certificate.not_after().to_string(),
        )),
        Validity::NotYet => {
            let begin = certificate.not_before().to_string();
            Some(CertificateWarning::NotYetValid(begin))
        }
        Validity::Valid => None,
    }
}

/// The certificate in the chain of `certificate` that has expired at `now`, if any.
fn chain_expiry(certificate: &TlsCertificate, now: UnixTime) -> Option<CertificateWarning> {
    let (end, subject) = certificate.chain_end()?;
    (end < now).then(|| CertificateWarning::ChainExpired {
        subject,
        end: end.to_string(),
    })
}

fn misnamed(certificate: &TlsCertificate) -> String {
    let names: Vec<_> = certificate
        .names()
        .iter()
        .map(ToString::to_string)
        .collect();
    format!(
        "is named after a host that its certificate does not cover (it covers {}); is it the right \
         file?",
        names.join(", ")
    )
}
