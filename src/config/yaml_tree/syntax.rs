//! Describes syntax errors in a file, for people.

use saphyr_parser::ScanError;

use super::Place;

/// Why a text is not YAML that a configuration may be written in.
#[derive(Debug)]
pub(in crate::config) struct SyntaxError {
    pub(in crate::config) place: Place,
    pub(in crate::config) message: String,
    pub(in crate::config) hint: Option<String>,
}

pub(super) fn refuse(place: Place, message: &str, hint: &str) -> SyntaxError {
    SyntaxError {
        place,
        message: message.to_owned(),
        hint: Some(hint.to_owned()),
    }
}

pub(super) fn refuse_depth(place: Place) -> SyntaxError {
    refuse(
        place,
        "lists and mappings nest deeper than 64 levels",
        "no key needs that much: look for a bracket that is never closed",
    )
}

pub(super) fn refuse_tag(place: Place, tagged: bool) -> Result<(), SyntaxError> {
    if tagged {
        return Err(refuse(
            place,
            "YAML tags are not supported here",
            "remove it; text that begins with '!' needs quotes",
        ));
    }
    Ok(())
}

pub(super) fn scan_error(file: u32, text: &str, error: &ScanError) -> SyntaxError {
    let info = error.info();
    let place = Place::new(file, error.marker()).within(text);
    if info.contains("recursion limit") {
        return refuse_depth(place);
    }
    let hint = if info.contains("tab") {
        Some("indent with spaces, never with tabs")
    } else if info.contains("mapping values") {
        Some("look for a ':' inside a value that needs quotes, or a line indented too far")
    } else if info.contains("anchor") {
        Some("define the anchor before its alias; text that begins with '*' or '&' needs quotes")
    } else {
        Some("check the indentation, brackets and quotes here and in the lines before")
    };
    SyntaxError {
        place,
        message: format!("this is not valid YAML: {info}"),
        hint: hint.map(str::to_owned),
    }
}
