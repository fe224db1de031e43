//! What a recipient gets at once: one event, or the digest of many.

use serde::{Deserialize, Serialize};

use crate::clock::UnixTime;
use crate::event::{Event, Severity};

/// What a recipient gets at once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notification {
    /// The same for every attempt to deliver it, so that a recipient recognizes a second one.
    pub id: String,
    /// When it was composed, in seconds since the Unix epoch.
    pub at: UnixTime,
    /// The host name of the machine that it comes from.
    pub gateway: String,
    /// The highest severity of its entries.
    pub severity: Severity,
    /// What it reports; the gravest first.
    pub entries: Vec<Entry>,
    /// How many more there were than a notification has room for.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub omitted: usize,
}

/// One event of a notification.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The event as it was emitted last.
    #[serde(flatten)]
    pub event: Event,
    /// Whether it is new, lasts or is over.
    pub state: EntryState,
    /// The same for all reports of one trouble; `None` for an event that is not one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
    /// Since when it lasts, in seconds since the Unix epoch.
    pub since: UnixTime,
    /// How many times it has been reported before.
    #[serde(default, skip_serializing_if = "is_none_before")]
    pub repeats: u32,
}

/// Whether an event is new, lasts or is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EntryState {
    /// It happened.
    Happened,
    /// It was reported before and lasts.
    Ongoing,
    /// It was reported before and is over.
    Recovered,
}

fn is_zero(count: &usize) -> bool {
    *count == 0
}

fn is_none_before(count: &u32) -> bool {
    *count == 0
}
