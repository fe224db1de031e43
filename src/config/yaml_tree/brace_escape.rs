//! Hides the braces of `${…}` from the YAML parser.
//!
//! YAML ends a plain value at a brace within a flow mapping, so `{ key: ${NAME} }` would not be
//! YAML. People expect it to work, with and without quotes.

use std::borrow::Cow;

/// What YAML would take for the syntax of a flow mapping in `{ key: ${NAME} }`, and its replacement
/// while YAML is parsed: with the same number of characters, so that columns stay.
const MASKS: [(char, char); 5] = [
    ('{', '\u{10fff0}'),
    ('}', '\u{10fff1}'),
    ('[', '\u{10fff2}'),
    (']', '\u{10fff3}'),
    (',', '\u{10fff4}'),
];

/// What ends a search for the closing brace: the value has ended before it.
const UNREFERABLE: [char; 4] = ['\n', '"', '\'', '{'];

/// Hides the braces of `${…}` from the parser, so that references need no quotes anywhere.
pub(super) fn escape_braces(text: &str) -> Cow<'_, str> {
    let taken = |(_, mask): &(char, char)| text.contains(*mask);
    if !text.contains("${") || MASKS.iter().any(taken) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + text.len() / 8);
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        out.push_str(before);
        out.push('$');
        let (reference, after) = match after.split_once('}') {
            Some((reference, rest)) if !reference.contains(UNREFERABLE) => (reference, rest),
            _ => {
                out.push('{');
                rest = after;
                continue;
            }
        };
        out.push('\u{10fff0}');
        out.extend(
            reference
                .chars()
                .map(|char| replace_char(char, |pair| pair)),
        );
        out.push('\u{10fff1}');
        rest = after;
    }
    out.push_str(rest);
    Cow::Owned(out)
}

/// Restores the braces.
pub(super) fn unescape_braces(text: &str) -> String {
    if text.is_ascii() {
        return text.to_owned();
    }
    text.chars()
        .map(|char| replace_char(char, |(plain, mask)| (mask, plain)))
        .collect()
}

fn replace_char(char: char, direction: impl Fn((char, char)) -> (char, char)) -> char {
    MASKS
        .into_iter()
        .map(direction)
        .find(|(from, _)| *from == char)
        .map_or(char, |(_, to)| to)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masked_text_comes_back_and_keeps_its_columns() {
        for text in [
            "a: 1",
            "{ a: ${B}, c: \"${file:x, [y]}\" }",
            "a: ${",
            "a: ${B\n}",
            "a: $${B} ${${C}}",
            "{ a: \"${B\" }",
            "ü: ${ü}",
        ] {
            let masked = escape_braces(text);
            assert_eq!(unescape_braces(&masked), text);
            assert_eq!(masked.chars().count(), text.chars().count(), "{text}");
        }
        assert!(!escape_braces("{ a: ${B,C} }").contains("${"));
        assert_eq!(
            escape_braces("\u{10fff0} ${B}"),
            "\u{10fff0} ${B}",
            "its own characters are left"
        );
    }
}
