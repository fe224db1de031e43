//! What is known of files without reading them again: from the index, and about incomplete chains.

use std::sync::Arc;

use super::entry::Odd;
use super::files::{self, EntryId, Kind, Stamps};
use super::index::{Flusher, Index, IndexEntry, IndexedCert};
use super::{CertFiles, Change, Found};
use crate::certificate::{CertificateWarning, Loader, Source, TlsCertificate};
use crate::clock::UnixTime;

/// From how many files on an index is worth it: as many are read in half a second.
const WORTH: usize = 1_000;

/// How many certificates that are to be in memory are read at a time.
const FETCHED_AT_ONCE: usize = 64;

impl CertFiles {
    /// Opens the index, where there are so many files that it is worth it.
    pub(super) fn open_index(&mut self, files: usize) {
        if files >= WORTH
            && let Some(place) = self.index_place.take()
        {
            self.index = Index::open(&place, &self.flusher);
        }
    }

    /// Forgets what the index knew at the start, now that all files have been looked at.
    pub(super) fn forget_unclaimed(&mut self) {
        if let Some(index) = &mut self.index {
            index.forget_unclaimed();
        }
    }

    /// What has the index written.
    pub(crate) fn flusher(&self) -> &Flusher {
        &self.flusher
    }

    /// What the index knows of an entry.
    pub(super) fn find_indexed(
        &mut self,
        id: &EntryId,
        kind: Kind,
        loader: &Loader,
    ) -> Option<Box<IndexedCert>> {
        self.index
            .as_mut()?
            .take_known(id, kind, loader)
            .map(Box::new)
    }

    /// Restores an entry from what the index knows of its files.
    pub(super) fn restore_indexed(
        &mut self,
        found: Found,
        stamps: Stamps,
        known: IndexedCert,
        now: UnixTime,
    ) -> Option<Change> {
        let Found { id, kind, origin } = found;
        let source = match kind {
            Kind::Directory => Source::Directory(id.file.clone()),
            Kind::Files => Source::File(id.file.clone()),
        };
        let keeper = self.cert_sources.keeper(&id);
        let new = TlsCertificate::from_index(known.facts, &known.chain, source, keeper);
        let odd = Odd {
            warnings: known.warnings,
            misnamed: known.misnamed,
            problem: None,
        };
        let is_same = known.sure && known.stamps == stamps.print;
        let entry = self.entry_or_insert(&id, kind, origin);
        entry.stamps = stamps.print;
        // Where they were sure when the content was read, they are now.
        entry.sure = is_same || stamps.sure;
        entry.digest = known.digest;
        entry.odd = odd.boxed();
        entry.indexed = true;
        let change = self.install(&id, Some(Arc::new(new)), now);
        if !is_same {
            self.index_entry(&id);
        }
        if self.cert_sources.are_held() {
            self.away.push(id);
        }
        change
    }

    /// Has the index know what an entry's files hold.
    pub(super) fn index_entry(&mut self, id: &EntryId) {
        let (Some(index), Some(entry)) = (&self.index, self.entries.get_mut(id)) else {
            return;
        };
        let odd = entry.odd.as_deref();
        let Some(certificate) = &entry.certificate else {
            if std::mem::take(&mut entry.indexed) {
                index.remove_entry(id);
            }
            return;
        };
        if odd.is_some_and(|odd| odd.problem.is_some()) {
            // What is served is not what the files hold.
            return;
        }
        let is_put = index.put_entry(IndexEntry {
            id: id.clone(),
            kind: entry.kind,
            stamps: entry.stamps,
            sure: entry.sure,
            digest: entry.digest,
            misnamed: odd.is_some_and(|odd| odd.misnamed),
            certificate: Arc::clone(certificate),
            warnings: odd.map_or_else(Vec::new, |odd| odd.warnings.clone()),
            is_new: !entry.indexed,
        });
        entry.indexed |= is_put;
    }

    /// Reads some of what is left in files and is to be in memory. Whether there is more.
    pub(crate) fn fetch_certificates(&mut self) -> bool {
        let from = self.away.len().saturating_sub(FETCHED_AT_ONCE);
        for id in self.away.split_off(from) {
            let Some(entry) = self.entries.get(&id) else {
                continue;
            };
            let Some(certificate) = &entry.certificate else {
                continue;
            };
            if certificate.is_in_memory() {
                continue;
            }
            let (digest, fingerprint) = (entry.digest, certificate.fingerprint());
            // What is not as it was a look at it will find out.
            if let Some(der) = files::read_again(&id, entry.kind, digest, fingerprint) {
                certificate.hold_der(der);
            }
        }
        if self.away.is_empty() {
            self.away = Vec::new();
        }
        !self.away.is_empty()
    }

    /// Mends chains whose intermediates have become known.
    pub(super) fn complete_chains(&mut self, loader: &Loader, now: UnixTime) -> Vec<Change> {
        let generation = loader.generation();
        if std::mem::replace(&mut self.generation, generation) == generation {
            return Vec::new();
        }
        let authorities = loader.issuer_names();
        let (mut changes, mut completed) = (Vec::new(), Vec::new());
        // Whatever is incomplete, or has ended, is noted.
        for id in &self.noted {
            let Some(entry) = self.entries.get_mut(id) else {
                continue;
            };
            let Some(certificate) = &entry.certificate else {
                continue;
            };
            let has_ended = certificate.served_until() < now;
            let warnings = entry.odd.iter().flat_map(|odd| &odd.warnings);
            let mut missing = warnings
                .filter_map(CertificateWarning::missing_issuer)
                .peekable();
            if missing.peek().is_none() && !has_ended {
                continue;
            }
            // What is away is not fetched in vain: there may be very many.
            let may_be = missing.any(|issuer| authorities.contain(issuer));
            if !may_be && !certificate.is_in_memory() {
                continue;
            }
            let Some(complete) = loader.complete_chain(certificate).map(Arc::new) else {
                continue;
            };
            if let Some(mut odd) = entry.odd.take() {
                odd.warnings.retain(|one| one.missing_issuer().is_none());
                entry.odd = odd.boxed();
            }
            completed.push(id.clone());
            let old = entry.certificate.replace(Arc::clone(&complete));
            changes.push(Change {
                old,
                new: Some(complete),
            });
        }
        for id in completed {
            self.index_entry(&id);
        }
        changes
    }
}
