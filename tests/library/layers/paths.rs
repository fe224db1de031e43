//! Reads the paths that code names.

/// The paths in code that begin with `crate` or `super`, with their lines. Groups are expanded:
/// `crate::{a::b, c}` is two paths.
pub(super) fn paths(text: &str) -> Vec<(usize, Vec<String>)> {
    let code = without_comments(text);
    let mut found = Vec::new();
    for start in ["crate::", "super::"] {
        for (at, _) in code.match_indices(start) {
            let before = code[..at].chars().next_back();
            if before.is_some_and(|char| char.is_alphanumeric() || "_:".contains(char)) {
                continue;
            }
            let line = code[..at].matches('\n').count() + 1;
            let mut expanded = Vec::new();
            expand(&code[at..], &[], &mut expanded);
            found.extend(expanded.into_iter().map(|path| (line, path)));
        }
    }
    found
}

pub(super) fn without_comments(text: &str) -> String {
    let lines = text
        .lines()
        .map(|line| line.split("//").next().unwrap_or_default());
    lines.collect::<Vec<_>>().join("\n")
}

/// Reads one path behind `prefix`, or several if it ends in a group. Returns what follows it.
fn expand<'c>(code: &'c str, prefix: &[String], found: &mut Vec<Vec<String>>) -> &'c str {
    let mut path = prefix.to_vec();
    let mut rest = code;
    loop {
        let length = rest
            .find(|char: char| !char.is_alphanumeric() && char != '_')
            .unwrap_or(rest.len());
        if length > 0 {
            path.push(rest[..length].to_owned());
        }
        match rest[length..].strip_prefix("::") {
            Some(behind) if length > 0 => rest = behind,
            _ => {
                rest = &rest[length..];
                break;
            }
        }
    }
    let Some(mut group) = rest.strip_prefix('{') else {
        found.push(path);
        return rest;
    };
    loop {
        group = expand(group.trim_start(), &path, found);
        // What stands behind a path: `as Name`, a comma, the end of the group.
        match group.find([',', '}']) {
            Some(at) if group[at..].starts_with(',') => group = &group[at + 1..],
            Some(at) => return &group[at + 1..],
            None => return "",
        }
        if let Some(behind) = group.trim_start().strip_prefix('}') {
            return behind;
        }
    }
}

#[test]
fn groups_are_expanded() {
    let text = "
        use super::super::x;
        use super::{a::{self, B}, c as d,};
        fn f() { not_crate::g(crate::h()) } // super::i
    ";
    let found: Vec<String> = paths(text)
        .into_iter()
        .map(|(line, path)| format!("{line} {}", path.join("::")))
        .collect();
    assert_eq!(
        found,
        [
            "4 crate::h",
            "2 super::super::x",
            "3 super::a::self",
            "3 super::a::B",
            "3 super::c"
        ]
    );
}
