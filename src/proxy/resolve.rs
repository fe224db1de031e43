//! Looks up the names of upstream servers when their addresses expire, outside the requests' path.

use std::cmp::Reverse;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures::{StreamExt as _, TryStreamExt as _};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use crate::config::model::UpstreamAddress;
use crate::dns::DnsError;
use crate::dns::stub::{Found, NAME_PATIENCE, Service, StubResolver};
use crate::host::HostName;
use crate::proxy::known_addresses::FoundAddress;
use crate::proxy::route::SiteTable;
use crate::proxy::server::Server;
use crate::proxy::slots::Slots;
use crate::proxy::upstream::Pool;

/// How long addresses may be used at least and at most, whatever their records say.
const SHORTEST_TTL: Duration = Duration::from_secs(1);
const LONGEST_TTL: Duration = Duration::from_secs(300);

/// When a look-up that failed is repeated: the first if no address is known.
const RETRY_SOON: Duration = Duration::from_secs(1);
const RETRY: Duration = Duration::from_secs(5);

/// The longest time between two looks at the table of sites.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// The shortest one, so that many names do not cause many looks.
const SHORTEST_PAUSE: Duration = Duration::from_millis(20);

/// How long one look-up may take: 16 s. That of SRV records comes before those of their targets,
/// which together may take as long as one name that is slow. Most resolvers know the targets.
const LOOKUP: Duration = NAME_PATIENCE.saturating_mul(2);

/// How long the first look-up of a name may keep the gateway, or its new configuration, waiting.
/// That is enough to hear of all resolvers that they are silent.
const FIRST_LOOKUP: Duration = Duration::from_secs(5);

/// How many names are looked up at once before a table gets requests.
const AT_ONCE: usize = 64;

/// The most targets of SRV records that are looked up, and how many at once.
const MOST_TARGETS: usize = 256;
const TARGETS_AT_ONCE: usize = 16;

/// Keeps the addresses of every upstream server with a name up to date, until `shutdown` turns
/// true.
///
/// A name that cannot be looked up keeps the addresses last found.
pub async fn resolve_loop(sites: Arc<ArcSwap<SiteTable>>, mut shutdown: watch::Receiver<bool>) {
    let mut running = JoinSet::new();
    let slots = Slots::default();
    while !*shutdown.borrow() {
        let next = start_due(&sites.load_full(), &slots, &mut running);
        tokio::select! {
            () = sleep_until(next) => {}
            // There may be room for another.
            Some(_) = running.join_next() => {}
            changed = shutdown.changed() => if changed.is_err() { return },
        }
    }
}

/// Starts the look-ups that are due, first those that have been so for longest. Returns when to look
/// again.
fn start_due(table: &SiteTable, slots: &Slots, running: &mut JoinSet<()>) -> Instant {
    let mut pause = LONGEST_PAUSE;
    let mut all_due = Vec::new();
    for pool in table.pools() {
        for (index, server) in pool.servers().iter().enumerate() {
            let Some(left) = pool.time_until_look_up(server) else {
                continue;
            };
            if !left.is_zero() {
                pause = pause.min(left);
                continue;
            }
            all_due.push((pool.look_up_delay(server), pool, index));
        }
    }
    all_due.sort_by_key(|(delay, ..)| Reverse(*delay));
    for (_, pool, index) in all_due {
        let Some(slot) = slots.take_slot(pool.name()) else {
            continue;
        };
        if let Some(server) = pool.servers().get(index) {
            // If nothing comes of it, it is due again.
            pool.set_next_look_up(server, LOOKUP * 2);
        }
        let (pool, resolver) = (Arc::clone(pool), Arc::clone(table.resolver()));
        running.spawn(async move {
            let _slot = slot;
            if let Some(server) = pool.servers().get(index) {
                resolve_server(&pool, server, &resolver, LOOKUP).await;
            }
        });
    }
    Instant::now() + pause.max(SHORTEST_PAUSE)
}

/// Looks up each name of which no address is known.
///
/// To be awaited for a new table before it gets requests, so that none of them finds a server
/// without an address.
pub async fn resolve_new(table: &SiteTable) {
    let mut new = Vec::new();
    for pool in table.pools() {
        let servers = pool.servers().iter();
        let lacking = servers.filter(|one| one.is_looked_up() && one.endpoints().is_empty());
        new.extend(lacking.map(|server| (pool, server)));
    }
    let resolver = table.resolver();
    futures::stream::iter(new)
        .for_each_concurrent(AT_ONCE, |(pool, server)| {
            resolve_server(pool, server, resolver, FIRST_LOOKUP)
        })
        .await;
}

/// Looks up the addresses of one server within `patience`. A failure is logged once, and so is its
/// end.
async fn resolve_server(pool: &Pool, server: &Server, resolver: &StubResolver, patience: Duration) {
    let found = match timeout(patience, look_up(&server.address, resolver)).await {
        Ok(Ok(found)) if found.values.is_empty() => {
            Err("the name has no address, or does not exist".to_owned())
        }
        Ok(found) => found.map_err(|error| error.to_string()),
        Err(_) => Err("the look-up took too long".to_owned()),
    };
    let changed = match &found {
        Ok(found) => {
            let ttl = found.ttl.clamp(SHORTEST_TTL, LONGEST_TTL);
            pool.set_next_look_up(server, ttl);
            pool.set_addresses(server, found)
        }
        Err(_) => {
            let is_known = !server.endpoints().is_empty();
            let pause = if is_known { RETRY } else { RETRY_SOON };
            pool.set_next_look_up(server, pause);
            server.note_lost()
        }
    };
    let (upstream, server) = (&**pool.name(), server.address.to_string());
    match found {
        Err(error) if changed => tracing::warn!(
            upstream,
            server,
            error,
            "an upstream server's name cannot be looked up: its last addresses stay in use",
        ),
        Ok(found) if changed => {
            let addresses = found.values.iter().map(|one| one.address);
            let addresses: Vec<SocketAddr> = addresses.collect();
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

async fn look_up(
    address: &UpstreamAddress,
    resolver: &StubResolver,
) -> Result<Found<FoundAddress>, DnsError> {
    match address {
        UpstreamAddress::Name { host, port } => {
            let found = resolver.addresses(host).await?;
            let to_port = |address| FoundAddress::equal((address, *port).into());
            Ok(Found {
                values: found.values.into_iter().map(to_port).collect(),
                ttl: found.ttl,
                is_complete: found.is_complete,
            })
        }
        UpstreamAddress::Service(name) => look_up_service(name, resolver).await,
        UpstreamAddress::Ip(_) | UpstreamAddress::Unix(_) => Ok(Found {
            values: Vec::new(),
            ttl: LONGEST_TTL,
            is_complete: true,
        }),
    }
}

/// All addresses of all targets of a name's SRV records. If one of them cannot be looked up, none is
/// returned, so that those that are known stay.
async fn look_up_service(
    name: &HostName,
    resolver: &StubResolver,
) -> Result<Found<FoundAddress>, DnsError> {
    let services = resolver.services(name).await?;
    let targets = services.values.into_iter().take(MOST_TARGETS);
    let targets: Vec<(Service, Found<_>)> = futures::stream::iter(targets)
        .map(|service| async {
            let found = resolver.absolute_addresses(&service.target).await?;
            Ok::<_, DnsError>((service, found))
        })
        .buffer_unordered(TARGETS_AT_ONCE)
        .try_collect()
        .await?;
    let mut all = Found {
        values: Vec::new(),
        ttl: services.ttl,
        is_complete: true,
    };
    for (service, found) in targets {
        all.ttl = all.ttl.min(found.ttl);
        all.is_complete &= found.is_complete;
        let addresses = found.values.into_iter().map(|address| FoundAddress {
            address: (address, service.port).into(),
            priority: service.priority,
            weight: service.weight,
        });
        all.values.extend(addresses);
    }
    Ok(all)
}
