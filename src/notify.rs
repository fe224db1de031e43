//! Notifications: what the gateway reports to people and to programs.

mod notification;

pub use notification::{Entry, EntryState, Notification};
