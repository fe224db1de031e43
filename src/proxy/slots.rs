//! Shares what runs at once in the background among upstreams, so that none holds up the others.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use crate::lock::MutexExt as _;

/// How many slots there are.
const ALL: usize = 64;

/// How many one upstream may take.
const EACH: usize = 16;

/// How many are left to upstreams that have none.
const RESERVED: usize = 16;

/// The slots of one kind of work. Clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct Slots(Arc<Mutex<Taken>>);

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by_upstream: HashMap<Arc<str>, usize>,
}

/// A slot, free again when it is dropped.
#[derive(Debug)]
pub(super) struct Slot {
    slots: Slots,
    upstream: Arc<str>,
}

impl Slots {
    /// A slot for an upstream, if there is one that it may take.
    pub(super) fn take_slot(&self, upstream: &Arc<str>) -> Option<Slot> {
        let mut taken = self.0.lock_unpoisoned();
        let most = match taken.by_upstream.get(upstream) {
            Some(EACH..) => return None,
            Some(_) => ALL - RESERVED,
            None => ALL,
        };
        if taken.all >= most {
            return None;
        }
        taken.all += 1;
        *taken.by_upstream.entry(Arc::clone(upstream)).or_default() += 1;
        Some(Slot {
            slots: self.clone(),
            upstream: Arc::clone(upstream),
        })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut taken = self.slots.0.lock_unpoisoned();
        taken.all = taken.all.saturating_sub(1);
        let Some(own) = taken.by_upstream.get_mut(&self.upstream) else {
            return;
        };
        *own = own.saturating_sub(1);
        if *own == 0 {
            taken.by_upstream.remove(&self.upstream);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_upstream_has_a_slot_however_many_another_would_take() {
        let slots = Slots::default();
        let take = |name: &str| slots.take_slot(&name.into());
        let all_of = |name: &str| -> Vec<Slot> { std::iter::from_fn(|| take(name)).collect() };
        let greedy: Vec<Vec<Slot>> = ["a", "b", "c", "d", "e"].map(all_of).into();
        let counts: Vec<usize> = greedy.iter().map(Vec::len).collect();
        assert_eq!(counts, [EACH, EACH, EACH, 1, 1]);
        let modest: Vec<Slot> = (0..)
            .map_while(|number| take(&format!("m{number}")))
            .collect();
        assert_eq!(modest.len(), RESERVED - 2);
        drop(greedy);
        assert_eq!(all_of("a").len(), EACH);
        drop(modest);
        assert!(slots.0.lock_unpoisoned().by_upstream.is_empty());
        assert_eq!(slots.0.lock_unpoisoned().all, 0);
    }
}
