//! Checks the servers of upstreams periodically, outside the requests' path.
//!
//! One loop serves all upstreams. It looks at the table of sites that is in force, so a reload stops
//! the checks of an upstream that is gone or has changed, and nothing else.

mod http2;
mod probe;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use self::probe::probe;
use super::dial::Dialer;
use super::endpoint::Endpoint;
use super::route::SiteTable;
use super::upstream::Pool;
use crate::clock::{Clock as _, SystemClock};
use crate::config::model::HealthCheck;
use crate::event::{Event, EventBus, EventKind, Severity};
use crate::metrics::Metrics;

/// The longest time between two looks at the table of sites.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// The shortest one, so that many addresses do not cause many looks.
const SHORTEST_PAUSE: Duration = Duration::from_millis(20);

/// How many checks run at once.
const AT_ONCE: usize = 64;

/// Checks the servers of every upstream that asks for it, until `shutdown` turns true.
pub async fn health_loop(
    sites: Arc<ArcSwap<SiteTable>>,
    metrics: Metrics,
    events: EventBus,
    mut shutdown: watch::Receiver<bool>,
) {
    let mut watchdog = Watchdog {
        watches: HashMap::new(),
        look: 0,
        dialer: Dialer::default(),
        metrics,
        events,
    };
    let mut running = JoinSet::new();
    while !*shutdown.borrow() {
        let mut next = watchdog.start_due(&sites.load_full(), &mut running);
        loop {
            tokio::select! {
                () = sleep_until(next) => break,
                Some(finished) = running.join_next() => {
                    // A check that panicked is reported by the runtime, and is made again.
                    if let Ok(finished) = finished
                        && let Some(due) = watchdog.record(finished)
                    {
                        next = next.min(due).max(Instant::now() + SHORTEST_PAUSE);
                    }
                }
                changed = shutdown.changed() => match changed {
                    Ok(()) => break,
                    Err(_) => return,
                },
            }
        }
    }
}

/// What the loop knows.
struct Watchdog {
    /// By the address of the endpoint in memory.
    watches: HashMap<usize, Watch>,
    /// The number of the last look at the table of sites.
    look: u64,
    dialer: Dialer,
    metrics: Metrics,
    events: EventBus,
}

/// What the loop knows of one address of a server.
struct Watch {
    pool: Arc<Pool>,
    endpoint: Arc<Endpoint>,
    due: Instant,
    /// Since when a check has been running, if one is.
    since: Option<Instant>,
    /// How many checks in a row have contradicted what is known.
    contradictions: u32,
    /// The last look at the table of sites that found it.
    look: u64,
}

/// A check that has ended.
struct Finished {
    watch: usize,
    result: Result<(), String>,
}

impl Watchdog {
    /// Starts the checks that are due, and forgets what is no longer configured. Returns when to look
    /// again.
    fn start_due(&mut self, table: &SiteTable, running: &mut JoinSet<Finished>) -> Instant {
        let now = Instant::now();
        let mut next = now + LONGEST_PAUSE;
        self.look += 1;
        let mut has_new = false;
        for pool in table.pools() {
            let Some(check) = pool.health_check() else {
                continue;
            };
            for (index, server) in pool.servers().iter().enumerate() {
                for endpoint in server.endpoints().iter() {
                    let key = Arc::as_ptr(endpoint).addr();
                    let watch = self.watches.entry(key).or_insert_with(|| {
                        has_new = true;
                        Watch::new(pool, endpoint, now + random_part(check.every))
                    });
                    watch.look = self.look;
                    if watch.since.is_some() {
                        continue;
                    }
                    if watch.due > now || running.len() >= AT_ONCE {
                        next = next.min(watch.due);
                        continue;
                    }
                    watch.since = Some(now);
                    let (pool, endpoint) = (Arc::clone(pool), Arc::clone(endpoint));
                    let dialer = self.dialer.clone();
                    running.spawn(async move {
                        let result = probe(&pool, index, &endpoint, &dialer).await;
                        Finished { watch: key, result }
                    });
                }
            }
        }
        self.forget_gone(has_new);
        next.max(now + SHORTEST_PAUSE)
    }

    /// Forgets addresses that the last look has not found.
    fn forget_gone(&mut self, has_new: bool) {
        let (look, gauges) = (self.look, &self.metrics.upstream_healthy);
        let before = self.watches.len();
        self.watches.retain(|_, watch| {
            let is_there = watch.look == look;
            if !is_there {
                // It may have gone already, with another address of the same text.
                _ = gauges.remove_label_values(&[&**watch.pool.name(), &*watch.endpoint.text]);
            }
            is_there
        });
        if has_new || self.watches.len() != before {
            for watch in self.watches.values() {
                watch.show(&self.metrics);
            }
        }
    }

    /// Records the result of a check. Returns when the next one is due, if the address is still
    /// there.
    fn record(&mut self, finished: Finished) -> Option<Instant> {
        let watch = self.watches.get_mut(&finished.watch)?;
        let since = watch.since.take()?;
        let check = watch.pool.health_check()?;
        // A tenth more or less, so that checks do not come in step.
        let pause = check.every.mul_f64(0.9) + random_part(check.every.mul_f64(0.2));
        watch.due = (since + pause).max(Instant::now());
        let is_down = watch.endpoint.availability.is_down();
        let is_good = finished.result.is_ok();
        let change = count_result(is_down, is_good, check, &mut watch.contradictions);
        if let Some(is_down) = change {
            watch.endpoint.availability.set_down(is_down);
            if !is_down {
                watch.pool.begin_warm_up(&watch.endpoint);
            }
            watch.show(&self.metrics);
            self.events.emit(watch.event(finished.result.err()));
        }
        Some(watch.due)
    }
}

/// Counts the result of a check of an address that is known to be down or not. Returns what is known
/// from now on, if that is something else.
fn count_result(
    is_down: bool,
    is_good: bool,
    check: &HealthCheck,
    contradictions: &mut u32,
) -> Option<bool> {
    if is_good != is_down {
        *contradictions = 0;
        return None;
    }
    *contradictions = contradictions.saturating_add(1);
    let needed = match is_down {
        true => check.healthy,
        false => check.unhealthy,
    };
    if *contradictions < needed {
        return None;
    }
    *contradictions = 0;
    Some(!is_down)
}

impl Watch {
    fn new(pool: &Arc<Pool>, endpoint: &Arc<Endpoint>, due: Instant) -> Self {
        Self {
            pool: Arc::clone(pool),
            endpoint: Arc::clone(endpoint),
            due,
            since: None,
            contradictions: 0,
            look: 0,
        }
    }

    fn show(&self, metrics: &Metrics) {
        let labels = [&**self.pool.name(), &*self.endpoint.text];
        let is_healthy = !self.endpoint.availability.is_down();
        metrics
            .upstream_healthy
            .with_label_values(&labels)
            .set(i64::from(is_healthy));
    }

    /// The event of a change; `reason` is that of the last failure.
    fn event(&self, reason: Option<String>) -> Event {
        let (upstream, server) = (self.pool.name(), &self.endpoint.text);
        let is_last = || {
            let servers = self.pool.servers().iter();
            let mut endpoints = servers.flat_map(|server| server.endpoints().to_vec());
            endpoints.all(|endpoint| endpoint.availability.is_down())
        };
        let (kind, severity, message) = match &reason {
            None => (
                EventKind::UpstreamUp,
                Severity::Info,
                format!("the server {server} of the upstream {upstream} is healthy again"),
            ),
            Some(reason) if is_last() => (
                EventKind::UpstreamDown,
                Severity::Critical,
                format!(
                    "the server {server} of the upstream {upstream} is unhealthy, and so are all \
                     others: requests to it get 503: {reason}"
                ),
            ),
            Some(reason) => (
                EventKind::UpstreamDown,
                Severity::Warning,
                format!(
                    "the server {server} of the upstream {upstream} is unhealthy and gets no \
                     requests: {reason}"
                ),
            ),
        };
        Event {
            upstream: Some(Arc::clone(upstream)),
            server: Some(server.clone()),
            reason,
            ..Event::new(SystemClock.now(), kind, severity, "", message)
        }
    }
}

/// A random part of a time.
fn random_part(time: Duration) -> Duration {
    time.mul_f64(fastrand::f64())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::model::Probe;

    #[test]
    fn several_checks_in_a_row_change_what_is_known() {
        let check = HealthCheck {
            probe: Probe::Tcp,
            every: Duration::from_secs(5),
            timeout: Duration::from_secs(2),
            healthy: 2,
            unhealthy: 3,
        };
        let (mut is_down, mut contradictions) = (false, 0);
        let mut known = Vec::new();
        for result in "x.xx.xxxx.x..x.".chars() {
            let change = count_result(is_down, result == '.', &check, &mut contradictions);
            is_down = change.unwrap_or(is_down);
            known.push(if is_down { 'd' } else { 'u' });
        }
        assert_eq!(known.iter().collect::<String>(), "uuuuuuuddddduuu");
    }
}
