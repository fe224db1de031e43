//! The metrics of the certificates: how many there are, and which of them end first.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};

use crate::certificate::{Change, TlsCertificate};
use crate::clock::UnixTime;
use crate::lock::MutexExt as _;
use crate::metrics::{End, Metrics};
use crate::schedule::Wait;

/// How many certificates are shown by name.
const SHOWN: usize = 10_000;

/// What comes of asking an issuer for a certificate.
const RESULTS: [&str; 3] = ["ok", "failed", "vetoed"];

/// How many are held in order, so that not every removal makes all certificates be searched.
const HELD: usize = 2 * SHOWN;

/// The gauges of every certificate, kept up one change at a time.
pub(super) struct Gauges {
    metrics: Metrics,
    by_source: HashMap<String, i64>,
    /// The issuers that are configured.
    issuers: BTreeSet<Arc<str>>,
    /// The limits of CAs that are shown, by issuer and by what they hold.
    limits: BTreeMap<(Arc<str>, &'static str), UnixTime>,
    first: Arc<Mutex<First>>,
}

/// The certificates that end first.
#[derive(Default)]
struct First {
    /// By their end, and an address to tell those apart that end together.
    held: BTreeMap<(UnixTime, usize), Arc<TlsCertificate>>,
    /// How many there are at all.
    all: usize,
}

impl Gauges {
    pub(super) fn new(metrics: Metrics) -> Self {
        let first = Arc::<Mutex<First>>::default();
        let shown = Arc::clone(&first);
        metrics
            .certificate_ends
            .show(move || lock(&shown).ends(SHOWN));
        Self {
            metrics,
            by_source: HashMap::new(),
            issuers: BTreeSet::new(),
            limits: BTreeMap::new(),
            first,
        }
    }

    /// Counts what took the place of another.
    pub(super) fn apply(&mut self, change: &Change) {
        if let Some(old) = &change.old {
            self.remove(old);
        }
        if let Some(new) = &change.new {
            self.add(new);
        }
    }

    fn add(&mut self, certificate: &Arc<TlsCertificate>) {
        self.adjust_count(certificate.source().label(), 1);
        let mut first = lock(&self.first);
        first.all += 1;
        first.insert_if_early(certificate);
    }

    fn remove(&mut self, certificate: &Arc<TlsCertificate>) {
        self.adjust_count(certificate.source().label(), -1);
        let mut first = lock(&self.first);
        first.all = first.all.saturating_sub(1);
        first.held.remove(&key(certificate));
    }

    /// Counts what these issuers are asked for from now on, and no longer shows others: an increase is
    /// seen only by whoever has seen the count before.
    pub(super) fn show_issuers<'a>(&mut self, issuers: impl Iterator<Item = &'a Arc<str>>) {
        let known: BTreeSet<Arc<str>> = issuers.cloned().collect();
        let renewals = &self.metrics.renewals;
        for result in RESULTS {
            for gone in self.issuers.difference(&known) {
                // It is there, unless a defect has removed it before.
                let _ = renewals.remove_label_values(&[&**gone, result]);
            }
            for issuer in &known {
                renewals.with_label_values(&[&**issuer, result]);
            }
        }
        self.issuers = known;
    }

    /// Shows these limits of CAs, of several that hold the same the one that lasts longest, and no
    /// others.
    pub(super) fn show_limits<'a>(&mut self, limits: impl Iterator<Item = (&'a Arc<str>, Wait)>) {
        let mut known = BTreeMap::new();
        for (issuer, limit) in limits {
            let key = (Arc::clone(issuer), limit.reason.as_str());
            let until = known.entry(key).or_insert(limit.until);
            *until = limit.until.max(*until);
        }
        if known == self.limits {
            return;
        }
        let gauges = &self.metrics.ca_limited;
        for (issuer, scope) in self.limits.keys().filter(|key| !known.contains_key(key)) {
            // It is there, unless a defect has removed it before.
            let _ = gauges.remove_label_values(&[&**issuer, *scope]);
        }
        for ((issuer, scope), until) in &known {
            gauges
                .with_label_values(&[&**issuer, *scope])
                .set(until.as_secs());
        }
        self.limits = known;
    }

    /// Shows how many certificates wait for their turn to be obtained.
    pub(super) fn show_waiting(&self, waiting: usize) {
        let waiting = i64::try_from(waiting).unwrap_or(i64::MAX);
        self.metrics.renewals_waiting.set(waiting);
    }

    /// Whether so many were removed that it is no longer known which end first.
    pub(super) fn are_few(&self) -> bool {
        let first = lock(&self.first);
        first.held.len() < SHOWN.min(first.all)
    }

    /// Takes all certificates there are.
    pub(super) fn refill<'a>(&self, all: impl Iterator<Item = &'a Arc<TlsCertificate>>) {
        let mut fresh = First::default();
        for certificate in all {
            fresh.all += 1;
            fresh.insert_if_early(certificate);
        }
        *lock(&self.first) = fresh;
    }

    fn adjust_count(&mut self, source: &str, by: i64) {
        let count = match self.by_source.get_mut(source) {
            Some(count) => count,
            None => self.by_source.entry(source.to_owned()).or_default(),
        };
        *count += by;
        let gauge = self.metrics.certificates.with_label_values(&[source]);
        gauge.set(*count);
    }
}

impl First {
    /// Holds `certificate`, one of all, where it ends before others that are held.
    fn insert_if_early(&mut self, certificate: &Arc<TlsCertificate>) {
        let key = key(certificate);
        let is_whole = self.held.len() + 1 >= self.all;
        let ends_before = |(last, _): (&(UnixTime, usize), _)| key < *last;
        if is_whole && self.held.len() < HELD || self.held.last_key_value().is_some_and(ends_before)
        {
            self.held.insert(key, Arc::clone(certificate));
            if self.held.len() > HELD {
                self.held.pop_last();
            }
        }
    }

    /// The first `most` of them.
    fn ends(&self, most: usize) -> (Vec<End>, usize) {
        let shown = self.held.values().take(most).map(|certificate| End {
            name: certificate
                .names()
                .first()
                .map_or_else(String::new, ToString::to_string),
            source: certificate.source().label().to_owned(),
            end: certificate.served_until().as_secs(),
        });
        let shown: Vec<_> = shown.collect();
        let hidden = self.all.saturating_sub(shown.len());
        (shown, hidden)
    }
}

fn key(certificate: &Arc<TlsCertificate>) -> (UnixTime, usize) {
    (certificate.served_until(), Arc::as_ptr(certificate).addr())
}

/// A panic while the lock was held leaves at worst one that is not shown.
fn lock(first: &Mutex<First>) -> MutexGuard<'_, First> {
    first.lock_unpoisoned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificate::Loader;
    use crate::certificate::testing::{DAY, NOW, TestCa};
    use crate::metrics::Format;

    #[test]
    fn issuers_are_shown_for_as_long_as_they_are_configured() {
        let metrics = Metrics::new().expect("metrics");
        let mut gauges = Gauges::new(metrics.clone());
        let text = || String::from_utf8(metrics.render(Format::Text)).expect("text");
        let (one, other) = (Arc::from("one"), Arc::from("other"));
        gauges.show_issuers([&one, &other].into_iter());
        metrics.renewals.with_label_values(&["other", "ok"]).inc();
        let of = |issuer: &str, result: &str| {
            format!("renewals_total{{issuer={issuer:?},result={result:?}}}")
        };
        assert!(text().contains(&format!("{} 0", of("one", "vetoed"))));
        gauges.show_issuers([&other].into_iter());
        assert!(!text().contains(&of("one", "failed")));
        assert!(text().contains(&format!("{} 1", of("other", "ok"))));
    }

    #[test]
    fn those_that_end_first_are_held_and_found_again_when_they_go() {
        let (ca, loader) = (TestCa::new("gauges"), Loader::new().expect("a loader"));
        let certificates: Vec<_> = (0..6_i64)
            .map(|day| {
                let name = format!("{day}.example");
                ca.certificate(&loader, &[&name], NOW, NOW + (10 - day) * DAY)
            })
            .collect();
        let mut gauges = Gauges::new(Metrics::new().expect("metrics"));
        for certificate in &certificates {
            gauges.add(certificate);
        }
        let names = |gauges: &Gauges, most| {
            let (shown, hidden) = lock(&gauges.first).ends(most);
            let names: Vec<_> = shown.into_iter().map(|end| end.name).collect();
            (names.join(" "), hidden)
        };
        assert_eq!(names(&gauges, 2), ("5.example 4.example".to_owned(), 4));
        gauges.remove(&certificates[5]);
        assert_eq!(names(&gauges, 2), ("4.example 3.example".to_owned(), 3));
        assert!(!gauges.are_few());
        lock(&gauges.first).held.pop_last();
        assert!(gauges.are_few());
        gauges.refill(certificates[..5].iter());
        assert!(!gauges.are_few());
        assert_eq!(names(&gauges, 9).1, 0);
    }
}
