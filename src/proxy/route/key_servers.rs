//! The servers that publish verification keys.

use std::sync::Arc;

use super::SiteTable;
use crate::config::model::Config;
use crate::jwt::KeyServer;
use crate::metrics::Metrics;

/// The servers of `config`, with the keys that those of `previous` have fetched.
pub(super) fn connect(
    config: &Config,
    metrics: &Metrics,
    previous: Option<&SiteTable>,
) -> Box<[Arc<KeyServer>]> {
    let known = previous.map_or(&[][..], |table| &table.key_servers);
    for server in &config.key_servers {
        server.count_in(metrics);
        for known in known.iter().filter(|known| !Arc::ptr_eq(known, server)) {
            server.succeed(known);
        }
    }
    config.key_servers.iter().cloned().collect()
}
