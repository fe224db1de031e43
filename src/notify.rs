//! Notifications: what the gateway reports to people and to programs.

mod notification;
mod response;
mod sender;

pub use notification::{Entry, EntryState, Notification};
pub use response::{MAX_ANSWER, outcome, retry_after};
pub use sender::{DeliveryError, Retry, Sender};
