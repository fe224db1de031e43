//! Memory that is free, given back to the system.
//!
//! An allocator keeps what is freed for what comes next. Where something large was taken apart and
//! little of it is left, as of the text of a configuration, nothing as large may ever come.

use std::sync::OnceLock;

static GIVE_BACK: OnceLock<fn()> = OnceLock::new();

/// Says how the allocator of this program gives back what this thread has freed; the first word
/// counts.
pub fn on_give_back(give_back: fn()) {
    let _ = GIVE_BACK.set(give_back);
}

/// Gives back what this thread has freed, where the program has said how. Takes milliseconds.
pub fn give_back() {
    if let Some(give_back) = GIVE_BACK.get() {
        give_back();
    }
}
