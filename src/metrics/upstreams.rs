//! What becomes of requests to an upstream, and how long its servers take.

use std::sync::Arc;
use std::time::Instant;

use super::by_name::{ByName, Named};
use super::count::Count;
use super::durations::Durations;
use super::exposition::{Exposition, Family, Kind, Source};

const ATTEMPTS: Family = Family {
    name: "snigate_upstream_attempts_total",
    kind: Kind::Counter,
    labels: &["upstream", "result"],
    help: "Attempts at an upstream by result.",
};

const RETRIES: Family = Family {
    name: "snigate_upstream_retries_total",
    kind: Kind::Counter,
    labels: &["upstream", "result"],
    help: "Retries of requests to an upstream: sent, or not because the budget was used up.",
};

const EJECTIONS: Family = Family {
    name: "snigate_upstream_ejections_total",
    kind: Kind::Counter,
    labels: &["upstream"],
    help: "Servers of an upstream that were left out because requests to them failed.",
};

const CONNECT: Family = Family {
    name: "snigate_upstream_connect_seconds",
    kind: Kind::Histogram,
    labels: &["upstream"],
    help: "How long it took to open a connection to a server, with its TLS handshake.",
};

const FIRST_BYTE: Family = Family {
    name: "snigate_upstream_first_byte_seconds",
    kind: Kind::Histogram,
    labels: &["upstream"],
    help: "From the time that a server has a request to the head of its response.",
};

const DURATION: Family = Family {
    name: "snigate_upstream_duration_seconds",
    kind: Kind::Histogram,
    labels: &["upstream"],
    help: "From the time that a server has a request to the end of its response.",
};

/// What is written here.
pub(super) const FAMILIES: [Family; 6] =
    [ATTEMPTS, RETRIES, EJECTIONS, CONNECT, FIRST_BYTE, DURATION];

/// The metrics of all upstreams. A handle; clones share them.
#[derive(Clone, Debug, Default)]
pub struct Upstreams(ByName<UpstreamCounts>);

/// The metrics of one upstream, or of all that are not shown by name.
pub type UpstreamMetrics = Named<UpstreamCounts>;

/// What is counted of one upstream.
#[derive(Debug, Default)]
pub struct UpstreamCounts {
    /// Attempts over a new connection.
    pub connected: Count,
    /// Attempts over a connection of an earlier request.
    pub reused: Count,
    /// Attempts for which no connection could be opened.
    pub connect_failed: Count,
    /// Attempts that failed after they were connected.
    pub failed: Count,
    /// Requests without a server, since no address is known.
    pub unresolved: Count,
    /// Requests without a server, since all are drained.
    pub drained: Count,
    /// Requests without a server, since all have as many as they may.
    pub full: Count,
    /// Retries.
    pub retries: Count,
    /// Retries that were not made, since the budget was used up.
    pub over_budget: Count,
    /// Addresses that were ejected.
    pub ejected: Count,
    /// Opening a connection.
    pub connect: Durations,
    /// To the head of the response.
    pub first_byte: Durations,
    /// To the end of the response.
    pub duration: Durations,
}

impl Upstreams {
    /// The metrics of the upstream with this name, continued for as long as something holds them.
    pub fn upstream(&self, name: &str) -> Arc<UpstreamMetrics> {
        self.0.get_or_add(name)
    }
}

impl UpstreamCounts {
    /// Awaits a connection that is being opened, and observes how long that takes if it succeeds.
    pub async fn time_connecting<T, E>(
        &self,
        opening: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let began = Instant::now();
        let opened = opening.await?;
        self.connect.observe(began.elapsed(), None);
        Ok(opened)
    }

    fn attempts(&self) -> [(&'static str, &Count); 7] {
        [
            ("connected", &self.connected),
            ("reused", &self.reused),
            ("connect_failed", &self.connect_failed),
            ("failed", &self.failed),
            ("unresolved", &self.unresolved),
            ("drained", &self.drained),
            ("full", &self.full),
        ]
    }

    fn retries(&self) -> [(&'static str, &Count); 2] {
        [("sent", &self.retries), ("over_budget", &self.over_budget)]
    }
}

/// Which times of an upstream.
type DurationsOf = fn(&UpstreamCounts) -> &Durations;

impl Source for Upstreams {
    fn write(&self, to: &mut Exposition) {
        let all = self.0.all();
        if all.is_empty() {
            return;
        }
        to.begin(ATTEMPTS.name, ATTEMPTS.kind, ATTEMPTS.help);
        for (name, counts) in &all {
            for (result, count) in counts.attempts() {
                let labels = [("result", result), ("upstream", &**name)];
                to.integer(ATTEMPTS.name, &labels, count.get());
            }
        }
        to.begin(RETRIES.name, RETRIES.kind, RETRIES.help);
        for (name, counts) in &all {
            for (result, count) in counts.retries() {
                let labels = [("result", result), ("upstream", &**name)];
                to.integer(RETRIES.name, &labels, count.get());
            }
        }
        to.begin(EJECTIONS.name, EJECTIONS.kind, EJECTIONS.help);
        for (name, counts) in &all {
            let labels = [("upstream", &**name)];
            to.integer(EJECTIONS.name, &labels, counts.ejected.get());
        }
        let histograms: [(Family, DurationsOf); 3] = [
            (CONNECT, |counts| &counts.connect),
            (FIRST_BYTE, |counts| &counts.first_byte),
            (DURATION, |counts| &counts.duration),
        ];
        for (family, durations) in histograms {
            to.begin(family.name, family.kind, family.help);
            for (name, counts) in &all {
                durations(counts).write(family.name, &[("upstream", &**name)], to);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::{Format, Metrics};

    #[test]
    fn an_upstream_is_shown_for_as_long_as_something_holds_it() {
        let metrics = Metrics::new().expect("metrics");
        let text = || String::from_utf8(metrics.render(Format::Text)).expect("text");
        let before = metrics.upstreams.upstream("web");
        before.first_byte.observe(Duration::from_millis(3), None);
        before.connected.inc();
        let after = metrics.upstreams.upstream("web");
        drop(before);
        after.connected.inc();
        for line in [
            r#"snigate_upstream_first_byte_seconds_count{upstream="web"} 1"#,
            r#"snigate_upstream_connect_seconds_count{upstream="web"} 0"#,
            r#"snigate_upstream_attempts_total{result="connected",upstream="web"} 2"#,
            r#"snigate_upstream_retries_total{result="over_budget",upstream="web"} 0"#,
            r#"snigate_upstream_ejections_total{upstream="web"} 0"#,
        ] {
            assert!(text().contains(line), "{line}");
        }
        drop(after);
        assert!(!text().contains(r#"upstream="web""#));
    }
}
