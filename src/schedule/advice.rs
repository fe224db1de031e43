//! When a CA suggests to renew a certificate (RFC 9773), and what follows from that.
//!
//! A CA names a window, [`RenewalInfo`]. A time in it is drawn once, and kept for as long as the
//! window stays. The advice can only bring a renewal forward: a CA that is wrong, or unavailable
//! when the time comes, does not cost a certificate the part of its lifetime that is configured for
//! its renewal. [`Advice`] belongs to one certificate and says nothing about the next.

use fastrand::Rng;
use serde::{Deserialize, Serialize};

use super::{DAY, Failure, FailureClass, HOUR, Lifetime, MINUTE};
use crate::clock::UnixTime;

/// The shortest and the longest time until a CA is asked again, whatever it says (RFC 9773, section
/// 4.3.2).
const SOONEST: i64 = MINUTE;
const LATEST: i64 = DAY;

/// When it is asked again if it does not say, or is unavailable for long (section 4.3.3).
const LONG: i64 = 6 * HOUR;

/// A certificate is young in this part of its lifetime, 1/10. Of young certificates, no more than
/// one in [`REST`] is renewed on advice: a CA that always says "now" would otherwise be asked
/// endlessly.
const YOUNG: i64 = 10;
const REST: i64 = DAY;

/// A CA's suggestion of when to renew a certificate (RFC 9773, section 4.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RenewalInfo {
    /// The beginning of the window, in seconds since the Unix epoch.
    pub start: UnixTime,
    /// After the start.
    pub end: UnixTime,
    /// A page of the CA that explains it.
    pub url: Option<String>,
    /// When it wants to be asked again.
    pub ask_at: Option<UnixTime>,
}

/// A CA's advice on one certificate, as stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Advice {
    /// The certificate's identifier at its CA (RFC 9773, section 4.1).
    pub certificate: String,
    /// `None` if the CA has no advice, or has not given any yet.
    pub window: Option<Window>,
    /// When the CA is asked again.
    pub ask_at: UnixTime,
    /// How many times in a row it has not responded.
    #[serde(default)]
    pub failures: u32,
    /// When the previous certificate was renewed on advice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub followed: Option<UnixTime>,
}

/// When a certificate should be renewed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// Its beginning, in seconds since the Unix epoch.
    pub start: UnixTime,
    /// Its end.
    pub end: UnixTime,
    /// The time drawn from the window.
    pub at: UnixTime,
    /// A page of the CA that explains it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
}

impl Advice {
    /// The known advice on `certificate`, given `before`, which may be about its predecessor.
    pub fn for_certificate(certificate: &str, before: Option<&Self>, now: UnixTime) -> Self {
        if let Some(before) = before.filter(|before| before.certificate == certificate) {
            return before.clone();
        }
        // It was renewed after the drawn time: on advice, as far as anybody can tell later.
        let followed = before.and_then(|before| {
            let is_followed = before.window.as_ref().is_some_and(|it| it.at <= now);
            if is_followed {
                Some(now)
            } else {
                before.followed
            }
        });
        Self {
            certificate: certificate.to_owned(),
            window: None,
            ask_at: now,
            failures: 0,
            followed,
        }
    }

    /// Returns true if this is about `certificate`, and the CA need not be asked yet. A time that
    /// is too far off comes from a clock that was wrong.
    pub fn is_fresh(&self, certificate: &str, now: UnixTime) -> bool {
        let latest = now + LATEST;
        self.certificate == certificate && now < self.ask_at && self.ask_at <= latest
    }

    /// Applies what the CA says, `None` if it gives no advice at all.
    pub fn apply_info(&mut self, info: Option<RenewalInfo>, now: UnixTime, rng: &mut Rng) {
        self.failures = 0;
        let Some(info) = info else {
            self.window = None;
            self.ask_at = now + LATEST;
            return;
        };
        let RenewalInfo {
            start,
            end,
            url,
            ask_at,
        } = info;
        let before = self.window.take();
        let drawn = before.filter(|before| (before.start, before.end) == (start, end));
        let at = match drawn {
            Some(drawn) => drawn.at,
            None => start + rng.i64(0..=(end - start).max(0)),
        };
        self.window = Some(Window {
            start,
            end,
            at,
            url,
        });
        self.ask_at = clamped(ask_at.unwrap_or_else(|| now + LONG), now);
    }

    /// Records that the CA did not respond. Its earlier advice stays.
    pub fn record_failure(&mut self, failure: &Failure, now: UnixTime) {
        let doubled = MINUTE << self.failures.min(9);
        self.failures = self.failures.saturating_add(1);
        let wait = match failure.class {
            FailureClass::Network => doubled.min(LONG),
            _ => LONG,
        };
        let ask_at = failure.retry_after;
        self.ask_at = clamped(ask_at.unwrap_or_else(|| now + wait), now);
    }

    /// When advice renews the certificate with this lifetime; `None` if there is none.
    pub fn renew_at(&self, life: &Lifetime) -> Option<UnixTime> {
        let at = self.window.as_ref()?.at;
        let grown = life.not_before + life.length() / YOUNG;
        let rested = self.followed.map(|at| (at + REST).min(grown));
        Some(at.max(rested.unwrap_or(UnixTime::MIN)))
    }

    /// Returns true if people should know of this, given the advice `before` on the same
    /// certificate: the CA explains itself, or wants it renewed sooner than before, or immediately.
    pub fn is_news(&self, before: &Self, now: UnixTime) -> bool {
        let Some(window) = &self.window else {
            return false;
        };
        match &before.window {
            None => window.url.is_some() || window.end <= now,
            Some(before) => {
                window.end < before.end || (window.url.is_some() && window.url != before.url)
            }
        }
    }
}

fn clamped(ask_at: UnixTime, now: UnixTime) -> UnixTime {
    ask_at.clamp(now + SOONEST, now + LATEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixTime = UnixTime::from_secs(1_800_000_000);

    fn life() -> Lifetime {
        Lifetime {
            not_before: NOW,
            not_after: NOW + 90 * DAY,
            seed: 0,
        }
    }

    fn info(start: UnixTime, end: UnixTime) -> RenewalInfo {
        RenewalInfo {
            start,
            end,
            url: None,
            ask_at: None,
        }
    }

    fn advised(before: Option<&Advice>, id: &str, info: RenewalInfo, now: UnixTime) -> Advice {
        let mut advice = Advice::for_certificate(id, before, now);
        advice.apply_info(Some(info), now, &mut Rng::with_seed(7));
        advice
    }

    #[test]
    fn a_time_is_drawn_all_over_the_window_and_kept_while_it_stays() {
        let (start, end) = (NOW + 60 * DAY, NOW + 62 * DAY);
        let mut rng = Rng::with_seed(1);
        let mut quarters = [0; 4];
        for _ in 0..400 {
            let mut advice = Advice::for_certificate("a.1", None, NOW);
            advice.apply_info(Some(info(start, end)), NOW, &mut rng);
            let at = advice.renew_at(&life()).expect("a time");
            assert!((start..=end).contains(&at), "{at}");
            let quarter = usize::try_from((at - start) * 4 / (end - start + 1)).expect("small");
            quarters[quarter] += 1;
            // Asked again, and read back from the storage.
            let json = serde_json::to_string(&advice).expect("JSON");
            let mut again: Advice = serde_json::from_str(&json).expect("as written");
            again.apply_info(Some(info(start, end)), NOW + DAY, &mut rng);
            assert_eq!(again.renew_at(&life()), Some(at));
        }
        assert!(
            quarters.iter().all(|count| (60..140).contains(count)),
            "{quarters:?}"
        );
        let mut advice = advised(None, "a.1", info(start, end), NOW);
        advice.apply_info(Some(info(NOW - 2, NOW - 1)), NOW, &mut rng);
        assert!(advice.renew_at(&life()) < Some(NOW), "another window");
        advice.apply_info(None, NOW, &mut rng);
        assert_eq!(advice.renew_at(&life()), None);
    }

    #[test]
    fn the_ca_is_asked_again_when_it_says_within_bounds() {
        let asked = |ask_at: Option<i64>| {
            let mut info = info(NOW, NOW + DAY);
            info.ask_at = ask_at.map(|seconds| NOW + seconds);
            advised(None, "a.1", info, NOW).ask_at - NOW
        };
        assert_eq!(asked(None), 6 * HOUR);
        for (said, obeyed) in [
            (-5, 60),
            (1, 60),
            (90, 90),
            (21_600, 21_600),
            (400_000, DAY),
        ] {
            assert_eq!(asked(Some(said)), obeyed, "{said}");
        }
    }

    #[test]
    fn faults_that_pass_are_tried_again_soon_and_others_after_hours() {
        let mut advice = advised(None, "a.1", info(NOW + DAY, NOW + 2 * DAY), NOW);
        let network = Failure::new(FailureClass::Network, "away");
        let mut waits = Vec::new();
        for _ in 0..11 {
            advice.record_failure(&network, NOW);
            waits.push((advice.ask_at - NOW) / 60);
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 128, 256, 360, 360]);
        assert!(advice.renew_at(&life()).is_some(), "what it said holds");
        let mut other = Advice::for_certificate("a.1", None, NOW);
        other.record_failure(&Failure::new(FailureClass::Internal, "404"), NOW);
        assert_eq!(other.ask_at - NOW, 6 * HOUR);
        let mut limited = Failure::new(FailureClass::RateLimited, "slowly");
        limited.retry_after = Some(NOW + 100 * DAY);
        other.record_failure(&limited, NOW);
        assert_eq!(other.ask_at - NOW, DAY);
        advice.apply_info(Some(info(NOW + DAY, NOW + 2 * DAY)), NOW, &mut Rng::new());
        assert_eq!(advice.failures, 0);
    }

    #[test]
    fn advice_on_one_certificate_says_nothing_of_another() {
        let advice = advised(None, "a.1", info(NOW - 10, NOW - 5), NOW);
        assert!(advice.is_fresh("a.1", NOW + 60));
        assert!(!advice.is_fresh("a.2", NOW + 60));
        assert!(!advice.is_fresh("a.1", NOW + 6 * HOUR), "it is time to ask");
        assert!(
            !advice.is_fresh("a.1", NOW - 2 * DAY),
            "the clock was wrong"
        );
        let next = Advice::for_certificate("a.2", Some(&advice), NOW + 60);
        assert_eq!((&next.window, next.failures), (&None, 0));
        assert_eq!(next.renew_at(&life()), None);
        assert_eq!(
            Advice::for_certificate("a.1", Some(&advice), NOW + 60),
            advice
        );
    }

    #[test]
    fn a_ca_that_always_says_now_renews_one_young_certificate_a_day() {
        let (mut now, mut renewals) = (NOW, Vec::new());
        let mut known: Option<Advice> = None;
        let mut fresh = life();
        let mut number = 1;
        while now < NOW + 30 * DAY {
            let id = format!("a.{number}");
            let advice = advised(known.as_ref(), &id, info(now - 20, now - 10), now);
            if advice.renew_at(&fresh).is_some_and(|at| at <= now) {
                renewals.push(now);
                number += 1;
                fresh.not_before = now - HOUR;
                fresh.not_after = now + 90 * DAY;
            }
            known = Some(advice);
            now += 60;
        }
        assert_eq!(renewals.first(), Some(&NOW), "the first time at once");
        assert!((29..=31).contains(&renewals.len()), "{}", renewals.len());
        let gaps = renewals.windows(2).map(|pair| pair[1] - pair[0]);
        assert!(gaps.min() >= Some(DAY), "{renewals:?}");

        // One that is no longer young is renewed immediately: it was revoked.
        let mut revoked = Advice::for_certificate("b.1", known.as_ref(), NOW);
        revoked.followed = Some(NOW);
        let grown = NOW + 9 * DAY;
        revoked.apply_info(Some(info(grown - 20, grown - 10)), grown, &mut Rng::new());
        assert!(revoked.renew_at(&life()) <= Some(grown));
        // For a short lifetime, a day would be too long.
        let short = Lifetime {
            not_after: NOW + 20 * HOUR,
            ..life()
        };
        revoked.apply_info(Some(info(NOW - 20, NOW - 10)), NOW, &mut Rng::new());
        assert_eq!(revoked.renew_at(&short), Some(NOW + 2 * HOUR));
    }

    #[test]
    fn people_hear_of_what_is_out_of_the_ordinary() {
        let ordinary = info(NOW + 60 * DAY, NOW + 62 * DAY);
        let none = Advice::for_certificate("a.1", None, NOW);
        let first = advised(None, "a.1", ordinary.clone(), NOW);
        assert!(!first.is_news(&none, NOW));
        assert!(!first.is_news(&first, NOW));
        assert!(!none.is_news(&first, NOW));
        let later = advised(
            Some(&first),
            "a.1",
            info(NOW + 61 * DAY, NOW + 63 * DAY),
            NOW,
        );
        assert!(!later.is_news(&first, NOW) && first.is_news(&later, NOW));
        let explained = RenewalInfo {
            url: Some("https://ca.example/why".to_owned()),
            ..ordinary
        };
        let explained = advised(Some(&first), "a.1", explained, NOW);
        assert!(explained.is_news(&first, NOW) && !explained.is_news(&explained, NOW));
        let at_once = advised(None, "a.1", info(NOW - 9, NOW - 5), NOW);
        assert!(at_once.is_news(&none, NOW) && at_once.is_news(&first, NOW));
    }
}
