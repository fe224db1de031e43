//! Checks the servers of upstreams periodically, outside the requests' path.
//!
//! One loop serves all upstreams. It looks at the table of sites that is in force, so a reload stops
//! the checks of an upstream that is gone or has changed, and nothing else.

mod http2;
mod probe;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tokio::task::{Id, JoinSet};
use tokio::time::{Instant, sleep_until};

use self::probe::probe;
use super::dial::Dialer;
use super::endpoint::Endpoint;
use super::route::SiteTable;
use super::slots::Slots;
use super::upstream::Pool;
use crate::clock::{Clock as _, SystemClock};
use crate::config::model::HealthCheck;
use crate::event::{Event, EventBus, EventKind, Severity};
use crate::metrics::Metrics;

/// The longest time between two looks at the table of sites.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// The shortest one, so that many addresses do not cause many looks.
const SHORTEST_PAUSE: Duration = Duration::from_millis(20);

/// Checks the servers of every upstream that asks for it, until `shutdown` turns true.
pub async fn health_loop(
    sites: Arc<ArcSwap<SiteTable>>,
    metrics: Metrics,
    events: EventBus,
    mut shutdown: watch::Receiver<bool>,
) {
    let mut watchdog = Watchdog::new(metrics, events);
    let mut running = JoinSet::new();
    while !*shutdown.borrow() {
        let mut next = watchdog.start_due(&sites.load_full(), &mut running);
        loop {
            tokio::select! {
                () = sleep_until(next) => break,
                Some(ended) = running.join_next_with_id() => {
                    let due = match ended {
                        Ok((_, finished)) => watchdog.record(finished),
                        // It is reported by the runtime.
                        Err(panicked) => watchdog.record_panic(panicked.id()),
                    };
                    let at_once = watchdog.has_held_back.then(Instant::now);
                    if let Some(due) = at_once.or(due) {
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
    /// The addresses that were reported as unhealthy, each with the name of its upstream.
    reported: HashSet<Server>,
    /// The number of the last look at the table of sites.
    look: u64,
    slots: Slots,
    /// Whether the last look has left checks for the next one, for which there was no slot.
    has_held_back: bool,
    dialer: Dialer,
    metrics: Metrics,
    events: EventBus,
}

/// An upstream and an address of its servers, by their names.
type Server = (Arc<str>, Box<str>);

/// What the loop knows of one address of a server.
struct Watch {
    pool: Arc<Pool>,
    endpoint: Arc<Endpoint>,
    due: Instant,
    /// The check that is running, if one is, and since when.
    running: Option<(Id, Instant)>,
    /// How many checks in a row have contradicted what is known.
    contradictions: u32,
    /// The last look at the table of sites that found it.
    look: u64,
}

/// A check that is due.
struct Due {
    since: Instant,
    watch: usize,
    pool: Arc<Pool>,
    server: usize,
    endpoint: Arc<Endpoint>,
}

/// A check that has ended.
struct Finished {
    watch: usize,
    result: Result<(), String>,
}

impl Watchdog {
    fn new(metrics: Metrics, events: EventBus) -> Self {
        Self {
            watches: HashMap::new(),
            reported: HashSet::new(),
            look: 0,
            slots: Slots::default(),
            has_held_back: false,
            dialer: Dialer::default(),
            metrics,
            events,
        }
    }

    /// Starts the checks that are due, first those that have been so for longest, and forgets what is
    /// no longer configured. Returns when to look again.
    fn start_due(&mut self, table: &SiteTable, running: &mut JoinSet<Finished>) -> Instant {
        let now = Instant::now();
        let mut next = now + LONGEST_PAUSE;
        self.look += 1;
        let mut has_new = false;
        let mut all_due = Vec::new();
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
                    if watch.running.is_some() {
                        continue;
                    }
                    if watch.due > now {
                        next = next.min(watch.due);
                        continue;
                    }
                    all_due.push(Due {
                        since: watch.due,
                        watch: key,
                        pool: Arc::clone(pool),
                        server: index,
                        endpoint: Arc::clone(endpoint),
                    });
                }
            }
        }
        self.has_held_back = false;
        all_due.sort_by_key(|due| due.since);
        for due in all_due {
            self.start(due, now, running);
        }
        self.forget_gone(has_new);
        next.max(now + SHORTEST_PAUSE)
    }

    /// Starts a check, unless too many run. Then one of the next looks starts it.
    fn start(&mut self, due: Due, now: Instant, running: &mut JoinSet<Finished>) {
        let Some(slot) = self.slots.take_slot(due.pool.name()) else {
            self.has_held_back = true;
            return;
        };
        let Some(watch) = self.watches.get_mut(&due.watch) else {
            return;
        };
        let dialer = self.dialer.clone();
        let check = running.spawn(async move {
            let _slot = slot;
            let result = probe(&due.pool, due.server, &due.endpoint, &dialer).await;
            Finished {
                watch: due.watch,
                result,
            }
        });
        watch.running = Some((check.id(), now));
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
            self.report_gone();
        }
    }

    /// Reports that addresses are over that were unhealthy and are no longer checked. Nothing else
    /// would ever say so.
    fn report_gone(&mut self) {
        if self.reported.is_empty() {
            return;
        }
        let there: HashSet<Server> = self.watches.values().map(Watch::server).collect();
        for (upstream, server) in self.reported.extract_if(|server| !there.contains(server)) {
            let message = format!(
                "the server {server} of the upstream {upstream} is no longer checked: it, or its \
                 health check, is no longer configured"
            );
            let (kind, severity) = (EventKind::UpstreamUp, Severity::Info);
            self.events.emit(Event {
                upstream: Some(upstream),
                server: Some(server),
                ..Event::new(SystemClock.now(), kind, severity, "", message)
            });
        }
    }

    /// Records the result of a check. Returns when the next one is due, if the address is still
    /// there.
    fn record(&mut self, finished: Finished) -> Option<Instant> {
        let watch = self.watches.get_mut(&finished.watch)?;
        let (_, since) = watch.running.take()?;
        let check = watch.pool.health_check()?;
        watch.due = next_check(check, since);
        let is_down = watch.endpoint.availability.is_down();
        let is_good = finished.result.is_ok();
        let change = count_result(is_down, is_good, check, &mut watch.contradictions);
        if let Some(is_down) = change {
            watch.endpoint.availability.set_down(is_down);
            if !is_down {
                watch.pool.begin_warm_up(&watch.endpoint);
            }
            watch.show(&self.metrics);
            match is_down {
                true => drop(self.reported.insert(watch.server())),
                false => drop(self.reported.remove(&watch.server())),
            }
            self.events.emit(watch.event(finished.result.err()));
        } else if is_good && !is_down && self.reported.remove(&watch.server()) {
            // Its upstream has changed since: what is new begins as healthy.
            self.events.emit(watch.event(None));
        }
        Some(watch.due)
    }

    /// Has a check that panicked made again when the next one is due. It says nothing of its server.
    fn record_panic(&mut self, id: Id) -> Option<Instant> {
        let is_it = |watch: &&mut Watch| watch.running.is_some_and(|(running, _)| running == id);
        let watch = self.watches.values_mut().find(is_it)?;
        let (_, since) = watch.running.take()?;
        watch.due = next_check(watch.pool.health_check()?, since);
        Some(watch.due)
    }
}

/// When the check after one that began at `since` is due: a tenth more or less later than the
/// configuration says, so that checks do not come in step.
fn next_check(check: &HealthCheck, since: Instant) -> Instant {
    let pause = check.every.mul_f64(0.9) + random_part(check.every.mul_f64(0.2));
    (since + pause).max(Instant::now())
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
            running: None,
            contradictions: 0,
            look: 0,
        }
    }

    fn server(&self) -> Server {
        (Arc::clone(self.pool.name()), self.endpoint.text.clone())
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
                     others: requests are sent to them all the same: {reason}"
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
    use crate::config::model::{Probe, Upstream, UpstreamAddress, UpstreamServer};

    const CHECK: HealthCheck = HealthCheck {
        probe: Probe::Tcp,
        every: Duration::from_secs(5),
        timeout: Duration::from_secs(2),
        healthy: 2,
        unhealthy: 3,
    };

    #[tokio::test(start_paused = true)]
    async fn a_check_that_panics_is_made_again() {
        let address = UpstreamAddress::Ip(([127, 0, 0, 1], 1).into());
        let upstream = Upstream {
            health: Some(CHECK),
            ..Upstream::new("app", vec![UpstreamServer::new(address)])
        };
        let metrics = Metrics::new().expect("metrics");
        let pool = Arc::new(Pool::new(&Arc::new(upstream), &metrics));
        let endpoint = Arc::clone(&pool.servers()[0].endpoints()[0]);
        let mut watchdog = Watchdog::new(metrics, EventBus::default());
        let mut running: JoinSet<Finished> = JoinSet::new();
        let now = Instant::now();
        let mut watch = Watch::new(&pool, &endpoint, now);
        let check = running.spawn(async { panic!("as a check might") });
        watch.running = Some((check.id(), now));
        watchdog.watches.insert(1, watch);
        let ended = running.join_next_with_id().await.expect("one");
        let panicked = ended.map(|_| ()).expect_err("a panic");
        let due = watchdog.record_panic(panicked.id()).expect("a time");
        assert!(due - now >= CHECK.every.mul_f64(0.9) && due - now <= CHECK.every.mul_f64(1.1));
        assert!(watchdog.watches[&1].running.is_none());
    }

    #[test]
    fn several_checks_in_a_row_change_what_is_known() {
        let (mut is_down, mut contradictions) = (false, 0);
        let mut known = Vec::new();
        for result in "x.xx.xxxx.x..x.".chars() {
            let change = count_result(is_down, result == '.', &CHECK, &mut contradictions);
            is_down = change.unwrap_or(is_down);
            known.push(if is_down { 'd' } else { 'u' });
        }
        assert_eq!(known.iter().collect::<String>(), "uuuuuuuddddduuu");
    }
}
