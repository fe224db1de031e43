//! What was loaded from each file: brings entries up to date, and knows which of them there is
//! something to say about.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use prometheus::IntCounter;

use super::entry::{self, Entries, Entry, Found, Odd};
use super::files::{self, Content, EntryId, Kind, Print, Reading, Stamps};
use super::index::{FileIndex, Flusher, IndexedCert};
use super::lazy::{Away, FileCertSources};
use super::naming;
use super::noted::Noted;
use super::vanished::Vanished;
use crate::certificate::{CertificateWarning, Change, Loaded, Loader, TlsCertificate, Validity};
use crate::clock::{Clock, UnixTime};
use crate::config::model::InMemory;
use crate::parallel;

/// Every entry, with what was loaded from it.
pub(super) struct EntryTable {
    entries: Entries,
    cert_sources: FileCertSources,
    index: FileIndex,
    away: Away,
    noted: Noted,
    vanished: Vanished,
    /// Counts entries whose files were read.
    reads: Option<IntCounter>,
    /// How many entries have a certificate.
    loaded: usize,
    /// The shortest life that one of them has had, in seconds.
    shortest: Option<i64>,
    /// What the loader knew when incomplete chains were last looked at.
    generation: u64,
    /// The number of the current scan, or else of the last one.
    scan: u32,
}

/// An entry whose files are to be read.
struct Stale {
    found: Found,
    stamps: Stamps,
    /// The digest of what was read before.
    before: Print,
    /// What was read before, where that was before the start.
    known: Option<Box<IndexedCert>>,
}

impl EntryTable {
    pub(super) fn new(
        in_memory: InMemory,
        loader: &Arc<Loader>,
        clock: &Arc<dyn Clock>,
        index: Option<PathBuf>,
        reads: Option<IntCounter>,
    ) -> Self {
        Self {
            entries: Entries::default(),
            cert_sources: FileCertSources::new(in_memory, loader, clock),
            index: FileIndex::new(index),
            away: Away::default(),
            noted: Noted::default(),
            vanished: Vanished::default(),
            reads,
            loaded: 0,
            shortest: None,
            generation: 0,
            scan: 0,
        }
    }

    pub(super) fn entries(&self) -> &Entries {
        &self.entries
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.len() == 0
    }

    pub(super) fn loaded(&self) -> usize {
        self.loaded
    }

    pub(super) fn shortest_life(&self) -> Option<i64> {
        self.shortest
    }

    /// The entries that there is something to say about.
    pub(super) fn noted(&self) -> impl Iterator<Item = &Entry> {
        self.noted.ids().filter_map(|id| self.entries.get(id))
    }

    pub(super) fn flusher(&self) -> &Flusher {
        self.index.flusher()
    }

    /// Opens the index of `files` files.
    pub(super) fn open_index(&mut self, files: usize) {
        self.index.open(files);
    }

    /// Forgets what the index knew at the start, now that all files have been looked at.
    pub(super) fn forget_unclaimed(&mut self) {
        self.index.forget_unclaimed();
    }

    /// Begins another scan: the entries that it does not find are [unseen](Self::unseen).
    pub(super) fn begin_scan(&mut self) {
        self.scan = self.scan.wrapping_add(1);
    }

    /// The entries that the current scan has not found so far.
    pub(super) fn unseen(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|entry| entry.seen != self.scan)
    }

    /// Certificates begin and end.
    pub(super) fn pass_time(&mut self, now: UnixTime) {
        self.noted.pass_time(&self.entries, now);
    }

    /// Brings these entries up to date with their files.
    pub(super) fn reload(
        &mut self,
        found: Vec<Found>,
        loader: &Loader,
        now: UnixTime,
    ) -> Vec<Change> {
        let stamps = parallel::map(&found, |found| Stamps::read_from(&found.id, now));
        let (mut stale, mut changes) = (Vec::new(), Vec::new());
        for (found, stamps) in found.into_iter().zip(stamps) {
            let (before, known) = match self.entries.get_mut(&found.id) {
                Some(entry) => {
                    self.vanished.remove(&found.id);
                    entry.origin = Arc::clone(&found.origin);
                    entry.seen = self.scan;
                    if entry.stamps == stamps.print && entry.sure {
                        continue;
                    }
                    (entry.digest, None)
                }
                None => match self.index.take_known(&found.id, found.kind, loader) {
                    Some(known) if known.sure && known.stamps == stamps.print => {
                        changes.extend(self.restore_indexed(found, stamps, *known, now));
                        continue;
                    }
                    known => (known.as_ref().map_or(Print::NONE, |one| one.digest), known),
                },
            };
            stale.push(Stale {
                found,
                stamps,
                before,
                known,
            });
        }
        if let Some(reads) = &self.reads {
            reads.inc_by(u64::try_from(stale.len()).unwrap_or_default());
        }
        let readings = parallel::map(&stale, |stale| {
            files::read_entry(&stale.found.id, stale.found.kind, loader, stale.before)
        });
        let read = stale.into_iter().zip(readings);
        changes.extend(read.filter_map(|(stale, reading)| self.apply_reading(stale, reading, now)));
        changes
    }

    fn apply_reading(&mut self, stale: Stale, reading: Reading, now: UnixTime) -> Option<Change> {
        let Stale {
            found,
            stamps,
            known,
            ..
        } = stale;
        if let (None, Some(known)) = (&reading.content, known) {
            return self.restore_indexed(found, stamps, *known, now);
        }
        let Found { id, kind, origin } = found;
        let entry = self.entries.or_insert(&id, kind, origin, self.scan);
        entry.stamps = stamps.print;
        entry.sure = stamps.sure;
        entry.digest = reading.digest;
        let Some(content) = reading.content else {
            // The content is what it was, and from now on the stamps may show that.
            self.index.put(entry);
            return None;
        };
        let new = match content {
            Ok(Content::Bundle) => {
                entry.odd = None;
                None
            }
            Ok(Content::Certificate(loaded)) => {
                let Loaded {
                    certificate,
                    warnings,
                } = *loaded;
                let kept = entry.certificate.as_ref();
                if let Some(why) = entry::invalidity(&certificate, now)
                    && kept.is_some_and(|kept| entry::invalidity(kept, now).is_none())
                {
                    // Looked at anew in each pass: this one may begin, and the kept one may end.
                    (entry.sure, entry.digest) = (false, Print::NONE);
                    entry.note_problem((id.chain(), why.to_string()));
                    self.noted.note(entry, now);
                    return None;
                }
                let misnamed =
                    kind == Kind::Directory && naming::is_misnamed(id.file.name(), &certificate);
                let odd = Odd {
                    warnings,
                    misnamed,
                    problem: None,
                };
                entry.odd = odd.boxed();
                Some(self.cert_sources.place_in_memory(&id, certificate))
            }
            Err((path, error)) => {
                entry.note_problem((path, error.to_string()));
                self.noted.note(entry, now);
                return None;
            }
        };
        let change = self.install(&id, new.map(Arc::new), now);
        self.index_entry(&id);
        change
    }

    /// Restores an entry from what the index knows of its files.
    fn restore_indexed(
        &mut self,
        found: Found,
        stamps: Stamps,
        known: IndexedCert,
        now: UnixTime,
    ) -> Option<Change> {
        let Found { id, kind, origin } = found;
        let source = self.cert_sources.source(&id);
        let new = TlsCertificate::from_index(known.facts, &known.chain, kind.source(&id), source);
        let odd = Odd {
            warnings: known.warnings,
            misnamed: known.misnamed,
            problem: None,
        };
        let is_same = known.sure && known.stamps == stamps.print;
        let entry = self.entries.or_insert(&id, kind, origin, self.scan);
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

    /// Installs what an entry's files hold now.
    fn install(
        &mut self,
        id: &EntryId,
        new: Option<Arc<TlsCertificate>>,
        now: UnixTime,
    ) -> Option<Change> {
        let entry = self.entries.get_mut(id)?;
        let old = std::mem::replace(&mut entry.certificate, new.clone());
        let length = new.as_ref().map(|new| new.lifetime().length());
        self.shortest = self.shortest.into_iter().chain(length).min();
        self.loaded += usize::from(new.is_some());
        self.loaded -= usize::from(old.is_some());
        self.noted.note(entry, now);
        (old.is_some() || new.is_some()).then_some(Change { old, new })
    }

    /// Has the index know what an entry's files hold.
    fn index_entry(&mut self, id: &EntryId) {
        if let Some(entry) = self.entries.get_mut(id) {
            self.index.put(entry);
        }
    }

    /// Removes an entry, whose files are gone or no longer configured.
    pub(super) fn remove(&mut self, id: &EntryId) -> Option<Change> {
        self.noted.forget(id);
        self.vanished.remove(id);
        let entry = self.entries.remove(id)?;
        if entry.indexed {
            self.index.remove(id);
        }
        let old = entry.certificate?;
        self.loaded -= 1;
        Some(Change {
            old: Some(old),
            new: None,
        })
    }

    /// Notes that the file of an entry has vanished. One without a valid certificate is removed.
    pub(super) fn mark_vanished(&mut self, id: &EntryId, now: UnixTime) -> Option<Change> {
        let certificate = self.entries.get(id)?.certificate.as_ref();
        if certificate.is_none_or(|one| one.validity(now) != Validity::Valid) {
            return self.remove(id);
        }
        self.vanished.add(id, now);
        None
    }

    /// When the next certificate whose file has vanished is no longer served.
    pub(super) fn next_end(&self) -> Option<UnixTime> {
        self.vanished.next_end()
    }

    /// Removes the entries whose files have vanished and stay away.
    pub(super) fn end_vanished(&mut self, now: UnixTime) -> Vec<Change> {
        let mut changes = Vec::new();
        for id in self.vanished.over(now) {
            if fs::symlink_metadata(id.chain()).is_ok() {
                // It is back, which is a change of its own.
                self.vanished.remove(&id);
            } else {
                changes.extend(self.remove(&id));
            }
        }
        changes
    }

    /// Reads some of what is left in files and is to be in memory. Whether there is more.
    pub(super) fn fetch_certificates(&mut self) -> bool {
        self.away.fetch(&self.entries)
    }

    /// Completes chains whose intermediates have become known.
    pub(super) fn complete_chains(&mut self, loader: &Loader, now: UnixTime) -> Vec<Change> {
        let generation = loader.generation();
        if std::mem::replace(&mut self.generation, generation) == generation {
            return Vec::new();
        }
        let authorities = loader.issuer_names();
        let mut changes = Vec::new();
        // Incomplete and expired chains are noted.
        for id in self.noted.ids() {
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
            // What is left in files is not fetched in vain: there may be very many.
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
            let old = entry.certificate.replace(Arc::clone(&complete));
            self.index.put(entry);
            changes.push(Change {
                old,
                new: Some(complete),
            });
        }
        changes
    }
}
