//! What people should know about a certificate, and how urgently.
//!
//! [`Alert::for_lifetime`] judges one certificate at one moment by shares of its lifetime, with
//! bounds in days for long ones. It sends nothing: the validity service turns alerts into events.

use std::time::Duration;

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

/// From when on a certificate that ends is reported, as the configuration has it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WarnFrom {
    /// This long before its end; `None` for a tenth of its lifetime, between 14 and 30 days.
    pub before: Option<Duration>,
    /// But not before this last part of its lifetime, over 0 and at most 1.
    pub fraction: f64,
}

impl Default for WarnFrom {
    fn default() -> Self {
        Self {
            before: None,
            fraction: 1.0 / 3.0,
        }
    }
}

impl WarnFrom {
    /// The time left, in seconds, of a certificate with a lifetime of `length`.
    fn left(&self, length: i64) -> i64 {
        let before = self.before.map_or_else(
            || (length / 10).clamp(14 * DAY, 30 * DAY),
            |before| i64::try_from(before.as_secs()).unwrap_or(i64::MAX),
        );
        before.min(share(length, self.fraction))
    }
}

/// This part of a lifetime.
fn share(length: i64, fraction: f64) -> i64 {
    (length as f64 * fraction).round() as i64
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
    pub fn for_lifetime(
        life: &Lifetime,
        renewed_by: RenewedBy,
        warn: WarnFrom,
        now: UnixTime,
    ) -> Option<Self> {
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
        let thresholds = thresholds(life, renewed_by, warn);
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
    pub fn begins_at(life: &Lifetime, renewed_by: RenewedBy, warn: WarnFrom) -> UnixTime {
        life.not_after - thresholds(life, renewed_by, warn).warning
    }
}

fn thresholds(life: &Lifetime, renewed_by: RenewedBy, warn: WarnFrom) -> Thresholds {
    match renewed_by {
        RenewedBy::Renewed { window, failures } => {
            let renewed = renewed(life, window, failures);
            let warning = match warn.before {
                // Nobody wants to hear of it before its renewal is due.
                Some(_) => renewed.warning.min(warn.left(life.length())),
                None => renewed.warning,
            };
            renewed.within(warning)
        }
        RenewedBy::ByHand => by_hand(life.length(), warn),
    }
}

impl Thresholds {
    /// The same, with nothing reported before `warning`.
    fn within(self, warning: i64) -> Self {
        Self {
            warning,
            error: self.error.min(warning),
            critical: self.critical.min(warning),
        }
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
fn by_hand(length: i64, warn: WarnFrom) -> Thresholds {
    let warning = warn.left(length);
    Thresholds {
        warning,
        error: (7 * DAY).min(length / 6).min(warning / 2),
        critical: DAY.min(length / 20).min(warning / 4),
    }
}

/// Returns true if a certificate should have been replaced by `now`: a tenth of the time that was
/// left at its renewal, which was `expected` then, has passed since, or a day.
pub fn is_overdue(life: &Lifetime, expected: UnixTime, now: UnixTime) -> bool {
    let given = life.left(expected).max(0);
    now > expected + (given / 10).min(DAY)
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
        let alert =
            Alert::for_lifetime(life, renewed_by, WarnFrom::default(), life.not_after - left)?;
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
            let begins = Alert::begins_at(&life, RenewedBy::ByHand, WarnFrom::default());
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
                Alert::for_lifetime(&life, renewed_by, WarnFrom::default(), now)
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
    fn what_the_configuration_says_bounds_when_it_begins() {
        let days = |days: u64| Some(Duration::from_secs(days * 86_400));
        let warn = |before, fraction| WarnFrom { before, fraction };
        let (third, tenth) = (1.0 / 3.0, 0.1);
        // (lifetime, settings, time left at which: warning, error)
        let table = [
            (90 * DAY, warn(days(21), third), 21 * DAY, 7 * DAY),
            (90 * DAY, warn(days(60), third), 30 * DAY, 7 * DAY),
            (90 * DAY, warn(days(60), 1.0), 60 * DAY, 7 * DAY),
            (90 * DAY, warn(days(2), third), 2 * DAY, DAY),
            (90 * DAY, warn(None, tenth), 9 * DAY, 9 * DAY / 2),
            (6 * DAY, warn(days(21), third), 2 * DAY, DAY),
        ];
        for (length, warn, warning, error) in table {
            let life = lasting(length);
            let at = |left| {
                let now = life.not_after - left;
                Alert::for_lifetime(&life, RenewedBy::ByHand, warn, now).map(|it| it.severity)
            };
            assert_eq!(at(warning + 1), None, "{length} {warn:?}");
            assert_eq!(at(warning), Some(Severity::Warning), "{length} {warn:?}");
            assert_eq!(at(error), Some(Severity::Error), "{length} {warn:?}");
        }
        // One that is renewed is not reported before that is due.
        let life = lasting(90 * DAY);
        let window = 1.0 / 3.0;
        let renewed = RenewedBy::Renewed {
            window,
            failures: 1,
        };
        for (before, begins) in [(60, 30), (21, 21), (5, 5)] {
            let begun = Alert::begins_at(&life, renewed, warn(days(before), 1.0));
            let due = life.left(life.due_at(window));
            let begins = (begins * DAY).min(due);
            assert_eq!(begun, life.not_after - begins, "{before}");
        }
    }

    #[test]
    fn a_renewal_is_overdue_a_day_or_a_tenth_of_what_was_left_after_its_time() {
        for (length, left, margin) in [
            (90 * DAY, 30 * DAY, DAY),
            (160 * HOUR, 80 * HOUR, 8 * HOUR),
            (60, 30, 3),
        ] {
            let life = lasting(length);
            let expected = life.not_after - left;
            assert!(!is_overdue(&life, expected, expected + margin), "{length}");
            assert!(
                is_overdue(&life, expected, expected + margin + 1),
                "{length}"
            );
        }
    }
}
