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
use super::revocations::said_by_list;
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
    last: UnixTime,
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
    this_update: UnixTime,
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
    found: Found,
}

/// What a list says.
struct Found {
    this_update: UnixTime,
    next_update: UnixTime,
    revoked: Vec<FoundRevoked>,
    /// The certificates that it called revoked before.
    restored: Vec<Arc<TlsCertificate>>,
}

/// What came of fetching a list.
pub(crate) struct Applied {
    /// For the metrics.
    pub(crate) result: &'static str,
    /// Its URL.
    pub(crate) url: Arc<str>,
    /// The certificates that are revoked, whether that is news or not.
    pub(crate) revoked: Vec<FoundRevoked>,
    /// Those that it no longer calls revoked.
    pub(crate) restored: Vec<Arc<TlsCertificate>>,
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
        if now < self.last {
            // What was planned by a clock that was ahead.
            for list in self.by_url.values_mut() {
                list.next = list.next.min(now + SOONEST);
                list.fetched = list.fetched.min(now);
            }
        }
        self.last = now;
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

    /// Applies what came of fetching a list.
    pub(crate) fn apply(&mut self, searched: Searched, now: UnixTime) -> Applied {
        let Searched { query, result } = searched;
        let mut applied = Applied {
            result: "ok",
            url: (*query.url).into(),
            revoked: Vec::new(),
            restored: Vec::new(),
        };
        let Some(list) = self.by_url.get_mut(&query.url) else {
            return applied;
        };
        list.is_asking = false;
        let life = match list.judge(result, now) {
            Ok(Some(Fetched { known, found })) => {
                list.known = known;
                list.searched = query.members;
                (list.this_update, list.next_update) = (found.this_update, found.next_update);
                (applied.revoked, applied.restored) = (found.revoked, found.restored);
                list.next_update - list.this_update
            }
            Ok(None) => {
                applied.result = "unchanged";
                list.next_update - now
            }
            Err(fault) => {
                applied.result = "failed";
                list.fail(&query.url, &fault, now, &mut self.rng);
                return applied;
            }
        };
        (list.failures, list.fetched) = (0, now);
        let pause = (life / 2).clamp(SOONEST, LATEST);
        list.next = now + pause - self.rng.i64(0..=pause / 8);
        applied
    }

    /// Notes that the list at `url` was not searched, because of a bug.
    pub(crate) fn note_interrupted(&mut self, url: &str, now: UnixTime) {
        if let Some(list) = self.by_url.get_mut(url) {
            list.is_asking = false;
            list.fail(url, "it was interrupted by a bug", now, &mut self.rng);
        }
    }
}

impl List {
    /// What of `result` counts at `now`: a list does not take the place of a newer one, and one that has
    /// expired does not count because its server has no other.
    fn judge(
        &self,
        result: Result<Option<Fetched>, String>,
        now: UnixTime,
    ) -> Result<Option<Fetched>, String> {
        match result? {
            Some(fetched) if fetched.found.this_update < self.this_update => Err(format!(
                "it is of {}, older than the one of {} before",
                fetched.found.this_update, self.this_update
            )),
            None if self.next_update <= now => Err(format!(
                "it has expired at {}, and its server has no newer one",
                self.next_update
            )),
            fetched => Ok(fetched),
        }
    }

    fn fail(&mut self, url: &str, fault: &str, now: UnixTime, rng: &mut fastrand::Rng) {
        let factor = 1_i64.checked_shl(self.failures.min(20)).unwrap_or(i64::MAX);
        let pause = FIRST_PAUSE.saturating_mul(factor).min(LONGEST_PAUSE);
        self.failures = self.failures.saturating_add(1);
        self.next = now + pause + rng.i64(0..=pause / 4);
        // What the server has is sent again, whatever it was.
        self.known = Validators::default();
        tracing::warn!(
            url,
            failures = self.failures,
            next = %self.next,
            "cannot search a revocation list: {fault}"
        );
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
                found.map(|found| Some(Fetched { known, found }))
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
    ) -> Result<Found, String> {
        let (mut revoked, mut restored) = (Vec::new(), Vec::new());
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
            let Ok(leaf) = certificate.leaf() else {
                continue;
            };
            match list.find(&leaf) {
                Some(reason) => revoked.push(FoundRevoked {
                    certificate: Arc::clone(certificate),
                    reason,
                    said_by: said_by_list(&self.url),
                    is_restored: false,
                }),
                None if is_called_revoked(certificate, &self.url) => {
                    restored.push(Arc::clone(certificate));
                }
                None => {}
            }
        }
        let mut times = None;
        let mut fault = None;
        for (_, list) in read {
            match list {
                Ok(list) => times = Some((list.this_update, list.next_update)),
                Err(error) => fault = Some(error.to_string()),
            }
        }
        if let (Some(_), Some(fault)) = (times, &fault) {
            // Some of the certificates that name it are of another issuer.
            tracing::warn!(
                url = %self.url,
                "a revocation list does not count for some of the certificates that name it: {fault}"
            );
        }
        let (this_update, next_update) = match (times, fault) {
            (Some(times), _) => times,
            (None, Some(fault)) => return Err(fault),
            // Nothing here is for it to say.
            (None, None) => (UnixTime::default(), now + 2 * LATEST),
        };
        Ok(Found {
            this_update,
            next_update,
            revoked,
            restored,
        })
    }
}

/// Returns true if the list at `url` called `certificate` revoked before.
fn is_called_revoked(certificate: &TlsCertificate, url: &str) -> bool {
    let known = certificate.status().map(|status| status.known());
    known.is_some_and(|known| known.revoked.by_list.as_deref() == Some(url))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::unix;

    fn fetched(this_update: i64, next_update: i64) -> Result<Option<Fetched>, String> {
        Ok(Some(Fetched {
            known: Validators::default(),
            found: Found {
                this_update: unix(this_update),
                next_update: unix(next_update),
                revoked: Vec::new(),
                restored: Vec::new(),
            },
        }))
    }

    #[test]
    fn an_older_list_or_one_that_has_expired_does_not_count() {
        let list = List {
            this_update: unix(100),
            next_update: unix(200),
            ..List::default()
        };
        for (result, now, words) in [
            (fetched(100, 200), 150, None),
            (fetched(150, 250), 150, None),
            (fetched(99, 300), 150, Some("older than")),
            (Ok(None), 199, None),
            (Ok(None), 200, Some("has no newer one")),
        ] {
            let fault = list.judge(result, unix(now)).err();
            match words {
                None => assert_eq!(fault, None),
                Some(words) => {
                    let fault = fault.expect("it does not count");
                    assert!(fault.contains(words), "{fault}");
                }
            }
        }
    }

    #[test]
    fn a_clock_that_was_ahead_delays_nothing_once_it_is_right() {
        let mut lists = Lists::default();
        let list = List {
            next: unix(1_000_000),
            fetched: unix(900_000),
            ..List::default()
        };
        lists.by_url.insert("http://list/".into(), list);
        lists.last = unix(900_000);
        assert!(lists.take_due(unix(0)).is_none());
        assert!(lists.next().is_some_and(|next| next <= unix(SOONEST)));
    }
}
