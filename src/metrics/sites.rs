//! Request counts of each site.
//!
//! A site takes memory here only after its first request, and little: there may be a million, of
//! which most are rarely requested.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use crate::lock::MutexExt;
use prometheus::core::{Collector, Desc};
use prometheus::proto::{Bucket, Counter, Histogram, LabelPair, Metric, MetricFamily, MetricType};

/// The classes of statuses, in their order.
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// The upper bounds of the duration buckets, in seconds; longer durations are in one more.
const BOUNDS: [f64; 14] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0,
];

const MICROS: f64 = 1e6;

/// The requests of all sites. A handle; clones share the counts.
#[derive(Clone)]
pub struct Sites {
    requests: Desc,
    durations: Desc,
    counts: Arc<Mutex<BTreeMap<Arc<str>, Arc<Counts>>>>,
}

#[derive(Default)]
struct Counts {
    by_class: [AtomicU64; CLASSES.len()],
    by_duration: [AtomicU64; BOUNDS.len() + 1],
    micros: AtomicU64,
}

impl Sites {
    /// Counts requests by site and status class, and their durations, with these names and
    /// descriptions.
    pub(super) fn new(
        requests: (&str, &str),
        durations: (&str, &str),
    ) -> Result<Self, prometheus::Error> {
        let desc = |(name, help): (&str, &str), labels: &[&str]| {
            let labels = labels.iter().map(|label| (*label).to_owned()).collect();
            Desc::new(name.to_owned(), help.to_owned(), labels, Default::default())
        };
        Ok(Self {
            requests: desc(requests, &["site", "status"])?,
            durations: desc(durations, &["site"])?,
            counts: Arc::default(),
        })
    }

    /// The counts of a site, continued if it has had requests.
    pub(super) fn site(&self, name: &Arc<str>) -> SiteMetrics {
        let known = self.lock().get(name).cloned();
        SiteMetrics {
            name: Arc::clone(name),
            counts: known.map_or_else(OnceLock::new, OnceLock::from),
            sites: self.clone(),
        }
    }

    fn counts(&self, name: &Arc<str>) -> Arc<Counts> {
        let mut all = self.lock();
        Arc::clone(all.entry(Arc::clone(name)).or_default())
    }

    /// A panic while the lock was held leaves at worst one site that is not shown.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, Arc<Counts>>> {
        self.counts.lock_unpoisoned()
    }
}

impl fmt::Debug for Sites {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sites").finish_non_exhaustive()
    }
}

/// The metrics of one site.
#[derive(Debug)]
pub struct SiteMetrics {
    name: Arc<str>,
    /// Set by the first request.
    counts: OnceLock<Arc<Counts>>,
    sites: Sites,
}

impl SiteMetrics {
    /// Counts one request that ended with `status` after `seconds`.
    pub fn observe(&self, status: u16, seconds: f64) {
        let counts = self.counts.get_or_init(|| self.sites.counts(&self.name));
        let class = usize::from(status / 100).saturating_sub(1);
        if let Some(counter) = counts.by_class.get(class) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
        let bucket = BOUNDS.iter().position(|bound| seconds <= *bound);
        if let Some(bucket) = counts.by_duration.get(bucket.unwrap_or(BOUNDS.len())) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        // Negative values and NaN count as zero.
        let micros = (seconds * MICROS) as u64;
        counts.micros.fetch_add(micros, Ordering::Relaxed);
    }
}

impl fmt::Debug for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Counts").finish_non_exhaustive()
    }
}

impl Collector for Sites {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.requests, &self.durations]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut all = self.lock();
        // Live sites hold their counts too: these are of sites that are gone.
        all.retain(|_, counts| Arc::strong_count(counts) > 1);
        let all: Vec<_> = all
            .iter()
            .map(|(name, counts)| (Arc::clone(name), Arc::clone(counts)))
            .collect();
        let requests = all.iter().flat_map(|(name, counts)| {
            let classes = CLASSES.iter().zip(&counts.by_class);
            classes.map(|(class, count)| {
                let mut metric =
                    Metric::from_label(vec![pair("site", name), pair("status", class)]);
                let mut counter = Counter::default();
                counter.set_value(float(count.load(Ordering::Relaxed)));
                metric.set_counter(counter);
                metric
            })
        });
        let requests = family(&self.requests, MetricType::COUNTER, requests.collect());
        let durations = all.iter().map(|(name, counts)| {
            let mut metric = Metric::from_label(vec![pair("site", name)]);
            metric.set_histogram(counts.histogram());
            metric
        });
        let durations = family(&self.durations, MetricType::HISTOGRAM, durations.collect());
        // Without any site there is nothing to export.
        let families = [requests, durations].into_iter();
        families
            .filter(|one| !one.get_metric().is_empty())
            .collect()
    }
}

impl Counts {
    fn histogram(&self) -> Histogram {
        let mut all = 0;
        let mut buckets = Vec::with_capacity(BOUNDS.len());
        for (bound, count) in BOUNDS.iter().zip(&self.by_duration) {
            all += count.load(Ordering::Relaxed);
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(*bound);
            bucket.set_cumulative_count(all);
            buckets.push(bucket);
        }
        let beyond = self.by_duration.last();
        all += beyond.map_or(0, |count| count.load(Ordering::Relaxed));
        let mut histogram = Histogram::default();
        histogram.set_bucket(buckets);
        histogram.set_sample_count(all);
        histogram.set_sample_sum(float(self.micros.load(Ordering::Relaxed)) / MICROS);
        histogram
    }
}

fn family(desc: &Desc, kind: MetricType, metrics: Vec<Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(desc.fq_name.clone());
    family.set_help(desc.help.clone());
    family.set_field_type(kind);
    family.set_metric(metrics);
    family
}

fn pair(name: &str, value: &str) -> LabelPair {
    let mut pair = LabelPair::default();
    pair.set_name(name.to_owned());
    pair.set_value(value.to_owned());
    pair
}

/// Prometheus uses floating point.
fn float(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::super::Metrics;
    use super::*;

    fn text(metrics: &Metrics) -> String {
        String::from_utf8(metrics.render().expect("encodable")).expect("text")
    }

    #[test]
    fn requests_are_counted_by_class_and_duration() {
        let metrics = Metrics::new().expect("metrics");
        let site = metrics.site(&"a.example".into());
        assert!(!text(&metrics).contains("a.example"), "before any request");
        for (status, seconds) in [(200, 0.002), (204, 0.0025), (503, 61.5), (999, 0.0)] {
            site.observe(status, seconds);
        }
        let text = text(&metrics);
        for line in [
            "# TYPE snigate_requests_total counter",
            r#"snigate_requests_total{site="a.example",status="1xx"} 0"#,
            r#"snigate_requests_total{site="a.example",status="2xx"} 2"#,
            r#"snigate_requests_total{site="a.example",status="5xx"} 1"#,
            "# TYPE snigate_request_duration_seconds histogram",
            r#"snigate_request_duration_seconds_bucket{site="a.example",le="0.001"} 1"#,
            r#"snigate_request_duration_seconds_bucket{site="a.example",le="0.0025"} 3"#,
            r#"snigate_request_duration_seconds_bucket{site="a.example",le="60"} 3"#,
            r#"snigate_request_duration_seconds_bucket{site="a.example",le="+Inf"} 4"#,
            r#"snigate_request_duration_seconds_sum{site="a.example"} 61.5045"#,
            r#"snigate_request_duration_seconds_count{site="a.example"} 4"#,
        ] {
            assert!(text.lines().any(|one| one == line), "{line}\n{text}");
        }
    }

    #[test]
    fn counts_go_on_with_another_table_and_go_with_the_last() {
        let metrics = Metrics::new().expect("metrics");
        let name: Arc<str> = "a.example".into();
        let before = metrics.site(&name);
        before.observe(200, 0.1);
        let after = metrics.site(&name);
        drop(before);
        assert!(text(&metrics).contains(r#"status="2xx"} 1"#));
        after.observe(200, 0.1);
        assert!(text(&metrics).contains(r#"status="2xx"} 2"#));
        drop(after);
        assert!(!text(&metrics).contains("a.example"));
    }
}
