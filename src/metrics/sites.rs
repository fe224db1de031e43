//! Request counts of each site.
//!
//! A site takes memory here only after its first request, and little: there may be a million, of
//! which most are rarely requested.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::by_name::{ByName, Named};
use super::count::Count;
use super::durations::Durations;
use super::exemplar::Traced;
use super::exposition::{Exposition, Family, Kind, Source};

/// The classes of statuses, in their order.
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

const REQUESTS: Family = Family {
    name: "snigate_requests_total",
    kind: Kind::Counter,
    labels: &["site", "status"],
    help: "Requests by site and status class.",
};

const DURATIONS: Family = Family {
    name: "snigate_request_duration_seconds",
    kind: Kind::Histogram,
    labels: &["site"],
    help: "From the request's head to the end of its response.",
};

const OCTETS: Family = Family {
    name: "snigate_response_bytes_total",
    kind: Kind::Counter,
    labels: &["site"],
    help: "Octets of response bodies that were sent to clients, by site.",
};

const RECEIVED: Family = Family {
    name: "snigate_request_bytes_total",
    kind: Kind::Counter,
    labels: &["site"],
    help: "Octets of request bodies that came from clients, by site.",
};

const MAINTENANCE: Family = Family {
    name: "snigate_requests_maintenance_total",
    kind: Kind::Counter,
    labels: &["site"],
    help: "Requests that were refused because of maintenance, by site.",
};

/// What is written here.
pub(super) const FAMILIES: [Family; 5] = [REQUESTS, DURATIONS, OCTETS, RECEIVED, MAINTENANCE];

/// The requests of all sites. A handle; clones share the counts.
#[derive(Clone, Debug, Default)]
pub struct Sites(ByName<Counts>);

#[derive(Default)]
struct Counts {
    by_class: [Count; CLASSES.len()],
    durations: Durations,
    octets: Count,
    received: Count,
    maintenance: Count,
}

/// A request that has ended.
#[derive(Clone, Copy, Debug)]
pub struct Ended {
    pub status: u16,
    /// From its head to the end of its response.
    pub duration: Duration,
    /// Of the response's body.
    pub octets: usize,
    /// Octets of the request's body.
    pub received: u64,
    /// Whether it was refused because of maintenance.
    pub is_maintenance: bool,
    /// The trace that it belongs to.
    pub traced: Option<Traced>,
}

impl Sites {
    /// The counts of a site, continued if it has had requests.
    pub(super) fn site(&self, name: &Arc<str>) -> SiteMetrics {
        let known = self.0.get(name);
        SiteMetrics {
            name: Arc::clone(name),
            counts: known.map_or_else(OnceLock::new, OnceLock::from),
            sites: self.clone(),
        }
    }
}

/// The metrics of one site.
#[derive(Debug)]
pub struct SiteMetrics {
    name: Arc<str>,
    /// Set by the first request.
    counts: OnceLock<Arc<Named<Counts>>>,
    sites: Sites,
}

impl SiteMetrics {
    /// Counts a request.
    pub fn observe(&self, ended: &Ended) {
        let first = || self.sites.0.get_or_add(&self.name);
        let counts = self.counts.get_or_init(first);
        // What is no valid status is an error of the server (RFC 9110, section 15).
        let class = usize::from(ended.status / 100).clamp(1, CLASSES.len()) - 1;
        if let Some(counter) = counts.by_class.get(class) {
            counter.inc();
        }
        counts.durations.observe(ended.duration, ended.traced);
        counts.octets.add(ended.octets as u64);
        counts.received.add(ended.received);
        counts.maintenance.add(ended.is_maintenance.into());
    }
}

impl fmt::Debug for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Counts").finish_non_exhaustive()
    }
}

impl Source for Sites {
    fn write(&self, to: &mut Exposition) {
        let sites = self.0.all();
        if sites.is_empty() {
            return;
        }
        to.begin(REQUESTS.name, REQUESTS.kind, REQUESTS.help);
        for (site, counts) in &sites {
            for (class, count) in CLASSES.iter().zip(&counts.by_class) {
                let labels = [("site", &**site), ("status", *class)];
                to.integer(REQUESTS.name, &labels, count.get());
            }
        }
        to.begin(DURATIONS.name, DURATIONS.kind, DURATIONS.help);
        for (site, counts) in &sites {
            let durations = &counts.durations;
            durations.write(DURATIONS.name, &[("site", site)], to);
        }
        to.begin(OCTETS.name, OCTETS.kind, OCTETS.help);
        for (site, counts) in &sites {
            to.integer(OCTETS.name, &[("site", site)], counts.octets.get());
        }
        to.begin(MAINTENANCE.name, MAINTENANCE.kind, MAINTENANCE.help);
        for (site, counts) in &sites {
            let labels = [("site", &**site)];
            to.integer(MAINTENANCE.name, &labels, counts.maintenance.get());
        }
        to.begin(RECEIVED.name, RECEIVED.kind, RECEIVED.help);
        for (site, counts) in &sites {
            to.integer(RECEIVED.name, &[("site", site)], counts.received.get());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::by_name::MOST;
    use super::super::{Format, Metrics};
    use super::*;

    fn text(metrics: &Metrics) -> String {
        String::from_utf8(metrics.render(Format::Text)).expect("text")
    }

    fn ended(status: u16, micros: u64) -> Ended {
        Ended {
            status,
            duration: Duration::from_micros(micros),
            octets: 3,
            received: 2,
            is_maintenance: status == 503,
            traced: None,
        }
    }

    #[test]
    fn requests_are_counted_by_class_and_duration() {
        let metrics = Metrics::new().expect("metrics");
        let site = metrics.site(&"a.example".into());
        assert!(!text(&metrics).contains("a.example"), "before any request");
        for (status, micros) in [(200, 2000), (204, 2500), (503, 61_500_000), (999, 0)] {
            site.observe(&ended(status, micros));
        }
        let text = text(&metrics);
        for line in [
            "# TYPE snigate_requests_total counter",
            r#"snigate_requests_total{site="a.example",status="1xx"} 0"#,
            r#"snigate_requests_total{site="a.example",status="2xx"} 2"#,
            r#"snigate_requests_total{site="a.example",status="5xx"} 2"#,
            "# TYPE snigate_request_duration_seconds histogram",
            r#"snigate_request_duration_seconds_bucket{site="a.example",le="0.001"} 1"#,
            r#"snigate_request_duration_seconds_bucket{site="a.example",le="0.0025"} 3"#,
            r#"snigate_request_duration_seconds_bucket{site="a.example",le="60"} 3"#,
            r#"snigate_request_duration_seconds_bucket{site="a.example",le="+Inf"} 4"#,
            r#"snigate_request_duration_seconds_sum{site="a.example"} 61.5045"#,
            r#"snigate_request_duration_seconds_count{site="a.example"} 4"#,
            r#"snigate_response_bytes_total{site="a.example"} 12"#,
            r#"snigate_request_bytes_total{site="a.example"} 8"#,
            r#"snigate_requests_maintenance_total{site="a.example"} 1"#,
        ] {
            assert!(text.lines().any(|one| one == line), "{line}\n{text}");
        }
    }

    #[test]
    fn counts_go_on_with_another_table_and_go_with_the_last() {
        let metrics = Metrics::new().expect("metrics");
        let name: Arc<str> = "a.example".into();
        let before = metrics.site(&name);
        before.observe(&ended(200, 1));
        let after = metrics.site(&name);
        drop(before);
        assert!(text(&metrics).contains(r#"status="2xx"} 1"#));
        after.observe(&ended(200, 1));
        assert!(text(&metrics).contains(r#"status="2xx"} 2"#));
        drop(after);
        assert!(!text(&metrics).contains("a.example"));
    }

    #[test]
    fn only_so_many_sites_have_counts_of_their_own() {
        let metrics = Metrics::new().expect("metrics");
        let mut sites: Vec<_> = (0..MOST + 2)
            .map(|number| metrics.site(&format!("{number}.example").into()))
            .collect();
        for site in &sites {
            site.observe(&ended(200, 1));
        }
        let count = |text: &str| text.matches("snigate_response_bytes_total{").count();
        let all = text(&metrics);
        assert_eq!(count(&all), MOST + 1);
        let others = r#"snigate_requests_total{site="(others)",status="2xx"} 2"#;
        assert!(all.contains(others));
        // A site that goes leaves its place to one that comes.
        sites.remove(0);
        let new = metrics.site(&"new.example".into());
        new.observe(&ended(200, 1));
        let all = text(&metrics);
        assert!(all.contains(r#"site="new.example""#) && all.contains(others));
        assert_eq!(count(&all), MOST + 1);
    }
}
