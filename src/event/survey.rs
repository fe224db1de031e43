//! Which surveys of a start are complete.

use std::sync::atomic::{AtomicU8, Ordering};

/// What a start goes through once. Whatever was reported before the start, and has not been emitted
/// again when its survey is complete, is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Survey {
    /// All certificates that are served have been checked.
    Certificates = 1,
    /// Something has been written to the storage.
    Storage = 2,
}

/// The surveys that are complete.
#[derive(Debug, Default)]
pub(super) struct Surveys(AtomicU8);

impl Surveys {
    /// Notes that a survey is complete. Returns false if that was known.
    pub(super) fn complete(&self, survey: Survey) -> bool {
        let bit = survey as u8;
        // Most calls only read.
        !self.is_complete(survey) && self.0.fetch_or(bit, Ordering::AcqRel) & bit == 0
    }

    /// Returns true if a survey is complete.
    pub(super) fn is_complete(&self, survey: Survey) -> bool {
        self.0.load(Ordering::Acquire) & survey as u8 != 0
    }
}
