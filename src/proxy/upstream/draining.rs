//! What follows from draining and resuming servers of a pool.

use std::sync::Arc;

use super::Pool;
use crate::proxy::endpoint::Endpoint;

/// Drains a server by its name in the configuration, or one of its addresses, or resumes it. Returns
/// whether there is one.
pub(super) fn set_drained(pool: &Pool, server: &str, is_drained: bool) -> bool {
    let drained = drained_endpoints(pool);
    let is_known = pool
        .drain_list
        .set_drained(pool.named_servers(), server, is_drained);
    for endpoint in drained {
        if !endpoint.availability.is_drained() {
            pool.begin_warm_up(&endpoint);
        }
    }
    if let (false, Some(queue)) = (is_drained, &pool.queue) {
        // There is room for a request that waits.
        queue.wake_next();
    }
    is_known
}

fn drained_endpoints(pool: &Pool) -> Vec<Arc<Endpoint>> {
    let servers = pool.servers.iter();
    let endpoints = servers.flat_map(|server| server.endpoints().to_vec());
    endpoints
        .filter(|endpoint| endpoint.availability.is_drained())
        .collect()
}
