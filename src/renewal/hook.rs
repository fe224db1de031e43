//! A hook that is asked before CAs are, and may object.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;

use crate::event::Event;
use crate::host::Pattern;
use crate::lock::MutexExt as _;

/// Asked before a certificate is ordered from a CA.
#[async_trait]
pub trait ObtainingHook: Send + Sync {
    /// Why the certificate for `names` is not to be ordered now; `None` if nothing is against it.
    /// `event` says what is about to be done. A hook that cannot be asked has no objection: it must
    /// not keep certificates from being renewed.
    async fn object(&self, event: &Event, names: &[Pattern]) -> Option<String>;
}

/// The hook in force. A handle; clones share it.
#[derive(Clone, Default)]
pub(crate) struct CurrentHook(Arc<Mutex<Option<Arc<dyn ObtainingHook>>>>);

impl CurrentHook {
    /// Asks this hook from now on, or none.
    pub(crate) fn set(&self, hook: Option<Arc<dyn ObtainingHook>>) {
        *self.0.lock_unpoisoned() = hook;
    }

    pub(super) fn get(&self) -> Option<Arc<dyn ObtainingHook>> {
        self.0.lock_unpoisoned().clone()
    }
}
