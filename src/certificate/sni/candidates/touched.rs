//! Which patterns have changed.

use ahash::HashSet;

use crate::host::Pattern;

/// The patterns that have changed since the last call; `None` if they are too many to remember.
pub(super) struct Touched(pub(super) Option<HashSet<Pattern>>);

/// How many are remembered.
const TOUCHED: usize = 1_024;

impl Default for Touched {
    fn default() -> Self {
        Self(Some(HashSet::default()))
    }
}

impl Touched {
    pub(super) fn record_change(&mut self, pattern: &Pattern) {
        if let Some(patterns) = &mut self.0 {
            patterns.insert(pattern.clone());
            if patterns.len() > TOUCHED {
                self.0 = None;
            }
        }
    }
}
