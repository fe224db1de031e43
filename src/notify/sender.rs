//! How a notification gets to its recipient, whatever that is.

use std::time::Duration;

use async_trait::async_trait;
use thiserror::Error;

use super::Notification;

/// How many entries a notification has at most.
pub(super) const MAX_ENTRIES: usize = 100;

/// Delivers notifications to one recipient.
///
/// One at a time: the next is composed when the one before has been delivered or given up.
#[async_trait]
pub trait Sender: Send + Sync {
    /// Delivers a notification. It may be delivered twice, with the same id, if the process ends
    /// before the result is recorded.
    ///
    /// It needs a time limit of its own: nothing else cuts it off. If it is dropped, it stops at once
    /// and leaves nothing behind.
    ///
    /// # Errors
    /// Why it was not delivered, and whether to try again.
    async fn deliver(&self, notification: &Notification) -> Result<(), DeliveryError>;

    /// How many entries a notification may have; the gravest are kept, the others counted.
    fn max_entries(&self) -> usize {
        MAX_ENTRIES
    }
}

/// Why a notification was not delivered.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{message}")]
pub struct DeliveryError {
    /// For people, on one line, and without secrets: of a URL only its scheme and host.
    pub message: String,
    pub retry: Retry,
}

/// Whether it makes sense to try again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// It does not: the recipient refuses this notification for good.
    Never,
    /// After a while, longer each time.
    Later,
    /// Not before this time has passed: the recipient says so.
    After(Duration),
}

impl DeliveryError {
    /// A failure that may resolve itself.
    pub fn later(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            retry: Retry::Later,
        }
    }

    /// A failure that does not.
    pub fn never(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            retry: Retry::Never,
        }
    }

    /// A failure after which the recipient says when to try again, if it does.
    pub fn retry_after(message: impl Into<String>, after: Option<Duration>) -> Self {
        Self {
            message: message.into(),
            retry: after.map_or(Retry::Later, Retry::After),
        }
    }
}
