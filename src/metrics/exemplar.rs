//! One request as an example of those that a bucket counts: the trace that it belongs to.
//!
//! Written without a lock by whoever has one: a writer that meets another, or a reader that meets a
//! writer, goes without, since the next one comes soon.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering, fence};

use crate::clock::UnixTime;

/// The trace of a request that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traced {
    /// 128 bits, as in `traceparent`.
    pub id: u128,
    /// When the request ended.
    pub at: UnixTime,
}

/// An example of the values in a bucket.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Exemplar {
    pub(super) traced: Traced,
    pub(super) value: f64,
}

/// A place for the latest exemplar of a bucket.
#[derive(Debug, Default)]
pub(super) struct Slot {
    /// 0 while there is none, odd while it is written.
    version: AtomicU64,
    high: AtomicU64,
    low: AtomicU64,
    value: AtomicU64,
    at: AtomicI64,
}

impl Slot {
    pub(super) fn set(&self, exemplar: Exemplar) {
        let version = self.version.load(Ordering::Relaxed);
        let is_taken = version % 2 == 1
            || self
                .version
                .compare_exchange(version, version + 1, Ordering::Acquire, Ordering::Relaxed)
                .is_err();
        if is_taken {
            return;
        }
        // What follows is not seen before the version is odd.
        fence(Ordering::Release);
        let order = Ordering::Relaxed;
        let Exemplar { traced, value } = exemplar;
        self.high.store((traced.id >> 64) as u64, order);
        self.low.store(traced.id as u64, order);
        self.value.store(value.to_bits(), order);
        self.at.store(traced.at.as_secs(), order);
        self.version.store(version + 2, Ordering::Release);
    }

    /// The exemplar, unless there is none or it is being written.
    pub(super) fn get(&self) -> Option<Exemplar> {
        let version = self.version.load(Ordering::Acquire);
        if version == 0 || version % 2 == 1 {
            return None;
        }
        let order = Ordering::Relaxed;
        let high = u128::from(self.high.load(order));
        let traced = Traced {
            id: high << 64 | u128::from(self.low.load(order)),
            at: UnixTime::from_secs(self.at.load(order)),
        };
        let value = f64::from_bits(self.value.load(order));
        fence(Ordering::Acquire);
        (self.version.load(order) == version).then_some(Exemplar { traced, value })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exemplar(number: u32) -> Exemplar {
        let id = u128::from(number) << 64 | u128::from(number);
        let at = UnixTime::from_secs(number.into());
        Exemplar {
            traced: Traced { id, at },
            value: number.into(),
        }
    }

    #[test]
    fn what_is_read_was_written_as_a_whole() {
        let slot = Slot::default();
        assert_eq!(slot.get(), None);
        slot.set(exemplar(7));
        assert_eq!(slot.get(), Some(exemplar(7)));
        std::thread::scope(|scope| {
            for writer in 1..3 {
                let slot = &slot;
                scope.spawn(move || {
                    for number in 1..20_000 {
                        slot.set(exemplar(number * writer));
                    }
                });
            }
            let mut read = 0;
            while read < 10_000 {
                read += 1;
                if let Some(found) = slot.get() {
                    assert_eq!(found, exemplar(found.value as u32));
                }
            }
        });
    }
}
