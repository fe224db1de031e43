//! Messages of syslog (RFC 5424).

use std::io::Write as _;

use super::frame::Frame;
use crate::machine::host_name;

/// The maximum length of the name of a machine in a message.
const LONGEST_NAME: usize = 255;

/// What all messages of a log have in common.
#[derive(Debug)]
pub(super) struct Header {
    facility: u8,
    /// From the name of the machine to the structured data.
    source: String,
}

impl Header {
    /// What messages of this kind have in common.
    pub(super) fn new(facility: u8, kind: &str) -> Self {
        let host = host_name().unwrap_or_default();
        let host: String = host
            .chars()
            .filter(char::is_ascii_graphic)
            .take(LONGEST_NAME)
            .collect();
        let host = if host.is_empty() { "-" } else { &host };
        let source = format!("{host} snigate {} {kind} -", std::process::id());
        Self { facility, source }
    }

    /// Appends the message for a record.
    pub(super) fn write(&self, frame: Frame<'_>, out: &mut Vec<u8>) {
        let priority = u16::from(self.facility) * 8 + u16::from(frame.severity);
        let time = jiff::Timestamp::from_microsecond(frame.time).unwrap_or_default();
        // Writing to a vector does not fail.
        _ = write!(out, "<{priority}>1 {time:.6} {} ", self.source);
        out.extend_from_slice(frame.record);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_a_header() {
        let header = Header {
            facility: 16,
            source: "host snigate 7 access -".to_owned(),
        };
        let mut out = Vec::new();
        let frame = Frame {
            severity: 6,
            time: 1_763_938_800_000_005,
            record: b"a line",
        };
        header.write(frame, &mut out);
        let text = String::from_utf8(out).expect("text");
        assert_eq!(
            text,
            "<134>1 2025-11-23T23:00:00.000005Z host snigate 7 access - a line"
        );
    }
}
