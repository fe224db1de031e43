//! Paths of files, as URLs name them.

use crate::config::model::decode_escape;

/// The longest name of a file, in octets.
const MAX_NAME: usize = 255;

/// A path below a root: names with slashes between them, none of which is `.` or `..`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct FilePath {
    names: Vec<u8>,
    /// Whether a slash follows the last name.
    is_directory: bool,
}

impl FilePath {
    /// What the path of a URL stands for, after slashes are merged and dot segments resolved; `None`
    /// if no file can have that name. An escaped slash is part of a name, so there is none.
    pub(crate) fn of(path: &[u8]) -> Option<Self> {
        let mut found = Self::default();
        for segment in path.split(|&octet| octet == b'/') {
            let name = decode(segment);
            found.is_directory = matches!(&*name, b"" | b"." | b"..");
            match &*name {
                b"" | b"." => {}
                b".." => {
                    let parent = memchr::memrchr(b'/', &found.names);
                    found.names.truncate(parent.unwrap_or(0));
                }
                name if name.len() > MAX_NAME || memchr::memchr2(b'/', 0, name).is_some() => {
                    return None;
                }
                name => {
                    if !found.names.is_empty() {
                        found.names.push(b'/');
                    }
                    found.names.extend_from_slice(name);
                }
            }
        }
        Some(found)
    }

    /// The path relative to the root, empty for the root itself.
    pub(crate) fn names(&self) -> &[u8] {
        &self.names
    }

    pub(crate) fn is_directory(&self) -> bool {
        self.is_directory
    }

    /// Whether one of the names begins with a dot. `.well-known` (RFC 8615) may be the first.
    pub(crate) fn is_hidden(&self) -> bool {
        let mut names = self.names.split(|&octet| octet == b'/').enumerate();
        names.any(|(at, name)| name.starts_with(b".") && !(at == 0 && name == b".well-known"))
    }

    /// The path of a file in this directory.
    pub(crate) fn join(&self, name: &str) -> Vec<u8> {
        match self.names.is_empty() {
            true => name.as_bytes().to_vec(),
            false => [&*self.names, b"/", name.as_bytes()].concat(),
        }
    }
}

/// A segment without escapes.
fn decode(segment: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(segment.len());
    let mut at = 0;
    while let Some(&octet) = segment.get(at) {
        let decoded = decode_escape(segment, at);
        at += if decoded.is_some() { 3 } else { 1 };
        out.push(decoded.unwrap_or(octet));
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn paths_are_resolved_within_their_root() {
        for (path, names, is_directory) in [
            ("/", "", true),
            ("", "", true),
            ("/a/b.html", "a/b.html", false),
            ("/a/b/", "a/b", true),
            ("//a///b", "a/b", false),
            ("/a/./b/.", "a/b", true),
            ("/a/../b", "b", false),
            ("/a/b/..", "a", true),
            ("/../../etc/passwd", "etc/passwd", false),
            ("/%2e%2e/%2E%2e/etc/passwd", "etc/passwd", false),
            ("/a/%2e%2e/b", "b", false),
            ("/a%20b/%C3%A4", "a b/ä", false),
            ("/..\\..\\etc", "..\\..\\etc", false),
            ("/..%5cetc", "..\\etc", false),
            ("/..;/etc", "..;/etc", false),
            ("/%252e%252e/etc", "%2e%2e/etc", false),
            ("/%zz%4", "%zz%4", false),
        ] {
            let expected = FilePath {
                names: names.into(),
                is_directory,
            };
            assert_eq!(FilePath::of(path.as_bytes()), Some(expected), "{path}");
        }
        let overlong = format!("/{}", "a".repeat(256));
        for path in ["/..%2f..%2fetc", "/a%2Fb", "/a%00.html", "/%2f", &overlong] {
            assert_eq!(FilePath::of(path.as_bytes()), None, "{path}");
        }
        // Two octets that once stood for a dot.
        let overlong = FilePath::of(b"/%c0%ae%c0%ae/etc").expect("a path");
        assert_eq!(overlong.names(), b"\xc0\xae\xc0\xae/etc");
    }

    #[test]
    fn hidden_names_are_noticed() {
        for (path, is_hidden) in [
            ("/.git/config", true),
            ("/a/.htpasswd", true),
            ("/%2egit/config", true),
            ("/.well-known/security.txt", false),
            ("/.well-known/.x", true),
            ("/a/.well-known/x", true),
            ("/a.b/c.", false),
            ("/", false),
        ] {
            let path_of = FilePath::of(path.as_bytes()).expect("a path");
            assert_eq!(path_of.is_hidden(), is_hidden, "{path}");
        }
    }

    proptest! {
        #[test]
        fn no_name_leads_up_or_is_absolute(path in "(/|\\.|\\.\\.|%2e|%2f|%00|a|;|\\\\){0,20}") {
            if let Some(path) = FilePath::of(path.as_bytes()) {
                prop_assert!(!path.names.contains(&0));
                if !path.names.is_empty() {
                    for name in path.names.split(|&octet| octet == b'/') {
                        prop_assert!(!matches!(name, b"" | b"." | b".."));
                    }
                }
            }
        }
    }
}
