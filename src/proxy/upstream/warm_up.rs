//! Which addresses of a pool begin with a small share.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Pool;
use crate::proxy::endpoint::Endpoint;
use crate::proxy::server::Server;

/// Begins with servers of `pool` that a reload has added to those of `previous`, unless all are new.
pub(super) fn begin_added(pool: &Pool, previous: &Pool) {
    if pool.upstream.slow_start.is_none() {
        return;
    }
    let is_known = |name: &str| previous.named_servers().any(|(known, _)| known == name);
    let (known, added): (Vec<_>, Vec<_>) =
        pool.named_servers().partition(|(name, _)| is_known(name));
    if known.is_empty() {
        return;
    }
    for (_, server) in added {
        server.is_added.store(true, Ordering::Relaxed);
        for endpoint in server.endpoints().iter() {
            pool.begin_warm_up(endpoint);
        }
    }
}

/// Begins with addresses of a server's name that a look-up has added to those `before`. The first
/// ones of a name are added only if their server is.
pub(super) fn begin_found(pool: &Pool, server: &Server, before: &[Arc<Endpoint>]) {
    let is_added = server.is_added.load(Ordering::Relaxed);
    if pool.upstream.slow_start.is_none() || (before.is_empty() && !is_added) {
        return;
    }
    for endpoint in server.endpoints().iter() {
        if !before.iter().any(|known| Arc::ptr_eq(known, endpoint)) {
            pool.begin_warm_up(endpoint);
        }
    }
}
