//! Files that match a pattern: `*` for any characters, `?` for one, never over a `/`.

use std::fs;
use std::io::{Error, ErrorKind};
use std::path::{Component, Path, PathBuf};

/// The result of a pattern.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// In the order of their paths.
    pub(super) files: Vec<PathBuf>,
    /// Where matching files may appear, as far as the directories exist.
    pub(super) directories: Vec<PathBuf>,
    /// A directory that could not be read.
    pub(super) error: Option<(PathBuf, Error)>,
}

/// Returns true if a path contains `*` or `?`.
pub(super) fn is_pattern(path: &str) -> bool {
    path.contains(['*', '?'])
}

/// Finds the files that match an absolute pattern. As in a shell, `*` and `?` do not match a
/// leading dot: editors keep half-written files under such names.
pub(super) fn find(pattern: &Path) -> Found {
    let mut found = Found::default();
    let parts: Vec<_> = pattern.components().collect();
    walk(PathBuf::new(), &parts, &mut found);
    found.files.sort_unstable();
    found
}

fn walk(mut base: PathBuf, parts: &[Component<'_>], found: &mut Found) {
    for (index, part) in parts.iter().enumerate() {
        let rest = parts.get(index + 1..).unwrap_or_default();
        let part = part.as_os_str();
        let Some(pattern) = part.to_str().filter(|part| is_pattern(part)) else {
            base.push(part);
            continue;
        };
        list(&base, pattern, rest, found);
        return;
    }
    if base.is_file() {
        found.files.push(base);
    }
}

fn list(directory: &Path, pattern: &str, rest: &[Component<'_>], found: &mut Found) {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) => {
            if error.kind() == ErrorKind::NotFound {
                // It may be created later, which is visible in the nearest existing directory.
                let there = directory.ancestors().find(|path| path.is_dir());
                found.directories.extend(there.map(Path::to_owned));
            } else if error.kind() != ErrorKind::NotADirectory {
                found.error = Some((directory.to_owned(), error));
            }
            return;
        }
    };
    found.directories.push(directory.to_owned());
    for entry in entries.flatten() {
        let name = entry.file_name();
        if name.to_str().is_some_and(|name| matches(pattern, name)) {
            walk(directory.join(&name), rest, found);
        }
    }
}

/// Returns true if a name matches a pattern of one part of a path.
fn matches(pattern: &str, name: &str) -> bool {
    if name.starts_with('.') && !pattern.starts_with('.') {
        return false;
    }
    let pattern: Vec<char> = pattern.chars().collect();
    let name: Vec<char> = name.chars().collect();
    let (mut p, mut n) = (0, 0);
    // After the last star: where the pattern continues, and where in the name it was tried last.
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        match pattern.get(p) {
            Some('*') => {
                p += 1;
                star = Some((p, n));
            }
            Some(char) if *char == '?' || name.get(n) == Some(char) => {
                p += 1;
                n += 1;
            }
            _ => {
                let Some((after, tried)) = star else {
                    return false;
                };
                star = Some((after, tried + 1));
                p = after;
                n = tried + 1;
            }
        }
    }
    pattern.iter().skip(p).all(|char| *char == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_and_question_marks_match_within_a_name() {
        for (pattern, name, expected) in [
            ("*.yaml", "a.yaml", true),
            ("*.yaml", ".yaml", false),
            ("*.yaml", ".a.yaml", false),
            (".*.yaml", ".a.yaml", true),
            ("*.yaml", "a.yml", false),
            ("*", "", true),
            ("?", "", false),
            ("?", "ü", true),
            ("a?c*", "abc", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-b-b-d", false),
            ("site-?.yaml", "site-10.yaml", false),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn hostile_patterns_are_quick() {
        let name = "a".repeat(5_000);
        assert!(!matches(&format!("{}b", "a*".repeat(200)), &name));
    }

    #[test]
    fn directories_of_a_pattern_are_found_with_the_files() {
        let root = tempfile::tempdir().unwrap();
        let at = |path: &str| root.path().join(path);
        for (directory, file) in [("b.d", "x.yaml"), ("a.d", "y.yaml"), ("c", "z.yaml")] {
            fs::create_dir(at(directory)).unwrap();
            fs::write(at(directory).join(file), "").unwrap();
        }
        let found = find(&at("*.d/?.yaml"));
        assert_eq!(found.files, [at("a.d/y.yaml"), at("b.d/x.yaml")]);
        assert_eq!(found.directories.len(), 3);
        let missing = find(&at("later/*.yaml"));
        assert!(missing.files.is_empty() && missing.error.is_none());
        assert_eq!(missing.directories, [root.path()]);
    }
}
