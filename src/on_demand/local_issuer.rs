//! Certificates that the local CA issues when a client first asks for a name.
//!
//! They are kept in memory, in limited number. Who may have one is decided elsewhere.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use moka::ops::compute::{CompResult, Op};
use moka::sync::Cache;

use super::{ObtainError, OnDemandIssuer};
use crate::certificate::sni::CertificateSet;
use crate::certificate::{TlsCertificate, Validity};
use crate::clock::{Clock, UnixTime};
use crate::host::{HostName, Pattern};
use crate::local_ca::{LocalCa, LocalCaError};

/// How many names are kept; beyond that, the least requested go first.
const CAPACITY: u64 = 10_000;

/// Certificates of the local CA expire long before.
const YEAR: Duration = Duration::from_secs(365 * 86_400);

/// Issues certificates by the local CA and caches them.
pub struct LocalOnDemandIssuer {
    ca: Arc<LocalCa>,
    clock: Arc<dyn Clock>,
    /// The last part of a certificate's lifetime, in which it is renewed.
    window: f64,
    cache: Cache<HostName, Arc<CertificateSet>, ahash::RandomState>,
}

impl LocalOnDemandIssuer {
    /// Issues from `ca`, and again in the last `window` of a certificate's lifetime. Names that
    /// nobody asks for during `unused` are forgotten.
    pub fn new(ca: Arc<LocalCa>, clock: Arc<dyn Clock>, window: f64, unused: Duration) -> Self {
        Self::bounded(ca, clock, window, unused, CAPACITY)
    }

    fn bounded(
        ca: Arc<LocalCa>,
        clock: Arc<dyn Clock>,
        window: f64,
        unused: Duration,
        capacity: u64,
    ) -> Self {
        let cache = Cache::builder()
            .max_capacity(capacity)
            .time_to_idle(unused.min(YEAR))
            .build_with_hasher(ahash::RandomState::new());
        Self {
            ca,
            clock,
            window,
            cache,
        }
    }

    /// Drops expired certificates.
    pub fn drop_unused(&self) {
        let now = self.clock.now();
        for (name, set) in &self.cache {
            if !are_valid(&set, now) {
                self.cache.invalidate(&*name);
            }
        }
    }

    /// The cached certificates.
    pub fn certificates(&self) -> Vec<Arc<TlsCertificate>> {
        let sets = self.cache.iter().map(|(_, set)| set);
        sets.flat_map(|set| set.by_kind.clone()).collect()
    }

    /// How many names have a certificate.
    pub fn len(&self) -> usize {
        self.cache.run_pending_tasks();
        usize::try_from(self.cache.entry_count()).unwrap_or(usize::MAX)
    }

    /// Returns true if no name has a certificate.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The certificate for `name`, issued by one caller while others for the same name wait. One
    /// that is due is replaced.
    ///
    /// # Errors
    /// If it cannot be issued.
    pub fn issue_certificate(&self, name: &HostName) -> Result<Arc<CertificateSet>, ObtainError> {
        let made = self
            .cache
            .entry_by_ref(name)
            .and_try_compute_with(|present| {
                if present.is_some_and(|present| !self.is_due(present.value())) {
                    return Ok::<_, LocalCaError>(Op::Nop);
                }
                let certificate = self.ca.issue(&[Pattern::Exact(name.clone())])?;
                Ok(Op::Put(Arc::new(CertificateSet::single(Arc::new(
                    certificate,
                )))))
            });
        match made {
            Ok(
                CompResult::Inserted(entry)
                | CompResult::ReplacedWith(entry)
                | CompResult::Unchanged(entry),
            ) => Ok(entry.into_value()),
            Ok(CompResult::Removed(_) | CompResult::StillNone(_)) => Err(ObtainError {
                why: "the local CA issued none".to_owned(),
                retry_after: None,
                is_begun: true,
            }),
            Err(error) => Err(ObtainError {
                why: error.to_string(),
                retry_after: None,
                is_begun: true,
            }),
        }
    }
}

#[async_trait]
impl OnDemandIssuer for LocalOnDemandIssuer {
    fn cached(&self, name: &HostName) -> Option<Arc<CertificateSet>> {
        let now = self.clock.now();
        self.cache.get(name).filter(|set| are_valid(set, now))
    }

    async fn obtain(&self, name: &HostName) -> Result<Arc<CertificateSet>, ObtainError> {
        self.issue_certificate(name)
    }

    fn is_due(&self, set: &CertificateSet) -> bool {
        let now = self.clock.now();
        set.by_kind
            .iter()
            .any(|certificate| certificate.is_due(self.window, now))
    }
}

fn are_valid(set: &CertificateSet, now: UnixTime) -> bool {
    set.by_kind
        .iter()
        .all(|certificate| certificate.validity(now) == Validity::Valid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificate::testing::{DAY, NOW};
    use crate::clock::ManualClock;
    use crate::local_ca::tests::open;
    use crate::storage::MemoryStorage;

    fn maker(room: u64) -> (Arc<ManualClock>, LocalOnDemandIssuer) {
        let clock = Arc::new(ManualClock::at(NOW));
        let ca = open(&MemoryStorage::default(), &clock).expect("a CA");
        let maker = LocalOnDemandIssuer::bounded(Arc::new(ca), clock.clone(), 0.33, YEAR, room);
        (clock, maker)
    }

    fn name(text: &str) -> HostName {
        text.parse().expect("a name")
    }

    #[tokio::test]
    async fn what_is_made_is_at_hand() {
        let (_, maker) = maker(CAPACITY);
        assert!(maker.cached(&name("a.example")).is_none() && maker.is_empty());
        let made = maker.obtain(&name("a.example")).await.expect("made");
        assert!(made.covers("a.example"));
        assert!(openssl::error::ErrorStack::get().errors().is_empty());
        let at_hand = maker.cached(&name("a.example")).expect("kept");
        assert!(Arc::ptr_eq(&made, &at_hand) && !maker.is_due(&at_hand));
    }

    #[test]
    fn no_more_are_kept_than_there_is_room_for() {
        const ROOM: usize = 20;
        let (_, maker) = maker(ROOM as u64);
        for number in 0..5 * ROOM {
            let host = name(&format!("{number}.a.example"));
            let set = maker.issue_certificate(&host).expect("made");
            assert!(set.covers(host.as_str()), "whether it is kept or not");
        }
        assert!((1..=ROOM).contains(&maker.len()), "{}", maker.len());
        // An evicted certificate is issued again.
        assert!(maker.issue_certificate(&name("0.a.example")).is_ok());
    }

    #[test]
    fn one_certificate_is_made_for_all_who_ask_at_once() {
        let (_, maker) = maker(CAPACITY);
        let sets: Vec<_> = std::thread::scope(|scope| {
            let ask = || maker.issue_certificate(&name("x.a.example")).expect("made");
            let asking: Vec<_> = (0..8).map(|_| scope.spawn(ask)).collect();
            asking
                .into_iter()
                .map(|asked| asked.join().expect("an answer"))
                .collect()
        });
        assert!(sets.iter().all(|set| Arc::ptr_eq(set, &sets[0])));
    }

    #[test]
    fn certificates_are_renewed_before_their_end_and_swept_after() {
        let (clock, maker) = maker(CAPACITY);
        let x = name("x.a.example");
        let first = maker.issue_certificate(&x).expect("made");
        clock.advance(3 * DAY);
        assert!(Arc::ptr_eq(
            &first,
            &maker.issue_certificate(&x).expect("made")
        ));
        clock.advance(3 * DAY);
        assert!(maker.is_due(&first), "in the last third of its life");
        assert!(maker.cached(&x).is_some(), "and good all the same");
        let renewed = maker.issue_certificate(&x).expect("made");
        assert!(!Arc::ptr_eq(&first, &renewed));
        maker.drop_unused();
        assert_eq!(maker.len(), 1);
        clock.advance(8 * DAY);
        assert!(maker.cached(&x).is_none(), "it has ended");
        maker.drop_unused();
        assert!(maker.is_empty());
    }
}
