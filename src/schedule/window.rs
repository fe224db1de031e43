//! When in its lifetime a certificate is renewed.
//!
//! A [`Lifetime`] is what the schedule knows of a certificate: its period of validity, and a number
//! that distinguishes it from others. All decisions are shares of that lifetime, so they fit a
//! certificate for a minute as well as one for ten years. Who renews it does not matter here.

use super::{DAY, Failure, FailureClass, MINUTE};
use crate::clock::UnixTime;

/// Below this lifetime, at least half of it remains at the renewal: a CA that is unavailable for a
/// day would otherwise leave no time for a second try.
const SHORT: i64 = 10 * DAY;

/// Renewals are spread over this first part of the window: 1/10.
const SPREAD: i64 = 10;

/// By how much clocks of healthy machines differ.
const SKEW: i64 = 5 * MINUTE;

/// The period of validity of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime {
    /// The first second of validity.
    pub not_before: UnixTime,
    /// The last second of validity.
    pub not_after: UnixTime,
    /// A number specific to this certificate, which spreads renewals.
    pub seed: u64,
}

impl Lifetime {
    /// The lifetime of a certificate with this fingerprint.
    pub fn new(not_before: UnixTime, not_after: UnixTime, fingerprint: &[u8]) -> Self {
        let seed = fingerprint
            .iter()
            .take(8)
            .fold(0, |seed, byte| seed << 8 | u64::from(*byte));
        Self {
            not_before,
            not_after,
            seed,
        }
    }

    /// Its length, in seconds.
    pub fn length(&self) -> i64 {
        (self.not_after - self.not_before).max(0)
    }

    /// How much of it remains at `now`, in seconds; negative after its end.
    pub fn left(&self, now: UnixTime) -> i64 {
        self.not_after - now
    }

    /// Returns true if it is over.
    pub fn has_ended(&self, now: UnixTime) -> bool {
        now > self.not_after
    }

    /// Returns true if it has begun, even if it is over.
    pub fn has_begun(&self, now: UnixTime) -> bool {
        now >= self.not_before
    }

    /// When a renewal is due, if it is due in the last `window` of the lifetime.
    ///
    /// That is within the first tenth of that part, at a point specific to the certificate that
    /// stays the same, so that certificates issued in one hour are not renewed in one minute.
    pub fn due_at(&self, window: f64) -> UnixTime {
        let length = self.length();
        let part = if length < SHORT {
            window.max(0.5)
        } else {
            window
        };
        // Lifetimes are far below 2^52 seconds, where f64 is exact.
        let wide = ((length as f64 * part) as i64).clamp(0, length);
        let later = (i128::from(self.seed) * i128::from(wide / SPREAD)) >> 64;
        let later = i64::try_from(later).unwrap_or(0);
        self.not_after - wide + later
    }

    /// Returns true if a renewal is due, see [`Self::due_at`].
    pub fn is_due(&self, window: f64, now: UnixTime) -> bool {
        now >= self.due_at(window)
    }

    /// Checks whether a newly issued certificate can be used, by this machine's clock.
    ///
    /// # Errors
    /// With [`FailureClass::Clock`] if it has expired, or does not begin for more than a few
    /// minutes: either the clock here is wrong or that of the CA, and another certificate would be
    /// the same. Such a certificate may be served all the same if there is nothing better: clients
    /// go by their own clocks.
    pub fn check_issued(&self, now: UnixTime) -> Result<(), Failure> {
        let wrong = if self.has_ended(now) {
            format!("expired at {}", self.not_after)
        } else if self.not_before > now + SKEW {
            format!("is not valid before {}", self.not_before)
        } else {
            return Ok(());
        };
        Err(Failure::new(
            FailureClass::Clock,
            format!(
                "the issued certificate {wrong}, but here it is {}: is this machine's clock right?",
                now
            ),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::unix;

    const NOW: UnixTime = UnixTime::from_secs(1_800_000_000);

    fn lasting(length: i64, seed: u64) -> Lifetime {
        Lifetime {
            not_before: NOW,
            not_after: NOW + length,
            seed,
        }
    }

    #[test]
    fn the_window_is_a_part_of_the_life_and_half_of_a_short_one() {
        // (lifetime, window, maximum left when it is due, minimum)
        let table = [
            (90 * DAY, 1.0 / 3.0, 30 * DAY, 27 * DAY),
            (45 * DAY, 1.0 / 3.0, 15 * DAY, 15 * DAY - 36 * 3600),
            (10 * DAY, 0.25, 60 * 3600, 54 * 3600),
            (160 * 3600, 1.0 / 3.0, 80 * 3600, 72 * 3600),
            (160 * 3600, 0.75, 120 * 3600, 108 * 3600),
            (60, 1.0 / 3.0, 30, 27),
            (3650 * DAY, 0.2, 730 * DAY, 657 * DAY),
            (1, 0.33, 0, 0),
            (0, 0.33, 0, 0),
            (-5, 0.33, 0, 0),
        ];
        for (length, window, most, least) in table {
            for (seed, expected) in [(0, most), (u64::MAX, least)] {
                let life = lasting(length, seed);
                let left = life.left(life.due_at(window));
                assert!(
                    (left - expected).abs() <= 1,
                    "{length} {window} {seed}: {left}, not {expected}"
                );
            }
        }
        assert_eq!(lasting(90 * DAY, 0).due_at(f64::NAN), NOW + 90 * DAY);
        assert_eq!(lasting(90 * DAY, 0).due_at(7.0), NOW);
    }

    #[test]
    fn what_was_issued_together_is_not_renewed_together() {
        let mut minutes = std::collections::HashMap::new();
        let mut rng = fastrand::Rng::with_seed(1);
        for _ in 0..10_000 {
            let life = Lifetime {
                not_before: NOW + rng.i64(0..3600),
                ..lasting(90 * DAY, rng.u64(..))
            };
            *minutes.entry(life.due_at(0.33).as_secs() / 60).or_insert(0) += 1;
        }
        let most = minutes.values().max().copied();
        assert!(most < Some(20), "{most:?} in one minute");
    }

    #[test]
    fn the_fingerprint_decides_once_and_for_all() {
        let life = |byte| Lifetime::new(NOW, NOW + 90 * DAY, &[byte; 32]);
        assert_eq!(life(7), life(7));
        assert!(life(1).due_at(0.33) < life(200).due_at(0.33));
        assert_eq!(Lifetime::new(unix(0), unix(1), &[1, 2]).seed, 0x102);
    }

    #[test]
    fn a_fresh_certificate_that_is_not_valid_puts_the_clock_in_doubt() {
        let life = lasting(90 * DAY, 0);
        assert_eq!(life.check_issued(NOW + DAY), Ok(()));
        assert_eq!(life.check_issued(NOW - 60), Ok(()));
        for now in [NOW - 3600, NOW + 91 * DAY] {
            let failure = life.check_issued(now).expect_err("not valid");
            assert_eq!(failure.class, FailureClass::Clock);
            assert!(failure.message.contains("clock"), "{failure}");
        }
    }
}
