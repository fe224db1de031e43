//! Sets of kinds of events.

use super::EventKind;

/// A set of kinds of events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KindSet(u64);

impl KindSet {
    /// Adds a kind.
    pub fn insert(&mut self, kind: EventKind) {
        self.0 |= bit(kind);
    }

    /// Returns true if the kind is in the set.
    pub fn contains(self, kind: EventKind) -> bool {
        self.0 & bit(kind) != 0
    }
}

impl FromIterator<EventKind> for KindSet {
    fn from_iter<I: IntoIterator<Item = EventKind>>(kinds: I) -> Self {
        Self(kinds.into_iter().fold(0, |set, kind| set | bit(kind)))
    }
}

/// There are fewer kinds than bits.
fn bit(kind: EventKind) -> u64 {
    1 << (kind as u32 % u64::BITS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_a_bit_of_its_own() {
        let mut seen = KindSet::default();
        for kind in EventKind::ALL {
            assert!(!seen.contains(*kind), "{kind:?}");
            seen.insert(*kind);
            assert!(seen.contains(*kind), "{kind:?}");
        }
        assert_eq!(seen, EventKind::ALL.iter().copied().collect());
    }
}
