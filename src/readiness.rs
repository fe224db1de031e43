//! Whether this gateway should get traffic, and if not, why.

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};

/// The reasons that speak against readiness. Ready is: none.
///
/// A handle; clones share the reasons.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<RwLock<BTreeMap<&'static str, Vec<String>>>>);

impl Readiness {
    /// Names what a part waits for or lacks; an empty list says that the part is ready.
    pub fn set(&self, part: &'static str, reasons: Vec<String>) {
        let mut parts = self.0.write().unwrap_or_else(|poisoned| poisoned.into_inner());
        if reasons.is_empty() {
            parts.remove(part);
        } else {
            parts.insert(part, reasons);
        }
    }

    /// Everything that speaks against readiness, by part.
    pub fn reasons(&self) -> BTreeMap<&'static str, Vec<String>> {
        self.0
            .read()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
            .clone()
    }

    /// Whether nothing speaks against readiness.
    pub fn is_ready(&self) -> bool {
        self.0
            .read()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
            .is_empty()
    }
}
