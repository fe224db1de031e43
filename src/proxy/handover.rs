//! What passes between the edge and Pingora's proxy along with a request of HTTP/1.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::decision::Decision;

/// What the edge passes to Pingora's proxy beside a session of HTTP/1, as its user context.
pub struct Handover {
    pub keep_alive: KeepAlive,
    pub decision: Decision,
}

/// Whether an HTTP/1 connection is kept although Pingora drops it, as it does after every failure
/// of an upstream.
#[derive(Clone, Debug, Default)]
pub struct KeepAlive(Arc<AtomicBool>);

impl KeepAlive {
    /// Records that a complete response was sent which says that the connection is kept.
    pub(super) fn grant(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether another request may follow.
    pub fn is_granted(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
