//! The keys that seal session tickets, and their rotation.
//!
//! Anyone who has the key of a ticket can open it, and decrypt recorded TLS 1.2 sessions. So a key
//! seals tickets for one interval, opens them for one more, and is then dropped. Keys exist only in
//! memory: a restart begins with new ones and costs each client one full handshake.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use zeroize::Zeroizing;

use crate::lock::MutexExt as _;

/// A key that seals tickets with AES-256-CBC and HMAC-SHA-256 (RFC 5077, section 4).
pub(super) struct TicketKey {
    name: [u8; 16],
    cipher: Zeroizing<[u8; 32]>,
    mac: Zeroizing<[u8; 32]>,
    made: Instant,
}

impl TicketKey {
    fn generate(now: Instant) -> Option<Self> {
        let mut key = Self {
            name: [0; 16],
            cipher: Zeroizing::new([0; 32]),
            mac: Zeroizing::new([0; 32]),
            made: now,
        };
        openssl::rand::rand_bytes(&mut key.name).ok()?;
        openssl::rand::rand_priv_bytes(key.cipher.as_mut_slice()).ok()?;
        openssl::rand::rand_priv_bytes(key.mac.as_mut_slice()).ok()?;
        Some(key)
    }

    pub(super) fn name(&self) -> &[u8; 16] {
        &self.name
    }

    pub(super) fn cipher_key(&self) -> &[u8; 32] {
        &self.cipher
    }

    pub(super) fn mac_key(&self) -> &[u8; 32] {
        &self.mac
    }
}

/// The key in use and the one before it.
struct Ring {
    current: Arc<TicketKey>,
    previous: Option<Arc<TicketKey>>,
}

/// The ticket keys of all TLS contexts of a gateway.
pub(super) struct TicketKeys {
    ring: ArcSwap<Option<Ring>>,
    interval: Duration,
}

impl TicketKeys {
    /// Keys that are replaced each `interval`. The first is generated for the first ticket.
    pub(super) fn new(interval: Duration) -> Self {
        Self {
            ring: ArcSwap::from_pointee(None),
            interval,
        }
    }

    /// The key to seal a ticket with; `None` if there is no randomness to generate one.
    pub(super) fn current_key(&self) -> Option<Arc<TicketKey>> {
        self.current_at(Instant::now())
    }

    /// The key of that name, and whether it is the current one. A ticket under an older key is
    /// valid and should be replaced.
    pub(super) fn find_key(&self, name: &[u8]) -> Option<(Arc<TicketKey>, bool)> {
        self.find_at(name, Instant::now())
    }

    fn current_at(&self, now: Instant) -> Option<Arc<TicketKey>> {
        let fresh = |ring: &Ring| now.saturating_duration_since(ring.current.made) < self.interval;
        if let Some(ring) = self.ring.load().as_ref()
            && fresh(ring)
        {
            return Some(Arc::clone(&ring.current));
        }
        let next = Arc::new(TicketKey::generate(now)?);
        // If several threads get here at once, the first wins and all use its key.
        self.ring.rcu(|ring| match ring.as_ref() {
            Some(ring) if fresh(ring) => Some(Ring {
                current: Arc::clone(&ring.current),
                previous: ring.previous.clone(),
            }),
            old => Some(Ring {
                current: Arc::clone(&next),
                previous: old.as_ref().map(|ring| Arc::clone(&ring.current)),
            }),
        });
        self.ring
            .load()
            .as_ref()
            .as_ref()
            .map(|ring| Arc::clone(&ring.current))
    }

    fn find_at(&self, name: &[u8], now: Instant) -> Option<(Arc<TicketKey>, bool)> {
        let guard = self.ring.load();
        let ring = guard.as_ref().as_ref()?;
        let usable = |key: &TicketKey| {
            key.name == name && now.saturating_duration_since(key.made) < self.interval * 2
        };
        if usable(&ring.current) {
            return Some((Arc::clone(&ring.current), true));
        }
        let previous = ring.previous.as_ref().filter(|key| usable(key))?;
        Some((Arc::clone(previous), false))
    }
}

/// The ticket keys in use, with their interval.
#[derive(Default)]
pub(super) struct Tickets {
    in_use: Mutex<Option<(Duration, Arc<TicketKeys>)>>,
}

impl Tickets {
    /// Keys that rotate at `interval`. If the interval is the same, they are the keys in use, so a
    /// reload of the configuration invalidates no session.
    pub(super) fn keys(&self, interval: Duration) -> Arc<TicketKeys> {
        let mut in_use = self.in_use.lock_unpoisoned();
        match in_use.as_ref() {
            Some((of, keys)) if *of == interval => Arc::clone(keys),
            _ => {
                let keys = Arc::new(TicketKeys::new(interval));
                *in_use = Some((interval, Arc::clone(&keys)));
                keys
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_seals_for_one_interval_and_opens_for_two() {
        let hour = Duration::from_secs(3600);
        let keys = TicketKeys::new(hour);
        let start = Instant::now();
        let first = keys.current_at(start).expect("randomness");
        let name = *first.name();
        let again = keys.current_at(start + hour / 2).expect("randomness");
        assert_eq!(again.name(), &name);

        let second = keys.current_at(start + hour).expect("randomness");
        assert_ne!(second.name(), &name);
        let (_, current) = keys.find_at(&name, start + hour).expect("still opens");
        assert!(!current, "a ticket under the old key is to be replaced");
        let (_, current) = keys.find_at(second.name(), start + hour).expect("opens");
        assert!(current);

        assert!(keys.find_at(&name, start + hour * 2).is_none());
        assert!(keys.find_at(&[0; 16], start).is_none());
    }
}
