//! How long the servers of an upstream take.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};

use super::durations::Durations;
use super::exposition::{Exposition, Family, Kind, Source};
use crate::lock::MutexExt as _;

const FIRST_BYTE: Family = Family {
    name: "snigate_upstream_first_byte_seconds",
    kind: Kind::Histogram,
    labels: &["upstream"],
    help: "From the time that a request has a connection to a server to the head of its response.",
};

const DURATION: Family = Family {
    name: "snigate_upstream_duration_seconds",
    kind: Kind::Histogram,
    labels: &["upstream"],
    help: "From the time that a request has a connection to a server to the end of its response.",
};

/// What is written here.
pub(super) const FAMILIES: [Family; 2] = [FIRST_BYTE, DURATION];

/// The times of all upstreams. A handle; clones share them.
#[derive(Clone, Default)]
pub struct Upstreams(Arc<Mutex<BTreeMap<Box<str>, Arc<UpstreamTimes>>>>);

/// The times of one upstream.
#[derive(Debug, Default)]
pub struct UpstreamTimes {
    /// To the head of the response.
    pub first_byte: Durations,
    /// To the end of the response.
    pub duration: Durations,
}

impl Upstreams {
    /// The times of the upstream with this name, continued for as long as something holds them.
    pub fn upstream(&self, name: &str) -> Arc<UpstreamTimes> {
        let mut all = self.0.lock_unpoisoned();
        Arc::clone(all.entry(name.into()).or_default())
    }
}

impl Source for Upstreams {
    fn write(&self, to: &mut Exposition) {
        let mut all = self.0.lock_unpoisoned();
        // Those that nothing else holds are of upstreams that are gone.
        all.retain(|_, times| Arc::strong_count(times) > 1);
        if all.is_empty() {
            return;
        }
        to.begin(FIRST_BYTE.name, FIRST_BYTE.kind, FIRST_BYTE.help);
        for (name, times) in &*all {
            let labels = [("upstream", &**name)];
            times.first_byte.write(FIRST_BYTE.name, &labels, to);
        }
        to.begin(DURATION.name, DURATION.kind, DURATION.help);
        for (name, times) in &*all {
            let labels = [("upstream", &**name)];
            times.duration.write(DURATION.name, &labels, to);
        }
    }
}

impl fmt::Debug for Upstreams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstreams").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::{Format, Metrics};

    #[test]
    fn times_are_shown_for_as_long_as_there_is_the_upstream() {
        let metrics = Metrics::new().expect("metrics");
        let text = || String::from_utf8(metrics.render(Format::Text)).expect("text");
        let before = metrics.upstream_times.upstream("web");
        before.first_byte.observe(Duration::from_millis(3), None);
        let after = metrics.upstream_times.upstream("web");
        drop(before);
        let line = r#"snigate_upstream_first_byte_seconds_count{upstream="web"} 1"#;
        assert!(text().contains(line));
        drop(after);
        assert!(!text().contains(r#"upstream="web""#));
    }
}
