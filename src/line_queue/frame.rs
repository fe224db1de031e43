//! Records in the buffer, with what a daemon is sent along with each.

use std::time::{SystemTime, UNIX_EPOCH};

use super::Severity;

/// The length of a header: that of the record in four octets, its severity, and its time in eight.
const HEADER: usize = 13;

/// A record on its way to a daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame<'a> {
    pub(super) severity: u8,
    /// In microseconds since 1970.
    pub(super) time: i64,
    pub(super) record: &'a [u8],
}

/// What precedes a record in the buffer.
#[expect(
    clippy::disallowed_methods,
    reason = "a message has the time at which it was logged, and nothing depends on it"
)]
pub(super) fn header(severity: Severity, record: &[u8]) -> [u8; HEADER] {
    let length = u32::try_from(record.len()).unwrap_or(u32::MAX);
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let time = since.map_or(0, |since| since.as_micros());
    let time = i64::try_from(time).unwrap_or(i64::MAX);
    let mut header = [0; HEADER];
    let parts = length.to_le_bytes().into_iter().chain([severity as u8]);
    let octets = parts.chain(time.to_le_bytes());
    for (to, octet) in header.iter_mut().zip(octets) {
        *to = octet;
    }
    header
}

/// The first record of a buffer, and what follows.
pub(super) fn split_first(buffer: &[u8]) -> Option<(Frame<'_>, &[u8])> {
    let (length, rest) = buffer.split_first_chunk::<4>()?;
    let (severity, rest) = rest.split_first()?;
    let (time, rest) = rest.split_first_chunk::<8>()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    let (record, rest) = rest.split_at_checked(length)?;
    let frame = Frame {
        severity: *severity,
        time: i64::from_le_bytes(*time),
        record,
    };
    Some((frame, rest))
}

/// How many records a buffer has.
pub(super) fn count(mut buffer: &[u8]) -> u64 {
    let mut count = 0;
    while let Some((_, rest)) = split_first(buffer) {
        (count, buffer) = (count + 1, rest);
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_found_again() {
        let mut buffer = Vec::new();
        for (severity, record) in [(Severity::Error, &b"a\nb"[..]), (Severity::Info, b"")] {
            buffer.extend_from_slice(&header(severity, record));
            buffer.extend_from_slice(record);
        }
        assert_eq!(count(&buffer), 2);
        let (first, rest) = split_first(&buffer).expect("a record");
        assert_eq!((first.severity, first.record), (3, &b"a\nb"[..]));
        assert!(first.time > 1_700_000_000_000_000);
        let (second, rest) = split_first(rest).expect("a record");
        assert_eq!((second.severity, second.record), (6, &b""[..]));
        assert_eq!(split_first(rest), None);
        assert_eq!(split_first(&buffer[..15]), None);
    }
}
