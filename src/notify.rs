//! Notifications: what the gateway reports to people and to programs.
//!
//! A [`Notifier`] has a worker for each hook of the configuration. A worker takes the events that
//! concern its hook from a sink of the event bus, so that nobody who emits one ever waits. What is to
//! be reported of them is decided by `escalation`: a trouble is reported when it begins, with growing
//! gaps while it lasts, and when it is over. What is to be sent waits in an `outbox`, which the `keeper`
//! writes to a `journal` as soon as it changes, so that neither a restart nor a kill loses any of it. One
//! notification is composed of all that waits, and delivered by a [`Sender`] until that succeeds.
//!
//! A new kind of recipient is a variant of [`Recipient`](crate::config::model::Recipient) and a
//! [`Sender`], which `open` makes of it. What people read is written by `text`.

mod backoff;
mod escalation;
mod exec;
mod filter;
mod journal;
mod keeper;
mod mail;
mod notification;
mod notifier;
mod open;
mod outbox;
mod response;
#[cfg(test)]
mod samples;
mod sender;
mod service;
mod signature;
mod spool;
mod standing;
#[cfg(test)]
mod testing;
mod text;
mod trouble;
mod veto;
mod webhook;
mod worker;

pub use notification::{Entry, EntryState, Notification};
pub use notifier::{Notifier, NotifierSetup, TestOutcome};
pub use response::{MAX_ANSWER, outcome, retry_after};
pub use sender::{DeliveryError, Retry, Sender};
