//! Returns free memory to the system.
//!
//! An allocator keeps freed memory for later. After something large is gone, such as the text of a
//! configuration, nothing as large may ever come.

use std::sync::OnceLock;

static GIVE_BACK: OnceLock<fn()> = OnceLock::new();

/// Sets how this program's allocator returns what this thread has freed; the first call counts.
pub fn on_give_back(give_back: fn()) {
    let _ = GIVE_BACK.set(give_back);
}

/// Returns what this thread has freed, if the program has said how. Takes milliseconds.
pub fn give_back() {
    if let Some(give_back) = GIVE_BACK.get() {
        give_back();
    }
}
