//! Where the status of a certificate can be learned, and the OCSP response that is stapled to it.
//!
//! What a certificate names is the same for many of a CA, so they share it. The response has a place of
//! its own: replacing it touches neither the certificate nor the map that handshakes read.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwapOption;
use openssl::error::ErrorStack;
use openssl::x509::X509Ref;

use super::ffi;
use crate::clock::UnixTime;
use crate::lock::MutexExt as _;

/// The longest URL that is used, and the most lists of one certificate.
const LONGEST_URL: usize = 1024;
const MOST_LISTS: usize = 8;

/// What a certificate says of its own status.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct StatusSources {
    /// The URL of its OCSP responder (RFC 5280, section 4.2.2.1).
    pub(crate) responder: Option<Box<str>>,
    /// The URLs of its revocation lists (RFC 5280, section 4.2.1.13).
    pub(crate) lists: Box<[Box<str>]>,
    /// Whether clients are to refuse it without a stapled response (RFC 7633).
    pub(crate) requires_staple: bool,
}

impl StatusSources {
    /// What `leaf` says; `None` if that is nothing.
    pub(super) fn of(leaf: &X509Ref) -> Option<Self> {
        let sources = Self {
            responder: responder(leaf),
            lists: lists(leaf).into(),
            requires_staple: ffi::requires_staple(leaf),
        };
        // A missing extension may leave an error, which a handshake on this thread would take as its
        // own.
        drop(ErrorStack::get());
        (sources != Self::default()).then_some(sources)
    }

    /// Returns true if clients require a response that nobody can be asked for.
    pub(crate) fn cannot_be_stapled(&self) -> bool {
        self.requires_staple && self.responder.is_none()
    }
}

/// The first responder that is asked over plain HTTP: with TLS its certificate would have a status to
/// be learned first.
fn responder(leaf: &X509Ref) -> Option<Box<str>> {
    let urls = leaf.ocsp_responders().ok()?;
    let mut urls = urls.iter().map(|url| &**url);
    urls.find(|url| is_usable(url)).map(Box::from)
}

fn lists(leaf: &X509Ref) -> Vec<Box<str>> {
    let points = leaf.crl_distribution_points();
    let points = points.iter().flatten();
    let names = points.filter_map(|point| point.distpoint()?.fullname());
    // Several names of one point are places of the same list.
    let urls = names.filter_map(|names| {
        let mut urls = names.iter().filter_map(|name| name.uri());
        urls.find(|url| is_usable(url)).map(Box::from)
    });
    let mut urls: Vec<Box<str>> = urls.take(MOST_LISTS).collect();
    urls.dedup();
    urls
}

fn is_usable(url: &str) -> bool {
    let scheme = url.get(..7);
    scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case("http://"))
        && url.len() <= LONGEST_URL
        && url.bytes().all(|octet| octet.is_ascii_graphic())
}

/// An OCSP response that was verified for its certificate.
#[derive(Debug)]
pub(crate) struct Staple {
    /// In DER, as handshakes send it.
    pub(crate) response: Box<[u8]>,
    pub(crate) this_update: UnixTime,
    /// It is not sent from this time on.
    pub(crate) next_update: UnixTime,
}

/// What is known of the status of a certificate.
#[derive(Clone, Debug, Default)]
pub(crate) struct KnownStatus {
    /// The response that was fetched last, of those that say that the certificate is good.
    pub(crate) staple: Option<Arc<Staple>>,
    /// Why there is no newer one.
    pub(crate) fault: Option<Arc<str>>,
    pub(crate) revoked: Revoked,
}

/// Who says that a certificate is revoked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Revoked {
    /// Its responder, in a response of this `thisUpdate`.
    pub(crate) by_responder: Option<UnixTime>,
    /// The revocation list with this URL.
    pub(crate) by_list: Option<Arc<str>>,
}

impl KnownStatus {
    /// Returns true if its CA says that it is revoked.
    pub(crate) fn is_revoked(&self) -> bool {
        self.revoked != Revoked::default()
    }

    /// Returns true if `staple` is the known response.
    pub(crate) fn has(&self, staple: &Arc<Staple>) -> bool {
        let known = self.staple.as_ref();
        known.is_some_and(|known| Arc::ptr_eq(known, staple))
    }

    /// Returns true if `staple` is no news at `now`: it is the known response or an older one, and should
    /// have been replaced by now.
    pub(crate) fn has_at_least(&self, staple: &Staple, now: UnixTime) -> bool {
        let known = self.staple.as_ref();
        let is_same = known.is_some_and(|known| known.this_update >= staple.this_update);
        let life = staple.next_update - staple.this_update;
        is_same && now > staple.this_update + (life / 2 - life / 20)
    }

    /// Returns true if `other` is the same, with the same response.
    pub(crate) fn is_same_as(&self, other: &Self) -> bool {
        let staple = |one: &Self| one.staple.as_ref().map(Arc::as_ptr);
        staple(self) == staple(other) && self.fault == other.fault && self.revoked == other.revoked
    }
}

/// What a certificate says of its status, and what is known of it. One task at a time replaces that.
#[derive(Debug)]
pub(crate) struct CertStatus {
    sources: Arc<StatusSources>,
    known: ArcSwapOption<KnownStatus>,
}

impl CertStatus {
    /// The status of a certificate that says this; nothing is stapled yet.
    pub(super) fn new(sources: Arc<StatusSources>) -> Arc<Self> {
        Arc::new(Self {
            sources,
            known: ArcSwapOption::empty(),
        })
    }

    pub(crate) fn sources(&self) -> &Arc<StatusSources> {
        &self.sources
    }

    /// The response that may be sent at `now`: none from its end on, and none that says that a revoked
    /// certificate is good.
    pub(crate) fn staple(&self, now: UnixTime) -> Option<Arc<Staple>> {
        let known = self.known.load();
        let known = known.as_ref().filter(|known| !known.is_revoked())?;
        let staple = known.staple.as_ref();
        staple.filter(|staple| now < staple.next_update).cloned()
    }

    /// What is known of it.
    pub(crate) fn known(&self) -> KnownStatus {
        let known = self.known.load();
        known.as_deref().cloned().unwrap_or_default()
    }

    /// Notes what is known of it from now on.
    pub(crate) fn update(&self, change: impl FnOnce(&mut KnownStatus)) {
        let mut known = self.known();
        change(&mut known);
        self.known.store(Some(Arc::new(known)));
    }

    /// Returns true if clients are to refuse the certificate at `now`, since it requires a response and
    /// there is none.
    pub(crate) fn lacks_staple(&self, now: UnixTime) -> bool {
        self.sources.requires_staple && self.staple(now).is_none()
    }
}

/// What certificates say of their status, held once however many say the same.
#[derive(Default)]
pub(super) struct SourcesPool(Mutex<HashSet<Arc<StatusSources>>>);

impl SourcesPool {
    /// The one value that equals `sources`.
    pub(super) fn share(&self, sources: StatusSources) -> Arc<StatusSources> {
        let mut known = self.0.lock_unpoisoned();
        if let Some(known) = known.get(&sources) {
            return Arc::clone(known);
        }
        if known.len() == known.capacity() {
            known.retain(|one| Arc::strong_count(one) > 1);
        }
        let sources = Arc::new(sources);
        known.insert(Arc::clone(&sources));
        sources
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::unix;

    #[test]
    fn what_many_say_is_held_once() {
        let pool = SourcesPool::default();
        let said = |url: &str| StatusSources {
            responder: Some(url.into()),
            ..StatusSources::default()
        };
        let (first, second) = (pool.share(said("http://a/")), pool.share(said("http://a/")));
        assert!(Arc::ptr_eq(&first, &second));
        assert!(!Arc::ptr_eq(&first, &pool.share(said("http://b/"))));
        for number in 0..100 {
            pool.share(said(&format!("http://{number}/")));
        }
        assert!(
            pool.0.lock_unpoisoned().len() < 100,
            "what nobody says is forgotten"
        );
        assert!(Arc::ptr_eq(&first, &pool.share(said("http://a/"))));
    }

    #[test]
    fn a_response_is_never_sent_from_its_end_on() {
        let sources = StatusSources {
            requires_staple: true,
            ..StatusSources::default()
        };
        let status = CertStatus::new(Arc::new(sources));
        assert!(status.lacks_staple(unix(0)));
        let staple = Arc::new(Staple {
            response: [1].into(),
            this_update: unix(0),
            next_update: unix(10),
        });
        status.update(|known| known.staple = Some(staple));
        assert!(status.staple(unix(9)).is_some() && !status.lacks_staple(unix(9)));
        assert!(status.staple(unix(10)).is_none() && status.lacks_staple(unix(10)));
        status.update(|known| known.revoked.by_list = Some("http://list/".into()));
        assert!(status.staple(unix(9)).is_none(), "whoever says so");
    }

    #[test]
    fn only_plain_http_is_used() {
        for url in ["http://ocsp.example/", "HTTP://ocsp.example"] {
            assert!(is_usable(url), "{url}");
        }
        let long = format!("http://{}", "a".repeat(LONGEST_URL));
        for url in [
            "https://ocsp.example/",
            "ldap://x",
            "http:/",
            "http://a b",
            &long,
        ] {
            assert!(!is_usable(url), "{url}");
        }
    }
}
