//! Moments in UTC, written much faster than by a library that knows all calendars.

use super::number::{put_digits, put_number};
use crate::clock::UnixTime;

const DAY: i64 = 24 * 3600;

const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

/// A day of the Gregorian calendar.
struct Day {
    year: u64,
    /// From 1.
    month: u64,
    day: u64,
}

/// `2025-11-23T23:00:00Z`.
pub(super) fn write_iso(line: &mut Vec<u8>, moment: UnixTime) {
    let (day, second) = split(moment);
    put_digits(line, day.year, 4);
    line.push(b'-');
    put_digits(line, day.month, 2);
    line.push(b'-');
    put_digits(line, day.day, 2);
    line.push(b'T');
    put_clock(line, second);
    line.push(b'Z');
}

/// `23/Nov/2025:23:00:00 +0000`.
pub(super) fn write_combined(line: &mut Vec<u8>, moment: UnixTime) {
    let (day, second) = split(moment);
    put_digits(line, day.day, 2);
    line.push(b'/');
    let month = usize::try_from(day.month)
        .ok()
        .and_then(|month| month.checked_sub(1));
    let name = month.and_then(|month| MONTHS.get(month)).copied();
    line.extend_from_slice(name.unwrap_or("-").as_bytes());
    line.push(b'/');
    put_number(line, day.year);
    line.push(b':');
    put_clock(line, second);
    line.extend_from_slice(b" +0000");
}

fn put_clock(line: &mut Vec<u8>, second: u64) {
    put_digits(line, second / 3600, 2);
    line.push(b':');
    put_digits(line, second / 60 % 60, 2);
    line.push(b':');
    put_digits(line, second % 60, 2);
}

/// The day, and the second within it. What is before 1970 becomes its beginning.
fn split(moment: UnixTime) -> (Day, u64) {
    let seconds = moment.as_secs().clamp(0, 253_402_300_799);
    let second = u64::try_from(seconds % DAY).unwrap_or(0);
    let days = u64::try_from(seconds / DAY).unwrap_or(0);
    // Years are counted from the first of March, so that the day of a leap year comes last: 719,468
    // days lie between that of the year 0 and the first of January 1970. 400 years have 146,097 days.
    let from_march = days + 719_468;
    let era = from_march / 146_097;
    let of_era = from_march % 146_097;
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from = (5 * of_year + 2) / 153;
    let month = if from < 10 { from + 3 } else { from - 9 };
    let day = Day {
        year: era * 400 + year_of_era + u64::from(month <= 2),
        month,
        day: of_year - (153 * from + 2) / 5 + 1,
    };
    (day, second)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clock::unix;

    fn written(write: fn(&mut Vec<u8>, UnixTime), seconds: i64) -> String {
        let mut line = Vec::new();
        write(&mut line, unix(seconds));
        String::from_utf8(line).expect("text")
    }

    proptest! {
        #[test]
        fn moments_are_written_as_by_the_library(seconds in 0..=253_402_300_799_i64) {
            // The library ends a little earlier.
            let seconds = seconds.min(253_402_207_200);
            let time = jiff::Timestamp::from_second(seconds).expect("a time");
            prop_assert_eq!(written(write_iso, seconds), time.to_string());
            let combined = time.strftime("%d/%b/%Y:%H:%M:%S +0000").to_string();
            prop_assert_eq!(written(write_combined, seconds), combined);
        }
    }

    #[test]
    fn odd_moments_are_written() {
        assert_eq!(written(write_iso, 0), "1970-01-01T00:00:00Z");
        assert_eq!(written(write_iso, -1), "1970-01-01T00:00:00Z");
        assert_eq!(written(write_iso, 951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(written(write_iso, i64::MAX), "9999-12-31T23:59:59Z");
    }
}
