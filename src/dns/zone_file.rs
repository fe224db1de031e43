//! Names and texts as in zone files (RFC 1035, section 5.1), a format that APIs have adopted.

use crate::host::HostName;

/// A name relative to its zone: `@` for the zone itself. `None` if it is not in the zone.
pub(super) fn relative<'n>(zone: &HostName, name: &'n HostName) -> Option<&'n str> {
    if name == zone {
        return Some("@");
    }
    name.as_str()
        .strip_suffix(zone.as_str())?
        .strip_suffix('.')
        .filter(|label| !label.is_empty())
}

/// A text in quotes.
pub(super) fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for char in text.chars() {
        if matches!(char, '"' | '\\') {
            quoted.push('\\');
        }
        quoted.push(char);
    }
    quoted.push('"');
    quoted
}

/// The text of one or more quoted strings, concatenated; without quotes the text itself.
pub(super) fn unquote(text: &str) -> String {
    let text = text.trim();
    if !text.starts_with('"') {
        return text.to_owned();
    }
    let mut out = String::with_capacity(text.len());
    let mut inside = false;
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        match char {
            '"' => inside = !inside,
            // `\DDD` is an octet by its decimal value, any other character stands for itself.
            '\\' if inside => {
                let digits = chars.as_str().get(..3);
                let octet = digits
                    .filter(|digits| digits.bytes().all(|one| one.is_ascii_digit()))
                    .and_then(|digits| digits.parse::<u8>().ok());
                match octet {
                    Some(octet) => {
                        chars.nth(2);
                        out.push(char::from(octet));
                    }
                    None => out.extend(chars.next()),
                }
            }
            char if inside => out.push(char),
            _ => {}
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_come_back_from_quotes() {
        for text in ["", "abc", r#"a "b" \c"#, "a;b c", "ä"] {
            assert_eq!(unquote(&quote(text)), text);
        }
        assert_eq!(unquote(r#""ab" "c\100""#), "abcd");
        assert_eq!(unquote(" plain "), "plain");
        assert_eq!(unquote("\"open"), "open");
        assert_eq!(unquote("\"a\\"), "a");
    }

    #[test]
    fn names_are_seen_from_their_zone() {
        let zone: HostName = "example.com".parse().expect("a name");
        for (name, expected) in [
            (
                "_acme-challenge.www.example.com",
                Some("_acme-challenge.www"),
            ),
            ("example.com", Some("@")),
            ("badexample.com", None),
            ("example.org", None),
        ] {
            let name: HostName = name.parse().expect("a name");
            assert_eq!(relative(&zone, &name), expected, "{name}");
        }
    }
}
