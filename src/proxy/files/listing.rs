//! The page that lists a directory.

use std::fmt::Write as _;
use std::fs::File;
use std::io;

use bytes::Bytes;
use rustix::fs::{Dir, FileType};

/// The most entries of a page.
const MAX_ENTRIES: usize = 10_000;

/// An entry of a directory. Directories come first, each kind by name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    is_file: bool,
    name: Vec<u8>,
}

/// The page for a directory, which is at `path` as the client sent it.
pub(super) fn list_directory(
    directory: &File,
    path: &[u8],
    is_root: bool,
    hidden: bool,
) -> io::Result<Bytes> {
    let mut entries = Vec::new();
    let mut has_more = false;
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        let is_file = match entry.file_type() {
            FileType::Directory => false,
            FileType::RegularFile | FileType::Symlink | FileType::Unknown => true,
            _ => continue,
        };
        if name == b"." || name == b".." || (!hidden && name.starts_with(b".")) {
            continue;
        }
        if entries.len() == MAX_ENTRIES {
            has_more = true;
            break;
        }
        let name = name.to_vec();
        entries.push(Entry { is_file, name });
    }
    entries.sort_unstable();
    Ok(page(&entries, path, is_root, has_more).into())
}

fn page(entries: &[Entry], path: &[u8], is_root: bool, has_more: bool) -> String {
    let mut title = "Files in ".to_owned();
    escape(path, &mut title);
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>{title}</title>\n\
         <h1>{title}</h1>\n<ul>\n"
    );
    if !is_root {
        page.push_str("<li><a href=\"../\">../</a>\n");
    }
    for entry in entries {
        let slash = if entry.is_file { "" } else { "/" };
        // Not even a name with a colon reads as a URL with a scheme.
        page.push_str("<li><a href=\"./");
        for &octet in &entry.name {
            match octet {
                b'-' | b'.' | b'_' | b'~' => page.push(char::from(octet)),
                _ if octet.is_ascii_alphanumeric() => page.push(char::from(octet)),
                _ => _ = write!(page, "%{octet:02X}"),
            }
        }
        _ = write!(page, "{slash}\">");
        escape(&entry.name, &mut page);
        _ = writeln!(page, "{slash}</a>");
    }
    page.push_str("</ul>\n");
    if has_more {
        _ = writeln!(page, "<p>Only {MAX_ENTRIES} entries are listed.</p>");
    }
    page
}

/// Appends a text as HTML.
fn escape(text: &[u8], page: &mut String) {
    for char in String::from_utf8_lossy(text).chars() {
        match char {
            '&' => page.push_str("&amp;"),
            '<' => page.push_str("&lt;"),
            '>' => page.push_str("&gt;"),
            '"' => page.push_str("&quot;"),
            '\'' => page.push_str("&#39;"),
            char if char.is_control() => page.push('\u{fffd}'),
            char => page.push(char),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::fs;
    use std::os::unix::ffi::OsStrExt as _;

    use super::*;

    #[test]
    fn hostile_names_stay_names() {
        let directory = tempfile::tempdir().expect("a directory");
        for name in [
            &b"<script>alert(1)<"[..],
            b"javascript:alert(1)",
            b"\" onclick=\"x",
            b"a\nb",
            b"\xff.txt",
            b".hidden",
            b"%2e%2e",
            b"?a#b&c'd",
        ] {
            let path = directory.path().join(OsStr::from_bytes(name));
            fs::write(path, "").expect("a file");
        }
        fs::create_dir(directory.path().join("z")).expect("a directory");
        let file = File::open(directory.path()).expect("a directory");
        let listed = |hidden| {
            let page = list_directory(&file, b"/<a>/", false, hidden).expect("a page");
            String::from_utf8(page.to_vec()).expect("text")
        };
        let page = listed(false);
        let items: Vec<_> = page
            .lines()
            .filter(|line| line.starts_with("<li>"))
            .collect();
        assert_eq!(
            items,
            [
                "<li><a href=\"../\">../</a>",
                "<li><a href=\"./z/\">z/</a>",
                "<li><a href=\"./%22%20onclick%3D%22x\">&quot; onclick=&quot;x</a>",
                "<li><a href=\"./%252e%252e\">%2e%2e</a>",
                "<li><a href=\"./%3Cscript%3Ealert%281%29%3C\">&lt;script&gt;alert(1)&lt;</a>",
                "<li><a href=\"./%3Fa%23b%26c%27d\">?a#b&amp;c&#39;d</a>",
                "<li><a href=\"./a%0Ab\">a\u{fffd}b</a>",
                "<li><a href=\"./javascript%3Aalert%281%29\">javascript:alert(1)</a>",
                "<li><a href=\"./%FF.txt\">\u{fffd}.txt</a>",
            ]
        );
        assert!(page.contains("<h1>Files in /&lt;a&gt;/</h1>"), "{page}");
        assert!(listed(true).contains("\"./.hidden\""));
    }
}
