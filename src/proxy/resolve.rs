//! Looks up the names of upstream servers periodically, outside the requests' path.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures::StreamExt;
use tokio::net::lookup_host;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::proxy::route::SiteTable;
use crate::proxy::server::Server;
use crate::proxy::upstream::Pool;

/// The age at which a look-up is repeated.
const AGE: Duration = Duration::from_secs(10);

/// How often due names are searched for; a name that was never found is always due.
const TICK: Duration = Duration::from_secs(1);

/// How long one look-up may take.
const LOOKUP: Duration = Duration::from_secs(5);

/// How many names are looked up at once.
const AT_ONCE: usize = 16;

/// Keeps the addresses of every upstream server with a name up to date, until `shutdown` turns
/// true.
///
/// A name that cannot be looked up keeps the addresses last found.
pub async fn resolve_loop(sites: Arc<ArcSwap<SiteTable>>, mut shutdown: watch::Receiver<bool>) {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !*shutdown.borrow() {
        tokio::select! {
            _ = ticks.tick() => resolve_due(&sites.load_full(), AGE).await,
            changed = shutdown.changed() => if changed.is_err() { return },
        }
    }
}

/// Looks up each name that was never found or whose last look-up is `age` old.
///
/// To be awaited for a new table before it gets requests, so that none of them finds a server
/// without an address.
pub async fn resolve_due(table: &SiteTable, age: Duration) {
    let mut due = Vec::new();
    for pool in table.pools() {
        due.extend(pool.due_servers(age).map(|server| (pool, server)));
    }
    futures::stream::iter(due)
        .for_each_concurrent(AT_ONCE, |(pool, server)| resolve_server(pool, server))
        .await;
}

/// Looks up one name. A failure is logged once, and so is its end.
async fn resolve_server(pool: &Pool, server: &Server) {
    let Some((host, port)) = &server.name else {
        return;
    };
    let found = match timeout(LOOKUP, lookup_host((host.as_str(), *port))).await {
        Ok(Ok(addresses)) => Ok(addresses.collect::<Vec<_>>()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("the look-up took too long".to_owned()),
    };
    let changed = pool.set_addresses(server, found.as_deref().unwrap_or_default());
    let (upstream, server) = (&**pool.name(), host.as_str());
    match found {
        Err(error) if changed => tracing::warn!(
            upstream,
            server,
            error,
            "an upstream server's name cannot be looked up: its last addresses stay in use",
        ),
        Ok(addresses) if changed => {
            tracing::info!(
                upstream,
                server,
                ?addresses,
                "an upstream server's name can be looked up again"
            );
        }
        _ => {}
    }
}
