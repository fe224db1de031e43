//! Times for people: how long until, and how long ago.

use crate::clock::UnixTime;

const MINUTE: i64 = 60;
const HOUR: i64 = 3_600;
const DAY: i64 = 86_400;

/// A span of time in the one unit that says enough: `89 d`, `36 h`, `45 min`, `20 s`; `3 d ago` if it is
/// negative.
pub(super) fn span(seconds: i64) -> String {
    let length = seconds.saturating_abs();
    let (unit, name) = if length >= 2 * DAY {
        (DAY, "d")
    } else if length >= 2 * HOUR {
        (HOUR, "h")
    } else if length >= 2 * MINUTE {
        (MINUTE, "min")
    } else {
        (1, "s")
    };
    let ago = if seconds < 0 { " ago" } else { "" };
    format!("{} {name}{ago}", length / unit)
}

/// When something will happen: `in 3 h`, `now`.
pub(super) fn until(at: UnixTime, now: UnixTime) -> String {
    match at - now {
        ..=0 => "now".to_owned(),
        left => format!("in {}", span(left)),
    }
}

/// The day of a time, in UTC.
pub(super) fn date(at: UnixTime) -> String {
    let zoned = crate::admin::time(at).to_zoned(jiff::tz::TimeZone::UTC);
    zoned.date().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::unix;

    #[test]
    fn spans_have_the_unit_that_says_enough() {
        for (seconds, text) in [
            (90 * DAY, "90 d"),
            (2 * DAY, "2 d"),
            (2 * DAY - 1, "47 h"),
            (2 * HOUR - 1, "119 min"),
            (119, "119 s"),
            (0, "0 s"),
            (-3 * DAY, "3 d ago"),
            (-112, "112 s ago"),
        ] {
            assert_eq!(span(seconds), text);
        }
        assert_eq!(until(unix(10), unix(10)), "now");
        assert_eq!(until(unix(130), unix(10)), "in 2 min");
        assert_eq!(date(unix(1_757_894_400)), "2025-09-15");
    }
}
