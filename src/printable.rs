//! Somebody else's text, made safe for a log line or a terminal.
//!
//! File names, and what clients and CAs send, may contain line ends, terminal commands and
//! characters that reorder what is shown. Code that puts such text into a message escapes it here.

use std::borrow::Cow;
use std::fmt;
use std::path::Path;

/// Replaces a character that cannot be shown.
const STAND_IN: char = '\u{fffd}';

/// Returns true if a character could end its line, control a terminal, or hide or reorder text:
/// controls, and what Unicode counts as format characters, separators of lines and fillers.
pub fn is_control(character: char) -> bool {
    // ASCII, which most text is, has no others.
    character.is_control()
        || !character.is_ascii()
            && matches!(
                u32::from(character),
                0x00ad
                    | 0x034f
                    | 0x0600..=0x0605
                    | 0x061c
                    | 0x06dd
                    | 0x070f
                    | 0x0890..=0x0891
                    | 0x08e2
                    | 0x115f..=0x1160
                    | 0x17b4..=0x17b5
                    | 0x180b..=0x180f
                    | 0x200b..=0x200f
                    | 0x2028..=0x202e
                    | 0x2060..=0x206f
                    | 0x3164
                    | 0xfeff
                    | 0xffa0
                    | 0xfff0..=0xfffb
                    | 0x1_10bd
                    | 0x1_10cd
                    | 0x1_3430..=0x1_343f
                    | 0x1_bca0..=0x1_bca3
                    | 0x1_d173..=0x1_d17a
                    | 0xe_0000..=0xe_007f
            )
}

/// A path as shown in messages.
pub trait Printable {
    /// The path with control characters as `\n` or `\u202e`, and invalid UTF-8 as `\xff`. Use it
    /// where [`Path::display`] would end up in a log or on a terminal.
    fn printable(&self) -> PrintablePath<'_>;
}

impl Printable for Path {
    fn printable(&self) -> PrintablePath<'_> {
        PrintablePath(self)
    }
}

/// A text on one line, its control characters escaped.
pub fn line(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_control) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    // Writing to a string does not fail.
    _ = write_escaped(&mut escaped, text);
    Cow::Owned(escaped)
}

/// At most so many octets of a text, without an incomplete character at the end.
pub fn beginning(text: &[u8], longest: usize) -> &[u8] {
    let is_inside = |at: usize| text.get(at).is_some_and(|octet| octet & 0xc0 == 0x80);
    // A character has at most four octets.
    let end = (longest.saturating_sub(3)..=longest)
        .rev()
        .find(|at| !is_inside(*at));
    text.get(..end.unwrap_or(longest)).unwrap_or(text)
}

/// Somebody else's words on one line of at most `longest` characters, with an ellipsis if they were
/// longer. Controls become spaces; other invisible characters become U+FFFD.
pub fn one_line(words: &str, longest: usize) -> String {
    let shown = |character: char| match character {
        character if character.is_control() => ' ',
        character if is_control(character) => STAND_IN,
        character => character,
    };
    let mut characters = words.chars();
    let mut line: String = characters.by_ref().take(longest).map(shown).collect();
    if characters.next().is_some() {
        line.push('…');
    }
    line
}

/// Somebody else's words on as many lines as they have; other invisible characters become U+FFFD.
pub fn lines(words: &str) -> String {
    let shown = |character: char| match character {
        '\n' => character,
        character if is_control(character) => STAND_IN,
        character => character,
    };
    words.chars().map(shown).collect()
}

/// See [`Printable`].
#[derive(Clone, Copy, Debug)]
pub struct PrintablePath<'p>(&'p Path);

impl fmt::Display for PrintablePath<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.as_os_str().as_encoded_bytes().utf8_chunks() {
            write_escaped(f, chunk.valid())?;
            for octet in chunk.invalid() {
                write!(f, "\\x{octet:02x}")?;
            }
        }
        Ok(())
    }
}

fn write_escaped(to: &mut impl fmt::Write, text: &str) -> fmt::Result {
    for character in text.chars() {
        match character {
            '\n' => to.write_str("\\n")?,
            '\r' => to.write_str("\\r")?,
            '\t' => to.write_str("\\t")?,
            // In JSON too, where nothing else may follow a backslash.
            character if is_control(character) => {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    write!(to, "\\u{unit:04x}")?;
                }
            }
            character => to.write_char(character)?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    #[test]
    fn what_could_end_a_line_or_reorder_it_is_escaped() {
        let named = |name: &[u8]| Path::new(OsStr::from_bytes(name)).printable().to_string();
        assert_eq!(named(b"certs/a\nWARN b.pem"), "certs/a\\nWARN b.pem");
        assert_eq!(
            named("a\u{202e}b\u{1b}[31m".as_bytes()),
            "a\\u202eb\\u001b[31m"
        );
        assert_eq!(named(b"a\xffb"), "a\\xffb");
        assert_eq!(named("größe \\ 1.pem".as_bytes()), "größe \\ 1.pem");
        assert_eq!(line("a\r\nb\u{2028}"), "a\\r\\nb\\u2028");
        assert_eq!(line("a\u{e0041}"), "a\\udb40\\udc41");
        assert!(matches!(line("plain"), Cow::Borrowed("plain")));
    }

    #[test]
    fn what_cannot_be_seen_or_turns_text_around_is_found() {
        for character in [
            '\0',
            '\n',
            '\r',
            '\t',
            '\u{1b}',
            '\u{7f}',
            '\u{85}',
            '\u{9b}',
            '\u{ad}',
            '\u{61c}',
            '\u{180e}',
            '\u{200b}',
            '\u{200d}',
            '\u{200e}',
            '\u{200f}',
            '\u{2028}',
            '\u{2029}',
            '\u{202a}',
            '\u{202e}',
            '\u{2060}',
            '\u{2066}',
            '\u{2069}',
            '\u{3164}',
            '\u{feff}',
            '\u{fff9}',
            '\u{e0041}',
        ] {
            assert!(is_control(character), "{character:?}");
        }
        for character in [
            'a', ' ', 'ß', '字', 'ع', 'א', '…', '\u{fffd}', '🔒', '\u{301}',
        ] {
            assert!(!is_control(character), "{character:?}");
        }
    }

    #[test]
    fn a_text_is_cut_between_characters() {
        let text = "a€𝄞b".as_bytes();
        let lengths = (0..=9).map(|longest| beginning(text, longest).len());
        assert!(lengths.eq([0, 1, 1, 1, 4, 4, 4, 4, 8, 9]));
        assert_eq!(beginning(&[0x80; 10], 6).len(), 6);
        assert_eq!(beginning(text, usize::MAX), text);
    }

    #[test]
    fn words_of_others_stay_on_their_line() {
        let words = "no\r\n\u{1b}[31m\u{202e}tset.a\u{200b} ✓";
        assert_eq!(one_line(words, 100), "no   [31m\u{fffd}tset.a\u{fffd} ✓");
        assert_eq!(one_line("abcdef", 3), "abc…");
        assert_eq!(lines("a\nb\u{202e}\r"), "a\nb\u{fffd}\u{fffd}");
    }
}
