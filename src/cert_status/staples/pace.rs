//! How often something is asked.

use crate::certificate::status::Staple;
use crate::clock::UnixTime;

/// The first pause after a failure, in seconds.
pub(super) const FIRST_PAUSE: i64 = 5;

/// The shortest pause after a success.
const SHORTEST_PAUSE: i64 = 5;

/// When a response is replaced: at about half of its life. One that was half through already when it came,
/// from a cache, is replaced when half of the rest has passed.
pub(super) fn refresh_at(staple: &Staple, now: UnixTime, rng: &mut fastrand::Rng) -> UnixTime {
    let half = half_of(staple, rng);
    if half > now {
        return half.max(now + SHORTEST_PAUSE);
    }
    now + ((staple.next_update - now) / 2).max(SHORTEST_PAUSE)
}

/// The same for one that was stored: past half of its life it is replaced at once, however often the
/// gateway is restarted.
pub(super) fn refresh_stored_at(staple: &Staple, rng: &mut fastrand::Rng) -> UnixTime {
    half_of(staple, rng)
}

/// About half of the life of a response.
fn half_of(staple: &Staple, rng: &mut fastrand::Rng) -> UnixTime {
    let life = staple.next_update - staple.this_update;
    // Up to a twentieth of the life sooner or later.
    let spread = life / 10;
    let shift = match spread {
        1.. => rng.i64(0..=spread) - spread / 2,
        _ => 0,
    };
    staple.this_update + life / 2 + shift
}

/// The pause after a failure at `now` where all have failed since then: half of the time that has passed.
pub(super) fn pause_after(since: UnixTime, now: UnixTime, longest: i64) -> i64 {
    ((now - since) / 2).clamp(FIRST_PAUSE, longest)
}

/// A pause up to a quarter longer.
pub(super) fn jitter(pause: i64, rng: &mut fastrand::Rng) -> i64 {
    pause + rng.i64(0..=(pause / 4).max(0))
}

/// The host and port of an HTTP URL.
pub(super) fn host(url: &str) -> &str {
    let rest = url.get(7..).unwrap_or_default();
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    rest.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::clock::unix;

    fn staple(this_update: i64, next_update: i64) -> Staple {
        Staple {
            response: [].into(),
            this_update: unix(this_update),
            next_update: unix(next_update),
        }
    }

    #[test]
    fn a_response_is_replaced_at_half_of_its_life() {
        let mut rng = fastrand::Rng::with_seed(7);
        let mut times = HashSet::new();
        for _ in 0..100 {
            let at = refresh_at(&staple(0, 1000), unix(10), &mut rng);
            assert!((unix(450)..=unix(550)).contains(&at), "{at}");
            times.insert(at);
        }
        assert!(times.len() > 10, "not all at once");
        let old = refresh_at(&staple(0, 1000), unix(800), &mut rng);
        assert_eq!(old, unix(900));
        let short = refresh_at(&staple(0, 1), unix(0), &mut rng);
        assert_eq!(short, unix(SHORTEST_PAUSE));
        let stored = refresh_stored_at(&staple(0, 1000), &mut rng);
        assert!(stored <= unix(550), "at once, if it is past that");
    }

    #[test]
    fn pauses_grow() {
        let after = |second| pause_after(unix(0), unix(second), 3600);
        let pauses = [0, 10, 100, 1_000_000].map(after);
        assert_eq!(pauses, [5, 5, 50, 3600]);
        assert_eq!(after(-10), 5, "the clock was set");
    }

    #[test]
    fn hosts_are_told_apart() {
        assert_eq!(host("http://ocsp.example/r1"), "ocsp.example");
        assert_eq!(host("HTTP://ocsp.example:80"), "ocsp.example:80");
        assert_eq!(host("http://"), "");
    }
}
