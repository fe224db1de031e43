//! Texts of others, written so that they can end neither their value nor their line.

use std::fmt::{self, Write as _};
use std::io::Write as _;

use crate::printable::{beginning, is_control};

/// How many octets of what a client sent are logged in one field. The rest is replaced by `…`.
pub(super) const LONGEST: usize = 2048;

/// How many octets a line may have before what others sent is left out.
const LONGEST_LINE: usize = 32 << 10;

/// How many octets one may become: `\u00HH`.
const GROWTH: usize = 6;

/// How text from a client is escaped.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// `\xHH`, as nginx and Apache write it, in a text in quotes.
    Quoted,
    /// The same for a text that is not in quotes: spaces and brackets become `_`.
    Bare,
    /// The same for a text that has its line for itself.
    Line,
    /// `\u00HH`; invalid UTF-8 becomes U+FFFD.
    Json,
}

/// Writes the beginning of what others sent.
pub(super) fn escape(line: &mut Vec<u8>, value: &[u8], style: Style) {
    let room = LONGEST_LINE.saturating_sub(line.len()) / GROWTH;
    escape_up_to(LONGEST.min(room), line, value, style);
}

/// Writes a word of the gateway. However much clients have sent, it is there.
pub(super) fn escape_word(line: &mut Vec<u8>, word: &str, style: Style) {
    escape_up_to(LONGEST, line, word.as_bytes(), style);
}

fn escape_up_to(longest: usize, line: &mut Vec<u8>, value: &[u8], style: Style) {
    let kept = beginning(value, longest);
    if kept.iter().all(|octet| is_plain(*octet, style)) {
        line.extend_from_slice(kept);
    } else {
        escape_all(line, kept, style);
    }
    if kept.len() < value.len() {
        line.extend_from_slice("…".as_bytes());
    }
}

/// Escapes what is written to it.
pub(super) struct Escaping<'a>(pub(super) &'a mut Vec<u8>, pub(super) Style);

impl fmt::Write for Escaping<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        escape_word(self.0, text, self.1);
        Ok(())
    }
}

fn is_plain(octet: u8, style: Style) -> bool {
    match octet {
        b'\\' => false,
        b'"' => style == Style::Line,
        b' ' | b'[' | b']' => style != Style::Bare,
        _ => octet.is_ascii_graphic(),
    }
}

fn escape_all(line: &mut Vec<u8>, value: &[u8], style: Style) {
    for chunk in value.utf8_chunks() {
        for character in chunk.valid().chars() {
            escape_one(line, character, style);
        }
        for octet in chunk.invalid() {
            match style {
                Style::Json => line.extend_from_slice("\u{fffd}".as_bytes()),
                _ => put_hex(line, *octet),
            }
        }
    }
}

fn escape_one(line: &mut Vec<u8>, character: char, style: Style) {
    let mut octets = [0; 4];
    match (character, style) {
        ('"' | '\\', Style::Json) => {
            line.push(b'\\');
            line.extend_from_slice(character.encode_utf8(&mut octets).as_bytes());
        }
        (' ' | '[' | ']', Style::Bare) => line.push(b'_'),
        (control, Style::Json) if is_control(control) => {
            for unit in control.encode_utf16(&mut [0; 2]) {
                // Writing to a vector does not fail.
                _ = write!(line, "\\u{unit:04x}");
            }
        }
        ('"', Style::Line) => line.push(b'"'),
        (odd, _) if matches!(odd, '"' | '\\') && style != Style::Json || is_control(odd) => {
            for octet in odd.encode_utf8(&mut octets).bytes() {
                put_hex(line, octet);
            }
        }
        (plain, _) => line.extend_from_slice(plain.encode_utf8(&mut octets).as_bytes()),
    }
}

fn put_hex(line: &mut Vec<u8>, octet: u8) {
    _ = write!(line, "\\x{octet:02X}");
}

/// Writes what shows itself.
pub(super) fn show(line: &mut Vec<u8>, shown: &dyn fmt::Display, style: Style) {
    // Writing to a vector does not fail.
    _ = write!(Escaping(line, style), "{shown}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn escaped(value: &[u8], style: Style) -> String {
        let mut line = Vec::new();
        escape(&mut line, value, style);
        String::from_utf8(line).expect("text")
    }

    #[test]
    fn what_could_end_a_value_is_escaped() {
        let value = b"a \"\\\n\xff\xc2\x85]\xe2\x82\xac";
        for (style, expected) in [
            (Style::Quoted, "a \\x22\\x5C\\x0A\\xFF\\xC2\\x85]€"),
            (Style::Bare, "a_\\x22\\x5C\\x0A\\xFF\\xC2\\x85_€"),
            (Style::Line, "a \"\\x5C\\x0A\\xFF\\xC2\\x85]€"),
            (Style::Json, "a \\\"\\\\\\u000a\u{fffd}\\u0085]€"),
        ] {
            assert_eq!(escaped(value, style), expected);
        }
        assert_eq!(
            escaped("\u{e0041}".as_bytes(), Style::Json),
            "\\udb40\\udc41"
        );
    }

    #[test]
    fn a_long_value_is_cut_at_a_character() {
        let euros = escaped("€".repeat(LONGEST).as_bytes(), Style::Quoted);
        assert_eq!(euros.chars().filter(|one| *one == '€').count(), LONGEST / 3);
        assert!(escaped(&[b'a'; LONGEST + 1], Style::Json).ends_with("aa…"));
    }

    #[test]
    fn a_line_that_is_full_takes_no_more_of_what_others_sent() {
        let mut line = Vec::new();
        for _ in 0..100 {
            escape(&mut line, &[0x01; 60_000], Style::Json);
        }
        assert!(line.len() < 36 << 10, "{}", line.len());
        // Nor does that hide what the gateway has to say.
        escape_word(&mut line, "no_route", Style::Json);
        assert!(line.ends_with(b"no_route"));
    }
}
