//! Fetches of the keys of issuers of tokens, by server.

use std::sync::Arc;

use super::by_name::{ByName, Named};
use super::count::Count;
use super::exposition::{Exposition, Family, Kind, Source};

const FETCHES: Family = Family {
    name: "snigate_jwks_fetches_total",
    kind: Kind::Counter,
    labels: &["server", "result"],
    help: "Fetches of JWKS, by server and result.",
};

/// What is written here.
pub(super) const FAMILIES: [Family; 1] = [FETCHES];

/// The fetches from all servers. A handle; clones share the counts.
#[derive(Clone, Debug, Default)]
pub struct KeyServers(ByName<FetchCounts>);

/// The fetches from one server.
pub type KeyServerMetrics = Named<FetchCounts>;

/// What is counted of the fetches from one server.
#[derive(Debug, Default)]
pub struct FetchCounts {
    pub ok: Count,
    pub failed: Count,
}

impl KeyServers {
    /// Those from the server with this host and port.
    pub fn server(&self, host: &str) -> Arc<KeyServerMetrics> {
        self.0.get_or_add(host)
    }
}

impl Source for KeyServers {
    fn write(&self, to: &mut Exposition) {
        let all = self.0.all();
        if all.is_empty() {
            return;
        }
        to.begin(FETCHES.name, FETCHES.kind, FETCHES.help);
        for (server, counts) in &all {
            for (result, count) in [("ok", &counts.ok), ("failed", &counts.failed)] {
                let labels = [("result", result), ("server", &**server)];
                to.integer(FETCHES.name, &labels, count.get());
            }
        }
    }
}
