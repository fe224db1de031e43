//! Servers that people have drained: they get no new requests, and keep those that they have.
//!
//! A list belongs to the upstream of a name. It outlives the pools that reloads replace, and counts
//! what their requests still have in flight.

use std::collections::{BTreeSet, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};

use prometheus::IntGaugeVec;

use super::endpoint::Endpoint;
use super::server::Server;
use crate::lock::MutexExt as _;
use crate::metrics::Metrics;

/// What is drained of an upstream.
pub(super) struct DrainList {
    /// The upstream's name.
    upstream: Arc<str>,
    gauge: IntGaugeVec,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    drained: BTreeSet<Entry>,
    /// The addresses that the gauge shows.
    shown: BTreeSet<String>,
    /// The counts of requests that may still be in flight at addresses that reloads have removed.
    earlier: Vec<(Box<str>, Weak<AtomicUsize>)>,
}

/// A server by its name in the configuration, and an address of it; `None` for all.
type Entry = (String, Option<String>);

impl DrainList {
    /// Nothing is drained yet.
    pub(super) fn new(upstream: &Arc<str>, metrics: &Metrics) -> Arc<Self> {
        Arc::new(Self {
            upstream: Arc::clone(upstream),
            gauge: metrics.upstream_drained.clone(),
            state: Mutex::default(),
        })
    }

    /// Drains the server with this name, or with this address, or resumes it. Returns whether it is
    /// one of `servers`.
    pub(super) fn set_drained<'s>(
        &self,
        servers: impl Iterator<Item = (String, &'s Server)>,
        wanted: &str,
        is_drained: bool,
    ) -> bool {
        let mut state = self.state.lock_unpoisoned();
        let mut is_known = false;
        for (name, server) in servers {
            let endpoints = server.endpoints();
            let mut addresses = endpoints.iter().map(|endpoint| &*endpoint.text);
            if name == wanted {
                state.drained.retain(|(server, _)| *server != name);
                if is_drained {
                    state.drained.insert((name.clone(), None));
                }
            } else if addresses.any(|address| address == wanted) {
                state.set_address_drained(&name, &endpoints, wanted, is_drained);
            } else {
                continue;
            }
            is_known = true;
            self.mark(&mut state, &name, &endpoints);
        }
        if is_known {
            let (upstream, server) = (&*self.upstream, wanted);
            match is_drained {
                true => tracing::info!(upstream, server, "an upstream server is drained"),
                false => tracing::info!(upstream, server, "an upstream server is resumed"),
            }
        }
        is_known
    }

    /// Marks the addresses of servers that may have new ones.
    pub(super) fn mark_again<'s>(&self, servers: impl Iterator<Item = (String, &'s Server)>) {
        let mut state = self.state.lock_unpoisoned();
        for (name, server) in servers {
            self.mark(&mut state, &name, &server.endpoints());
        }
    }

    /// Takes over from the servers `before` a reload to those `after` it, and forgets what was
    /// drained of servers that are gone.
    pub(super) fn carry_over<'s>(
        &self,
        before: impl Iterator<Item = (String, &'s Server)>,
        after: impl Iterator<Item = (String, &'s Server)>,
    ) {
        let mut state = self.state.lock_unpoisoned();
        state.earlier.retain(|(_, count)| count.strong_count() > 0);
        let after: Vec<(String, &Server)> = after.collect();
        let still_counted: HashSet<_> = after
            .iter()
            .flat_map(|(_, server)| server.endpoints().to_vec())
            .map(|endpoint| Arc::as_ptr(endpoint.request_count()))
            .collect();
        for (_, server) in before {
            for endpoint in server.endpoints().iter() {
                let count = endpoint.request_count();
                if !still_counted.contains(&Arc::as_ptr(count)) {
                    let address = endpoint.text.clone();
                    state.earlier.push((address, Arc::downgrade(count)));
                }
            }
        }
        let is_there = |(server, _): &Entry| after.iter().any(|(name, _)| name == server);
        state.drained.retain(is_there);
        for address in std::mem::take(&mut state.shown) {
            self.show(&address, false);
        }
        for (name, server) in after {
            self.mark(&mut state, &name, &server.endpoints());
        }
    }

    /// How many requests are in flight at the address of an endpoint that it does not count itself:
    /// those from before its server was removed and added again.
    pub(super) fn earlier_requests(&self, endpoint: &Endpoint) -> usize {
        let state = self.state.lock_unpoisoned();
        let earlier = state.earlier.iter();
        earlier
            .filter(|(address, _)| *address == endpoint.text)
            .filter_map(|(_, count)| count.upgrade())
            .map(|count| count.load(Ordering::Relaxed))
            .sum()
    }

    /// Has the addresses of a server get requests or none, as the list says.
    fn mark(&self, state: &mut State, name: &str, endpoints: &[Arc<Endpoint>]) {
        for endpoint in endpoints {
            let is_drained = state.is_drained(name, &endpoint.text);
            endpoint.availability.set_drained(is_drained);
            let address = endpoint.text.to_string();
            if is_drained {
                self.show(&address, true);
                state.shown.insert(address);
            } else if state.shown.remove(&address) {
                self.show(&address, false);
            }
        }
    }

    fn show(&self, address: &str, is_drained: bool) {
        let labels = [&*self.upstream, address];
        if is_drained {
            self.gauge.with_label_values(&labels).set(1);
        } else {
            // It may have gone with another upstream of the name.
            _ = self.gauge.remove_label_values(&labels);
        }
    }
}

impl Drop for DrainList {
    fn drop(&mut self) {
        let mut state = self.state.lock_unpoisoned();
        for address in std::mem::take(&mut state.shown) {
            self.show(&address, false);
        }
    }
}

impl State {
    fn is_drained(&self, server: &str, address: &str) -> bool {
        let mut entries = self.drained.iter();
        entries.any(|(name, of)| name == server && of.as_deref().is_none_or(|of| of == address))
    }

    /// Drains or resumes one address of a server, and leaves its others as they are.
    fn set_address_drained(
        &mut self,
        server: &str,
        endpoints: &[Arc<Endpoint>],
        wanted: &str,
        is_drained: bool,
    ) {
        let whole = (server.to_owned(), None);
        if is_drained && self.drained.contains(&whole) {
            return;
        }
        if self.drained.remove(&whole) {
            let all = endpoints.iter().map(|endpoint| endpoint.text.to_string());
            let each = all.map(|address| (server.to_owned(), Some(address)));
            self.drained.extend(each);
        }
        let entry = (server.to_owned(), Some(wanted.to_owned()));
        match is_drained {
            true => self.drained.insert(entry),
            false => self.drained.remove(&entry),
        };
    }
}
