//! A histogram of durations, and an exemplar for each of its buckets.

use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::exemplar::{Exemplar, Slot, Traced};
use super::exposition::{Exposition, Labels};

/// The upper bounds of the buckets, in seconds; longer durations are in one more.
const BOUNDS: [f64; 14] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0,
];

/// The same in microseconds.
const MICROS: [u64; 14] = [
    1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    5_000_000, 10_000_000, 60_000_000,
];

const BUCKETS: usize = BOUNDS.len() + 1;

/// How many durations of which length there were.
#[derive(Default)]
pub struct Durations {
    counts: [AtomicU64; BUCKETS],
    micros: AtomicU64,
    /// Made for the first one.
    exemplars: OnceLock<Box<[Slot; BUCKETS]>>,
}

impl Durations {
    /// Counts a duration, an example of which is this trace, if there is one.
    pub fn observe(&self, duration: Duration, traced: Option<Traced>) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let bucket = MICROS.partition_point(|bound| *bound < micros);
        if let Some(count) = self.counts.get(bucket) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.micros.fetch_add(micros, Ordering::Relaxed);
        if let Some(traced) = traced
            && let Some(slot) = self.exemplars.get_or_init(Box::default).get(bucket)
        {
            // No more than the bound of its bucket.
            let value = micros as f64 / 1e6;
            slot.set(Exemplar { traced, value });
        }
    }

    pub(super) fn write(&self, name: &str, labels: Labels<'_>, to: &mut Exposition) {
        let exemplars = self.exemplars.get();
        let exemplar = |bucket: usize| exemplars?.get(bucket)?.get();
        let bounds = BOUNDS.into_iter().chain([f64::INFINITY]);
        let counts = self.counts.iter().enumerate();
        let mut all = 0;
        let buckets = bounds.zip(counts).map(|(bound, (bucket, count))| {
            all += count.load(Ordering::Relaxed);
            (bound, all, exemplar(bucket))
        });
        let sum = self.micros.load(Ordering::Relaxed) as f64 / 1e6;
        to.histogram(name, labels, buckets, sum);
    }
}

impl fmt::Debug for Durations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Durations").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::super::exposition::Format;
    use super::*;
    use crate::clock::unix;

    #[test]
    fn bounds_are_the_same_in_both_units() {
        for (bound, micros) in BOUNDS.into_iter().zip(MICROS) {
            assert_eq!((bound * 1e6).round() as u64, micros);
        }
    }

    #[test]
    fn each_bucket_has_the_trace_of_its_latest_duration() {
        let durations = Durations::default();
        for (millis, id) in [(1, Some(1)), (2, None), (2, Some(2)), (70_000, Some(3))] {
            let traced = id.map(|id| Traced { id, at: unix(9) });
            durations.observe(Duration::from_millis(millis), traced);
        }
        durations.observe(Duration::from_micros(1001), None);
        let mut text = Exposition::new(Format::OpenMetrics);
        durations.write("d", &[], &mut text);
        let text = String::from_utf8(text.finish()).expect("text");
        let lines: Vec<_> = text.lines().collect();
        let id = |id| format!(" # {{trace_id=\"{id:032x}\"}} ");
        let line = |number: usize, start: &str| assert_eq!(lines[number], start);
        line(0, &format!("d_bucket{{le=\"0.001\"}} 1{}0.001 9", id(1)));
        line(1, &format!("d_bucket{{le=\"0.0025\"}} 4{}0.002 9", id(2)));
        line(2, "d_bucket{le=\"0.005\"} 4");
        line(13, "d_bucket{le=\"60.0\"} 4");
        line(14, &format!("d_bucket{{le=\"+Inf\"}} 5{}70 9", id(3)));
        assert_eq!(lines[15..], ["d_sum 70.006001", "d_count 5", "# EOF"]);
    }
}
