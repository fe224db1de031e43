//! Decides which certificates answer a name, where several could.
//!
//! All certificates are kept, so that the next best takes over where one goes or ends:
//! 1. one that is valid now, before any that is not;
//! 2. the one of higher [`Standing`];
//! 3. of each kind of key the one valid longest, then the newest, then by fingerprint.
//!
//! A name whose own certificates are all invalid is left to a wildcard that is valid.

use std::cmp::Reverse;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use ahash::{HashMap, HashSet};

use super::{CertificateSet, SniMap};
use crate::certificate::{TlsCertificate, Validity};
use crate::clock::UnixTime;
use crate::host::{HostName, Pattern};

/// Every certificate at hand, by the names it covers.
#[derive(Default)]
pub struct Candidates {
    by_pattern: HashMap<Pattern, Vec<Candidate>>,
    /// Patterns to decide again.
    dirty: HashSet<Pattern>,
    /// Names without a valid certificate of their own.
    invalid: HashSet<HostName>,
}

#[derive(Clone)]
struct Candidate {
    certificate: Arc<TlsCertificate>,
    standing: Standing,
}

/// What the configuration thinks of a certificate, the least wanted first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Standing {
    /// No longer asked for, and served until there is another.
    Retired,
    /// Issued for want of any other.
    Fallback,
    /// Configured as a certificate.
    Configured,
    /// Issued because a site asks for this very issuer.
    Demanded,
}

impl Candidates {
    /// Adds a certificate.
    pub fn add(&mut self, certificate: &Arc<TlsCertificate>, standing: Standing) {
        for pattern in certificate.names() {
            let candidate = Candidate {
                certificate: Arc::clone(certificate),
                standing,
            };
            self.by_pattern
                .entry(pattern.clone())
                .or_default()
                .push(candidate);
            self.dirty.insert(pattern.clone());
        }
    }

    /// Removes this very certificate.
    pub fn remove(&mut self, certificate: &Arc<TlsCertificate>) {
        for pattern in certificate.names() {
            if let Entry::Occupied(mut entry) = self.by_pattern.entry(pattern.clone()) {
                entry
                    .get_mut()
                    .retain(|candidate| !Arc::ptr_eq(&candidate.certificate, certificate));
                if entry.get().is_empty() {
                    entry.remove();
                }
                self.dirty.insert(pattern.clone());
            }
        }
    }

    /// Notes what began or ended to be valid between `last` and `now`.
    pub fn pass_time(&mut self, last: UnixTime, now: UnixTime) {
        for (pattern, candidates) in &self.by_pattern {
            let changed = |candidate: &Candidate| {
                candidate.certificate.validity(last) != candidate.certificate.validity(now)
            };
            if candidates.iter().any(changed) {
                self.dirty.insert(pattern.clone());
            }
        }
    }

    /// Whether a configured certificate that is valid at `now` covers all of `pattern`.
    pub fn covers(&self, pattern: &Pattern, now: UnixTime) -> bool {
        let any = |pattern: &Pattern| {
            self.by_pattern.get(pattern).is_some_and(|all| {
                all.iter()
                    .any(|one| is_configured(one) && is_valid(one, now))
            })
        };
        any(pattern)
            || pattern
                .wildcard_over()
                .is_some_and(|wildcard| any(&wildcard))
    }

    /// Whether nothing happened since the last update.
    pub fn is_settled(&self) -> bool {
        self.dirty.is_empty()
    }

    /// Brings `map`, made by the last call or empty, to what is to be served at `now`.
    #[must_use]
    pub fn update(&mut self, map: &SniMap, now: UnixTime) -> SniMap {
        let mut dirty = std::mem::take(&mut self.dirty);
        for name in &self.invalid {
            let name = Pattern::Exact(name.clone());
            if name
                .wildcard_over()
                .is_some_and(|wildcard| dirty.contains(&wildcard))
            {
                dirty.insert(name);
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

    /// The certificates to serve for `pattern`, in the order of their kinds.
    fn decide(&mut self, pattern: &Pattern, now: UnixTime) -> Vec<Arc<TlsCertificate>> {
        let all = self.by_pattern.get(pattern).map_or(&[][..], Vec::as_slice);
        let valid = has_valid(all, now);
        if let Pattern::Exact(name) = pattern {
            if valid || all.is_empty() {
                self.invalid.remove(name);
            } else {
                self.invalid.insert(name.clone());
                let covered = pattern
                    .wildcard_over()
                    .and_then(|wildcard| self.by_pattern.get(&wildcard))
                    .is_some_and(|wildcard| has_valid(wildcard, now));
                if covered {
                    return Vec::new();
                }
            }
        }
        let mut best: Vec<_> = all
            .iter()
            .filter(|candidate| !valid || is_valid(candidate, now))
            .collect();
        let standing = best.iter().map(|candidate| candidate.standing).max();
        best.retain(|candidate| Some(candidate.standing) == standing);
        best.sort_by_key(|candidate| (candidate.certificate.kind(), Reverse(rank(candidate))));
        best.dedup_by_key(|candidate| candidate.certificate.kind());
        best.into_iter()
            .map(|candidate| Arc::clone(&candidate.certificate))
            .collect()
    }
}

/// Sets made in one go; names with the same certificates share theirs.
#[derive(Default)]
struct Sets(HashMap<Vec<*const TlsCertificate>, Arc<CertificateSet>>);

impl Sets {
    fn get(&mut self, certificates: Vec<Arc<TlsCertificate>>) -> Option<Arc<CertificateSet>> {
        if certificates.is_empty() {
            return None;
        }
        let key = certificates.iter().map(Arc::as_ptr).collect();
        let set = self.0.entry(key).or_insert_with(|| {
            Arc::new(CertificateSet {
                by_kind: certificates,
            })
        });
        Some(Arc::clone(set))
    }
}

fn is_configured(candidate: &Candidate) -> bool {
    candidate.standing == Standing::Configured
}

fn is_valid(candidate: &Candidate, now: UnixTime) -> bool {
    candidate.certificate.validity(now) == Validity::Valid
}

fn has_valid(candidates: &[Candidate], now: UnixTime) -> bool {
    candidates.iter().any(|candidate| is_valid(candidate, now))
}

fn rank(candidate: &Candidate) -> impl Ord + use<> {
    let certificate = &candidate.certificate;
    (
        certificate.not_after(),
        certificate.not_before(),
        certificate.fingerprint(),
    )
}
