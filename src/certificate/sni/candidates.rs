//! Decides which certificates serve a name, if several could.
//!
//! All certificates are kept, so that the next best takes over when one is removed or expires:
//! 1. one that is valid now with all of its chain, then one that is valid itself, then any other;
//! 2. the one of higher [`Precedence`];
//! 3. for each kind of key the one that clients accept longest, then the newest, then by
//!    fingerprint.
//!
//! A name is left to a wildcard if that has a certificate that is better by the first rule. A
//! certificate that clients are to refuse without a stapled OCSP response is no candidate while there
//! is none.

mod touched;
mod worth;

use std::cmp::Reverse;
use std::sync::Arc;

use ahash::{HashMap, HashSet, RandomState};
use hashbrown::HashTable;

use self::touched::Touched;
use self::worth::{Worth, worth};
use super::{CertificateSet, SniMap};
use crate::certificate::{TlsCertificate, Validity};
use crate::clock::UnixTime;
use crate::host::{HostName, Pattern};
use crate::schedule::{Deadlines, Passed};

/// Every loaded certificate, by the names it covers.
#[derive(Default)]
pub struct Candidates {
    by_pattern: HashTable<Slot>,
    hasher: RandomState,
    /// Patterns to decide again.
    dirty: HashSet<Pattern>,
    touched: Touched,
    /// Names whose own certificates, or the chains of these, are all invalid.
    invalid: HashSet<HostName>,
    /// Patterns for which nothing is served, since their certificates wait for OCSP responses.
    waiting: HashSet<Pattern>,
    /// When certificates become valid or expire.
    deadlines: Deadlines<Pattern>,
    /// Whether no OCSP responses are to be had, so that no certificate waits for one.
    without_staples: bool,
}

/// What could be served for one pattern: usually one certificate that has the pattern among its
/// names, so no copy of the pattern is kept here.
enum Slot {
    One(Candidate),
    Several(Box<(Pattern, Vec<Candidate>)>),
}

#[derive(Clone)]
struct Candidate {
    certificate: Arc<TlsCertificate>,
    /// The index of the pattern among the certificate's names.
    name: u32,
    precedence: Precedence,
}

/// How the configuration ranks a certificate, lowest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Precedence {
    /// No longer configured, and served until there is another.
    Superseded,
    /// Issued because a client asked for the name.
    OnDemand,
    /// Issued because there was no other.
    Fallback,
    /// Configured as a certificate.
    Configured,
    /// Issued because a site requires this issuer.
    Required,
}

impl Slot {
    fn pattern(&self) -> Option<&Pattern> {
        match self {
            Self::One(one) => one.pattern(),
            Self::Several(several) => Some(&several.0),
        }
    }

    fn candidates(&self) -> &[Candidate] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Several(several) => &several.1,
        }
    }

    fn push(&mut self, candidate: Candidate) {
        match self {
            Self::One(one) => {
                if let Some(pattern) = one.pattern().cloned() {
                    let all = vec![one.clone(), candidate];
                    *self = Self::Several(Box::new((pattern, all)));
                }
            }
            Self::Several(several) => several.1.push(candidate),
        }
    }
}

impl Candidate {
    fn pattern(&self) -> Option<&Pattern> {
        let name = usize::try_from(self.name).ok()?;
        self.certificate.names().get(name)
    }
}

impl Candidates {
    /// Adds a certificate.
    pub fn add(&mut self, certificate: &Arc<TlsCertificate>, precedence: Precedence) {
        for (name, pattern) in (0..).zip(certificate.names()) {
            let candidate = Candidate {
                certificate: Arc::clone(certificate),
                name,
                precedence,
            };
            let hash = self.hasher.hash_one(pattern);
            let is_it = |slot: &Slot| slot.pattern() == Some(pattern);
            match self.by_pattern.find_mut(hash, is_it) {
                Some(slot) => slot.push(candidate),
                None => {
                    let hasher = &self.hasher;
                    let rehash = |slot: &Slot| slot.pattern().map_or(0, |it| hasher.hash_one(it));
                    self.by_pattern
                        .insert_unique(hash, Slot::One(candidate), rehash);
                }
            }
            self.touched.record_change(pattern);
            self.dirty.insert(pattern.clone());
            await_change(&mut self.deadlines, certificate, pattern);
        }
    }

    /// Removes this certificate.
    pub fn remove(&mut self, certificate: &Arc<TlsCertificate>) {
        for pattern in certificate.names() {
            let hash = self.hasher.hash_one(pattern);
            let is_it = |slot: &Slot| slot.pattern() == Some(pattern);
            let Ok(mut entry) = self.by_pattern.find_entry(hash, is_it) else {
                continue;
            };
            let is_other = |one: &Candidate| !Arc::ptr_eq(&one.certificate, certificate);
            let is_empty = match entry.get_mut() {
                Slot::One(one) => !is_other(one),
                Slot::Several(several) => {
                    several.1.retain(is_other);
                    several.1.is_empty()
                }
            };
            if is_empty {
                entry.remove();
            }
            self.touched.record_change(pattern);
            self.dirty.insert(pattern.clone());
        }
    }

    /// Notes that `certificate` may have got an OCSP response, or lost it.
    pub fn note_staple(&mut self, certificate: &TlsCertificate) {
        for pattern in certificate.names() {
            self.touched.record_change(pattern);
            self.dirty.insert(pattern.clone());
        }
    }

    /// Whether certificates wait for the OCSP responses that clients require.
    pub fn wait_for_staples(&mut self, is_on: bool) {
        if self.without_staples != is_on {
            return;
        }
        self.without_staples = !is_on;
        let slots = self.by_pattern.iter();
        let requires = |one: &Candidate| {
            let status = one.certificate.status();
            status.is_some_and(|status| status.sources().requires_staple)
        };
        let slots = slots.filter(|slot| slot.candidates().iter().any(requires));
        for pattern in slots.filter_map(Slot::pattern) {
            self.touched.record_change(pattern);
            self.dirty.insert(pattern.clone());
        }
    }

    /// Notes which certificates became valid or expired between `last` and `now`.
    pub fn pass_time(&mut self, last: UnixTime, now: UnixTime) {
        match self.deadlines.pass_time(now) {
            Passed::These(patterns) => {
                patterns
                    .iter()
                    .for_each(|one| self.touched.record_change(one));
                self.dirty.extend(patterns);
            }
            Passed::Unknown => {
                let slots = self.by_pattern.iter();
                let slots = slots.filter_map(|slot| Some((slot.pattern()?, slot.candidates())));
                for (pattern, candidates) in slots {
                    for Candidate { certificate, .. } in candidates {
                        if worth(certificate, last) != worth(certificate, now) {
                            self.touched.record_change(pattern);
                            self.dirty.insert(pattern.clone());
                        }
                        await_change(&mut self.deadlines, certificate, pattern);
                    }
                }
            }
        }
    }

    /// The patterns whose certificates were added, removed, became valid or expired since the last
    /// call; `None` if there are too many.
    pub fn take_touched(&mut self) -> Option<HashSet<Pattern>> {
        std::mem::take(&mut self.touched).0
    }

    /// Returns true if a configured certificate that is valid at `now` covers all of `pattern`.
    pub fn covers(&self, pattern: &Pattern, now: UnixTime) -> bool {
        self.has(pattern, |one| is_configured(one) && is_valid(one, now))
    }

    /// Returns true if a certificate that is valid at `now` and ranks above those on demand covers
    /// all of `pattern`.
    pub fn covers_without_demand(&self, pattern: &Pattern, now: UnixTime) -> bool {
        self.has(pattern, |one| {
            one.precedence > Precedence::OnDemand && is_valid(one, now)
        })
    }

    /// Returns true if `is_wanted` accepts one for `pattern`, or for the wildcard over it.
    fn has(&self, pattern: &Pattern, is_wanted: impl Fn(&Candidate) -> bool) -> bool {
        let any = |pattern: &Pattern| self.of(pattern).iter().any(&is_wanted);
        any(pattern)
            || pattern
                .wildcard_over()
                .is_some_and(|wildcard| any(&wildcard))
    }

    /// Returns true if nothing has changed since the last update.
    pub fn is_settled(&self) -> bool {
        self.dirty.is_empty()
    }

    /// Updates `map`, which the last call returned or which is empty, to what is served at `now`.
    #[must_use]
    pub fn update(&mut self, map: &SniMap, now: UnixTime) -> SniMap {
        let mut dirty = std::mem::take(&mut self.dirty);
        if dirty.iter().any(|one| matches!(one, Pattern::Wildcard(_))) {
            for name in &self.invalid {
                let name = Pattern::Exact(name.clone());
                if name
                    .wildcard_over()
                    .is_some_and(|wildcard| dirty.contains(&wildcard))
                {
                    dirty.insert(name);
                }
            }
        }
        let mut sets = Sets::default();
        let mut changes = Vec::new();
        for pattern in dirty {
            let best = self.decide(&pattern, now);
            let same = match map.get(&pattern) {
                None => best.is_empty(),
                Some(set) => set.is_same_as(&best),
            };
            if !same {
                changes.push((pattern, sets.get(best)));
            }
        }
        map.with_changes(changes)
    }

    #[cfg(test)]
    pub(super) fn by_pattern_len(&self) -> usize {
        self.by_pattern.len()
    }

    fn of(&self, pattern: &Pattern) -> &[Candidate] {
        let hash = self.hasher.hash_one(pattern);
        let slot = self
            .by_pattern
            .find(hash, |slot| slot.pattern() == Some(pattern));
        slot.map_or(&[], Slot::candidates)
    }

    /// The certificates to serve for `pattern`, in the order of their kinds.
    fn decide(&mut self, pattern: &Pattern, now: UnixTime) -> Vec<Arc<TlsCertificate>> {
        let own = self.best_worth(pattern, now);
        if let Pattern::Exact(name) = pattern {
            if own.is_none_or(|own| own == Worth::Valid) {
                self.invalid.remove(name);
            } else {
                self.invalid.insert(name.clone());
                let wildcard = pattern.wildcard_over();
                if wildcard.is_some_and(|wildcard| self.best_worth(&wildcard, now) > own) {
                    return Vec::new();
                }
            }
        }
        let worth = |candidate: &Candidate| worth(&candidate.certificate, now);
        let is_any_valid = own > Some(Worth::Invalid);
        let mut best: Vec<_> = self
            .of(pattern)
            .iter()
            .filter(|candidate| !self.holds_back(&candidate.certificate, now))
            .filter(|candidate| !is_any_valid || worth(candidate) > Worth::Invalid)
            .collect();
        let first = best.iter().map(|one| (worth(one), one.precedence)).max();
        // Those whose chain has expired stay for clients that can use no other kind of key.
        best.retain(|one| first.is_some_and(|(_, precedence)| one.precedence == precedence));
        best.sort_by_key(|candidate| (candidate.certificate.kind(), Reverse(rank(candidate))));
        best.dedup_by_key(|candidate| candidate.certificate.kind());
        let mut best: Vec<_> = best
            .into_iter()
            .map(|candidate| Arc::clone(&candidate.certificate))
            .collect();
        best.shrink_to_fit();
        match best.is_empty() && !self.of(pattern).is_empty() {
            true => drop(self.waiting.insert(pattern.clone())),
            false => drop(self.waiting.remove(pattern)),
        }
        best
    }

    fn best_worth(&self, pattern: &Pattern, now: UnixTime) -> Option<Worth> {
        let candidates = self.of(pattern).iter();
        let candidates = candidates.filter(|one| !self.holds_back(&one.certificate, now));
        candidates.map(|one| worth(&one.certificate, now)).max()
    }

    /// The patterns for which nothing is served, since their certificates wait for OCSP responses.
    pub fn waiting(&self) -> &HashSet<Pattern> {
        &self.waiting
    }

    /// Returns true if `certificate` is not served at `now`, since it waits for an OCSP response.
    pub fn holds_back(&self, certificate: &TlsCertificate, now: UnixTime) -> bool {
        !self.without_staples && certificate.lacks_staple(now)
    }
}

/// Notes when `certificate` becomes valid and expires, for `pattern`.
fn await_change(
    deadlines: &mut Deadlines<Pattern>,
    certificate: &TlsCertificate,
    pattern: &Pattern,
) {
    let ends = [certificate.not_after(), certificate.served_until()];
    let [end, served_end] = ends.map(|end| end + 1);
    for time in [certificate.not_before(), end, served_end] {
        if deadlines.is_near(time) {
            deadlines.add(time, pattern.clone());
        }
    }
}

/// Sets made in one update; names with the same certificates share theirs.
#[derive(Default)]
struct Sets(HashMap<Vec<*const TlsCertificate>, Arc<CertificateSet>>);

impl Sets {
    fn get(&mut self, certificates: Vec<Arc<TlsCertificate>>) -> Option<Arc<CertificateSet>> {
        match &*certificates {
            [] => return None,
            // There is no other name to share it with.
            [one] if one.names().len() == 1 => {
                return Some(Arc::new(CertificateSet::of(certificates)));
            }
            _ => {}
        }
        let key = certificates.iter().map(Arc::as_ptr).collect();
        let set = self
            .0
            .entry(key)
            .or_insert_with(|| Arc::new(CertificateSet::of(certificates)));
        Some(Arc::clone(set))
    }
}

fn is_configured(candidate: &Candidate) -> bool {
    candidate.precedence == Precedence::Configured
}

fn is_valid(candidate: &Candidate, now: UnixTime) -> bool {
    candidate.certificate.validity(now) == Validity::Valid
}

fn rank(candidate: &Candidate) -> impl Ord + use<> {
    let certificate = &candidate.certificate;
    (
        certificate.served_until(),
        certificate.not_after(),
        certificate.not_before(),
        certificate.fingerprint(),
    )
}
