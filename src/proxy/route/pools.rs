//! The pools of a table of sites.

use std::collections::HashMap;
use std::sync::Arc;

use ahash::RandomState;

use crate::config::model::{Config, Upstream};
use crate::metrics::Metrics;
use crate::proxy::sticky::StickyKey;
use crate::proxy::upstream::Pool;

/// Pools by the names of their upstreams.
pub(super) type Pools = HashMap<Arc<str>, Arc<Pool>, RandomState>;

/// The key of sticky cookies: the known one, else a new one if an upstream needs it.
pub(super) fn sticky_key(config: &Config, known: Option<StickyKey>) -> Option<StickyKey> {
    let is_needed = config.upstreams.values().any(|one| one.sticky.is_some());
    match known {
        None if is_needed => StickyKey::generate().ok(),
        known => known,
    }
}

/// The pools for `config`. Those that are the same as in `previous` are those.
pub(super) fn pools(
    config: &Config,
    metrics: &Metrics,
    previous: Option<&Pools>,
    sticky_key: Option<&StickyKey>,
) -> Pools {
    let upstreams = config.upstreams.iter();
    let pools = upstreams.map(|(name, upstream)| {
        let new = || Pool::new(upstream, metrics).with_sticky_key(sticky_key);
        let pool = match previous.and_then(|pools| pools.get(name)) {
            Some(pool) if pool.is_for(upstream) => Arc::clone(pool),
            Some(pool) => Arc::new(new().succeed(pool)),
            None => Arc::new(new()),
        };
        (Arc::clone(name), pool)
    });
    pools.collect()
}

/// A pool that no other table shares.
pub(super) fn own_pool(upstream: &Arc<Upstream>, metrics: &Metrics) -> Arc<Pool> {
    let sticky = upstream.sticky.as_ref();
    let key = sticky.and_then(|_| StickyKey::generate().ok());
    Arc::new(Pool::new(upstream, metrics).with_sticky_key(key.as_ref()))
}
