//! What people should know about a certificate, and how urgently.
//!
//! [`Alert::for_lifetime`] judges one certificate at one moment by shares of its lifetime, with
//! bounds in days for long ones. [`Watch`] remembers what was reported, so that each change is
//! reported once. Neither sends anything: the validity service turns alerts into events.

use std::collections::HashMap;
use std::hash::Hash;

use super::{DAY, Lifetime, MINUTE};
use crate::clock::UnixTime;
use crate::event::{EventKind, Severity};

/// A validity that begins within this time may be due to differing clocks.
const SOON: i64 = 5 * MINUTE;

/// Who replaces a certificate before its end.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RenewedBy {
    /// We do, from the beginning of this last part of its lifetime.
    Renewed {
        window: f64,
        /// How many times in a row that has failed.
        failures: u32,
    },
    /// Somebody else: it comes from a file.
    ByHand,
}

/// What to report about a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alert {
    pub kind: EventKind,
    pub severity: Severity,
}

/// The time left, in seconds, at which each severity begins.
struct Thresholds {
    warning: i64,
    error: i64,
    critical: i64,
}

impl Alert {
    /// The alert for this certificate at `now`; `None` if all is well.
    pub fn for_lifetime(life: &Lifetime, renewed_by: RenewedBy, now: UnixTime) -> Option<Self> {
        let alert = |kind, severity| Some(Self { kind, severity });
        if life.has_ended(now) {
            return alert(EventKind::CertificateExpired, Severity::Critical);
        }
        if !life.has_begun(now) {
            let soon = life.not_before - now <= SOON;
            let severity = if soon {
                Severity::Warning
            } else {
                Severity::Error
            };
            return alert(EventKind::CertificateNotYetValid, severity);
        }
        let left = life.left(now);
        let thresholds = thresholds(life, renewed_by);
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

    /// From when on a certificate that has become valid gets an alert.
    pub fn begins_at(life: &Lifetime, renewed_by: RenewedBy) -> UnixTime {
        life.not_after - thresholds(life, renewed_by).warning
    }
}

fn thresholds(life: &Lifetime, renewed_by: RenewedBy) -> Thresholds {
    match renewed_by {
        RenewedBy::Renewed { window, failures } => renewed(life, window, failures),
        RenewedBy::ByHand => by_hand(life.length()),
    }
}

/// When its renewal became due, this much time was left. A third of that is an error, and a tenth
/// or a day is critical, if a day is not more than a fifth of it.
fn renewed(life: &Lifetime, window: f64, failures: u32) -> Thresholds {
    let given = life.left(life.due_at(window));
    Thresholds {
        // It may have to wait for its turn.
        warning: if failures > 0 { given } else { given / 4 * 3 },
        error: (given / 3).min(30 * DAY),
        critical: (given / 10).max(DAY.min(given / 5)).min(7 * DAY),
    }
}

/// People need days, and are notified days before. Certificates with shorter lifetimes are replaced by
/// a program, late in their lives.
fn by_hand(length: i64) -> Thresholds {
    Thresholds {
        warning: (length / 10).clamp(14 * DAY, 30 * DAY).min(length / 3),
        error: (7 * DAY).min(length / 6),
        critical: DAY.min(length / 20),
    }
}

/// What was reported about each certificate.
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
    /// Checks all certificates, and returns what to report about them now.
    ///
    /// What was reported is not reported again until it changes; a certificate that is fine again,
    /// or no longer among them, is forgotten. A key stands for one certificate: its fingerprint, or
    /// the names that have one certificate at a time.
    pub fn check_item(
        &mut self,
        certificates: impl IntoIterator<Item = (K, Lifetime, RenewedBy)>,
        now: UnixTime,
    ) -> Vec<(K, Alert)> {
        let mut told = HashMap::new();
        let mut new = Vec::new();
        for (key, life, renewed_by) in certificates {
            let Some(alert) = Alert::for_lifetime(&life, renewed_by, now) else {
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

    /// The alert about a certificate at the last check.
    pub fn last_alert(&self, key: &K) -> Option<Alert> {
        self.told.get(key).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixTime = UnixTime::from_secs(1_800_000_000);
    const HOUR: i64 = 3600;

    fn lasting(length: i64) -> Lifetime {
        Lifetime {
            not_before: NOW - length,
            not_after: NOW,
            seed: 0,
        }
    }

    fn expiring(life: &Lifetime, renewed_by: RenewedBy, left: i64) -> Option<Severity> {
        let alert = Alert::for_lifetime(life, renewed_by, life.not_after - left)?;
        assert_eq!(alert.kind, EventKind::CertificateExpiring);
        Some(alert.severity)
    }

    #[test]
    fn what_is_renewed_gets_louder_as_what_was_left_for_it_runs_out() {
        // (lifetime, time left at which: a failing one warns, a waiting one warns, error, critical)
        let table = [
            (90 * DAY, 30 * DAY, 22 * DAY + DAY / 2, 10 * DAY, 3 * DAY),
            (45 * DAY, 15 * DAY, 11 * DAY + DAY / 4, 5 * DAY, 36 * HOUR),
            (160 * HOUR, 80 * HOUR, 60 * HOUR, 80 * HOUR / 3, 16 * HOUR),
            (60, 30, 21, 10, 6),
            (3660 * DAY, 1220 * DAY, 915 * DAY, 30 * DAY, 7 * DAY),
        ];
        for (length, failing, waiting, error, critical) in table {
            let life = lasting(length);
            let at = |failures, left| {
                let window = 1.0 / 3.0;
                expiring(&life, RenewedBy::Renewed { window, failures }, left)
            };
            assert_eq!(at(3, failing + 1), None, "{length}");
            assert_eq!(at(3, failing), Some(Severity::Warning), "{length}");
            assert_eq!(at(0, waiting + 1), None, "{length}");
            assert_eq!(at(0, waiting), Some(Severity::Warning), "{length}");
            assert_eq!(at(1, error + 1), Some(Severity::Warning), "{length}");
            assert_eq!(at(1, error), Some(Severity::Error), "{length}");
            assert_eq!(at(1, critical + 1), Some(Severity::Error), "{length}");
            assert_eq!(at(0, critical), Some(Severity::Critical), "{length}");
            assert_eq!(at(0, 0), Some(Severity::Critical), "{length}");
        }
    }

    #[test]
    fn people_are_told_days_before_or_late_in_a_short_life() {
        // (lifetime, time left at which: warning, error, critical)
        let table = [
            (90 * DAY, 14 * DAY, 7 * DAY, DAY),
            (200 * DAY, 20 * DAY, 7 * DAY, DAY),
            (365 * DAY, 30 * DAY, 7 * DAY, DAY),
            (3650 * DAY, 30 * DAY, 7 * DAY, DAY),
            (6 * DAY, 2 * DAY, DAY, 6 * DAY / 20),
            (60, 20, 10, 3),
        ];
        for (length, warning, error, critical) in table {
            let life = lasting(length);
            let at = |left| expiring(&life, RenewedBy::ByHand, left);
            let begins = Alert::begins_at(&life, RenewedBy::ByHand);
            assert_eq!(begins, life.not_after - warning, "{length}");
            assert_eq!(at(warning + 1), None, "{length}");
            assert_eq!(at(warning), Some(Severity::Warning), "{length}");
            assert_eq!(at(error + 1), Some(Severity::Warning), "{length}");
            assert_eq!(at(error), Some(Severity::Error), "{length}");
            assert_eq!(at(critical + 1), Some(Severity::Error), "{length}");
            assert_eq!(at(critical), Some(Severity::Critical), "{length}");
        }
    }

    #[test]
    fn what_is_over_or_has_not_begun_is_told_whoever_renews_it() {
        let life = lasting(90 * DAY);
        let renewed = RenewedBy::Renewed {
            window: 0.33,
            failures: 0,
        };
        for renewed_by in [renewed, RenewedBy::ByHand] {
            let at = |now| {
                Alert::for_lifetime(&life, renewed_by, now)
                    .map(|alert| (alert.kind, alert.severity))
            };
            let not_yet = EventKind::CertificateNotYetValid;
            assert_eq!(at(life.not_before - DAY), Some((not_yet, Severity::Error)));
            assert_eq!(at(life.not_before - 60), Some((not_yet, Severity::Warning)));
            assert_eq!(at(life.not_before), None);
            assert_eq!(
                at(life.not_after + 1),
                Some((EventKind::CertificateExpired, Severity::Critical))
            );
        }
    }

    #[test]
    fn each_change_is_told_once() {
        let mut watch = Watch::default();
        let life = lasting(90 * DAY);
        let mut told = Vec::new();
        for day in 0..95 {
            let now = life.not_before + day * DAY;
            for (key, alert) in watch.check_item([("a", life, RenewedBy::ByHand)], now) {
                assert_eq!(key, "a");
                told.push((90 - day, alert.severity, alert.kind));
            }
        }
        let expiring = EventKind::CertificateExpiring;
        assert_eq!(
            told,
            [
                (14, Severity::Warning, expiring),
                (7, Severity::Error, expiring),
                (1, Severity::Critical, expiring),
                (-1, Severity::Critical, EventKind::CertificateExpired),
            ]
        );
        assert!(watch.last_alert(&"a").is_some());

        // Replaced, and years later the same again.
        let next = Lifetime {
            not_before: NOW,
            not_after: NOW + 90 * DAY,
            ..life
        };
        assert_eq!(watch.check_item([("a", next, RenewedBy::ByHand)], NOW), []);
        assert_eq!(watch.last_alert(&"a"), None);
        let late = next.not_after - 3 * DAY;
        assert_eq!(
            watch
                .check_item([("a", next, RenewedBy::ByHand)], late)
                .len(),
            1
        );
        // No longer served: forgotten.
        assert_eq!(watch.check_item(std::iter::empty(), late), []);
        assert_eq!(watch.last_alert(&"a"), None);
    }
}
