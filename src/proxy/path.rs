//! Request paths as routes match them.
//!
//! Servers interpret paths in different ways: some treat `%2f` as a slash, some resolve `..`, some
//! merge slashes. A gateway that guards a path by its own interpretation alone is fooled by a
//! server with another one. So a path with several interpretations is routed only if all of them
//! lead to the same route. The path itself is forwarded as it was sent.

use std::borrow::Cow;

use crate::config::model::decode_escape;

/// How a server may read a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reading {
    /// Treats `%2f`, `\` and `%5c` as `/`.
    decodes_separators: bool,
    /// Merges slashes and resolves `.` and `..` (RFC 3986, section 5.2.4), with these parameters of
    /// segments.
    cleans: Option<Parameters>,
}

/// What becomes of parameters of segments, such as `;x=y` in `/a;x=y/b`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Parameters {
    /// They are part of a name, also in `..;x`.
    Kept,
    /// They are part of a name, but `..;x` is `..`: some servers remove them before they interpret a
    /// segment.
    NotOfDots,
    /// They are removed, as servlet containers do.
    Cut,
}

/// The readings, apart from the plain one, under which a doubtful path is checked.
const READINGS: [Reading; 7] = [
    Reading {
        decodes_separators: true,
        ..PLAIN
    },
    cleaning(false, Parameters::Kept),
    cleaning(false, Parameters::NotOfDots),
    cleaning(false, Parameters::Cut),
    cleaning(true, Parameters::Kept),
    cleaning(true, Parameters::NotOfDots),
    cleaning(true, Parameters::Cut),
];

/// The reading that decodes every octet and does nothing else.
const PLAIN: Reading = Reading {
    decodes_separators: false,
    cleans: None,
};

const fn cleaning(decodes_separators: bool, parameters: Parameters) -> Reading {
    Reading {
        decodes_separators,
        cleans: Some(parameters),
    }
}

/// Finds where a path leads by asking `route` for each way to read it.
///
/// `None` if the readings disagree. `path` is without its query.
pub(crate) fn resolve<R: PartialEq>(path: &[u8], mut route: impl FnMut(&[u8]) -> R) -> Option<R> {
    let found = route(&PLAIN.read(path));
    if is_doubtful(path) {
        for reading in READINGS {
            if route(&reading.read(path)) != found {
                return None;
            }
        }
    }
    Some(found)
}

/// Whether `prefix` covers `path`, on whole segments.
pub(crate) fn covers(prefix: &[u8], path: &[u8]) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| {
        prefix.last() == Some(&b'/') || rest.is_empty() || rest.first() == Some(&b'/')
    })
}

/// What follows `prefix` in a path that it covers. The rest is as it was sent.
pub(crate) fn strip_prefix<'p>(path: &'p [u8], prefix: &[u8]) -> Option<&'p [u8]> {
    let (mut at, mut left) = (0, prefix);
    while !left.is_empty() {
        let octet = *path.get(at)?;
        let decoded = match octet {
            b'%' => decode_escape(path, at),
            _ => None,
        };
        left = match decoded {
            Some(b'/') => left.strip_prefix(b"%2f")?,
            other => left.strip_prefix(&[other.unwrap_or(octet)])?,
        };
        at += if decoded.is_some() { 3 } else { 1 };
    }
    path.get(at..)
}

/// A path that can be read in ways that lead to different routes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ambiguous;

/// Whether some server may take a segment of `path` for `..`.
pub(crate) fn has_parent_segment(path: &[u8]) -> bool {
    const SPLITTING: Reading = Reading {
        decodes_separators: true,
        ..PLAIN
    };
    is_doubtful(path)
        && SPLITTING
            .read(path)
            .split(|&octet| octet == b'/')
            .any(|segment| {
                let mut parts = segment.split(|&octet| octet == b';');
                parts.next() == Some(b"..")
            })
}

/// The path as [`resolve`] asks for it first: decoded, and otherwise as it was sent.
pub(crate) fn read_plainly(path: &[u8]) -> Cow<'_, [u8]> {
    PLAIN.read(path)
}

/// The path of a request target in origin form, without its query.
pub(crate) fn without_query(target: &[u8]) -> &[u8] {
    target
        .split(|&octet| octet == b'?')
        .next()
        .unwrap_or(target)
}

/// Whether servers may disagree about what `path` means.
fn is_doubtful(path: &[u8]) -> bool {
    let mut last = 0;
    for (at, &octet) in path.iter().enumerate() {
        let doubtful = match octet {
            b'/' | b'.' => last == b'/',
            b'%' => matches!(decode_escape(path, at), Some(b'/' | b'\\' | b'.' | b';')),
            b'\\' | b';' => true,
            _ => false,
        };
        if doubtful {
            return true;
        }
        last = octet;
    }
    false
}

impl Reading {
    /// The path under this reading: percent-decoded, except for separators that it keeps.
    fn read(self, path: &[u8]) -> Cow<'_, [u8]> {
        if self.cleans.is_none() && memchr::memchr2(b'%', b'\\', path).is_none() {
            return Cow::Borrowed(path);
        }
        let mut out = Vec::with_capacity(path.len());
        let mut at = 0;
        while let Some(&octet) = path.get(at) {
            let decoded = decode_escape(path, at);
            at += if decoded.is_some() { 3 } else { 1 };
            match decoded.unwrap_or(octet) {
                b'/' | b'\\' if self.decodes_separators => out.push(b'/'),
                // A slash that is data must not become a separator.
                b'/' if decoded.is_some() => out.extend_from_slice(b"%2f"),
                other => out.push(other),
            }
        }
        Cow::Owned(match self.cleans {
            Some(parameters) => clean(&out, parameters),
            None => out,
        })
    }
}

/// Merges slashes and resolves dot segments.
fn clean(path: &[u8], parameters: Parameters) -> Vec<u8> {
    let cut = parameters == Parameters::Cut;
    let mut out = Vec::with_capacity(path.len() + 1);
    let mut ends_in_directory = false;
    for segment in path.split(|&octet| octet == b'/') {
        let name = match parameters {
            Parameters::Kept => segment,
            Parameters::NotOfDots | Parameters::Cut => segment
                .split(|&octet| octet == b';')
                .next()
                .unwrap_or(segment),
        };
        ends_in_directory =
            matches!(name, b"" | b"." | b"..") && (cut || name == segment || !name.is_empty());
        match name {
            _ if segment.is_empty() => {}
            b"" if cut => {}
            b"." => {}
            b".." => {
                let parent = memchr::memrchr(b'/', &out).unwrap_or(0);
                out.truncate(parent);
            }
            _ => {
                out.push(b'/');
                out.extend_from_slice(if cut { name } else { segment });
            }
        }
    }
    if ends_in_directory || out.is_empty() {
        out.push(b'/');
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::model::decode_path;

    /// The index of the longest of `prefixes` that covers `path`.
    fn route(prefixes: &[&str], path: &str) -> Option<Option<usize>> {
        resolve(path.as_bytes(), |path| {
            prefixes
                .iter()
                .position(|prefix| covers(&decode_path(prefix.as_bytes()), path))
        })
    }

    #[test]
    fn a_prefix_covers_whole_segments() {
        for (prefix, path, covered) in [
            ("/", "/", true),
            ("/", "/x", true),
            ("/api", "/api", true),
            ("/api", "/api/", true),
            ("/api", "/api/x", true),
            ("/api", "/apis", false),
            ("/api/", "/api/x", true),
            ("/api/", "/api", false),
            ("/api", "/", false),
        ] {
            assert_eq!(
                covers(prefix.as_bytes(), path.as_bytes()),
                covered,
                "{prefix} {path}"
            );
        }
    }

    #[test]
    fn escapes_are_seen_through() {
        let routes = ["/admin", "/"];
        assert_eq!(route(&routes, "/admin/x"), Some(Some(0)));
        assert_eq!(route(&routes, "/%61dmin/x"), Some(Some(0)));
        assert_eq!(route(&routes, "/%61%64min"), Some(Some(0)));
        assert_eq!(route(&routes, "/public/%zz%4"), Some(Some(1)));
        assert_eq!(route(&["/a b", "/"], "/a%20b/c"), Some(Some(0)));
    }

    #[test]
    fn a_path_with_two_meanings_is_routed_only_where_they_agree() {
        let routes = ["/admin", "/"];
        for path in [
            "/public/../admin",
            "/public/%2e%2e/admin",
            "/public/..%2fadmin",
            "/public/..;/admin",
            "/public/..\\admin",
            "//admin",
            "/./admin",
            "/admin/../public",
            "/admin/..%2fpublic",
            "/admin%2fx",
            "/admin%5Cx",
            "/admin;x",
            "/admin;x=y/z",
            "/admin%3bx/z",
            "/;x/admin",
            "/public;x/../admin",
            "/admin/../public/..;/admin/x",
            "/public/../admin/..;/public/x",
            "/public/%2e%2e/admin/..%3b/public/x",
        ] {
            assert_eq!(route(&routes, path), None, "{path}");
        }
        for (path, to) in [
            ("/admin/./x", 0),
            ("/admin//x", 0),
            ("/admin/a/../b", 0),
            ("/admin/a%2fb", 0),
            ("/admin/a;x=y", 0),
            ("/public/a;jsessionid=1", 1),
            ("/public//x", 1),
            ("/public/a/../b", 1),
            ("/.well-known/x", 1),
            ("/a.b/c..d", 1),
        ] {
            assert_eq!(route(&routes, path), Some(Some(to)), "{path}");
        }
        assert_eq!(route(&["/"], "/a/%2e%2e//..%2fb"), Some(Some(0)));
    }

    #[test]
    fn a_prefix_is_stripped_however_it_is_spelled() {
        for (prefix, path, rest) in [
            ("/app", "/app/x", Some("/x")),
            ("/app", "/%61pp/%41%2f", Some("/%41%2f")),
            ("/app/", "/app/x", Some("x")),
            ("/app", "/app", Some("")),
            ("/", "/x", Some("x")),
            ("/a b", "/a%20b/c", Some("/c")),
            ("/a%2Fb", "/a%2fb/c", Some("/c")),
            ("/app", "/ap", None),
            ("/app", "/ap%2", None),
            ("/app", "/b", None),
        ] {
            let stripped = strip_prefix(path.as_bytes(), &PLAIN.read(prefix.as_bytes()));
            assert_eq!(stripped, rest.map(str::as_bytes), "{prefix} {path}");
        }
    }

    #[test]
    fn a_parent_is_seen_in_every_spelling() {
        for path in [
            "/..",
            "/a/../b",
            "/%2e%2e/b",
            "/a/.%2E",
            "/a/..;x/b",
            "/a%2f..%2fb",
            "/a\\..\\b",
            "/a%5c..",
            "/a/..%3bx",
            "/../a",
        ] {
            assert!(has_parent_segment(path.as_bytes()), "{path}");
        }
        for path in [
            "/",
            "/a/b",
            "/a..b",
            "/..a/b..",
            "/...",
            "/a/./b",
            "//a",
            "/a;..",
            "/%252e./a",
        ] {
            assert!(!has_parent_segment(path.as_bytes()), "{path}");
        }
    }

    #[test]
    fn the_query_is_no_part_of_the_path() {
        assert_eq!(without_query(b"/a?b=/../c?d"), b"/a");
        assert_eq!(without_query(b"/a"), b"/a");
        assert_eq!(without_query(b""), b"");
    }

    proptest! {
        #[test]
        fn a_clean_path_is_absolute_and_has_no_dot_segments(path in "/[a/.;%2ef\\\\]{0,40}") {
            for parameters in [Parameters::Kept, Parameters::NotOfDots, Parameters::Cut] {
                let clean = clean(path.as_bytes(), parameters);
                let clean = String::from_utf8(clean).expect("ASCII stays ASCII");
                prop_assert!(clean.starts_with('/'));
                prop_assert!(!clean.contains("//"));
                prop_assert!(clean.split('/').all(|segment| segment != "." && segment != ".."));
                prop_assert!(parameters != Parameters::Cut || !clean.contains(';'));
            }
        }

        #[test]
        fn configured_paths_are_decoded_like_those_of_requests(path in "/[a%2fF0z/.]{0,20}") {
            prop_assert_eq!(decode_path(path.as_bytes()), PLAIN.read(path.as_bytes()));
        }

        #[test]
        fn no_spelling_reaches_a_guarded_path_by_another_route(
            path in "/(admin|a|\\.|\\.\\.|;|//|%2e|%2f|%2F|\\\\|%5c|%61|/){0,12}",
        ) {
            let routes = ["/admin", "/"];
            // However a server reads it, it is guarded or not under /admin.
            if route(&routes, &path) == Some(Some(1)) {
                for reading in READINGS.into_iter().chain([PLAIN]) {
                    prop_assert!(!covers(b"/admin", &reading.read(path.as_bytes())));
                }
            }
        }

        #[test]
        fn what_covers_a_path_can_be_stripped_from_it(
            prefix in "/[a%2fe]{0,6}",
            path in "/[a/%2fe]{0,12}",
        ) {
            let prefix = PLAIN.read(prefix.as_bytes());
            let plain = PLAIN.read(path.as_bytes());
            let rest = strip_prefix(path.as_bytes(), &prefix);
            if covers(&prefix, &plain) {
                let rest = rest.expect("it is covered");
                prop_assert_eq!([&*prefix, &*PLAIN.read(rest)].concat(), plain.into_owned());
            }
        }

        #[test]
        fn plain_segments_route_by_the_longest_prefix(
            segments in proptest::collection::vec("[a-z]{1,3}", 1..6),
            cut in 0usize..6,
        ) {
            let path = format!("/{}", segments.join("/"));
            let kept = &segments[..cut.min(segments.len())];
            let prefix = format!("/{}", kept.join("/"));
            prop_assert_eq!(route(&[&prefix, "/"], &path), Some(Some(0)));
        }
    }
}
