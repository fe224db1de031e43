//! How much waits in queues, asked at the time of the scrape.

use std::fmt;
use std::sync::{Arc, Mutex};

use super::exposition::{Exposition, Family, Kind, Source};
use crate::lock::MutexExt as _;

/// A queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queue {
    /// Lines of the access log, in octets.
    AccessLog,
    /// Lines of the gateway's own log, in octets.
    Log,
    /// TLS handshakes that have begun and not ended.
    Handshakes,
}

const ALL: [(Queue, Family); 3] = [
    (
        Queue::AccessLog,
        gauge(
            "snigate_access_log_queue_bytes",
            "Octets of the access log that wait to be written.",
        ),
    ),
    (
        Queue::Log,
        gauge(
            "snigate_log_queue_bytes",
            "Octets of the gateway's own log that wait to be written.",
        ),
    ),
    (
        Queue::Handshakes,
        gauge(
            "snigate_tls_handshakes_open",
            "TLS handshakes that have begun and not ended.",
        ),
    ),
];

const fn gauge(name: &'static str, help: &'static str) -> Family {
    Family {
        name,
        kind: Kind::Gauge,
        labels: &[],
        help,
    }
}

/// What is written here.
pub(super) fn families() -> [Family; 3] {
    ALL.map(|(_, family)| family)
}

/// Returns how much waits; `None` once the queue is gone.
type Ask = dyn Fn() -> Option<u64> + Send + Sync;

/// The queues of a gateway. A handle; clones share them.
#[derive(Clone, Default)]
pub struct Depths(Arc<Mutex<[Option<Box<Ask>>; ALL.len()]>>);

impl Depths {
    /// Shows what `ask` returns from now on.
    pub fn show(&self, queue: Queue, ask: impl Fn() -> Option<u64> + Send + Sync + 'static) {
        if let Some(place) = self.0.lock_unpoisoned().get_mut(queue as usize) {
            *place = Some(Box::new(ask));
        }
    }
}

impl Source for Depths {
    fn write(&self, to: &mut Exposition) {
        let asks = self.0.lock_unpoisoned();
        for (ask, (_, family)) in asks.iter().zip(&ALL) {
            if let Some(depth) = ask.as_ref().and_then(|ask| ask()) {
                to.begin(family.name, family.kind, family.help);
                to.integer(family.name, &[], depth);
            }
        }
    }
}

impl fmt::Debug for Depths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Depths").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queues_are_listed_in_their_order() {
        for (place, (queue, _)) in ALL.into_iter().enumerate() {
            assert_eq!(queue as usize, place);
        }
    }
}
