//! When which revocation list is fetched, and what it says of the certificates that name it.
//!
//! A list is kept only while it is searched: it may be long. Its server is asked whether there is another
//! one, and has the same one sent again only if certificates were added since.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use http::HeaderValue;
use openssl::x509::X509;

use super::FoundRevoked;
use super::crl::{ListFault, RevocationList};
use crate::certificate::TlsCertificate;
use crate::clock::UnixTime;

/// How long a list is relied on, in seconds: a half of its validity, within these bounds.
const SOONEST: i64 = 3600;
const LATEST: i64 = 24 * 3600;

/// The pause after a failure: the first, and the longest.
const FIRST_PAUSE: i64 = 60;
const LONGEST_PAUSE: i64 = 6 * 3600;

/// All lists that certificates name.
#[derive(Default)]
pub(crate) struct Lists {
    by_url: HashMap<Box<str>, List>,
    rng: fastrand::Rng,
}

#[derive(Default)]
struct List {
    /// One of the certificates that name it, and a digest of which do.
    sample: Option<Arc<TlsCertificate>>,
    members: u64,
    /// The members that the list was searched for last.
    searched: u64,
    /// When it was last fetched.
    fetched: UnixTime,
    next: UnixTime,
    failures: u32,
    is_asking: bool,
    /// By which its server knows whether there is a newer one.
    known: Validators,
    next_update: UnixTime,
}

/// What a server identifies a version of a list by.
#[derive(Clone, Default)]
pub(crate) struct Validators {
    pub(super) etag: Option<HeaderValue>,
    pub(super) modified: Option<HeaderValue>,
}

/// A list to be fetched.
pub(crate) struct ListQuery {
    pub(crate) url: Box<str>,
    /// One of the certificates that name it.
    pub(crate) certificate: Arc<TlsCertificate>,
    pub(super) known: Validators,
    members: u64,
}

/// What the server of a list has answered.
pub(crate) enum ListAnswer {
    Fetched(Bytes, Validators),
    Unchanged,
    Failed(String),
}

/// A list that was searched.
pub(crate) struct Searched {
    query: ListQuery,
    result: Result<Option<Fetched>, String>,
}

struct Fetched {
    known: Validators,
    this_update: UnixTime,
    next_update: UnixTime,
    revoked: Vec<FoundRevoked>,
}

impl Lists {
    /// Takes note of all certificates there are now.
    pub(crate) fn survey(&mut self, certificates: &[Arc<TlsCertificate>], now: UnixTime) {
        for list in self.by_url.values_mut() {
            (list.sample, list.members) = (None, 0);
        }
        for certificate in certificates {
            let lists = certificate.status().map(|status| &status.sources().lists);
            for url in lists.into_iter().flatten() {
                if !self.by_url.contains_key(url) {
                    self.by_url.insert(url.clone(), List::default());
                }
                if let Some(list) = self.by_url.get_mut(url) {
                    list.members ^= digest(certificate);
                    list.sample.get_or_insert_with(|| Arc::clone(certificate));
                }
            }
        }
        self.by_url.retain(|_, list| list.sample.is_some());
        for list in self.by_url.values_mut() {
            if list.next == UnixTime::default() {
                list.next = now;
            } else if list.members != list.searched && list.failures == 0 {
                // Not each time that one of very many is renewed.
                list.next = list.next.min((list.fetched + SOONEST).max(now));
            }
        }
    }

    /// Forgets all lists.
    pub(crate) fn clear(&mut self) {
        self.by_url.clear();
    }

    /// Takes a list that is to be fetched now. What came of it goes to [`Self::apply`].
    pub(crate) fn take_due(&mut self, now: UnixTime) -> Option<ListQuery> {
        let mut due = self.by_url.iter_mut();
        let (url, list) = due.find(|(_, list)| !list.is_asking && list.next <= now)?;
        list.is_asking = true;
        Some(ListQuery {
            url: url.clone(),
            certificate: list.sample.clone()?,
            known: match list.members == list.searched {
                true => list.known.clone(),
                false => Validators::default(),
            },
            members: list.members,
        })
    }

    /// When a list is to be fetched next.
    pub(crate) fn next(&self) -> Option<UnixTime> {
        let waiting = self.by_url.values().filter(|list| !list.is_asking);
        waiting.map(|list| list.next).min()
    }

    /// Applies what came of fetching a list. Returns the result for the metrics, and the certificates
    /// that are revoked, whether that is news or not.
    pub(crate) fn apply(
        &mut self,
        searched: Searched,
        now: UnixTime,
    ) -> (&'static str, Vec<FoundRevoked>) {
        let Searched { query, result } = searched;
        let Some(list) = self.by_url.get_mut(&query.url) else {
            return ("ok", Vec::new());
        };
        list.is_asking = false;
        match result {
            Ok(fetched) => {
                list.failures = 0;
                list.fetched = now;
                let is_new = fetched.is_some();
                let (life, revoked) = match fetched {
                    Some(fetched) => {
                        list.known = fetched.known;
                        list.searched = query.members;
                        list.next_update = fetched.next_update;
                        (fetched.next_update - fetched.this_update, fetched.revoked)
                    }
                    None => (list.next_update - now, Vec::new()),
                };
                let pause = (life / 2).clamp(SOONEST, LATEST);
                list.next = now + pause - self.rng.i64(0..=pause / 8);
                (if is_new { "ok" } else { "unchanged" }, revoked)
            }
            Err(fault) => {
                let factor = 1_i64.checked_shl(list.failures.min(20)).unwrap_or(i64::MAX);
                let pause = FIRST_PAUSE.saturating_mul(factor).min(LONGEST_PAUSE);
                list.failures = list.failures.saturating_add(1);
                list.next = now + pause + self.rng.i64(0..=pause / 4);
                tracing::warn!(
                    url = %query.url,
                    failures = list.failures,
                    next = %list.next,
                    "cannot search a revocation list: {fault}"
                );
                ("failed", Vec::new())
            }
        }
    }
}

impl ListQuery {
    /// Searches what was fetched for those of `certificates` that name the list. Blocks on certificates
    /// on disk.
    pub(crate) fn search(
        self,
        answer: ListAnswer,
        certificates: &[Arc<TlsCertificate>],
        now: UnixTime,
    ) -> Searched {
        let result = match answer {
            ListAnswer::Fetched(octets, known) => {
                let found = self.search_octets(&octets, certificates, now);
                found.map(|(this_update, next_update, revoked)| {
                    Some(Fetched {
                        known,
                        this_update,
                        next_update,
                        revoked,
                    })
                })
            }
            ListAnswer::Unchanged => Ok(None),
            ListAnswer::Failed(fault) => Err(fault),
        };
        Searched {
            query: self,
            result,
        }
    }

    fn search_octets(
        &self,
        octets: &[u8],
        certificates: &[Arc<TlsCertificate>],
        now: UnixTime,
    ) -> Result<(UnixTime, UnixTime, Vec<FoundRevoked>), String> {
        let mut revoked = Vec::new();
        // Usually one issuer has issued them all.
        let mut read: Vec<(Arc<X509>, Result<RevocationList, ListFault>)> = Vec::new();
        for certificate in certificates.iter().filter(|one| names(one, &self.url)) {
            let Some(issuer) = certificate.issuer() else {
                continue;
            };
            let known = read.iter().position(|(one, _)| Arc::ptr_eq(one, issuer));
            let at = known.unwrap_or_else(|| {
                let list = RevocationList::read(octets, &self.url, issuer, now);
                read.push((Arc::clone(issuer), list));
                read.len() - 1
            });
            let Some((_, Ok(list))) = read.get(at) else {
                continue;
            };
            // One that cannot be read from disk is not served either.
            let reason = certificate.leaf().ok().and_then(|leaf| list.find(&leaf));
            revoked.extend(reason.map(|reason| FoundRevoked {
                certificate: Arc::clone(certificate),
                reason,
                said_by: format!("the revocation list {}", self.url),
            }));
        }
        let mut times = None;
        let mut fault = None;
        for (_, list) in read {
            match list {
                Ok(list) => times = Some((list.this_update, list.next_update)),
                Err(ListFault::Special) => {}
                Err(error) => fault = Some(error.to_string()),
            }
        }
        match (times, fault) {
            (Some((this_update, next_update)), _) => Ok((this_update, next_update, revoked)),
            (None, Some(fault)) => Err(fault),
            // Nothing here is for it to say.
            (None, None) => Ok((now, now + 2 * LATEST, revoked)),
        }
    }
}

fn names(certificate: &TlsCertificate, url: &str) -> bool {
    let status = certificate.status();
    status.is_some_and(|status| status.sources().lists.iter().any(|one| &**one == url))
}

fn digest(certificate: &TlsCertificate) -> u64 {
    let fingerprint = certificate.fingerprint().0;
    let first = fingerprint.first_chunk::<8>();
    first.map_or(0, |first| u64::from_ne_bytes(*first))
}
