//! Which of the given and known certificates are sent above a leaf, and in what order.
//!
//! First comes the path from the leaf's issuer upwards; if several certificates could be next
//! because they share a name and key, the one that is valid and lasts longest. The path is followed
//! by the other certificates that were given for the same places, with their own issuers: each
//! leads to another root, and clients pick what they trust. A file with one path is sent in its
//! order.

use std::sync::Arc;

use openssl::error::ErrorStack;
use openssl::x509::{X509, X509Ref};

use super::{ChainRef, Intermediates, is_self_issued, issued};
use crate::certificate::parse::unix_time;
use crate::clock::UnixTime;

/// The maximum number of certificates that are sent above a leaf.
const MAX_CERTIFICATES: usize = 10;

/// The size, in octets, up to which alternatives are added to a path.
const MAX_OCTETS: usize = 32 * 1024;

/// The certificates given for a leaf.
pub(in crate::certificate) enum Given {
    /// By a CA, as the chain that it means: sent as it is.
    ByCa(Vec<X509>),
    /// In a file, in any order, perhaps with unrelated ones.
    InFile(Vec<X509>),
}

impl Default for Given {
    fn default() -> Self {
        Self::InFile(Vec::new())
    }
}

/// The result for a leaf.
pub(in crate::certificate) struct Chain {
    /// In the order in which they are sent; without the root, unless a CA provided it.
    pub(in crate::certificate) certificates: ChainRef,
    /// Given, but not part of the chain; roots are not listed.
    pub(in crate::certificate) unrelated: Vec<X509>,
    /// Given, but expired and replaced by another.
    pub(in crate::certificate) superseded: Vec<X509>,
    /// Whether the issuer of the leaf is unknown.
    pub(in crate::certificate) incomplete: bool,
}

impl Intermediates {
    /// Builds the best chain of `leaf` at `now`, from what is given and, if that does not suffice,
    /// from what is known.
    pub(in crate::certificate) fn build(
        &self,
        leaf: &X509Ref,
        given: Given,
        now: UnixTime,
    ) -> Result<Chain, ErrorStack> {
        let is_above = |one: &X509| **one != *leaf;
        match given {
            Given::ByCa(mut given) => {
                given.retain(is_above);
                let issuer = given.iter().position(|one| issued(one, leaf, false));
                if issuer.is_some() || is_self_issued(leaf) {
                    return self.take_as_it_is(given, issuer);
                }
                self.find_path(leaf, given, now)
            }
            Given::InFile(mut given) => {
                given.retain(is_above);
                self.find_path(leaf, given, now)
            }
        }
    }

    fn take_as_it_is(&self, given: Vec<X509>, issuer: Option<usize>) -> Result<Chain, ErrorStack> {
        let given = given.into_iter().take(MAX_CERTIFICATES);
        let certificates = given
            .map(|one| self.intern(one))
            .collect::<Result<Vec<_>, _>>()?;
        let issuer = issuer.filter(|at| *at > 0);
        let issuer = issuer.and_then(|at| certificates.get(at).cloned());
        Ok(Chain {
            certificates: self.share(certificates, issuer),
            unrelated: Vec::new(),
            superseded: Vec::new(),
            incomplete: false,
        })
    }

    fn find_path(
        &self,
        leaf: &X509Ref,
        mut given: Vec<X509>,
        now: UnixTime,
    ) -> Result<Chain, ErrorStack> {
        let mut path: Vec<Arc<X509>> = Vec::new();
        let mut has_issuer = is_self_issued(leaf);
        let mut at_root = has_issuer;
        let mut root = None;
        while !at_root && path.len() < MAX_CERTIFICATES {
            let current: &X509Ref = path.last().map_or(leaf, |top| top);
            let best = best_of(&given, current, now);
            let is_valid = |one: &X509Ref| !has_ended(one, now);
            let known = match best {
                Some((_, best)) if is_valid(best) => None,
                // Two authorities may have signed each other.
                _ => self
                    .find_issuer(current, now)
                    .filter(|known| best.is_none() || is_valid(known))
                    .filter(|known| !path.iter().any(|used| Arc::ptr_eq(used, known))),
            };
            let issuer = match (known, best) {
                (Some(known), _) => known,
                (None, Some((at, _))) => self.intern(given.remove(at))?,
                (None, None) => break,
            };
            has_issuer = true;
            at_root = is_self_issued(&issuer);
            match at_root {
                true if path.is_empty() => root = Some(issuer),
                true => {}
                false => path.push(issuer),
            }
        }
        given.retain(|one| !is_self_issued(one) && !path.iter().any(|used| **used == *one));
        let mut superseded = Vec::new();
        if !given.is_empty() {
            superseded = self.add_alternatives(leaf, &mut path, &mut given, now)?;
        }
        Ok(Chain {
            certificates: self.share(path, root),
            unrelated: given,
            superseded,
            incomplete: !has_issuer,
        })
    }

    /// Adds to `chain`, a path above `leaf`, the others of `given` that issued something in it.
    /// Returns those of them that have expired while a valid one is sent.
    fn add_alternatives(
        &self,
        leaf: &X509Ref,
        chain: &mut Vec<Arc<X509>>,
        given: &mut Vec<X509>,
        now: UnixTime,
    ) -> Result<Vec<X509>, ErrorStack> {
        let mut octets = 0;
        for one in chain.iter() {
            octets += one.to_der()?.len();
        }
        let path = chain.len();
        let mut ended = Vec::new();
        let mut below = 0;
        while below <= chain.len() {
            let child = match below.checked_sub(1) {
                None => leaf.to_owned(),
                Some(at) => match chain.get(at) {
                    Some(child) => X509::clone(child),
                    None => break,
                },
            };
            // What is sent above it on the path; above an alternative there is nothing.
            let chosen = chain.get(below).filter(|_| below < path);
            let is_covered = chosen.is_none_or(|chosen| !has_ended(chosen, now));
            while let Some((at, best)) = best_of(given, &child, now) {
                let alternative = best.to_owned();
                given.remove(at);
                if has_ended(&alternative, now) && is_covered {
                    ended.push(alternative);
                    continue;
                }
                octets += alternative.to_der()?.len();
                if chain.len() < MAX_CERTIFICATES && octets <= MAX_OCTETS {
                    chain.push(self.intern(alternative)?);
                }
            }
            below += 1;
        }
        Ok(ended)
    }
}

/// The best issuer of `certificate` among `given`, and its index; the first of equals.
fn best_of<'g>(
    given: &'g [X509],
    certificate: &X509Ref,
    now: UnixTime,
) -> Option<(usize, &'g X509Ref)> {
    let issuers = given.iter().enumerate();
    issuers
        .filter(|(_, issuer)| issued(issuer, certificate, false))
        .rev()
        .max_by_key(|(_, issuer)| rank(issuer, now))
        .map(|(at, issuer)| (at, &**issuer))
}

/// The rank of an issuer: unexpired before expired, one that may be sent before a root, then by its
/// end.
fn rank(issuer: &X509Ref, now: UnixTime) -> (bool, bool, UnixTime) {
    (
        !has_ended(issuer, now),
        !is_self_issued(issuer),
        end(issuer),
    )
}

pub(super) fn has_ended(certificate: &X509Ref, now: UnixTime) -> bool {
    end(certificate) < now
}

/// The last second of validity.
pub(super) fn end(certificate: &X509Ref) -> UnixTime {
    unix_time(certificate.not_after()).unwrap_or_default()
}

/// When the first certificate of a chain expires, and its index; among several with the same name
/// and key, the one that lasts longest counts.
pub(super) fn first_end(chain: &[Arc<X509>]) -> Option<(UnixTime, usize)> {
    let lasting = |one: &X509Ref| {
        let alike = chain.iter().filter(|other| is_alike(one, other));
        alike.map(|other| end(other)).max()
    };
    let ends = chain.iter().enumerate();
    ends.filter_map(|(at, one)| Some((lasting(one)?, at))).min()
}

/// When the last certificate of a chain becomes valid, and its index; among several with the same name
/// and key, the one that is valid first counts.
pub(super) fn last_begin(chain: &[Arc<X509>]) -> Option<(UnixTime, usize)> {
    let begin = |one: &X509Ref| unix_time(one.not_before()).unwrap_or_default();
    let first = |one: &X509Ref| {
        let alike = chain.iter().filter(|other| is_alike(one, other));
        alike.map(|other| begin(other)).min()
    };
    let begins = chain.iter().enumerate();
    begins.filter_map(|(at, one)| Some((first(one)?, at))).max()
}

/// Returns true if both have the same name and key.
fn is_alike(one: &X509Ref, other: &X509Ref) -> bool {
    one.subject_name_hash() == other.subject_name_hash()
        && match (one.public_key(), other.public_key()) {
            (Ok(key), Ok(other)) => key.public_eq(&other),
            _ => false,
        }
}
