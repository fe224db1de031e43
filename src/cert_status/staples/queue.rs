//! Certificates that wait for the same thing.

use std::collections::VecDeque;

use crate::certificate::Fingerprint;

/// Certificates in the order in which they came, those that are not served without a response first.
#[derive(Default)]
pub(super) struct Queue {
    required: VecDeque<Fingerprint>,
    others: VecDeque<Fingerprint>,
}

impl Queue {
    pub(super) fn push(&mut self, one: Fingerprint, is_required: bool) {
        self.lane(is_required).push_back(one);
    }

    /// Takes the next one of those that require a response, or of the others.
    pub(super) fn pop_of(&mut self, is_required: bool) -> Option<Fingerprint> {
        self.lane(is_required).pop_front()
    }

    /// Takes the next one.
    pub(super) fn pop(&mut self) -> Option<Fingerprint> {
        self.pop_of(true).or_else(|| self.pop_of(false))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Fingerprint> {
        self.required.iter().chain(&self.others).copied()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.required.is_empty() && self.others.is_empty()
    }

    fn lane(&mut self, is_required: bool) -> &mut VecDeque<Fingerprint> {
        match is_required {
            true => &mut self.required,
            false => &mut self.others,
        }
    }
}
