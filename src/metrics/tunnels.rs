//! Connections that are passed on octet by octet, by site.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::by_name::{ByName, Named};
use super::count::Count;
use super::exposition::{Exposition, Family, Kind, Source};

const OPEN: Family = Family {
    name: "snigate_tunnels_open",
    kind: Kind::Gauge,
    labels: &["site"],
    help: "Open connections that are passed on octet by octet, by site.",
};

const ENDED: Family = Family {
    name: "snigate_tunnels_total",
    kind: Kind::Counter,
    labels: &["site", "result"],
    help: "Connections that were passed on octet by octet or refused, by how they ended.",
};

const OCTETS: Family = Family {
    name: "snigate_tunnel_bytes_total",
    kind: Kind::Counter,
    labels: &["site", "direction"],
    help: "Octets received from clients and sent to them on such connections.",
};

/// What is written here.
pub(super) const FAMILIES: [Family; 3] = [OPEN, ENDED, OCTETS];

/// How a tunnel ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TunnelEnd {
    /// It was not passed on.
    Refused,
    /// No server could be reached.
    Unreachable,
    ClientClosed,
    ServerClosed,
    ClientReset,
    ServerReset,
    /// Both sides were silent for too long.
    Idle,
    /// It has lasted as long as it may.
    Total,
    /// It was closed to make room for another connection.
    MadeRoom,
    /// The client may no longer have what it was given.
    Outdated,
    /// The gateway was stopped.
    Stopped,
}

/// The words, in the order of the ends.
const WORDS: [&str; 11] = [
    "refused",
    "unreachable",
    "client_closed",
    "server_closed",
    "client_reset",
    "server_reset",
    "idle",
    "total",
    "made_room",
    "outdated",
    "stopped",
];

impl TunnelEnd {
    /// A word for metrics and logs.
    pub fn as_str(self) -> &'static str {
        WORDS.get(self as usize).copied().unwrap_or_default()
    }
}

/// The tunnels of all sites. A handle; clones share the counts.
#[derive(Clone, Debug, Default)]
pub struct Tunnels(ByName<TunnelCounts>);

/// The tunnels of one site, or of all that are not shown by name.
pub type TunnelMetrics = Named<TunnelCounts>;

/// What is counted of the tunnels of one site.
#[derive(Debug, Default)]
pub struct TunnelCounts {
    open: AtomicU64,
    /// Octets from clients.
    pub received: Count,
    /// Octets to clients.
    pub sent: Count,
    ended: [Count; WORDS.len()],
}

impl Tunnels {
    /// Those of a site.
    pub fn site(&self, site: &str) -> Arc<TunnelMetrics> {
        self.0.get_or_add(site)
    }
}

impl TunnelCounts {
    /// Counts one that begins.
    pub fn begin(&self) {
        self.open.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts one that has begun and ended so.
    pub fn end(&self, end: TunnelEnd) {
        self.open.fetch_sub(1, Ordering::Relaxed);
        if let Some(count) = self.ended.get(end as usize) {
            count.inc();
        }
    }
}

impl Source for Tunnels {
    fn write(&self, to: &mut Exposition) {
        let all = self.0.all();
        if all.is_empty() {
            return;
        }
        to.begin(OPEN.name, OPEN.kind, OPEN.help);
        for (site, counts) in &all {
            let open = counts.open.load(Ordering::Relaxed);
            to.integer(OPEN.name, &[("site", &**site)], open);
        }
        to.begin(ENDED.name, ENDED.kind, ENDED.help);
        for (site, counts) in &all {
            for (result, count) in WORDS.iter().zip(&counts.ended) {
                let labels = [("result", *result), ("site", &**site)];
                to.integer(ENDED.name, &labels, count.get());
            }
        }
        to.begin(OCTETS.name, OCTETS.kind, OCTETS.help);
        for (site, counts) in &all {
            for (direction, count) in [("received", &counts.received), ("sent", &counts.sent)] {
                let labels = [("direction", direction), ("site", &**site)];
                to.integer(OCTETS.name, &labels, count.get());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Format, Metrics};
    use super::*;

    #[test]
    fn tunnels_are_shown_until_the_site_is_gone_and_the_last_has_ended() {
        let metrics = Metrics::new().expect("metrics");
        let text = || String::from_utf8(metrics.render(Format::Text)).expect("text");
        let (site, tunnel) = (metrics.tunnels.site("a"), metrics.tunnels.site("a"));
        tunnel.begin();
        tunnel.sent.add(5);
        drop(site);
        for line in [
            r#"snigate_tunnels_open{site="a"} 1"#,
            r#"snigate_tunnels_total{result="stopped",site="a"} 0"#,
            r#"snigate_tunnel_bytes_total{direction="sent",site="a"} 5"#,
        ] {
            assert!(text().contains(line), "{line}");
        }
        tunnel.end(TunnelEnd::Stopped);
        assert!(text().contains(r#"snigate_tunnels_open{site="a"} 0"#));
        assert!(text().contains(r#"snigate_tunnels_total{result="stopped",site="a"} 1"#));
        drop(tunnel);
        assert!(!text().contains("snigate_tunnel"));
    }

    #[test]
    fn each_end_has_its_word() {
        assert_eq!(TunnelEnd::Refused.as_str(), "refused");
        assert_eq!(TunnelEnd::Total.as_str(), "total");
        assert_eq!(TunnelEnd::Stopped.as_str(), "stopped");
        assert_eq!(TunnelEnd::Stopped as usize + 1, WORDS.len());
    }
}
