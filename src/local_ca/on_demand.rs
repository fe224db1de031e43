//! Certificates of the local CA made when a client first asks for a name.
//!
//! They are kept in memory, bounded in number. The policy is a list of patterns; addresses never
//! pass it, and a name of one label only where a pattern is that very name.

use std::sync::Arc;

use moka::ops::compute::{CompResult, Op};
use moka::sync::Cache;
use tracing::warn;

use super::{LocalCa, LocalCaError};
use crate::certificate::Validity;
use crate::certificate::sni::{CertificateSet, OnDemand};
use crate::clock::{Clock, UnixTime};
use crate::host::{HostName, Pattern};

/// How many names are kept; beyond, those asked for least go first.
const CAPACITY: u64 = 10_000;

/// Makes certificates for the names that a policy allows.
pub struct LocalOnDemand {
    ca: Arc<LocalCa>,
    clock: Arc<dyn Clock>,
    allow: Vec<Pattern>,
    /// The part of the lifetime at whose beginning a certificate is renewed.
    window: f64,
    cache: Cache<HostName, Arc<CertificateSet>, ahash::RandomState>,
}

impl LocalOnDemand {
    /// Issues from `ca` for names that `allow` covers, and anew in the last `window` of a
    /// certificate's life.
    pub fn new(ca: Arc<LocalCa>, clock: Arc<dyn Clock>, allow: Vec<Pattern>, window: f64) -> Self {
        Self::bounded(ca, clock, allow, window, CAPACITY)
    }

    fn bounded(
        ca: Arc<LocalCa>,
        clock: Arc<dyn Clock>,
        allow: Vec<Pattern>,
        window: f64,
        capacity: u64,
    ) -> Self {
        let cache = Cache::builder()
            .max_capacity(capacity)
            .build_with_hasher(ahash::RandomState::new());
        Self {
            ca,
            clock,
            allow,
            window,
            cache,
        }
    }

    /// Forgets certificates that have ended.
    pub fn sweep(&self) {
        let now = self.clock.now();
        for (name, set) in &self.cache {
            if !are_valid(&set, now) {
                self.cache.invalidate(&*name);
            }
        }
    }

    /// How many names have a certificate.
    pub fn len(&self) -> usize {
        self.cache.run_pending_tasks();
        usize::try_from(self.cache.entry_count()).unwrap_or(usize::MAX)
    }

    /// Whether no name has a certificate.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn is_fresh(&self, set: &CertificateSet) -> bool {
        let now = self.clock.now();
        set.by_kind
            .iter()
            .all(|certificate| !certificate.is_due(self.window, now))
    }

    /// The certificate for `name`, made by one caller while others for the same name wait.
    fn obtain(&self, name: HostName) -> Result<Option<Arc<CertificateSet>>, LocalCaError> {
        let made = self
            .cache
            .entry(name.clone())
            .and_try_compute_with(|present| {
                if present.is_some_and(|present| self.is_fresh(present.value())) {
                    return Ok::<_, LocalCaError>(Op::Nop);
                }
                let certificate = self.ca.issue(&[Pattern::Exact(name)])?;
                Ok(Op::Put(Arc::new(CertificateSet::single(Arc::new(
                    certificate,
                )))))
            })?;
        Ok(match made {
            CompResult::Inserted(entry)
            | CompResult::ReplacedWith(entry)
            | CompResult::Unchanged(entry) => Some(entry.into_value()),
            CompResult::Removed(_) | CompResult::StillNone(_) => None,
        })
    }
}

impl OnDemand for LocalOnDemand {
    fn allows(&self, host: &str) -> bool {
        allows(&self.allow, host)
    }

    fn certificate(&self, host: &str) -> Option<Arc<CertificateSet>> {
        let present = self.cache.get(host);
        if present.as_ref().is_some_and(|set| self.is_fresh(set)) {
            return present;
        }
        if !allows(&self.allow, host) {
            return None;
        }
        self.obtain(host.parse().ok()?).unwrap_or_else(|error| {
            warn!(host, %error, "no certificate on demand");
            let now = self.clock.now();
            present.filter(|set| are_valid(set, now))
        })
    }
}

/// Whether the policy `allow` lets `host`, a name in normal form, have a certificate.
pub fn allows(allow: &[Pattern], host: &str) -> bool {
    let has_dot = host.contains('.');
    allow.iter().any(|pattern| match pattern {
        Pattern::Exact(_) => pattern.covers(host),
        Pattern::Ip(_) => false,
        Pattern::Any | Pattern::Wildcard(_) => has_dot && pattern.covers(host),
    })
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

    fn on_demand(allow: &[&str]) -> (Arc<ManualClock>, LocalOnDemand) {
        let clock = Arc::new(ManualClock::at(NOW));
        let ca = open(&MemoryStorage::default(), &clock).expect("a CA");
        let allow = allow
            .iter()
            .map(|text| text.parse().expect("a pattern"))
            .collect();
        (
            clock.clone(),
            LocalOnDemand::new(Arc::new(ca), clock, allow, 0.33),
        )
    }

    #[test]
    fn the_policy_decides() {
        let (_, on_demand) = on_demand(&["*.customers.example", "intranet"]);
        for host in ["a.customers.example", "intranet"] {
            let set = on_demand.certificate(host).expect("allowed");
            assert!(set.covers(host));
            assert!(openssl::error::ErrorStack::get().errors().is_empty());
        }
        for host in [
            "customers.example",
            "a.b.customers.example",
            "other",
            "192.0.2.1",
            "::1",
        ] {
            assert!(on_demand.certificate(host).is_none(), "{host}");
        }
        let (_, any) = self::on_demand(&["*"]);
        assert!(any.certificate("a.example").is_some());
        assert!(any.certificate("single").is_none() && any.certificate("192.0.2.1").is_none());
        assert_eq!(on_demand.len(), 2);
    }

    #[test]
    fn no_more_are_kept_than_there_is_room_for() {
        const ROOM: usize = 20;
        let clock = Arc::new(ManualClock::at(NOW));
        let ca = open(&MemoryStorage::default(), &clock).expect("a CA");
        let allow = vec!["*.a.example".parse().expect("a pattern")];
        let on_demand = LocalOnDemand::bounded(Arc::new(ca), clock, allow, 0.33, ROOM as u64);
        for number in 0..5 * ROOM {
            let host = format!("{number}.a.example");
            let set = on_demand.certificate(&host).expect("made");
            assert!(set.covers(&host), "whether it is kept or not");
        }
        assert!((1..=ROOM).contains(&on_demand.len()), "{}", on_demand.len());
        // One that had to go is made again.
        assert!(on_demand.certificate("0.a.example").is_some());
    }

    #[test]
    fn one_certificate_is_made_for_all_who_ask_at_once() {
        let (_, on_demand) = on_demand(&["*.a.example"]);
        let sets: Vec<_> = std::thread::scope(|scope| {
            let ask = || on_demand.certificate("x.a.example").expect("allowed");
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
        let (clock, on_demand) = on_demand(&["*.a.example"]);
        let first = on_demand.certificate("x.a.example").expect("allowed");
        clock.advance(3 * DAY);
        let same = on_demand.certificate("x.a.example").expect("allowed");
        assert!(Arc::ptr_eq(&first, &same));
        clock.advance(3 * DAY);
        let renewed = on_demand.certificate("x.a.example").expect("allowed");
        assert!(
            !Arc::ptr_eq(&first, &renewed),
            "in the last third of its life"
        );
        on_demand.sweep();
        assert_eq!(on_demand.len(), 1);
        clock.advance(8 * DAY);
        on_demand.sweep();
        assert!(on_demand.is_empty());
    }
}
