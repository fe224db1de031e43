//! What people have to be told about a certificate, and how loudly.
//!
//! [`Alert::of`] judges one certificate at one moment by shares of its life, with bounds in days
//! for long ones. [`Watch`] remembers what was told, so that each change is told once. Neither
//! sends anything: the validity checker makes events of it.

use std::collections::HashMap;
use std::hash::Hash;

use super::{DAY, Lifetime, MINUTE};
use crate::clock::UnixTime;
use crate::event::{EventKind, Severity};

/// A validity that begins within this time may be a matter of two clocks.
const SOON: i64 = 5 * MINUTE;

/// Who replaces a certificate before its end.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Upkeep {
    /// We do, from the beginning of this part of its life on.
    Renewed {
        window: f64,
        /// How often in a row that has failed by now.
        failures: u32,
    },
    /// Somebody else: it comes from a file.
    ByHand,
}

/// What a certificate deserves to be told about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alert {
    pub kind: EventKind,
    pub severity: Severity,
}

/// With how much left which severity begins, in seconds.
struct Thresholds {
    warning: i64,
    error: i64,
    critical: i64,
}

impl Alert {
    /// What this certificate deserves at `now`; `None` where all is well.
    pub fn of(life: &Lifetime, upkeep: Upkeep, now: UnixTime) -> Option<Self> {
        let alert = |kind, severity| Some(Self { kind, severity });
        if life.has_ended(now) {
            return alert(EventKind::CertificateExpired, Severity::Critical);
        }
        if !life.has_begun(now) {
            let soon = life.not_before.saturating_sub(now) <= SOON;
            let severity = if soon {
                Severity::Warning
            } else {
                Severity::Error
            };
            return alert(EventKind::CertificateNotYetValid, severity);
        }
        let left = life.left(now);
        let thresholds = match upkeep {
            Upkeep::Renewed { window, failures } => renewed(life, window, failures),
            Upkeep::ByHand => by_hand(life.length()),
        };
        let severity = if left <= thresholds.critical {
            Severity::Critical
        } else if left <= thresholds.error {
            Severity::Error
        } else if left <= thresholds.warning {
            Severity::Warning
        } else {
            return None;
        };
        alert(EventKind::CertificateExpiring, severity)
    }
}

/// From when its renewal was due on, this much was left for it. A third of that is an error, a
/// tenth or a day is critical, where a day is not more than a fifth of it.
fn renewed(life: &Lifetime, window: f64, failures: u32) -> Thresholds {
    let given = life.left(life.due_at(window));
    Thresholds {
        // It may have to wait for its turn.
        warning: if failures > 0 { given } else { given / 4 * 3 },
        error: (given / 3).min(30 * DAY),
        critical: (given / 10).max(DAY.min(given / 5)).min(7 * DAY),
    }
}

/// People need days, and are told days before; for certificates that live no longer than that,
/// a program replaces them, late in their lives.
fn by_hand(length: i64) -> Thresholds {
    Thresholds {
        warning: (length / 10).clamp(14 * DAY, 30 * DAY).min(length / 3),
        error: (7 * DAY).min(length / 6),
        critical: DAY.min(length / 20),
    }
}

/// What was told about each certificate.
#[derive(Clone, Debug)]
pub struct Watch<K> {
    told: HashMap<K, Alert>,
}

impl<K> Default for Watch<K> {
    fn default() -> Self {
        Self {
            told: HashMap::new(),
        }
    }
}

impl<K: Clone + Eq + Hash> Watch<K> {
    /// Looks at all certificates, and gives what is to be told about them now.
    ///
    /// What was told is not told again until it changes; what became well, or is no longer among
    /// them, is forgotten. A key stands for one certificate: its fingerprint, or the names for which
    /// there is one at a time.
    pub fn look(
        &mut self,
        certificates: impl IntoIterator<Item = (K, Lifetime, Upkeep)>,
        now: UnixTime,
    ) -> Vec<(K, Alert)> {
        let mut told = HashMap::new();
        let mut new = Vec::new();
        for (key, life, upkeep) in certificates {
            let Some(alert) = Alert::of(&life, upkeep, now) else {
                continue;
            };
            if self.told.get(&key) != Some(&alert) {
                new.push((key.clone(), alert));
            }
            told.insert(key, alert);
        }
        self.told = told;
        new
    }

    /// What stands about a certificate since the last look.
    pub fn standing(&self, key: &K) -> Option<Alert> {
        self.told.get(key).copied()
    }
}
