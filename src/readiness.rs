//! Whether this gateway should get traffic, and if not, why.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::{Arc, RwLock};

/// How many reasons of a part are shown: a probe each second must cost nothing, whatever is
/// missing.
const SHOWN: usize = 20;

/// The reasons against readiness; ready means that there are none.
///
/// A handle; clones share the reasons.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<RwLock<BTreeMap<&'static str, Vec<String>>>>);

impl Readiness {
    /// Sets what a part waits for or lacks, the first of many; none means that the part is ready.
    pub fn set(&self, part: &'static str, reasons: impl IntoIterator<Item = impl Display>) {
        let mut all = reasons.into_iter();
        let first = all.by_ref().take(SHOWN);
        let mut reasons: Vec<_> = first.map(|reason| reason.to_string()).collect();
        let more = all.count();
        if more > 0 {
            reasons.push(format!("and {more} more"));
        }
        let mut parts = self
            .0
            .write()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        if reasons.is_empty() {
            parts.remove(part);
        } else {
            parts.insert(part, reasons);
        }
    }

    /// All reasons against readiness, by part.
    pub fn reasons(&self) -> BTreeMap<&'static str, Vec<String>> {
        self.0
            .read()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
            .clone()
    }

    /// Returns true if there is no reason against readiness.
    pub fn is_ready(&self) -> bool {
        self.0
            .read()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
            .is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_reasons_the_first_are_told_and_the_rest_counted() {
        let readiness = Readiness::default();
        readiness.set("a", 0..SHOWN);
        assert_eq!(readiness.reasons()["a"].len(), SHOWN);
        readiness.set("a", 0..10_000);
        let told = &readiness.reasons()["a"];
        assert_eq!(told.len(), SHOWN + 1);
        assert_eq!(told[0], "0");
        assert_eq!(told[SHOWN], "and 9980 more");
        readiness.set("a", None::<String>);
        assert!(readiness.is_ready());
    }
}
