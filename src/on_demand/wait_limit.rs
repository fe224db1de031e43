//! A bound on the handshakes that wait, in all and for each network.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use prometheus::IntGauge;

use super::quota::network;

use crate::lock::MutexExt as _;

/// Counts handshakes that wait.
pub(super) struct WaitLimit {
    /// By network, with the sum of all.
    waiting: Mutex<(HashMap<IpAddr, u32, ahash::RandomState>, u32)>,
    gauge: Option<IntGauge>,
}

/// One handshake that waits.
pub(super) struct Permit {
    room: Arc<WaitLimit>,
    network: Option<IpAddr>,
}

impl WaitLimit {
    pub(super) fn new(gauge: Option<IntGauge>) -> Self {
        Self {
            waiting: Mutex::default(),
            gauge,
        }
    }

    /// A permit for `client`, if fewer than `most` wait. One network gets an eighth.
    pub(super) fn admit_client(
        self: &Arc<Self>,
        client: Option<IpAddr>,
        most: u32,
    ) -> Option<Permit> {
        let network = client.map(network);
        {
            let mut waiting = self.lock();
            let (by_network, all) = &mut *waiting;
            if *all >= most {
                return None;
            }
            if let Some(network) = network {
                let of_network = by_network.entry(network).or_insert(0);
                if *of_network >= (most / 8).max(1) {
                    return None;
                }
                *of_network += 1;
            }
            *all += 1;
        }
        if let Some(gauge) = &self.gauge {
            gauge.inc();
        }
        Some(Permit {
            room: Arc::clone(self),
            network,
        })
    }

    fn lock(&self) -> MutexGuard<'_, (HashMap<IpAddr, u32, ahash::RandomState>, u32)> {
        self.waiting.lock_unpoisoned()
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(gauge) = &self.room.gauge {
            gauge.dec();
        }
        let mut waiting = self.room.lock();
        let (by_network, all) = &mut *waiting;
        *all = all.saturating_sub(1);
        if let Some(network) = self.network
            && let Entry::Occupied(mut of_network) = by_network.entry(network)
        {
            *of_network.get_mut() -= 1;
            if *of_network.get() == 0 {
                of_network.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seats_are_bounded_in_all_and_for_a_network() {
        let gauge = IntGauge::new("waiting", "waiting").expect("a valid name");
        let room = Arc::new(WaitLimit::new(Some(gauge.clone())));
        let enter = |client: &str| room.admit_client(Some(client.parse().expect("an address")), 16);
        let first = enter("192.0.2.1").expect("a seat");
        let _second = enter("192.0.2.2").expect("a seat");
        assert!(enter("192.0.2.3").is_none());
        drop(first);
        let _third = enter("192.0.2.3").expect("a seat");
        let others: Vec<_> = (0..20)
            .filter_map(|number| enter(&format!("198.51.{number}.1")))
            .collect();
        assert_eq!((others.len(), gauge.get()), (14, 16));
        assert!(room.admit_client(None, 16).is_none());
        drop(others);
        assert_eq!(gauge.get(), 2);
        assert_eq!(room.lock().0.len(), 1);
        assert!(room.admit_client(None, 1).is_none() && room.admit_client(None, 3).is_some());
    }
}
