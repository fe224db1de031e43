//! How long an answer is good for (RFC 9111, section 4.2).

use std::time::Duration;

use http::header::{AGE, CACHE_CONTROL, HeaderMap};

/// The longest: what is decided changes some day.
const LONGEST: Duration = Duration::from_secs(30 * 24 * 3600);

/// How long an answer with these fields is good for; `None` where they do not say.
pub(super) fn freshness(fields: &HeaderMap) -> Option<Duration> {
    let mut max_age = None;
    let mut shared = None;
    for value in fields.get_all(CACHE_CONTROL) {
        let Ok(value) = value.to_str() else {
            return Some(Duration::ZERO);
        };
        for directive in value.split(',') {
            let (name, argument) = match directive.split_once('=') {
                Some((name, argument)) => (name.trim(), argument.trim()),
                None => (directive.trim(), ""),
            };
            if name.eq_ignore_ascii_case("no-store") || name.eq_ignore_ascii_case("no-cache") {
                return Some(Duration::ZERO);
            } else if name.eq_ignore_ascii_case("max-age") {
                max_age.get_or_insert_with(|| seconds(argument));
            } else if name.eq_ignore_ascii_case("s-maxage") {
                shared.get_or_insert_with(|| seconds(argument));
            }
        }
    }
    let life = shared.or(max_age)?;
    let age = fields.get(AGE).and_then(|age| age.to_str().ok());
    let life = life.saturating_sub(age.map_or(0, seconds));
    Some(Duration::from_secs(life).min(LONGEST))
}

/// A number of seconds (RFC 9111, section 1.2.2). What is none is stale.
fn seconds(text: &str) -> u64 {
    let digits = text.trim_matches('"');
    if digits.is_empty() || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return 0;
    }
    digits.parse().unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use http::header::HeaderName;

    use super::*;

    const DEFAULT: Duration = Duration::from_secs(77);

    fn of(fields: &[(HeaderName, &str)]) -> u64 {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            map.append(name, HeaderValue::from_str(value).expect("a value"));
        }
        freshness(&map).unwrap_or(DEFAULT).as_secs()
    }

    #[test]
    fn what_the_answer_says_counts() {
        assert_eq!(of(&[]), 77);
        for (value, expected) in [
            ("max-age=60", 60),
            ("Max-Age = \"60\"", 60),
            ("private, max-age=60, must-revalidate", 60),
            ("max-age=60, s-maxage=10", 10),
            ("s-maxage=0, max-age=60", 0),
            ("max-age=60, max-age=5", 60),
            ("max-age=60, no-store", 0),
            ("no-cache", 0),
            ("no-cache=\"set-cookie\"", 0),
            ("max-age=x", 0),
            ("max-age=-1", 0),
            ("max-age", 0),
            ("max-age=99999999999999999999999", LONGEST.as_secs()),
            ("public", 77),
            ("", 77),
        ] {
            assert_eq!(of(&[(CACHE_CONTROL, value)]), expected, "{value}");
        }
        let twice = [(CACHE_CONTROL, "max-age=60"), (CACHE_CONTROL, "no-store")];
        assert_eq!(of(&twice), 0);
    }

    #[test]
    fn time_on_the_way_counts() {
        let with = |age| of(&[(CACHE_CONTROL, "max-age=60"), (AGE, age)]);
        assert_eq!((with("20"), with("90"), with("x")), (40, 0, 60));
    }
}
