//! Text that others chose, made safe for a log line or a terminal.
//!
//! File names, what clients send and what CAs say may hold line ends, terminal commands and
//! characters that reorder what is shown. Whoever puts such text into a message escapes it here.

use std::borrow::Cow;
use std::fmt;
use std::path::Path;

/// Whether a character could end its line, command a terminal, or hide or reorder text.
pub fn is_control(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
        )
}

/// A path as messages show it.
pub trait Printable {
    /// The path with control characters as `\n` or `\u202e`, and octets that are no UTF-8 as
    /// `\xff`. To be used where [`Path::display`] would end up in a log or on a terminal.
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
            // Also in JSON, where nothing else may follow a backslash.
            character if is_control(character) => write!(to, "\\u{:04x}", u32::from(character))?,
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
        assert!(matches!(line("plain"), Cow::Borrowed("plain")));
    }
}
