//! Targets for fuzzing: bodies, and what is read of the fields and the target of a request.

#![allow(clippy::panic, reason = "a target fails by a panic")]

use std::net::IpAddr;

use bytes::BytesMut;

use super::accept_encoding::{choose_coding, forbids_changes};
use super::files::{Codings, Conditions, Extent, FilePath, Version};
use super::framing::Framing;
use super::path;
use super::request::{Fields, Relayed, Request, origin_form};
use super::trailers::{parse_trailers, write_last_chunk};
use crate::config::model::{self, Network, NetworkSet};

pub(crate) use super::forward::response::fuzzing::response_head;

/// A body as it was taken.
#[derive(Debug, Default, PartialEq, Eq)]
struct Taken {
    data: Vec<u8>,
    trailers: Vec<u8>,
    rest: Vec<u8>,
    is_done: bool,
    is_malformed: bool,
}

/// A body in chunks. The first octet says how large the pieces are in which it arrives.
///
/// # Panics
/// If it depends on how the octets arrive, or if another parser reads another body.
pub(crate) fn chunked_body(octets: &[u8]) {
    let Some((&size, octets)) = octets.split_first() else {
        return;
    };
    let size = usize::from(size).max(1);
    let whole = take_body(&mut [octets].into_iter());
    let pieces = take_body(&mut octets.chunks(size));
    assert_eq!(whole, pieces, "in pieces of {size}");

    let mut framing = Framing::chunked();
    let consumed = octets.chunks(size).try_fold(0, |sum, piece| {
        framing.consume(piece).map(|here| sum + here)
    });
    match consumed {
        Ok(consumed) => {
            assert!(!whole.is_malformed);
            assert_eq!(consumed, octets.len() - whole.rest.len());
            assert_eq!(framing.is_done(), whole.is_done);
        }
        Err(_) => assert!(whole.is_malformed),
    }
    if whole.is_done {
        let (data, trailers, len) = decode_simply(octets).unwrap_or_default();
        assert_eq!((&data, &trailers), (&whole.data, &whole.trailers));
        assert_eq!(octets.get(len..), Some(&*whole.rest));
        let fields = parse_trailers(&trailers);
        let written = write_last_chunk(&fields);
        let lines = written.strip_prefix(b"0\r\n");
        let lines = lines.and_then(|lines| lines.strip_suffix(b"\r\n"));
        assert_eq!(parse_trailers(lines.unwrap_or_default()), fields);
    }
}

fn take_body(pieces: &mut dyn Iterator<Item = &[u8]>) -> Taken {
    let (mut framing, mut buffer) = (Framing::chunked(), BytesMut::new());
    let mut taken = Taken::default();
    for piece in pieces {
        buffer.extend_from_slice(piece);
        while !framing.is_done() && !buffer.is_empty() {
            let before = buffer.len();
            match framing.take_data(&mut buffer, &mut taken.trailers) {
                Ok(data) => taken.data.extend_from_slice(&data),
                Err(_) => {
                    // What was read of the trailers depends on how they arrived, and is of no use.
                    taken.trailers.clear();
                    taken.is_malformed = true;
                    return taken;
                }
            }
            assert!(buffer.len() < before, "nothing is taken");
        }
    }
    taken.rest = buffer.to_vec();
    taken.is_done = framing.is_done();
    taken
}

/// The data of a whole body, the lines of its trailers, and its length.
fn decode_simply(octets: &[u8]) -> Option<(Vec<u8>, Vec<u8>, usize)> {
    let (mut data, mut rest) = (Vec::new(), octets);
    loop {
        let Ok(httparse::Status::Complete((at, size))) = httparse::parse_chunk_size(rest) else {
            return None;
        };
        rest = rest.get(at..)?;
        if size == 0 {
            break;
        }
        let (chunk, after) = rest.split_at_checked(usize::try_from(size).ok()?)?;
        data.extend_from_slice(chunk);
        rest = after.strip_prefix(b"\r\n")?;
    }
    let end = match rest.starts_with(b"\r\n") {
        true => 0,
        false => memchr::memmem::find(rest, b"\r\n\r\n")? + 2,
    };
    let (trailers, rest) = rest.split_at_checked(end)?;
    Some((data, trailers.to_vec(), octets.len() - rest.len() + 2))
}

/// `X-Forwarded-For`, `Forwarded` and the like. The first octet of a line says which field it is.
/// The first line is what the client sends, to which its proxies append the others.
///
/// # Panics
/// If what a client sends changes what its proxies say, or if another reading finds another client.
pub(crate) fn forwarded(octets: &[u8]) {
    let is_good = |octet: &u8| *octet >= b' ' || *octet == b'\t';
    let clean = |line: &[u8]| -> Vec<u8> {
        let good = line
            .iter()
            .filter(|octet| is_good(octet) && **octet != 0x7f);
        good.copied().collect()
    };
    let mut lines = octets.split(|&octet| octet == b'\n').map(clean);
    let claim = lines.next().unwrap_or_default();
    let fields: Vec<(&str, Vec<u8>)> = lines
        .filter_map(|line| {
            let (kind, value) = line.split_first()?;
            let name = match kind {
                b'f' => "Forwarded",
                b'o' => "X-Forwarded-Port",
                b'p' => "X-Forwarded-Proto",
                _ => "x-forwarded-for",
            };
            Some((name, value.to_vec()))
        })
        .collect();
    let Ok(networks) = ["10.0.0.0/8", "2001:db8::/32"]
        .into_iter()
        .map(str::parse::<Network>)
        .collect::<Result<NetworkSet, _>>()
    else {
        return;
    };
    let peer = IpAddr::from([10, 0, 0, 1]);
    let stranger = IpAddr::from([192, 0, 2, 1]);
    assert_eq!(relayed(&fields, stranger, &networks), None);
    let Some(found) = relayed(&fields, peer, &networks) else {
        panic!("a trusted proxy is not believed");
    };

    // The client comes first, and after it only proxies that are trusted.
    let chain: Vec<IpAddr> = found
        .chain
        .split(", ")
        .filter_map(|address| address.parse().ok())
        .collect();
    assert_eq!(chain.len(), found.chain.split(", ").count());
    assert_eq!(chain.first(), Some(&found.client));
    assert_eq!(chain.last(), Some(&peer));
    let mut proxies = chain.iter().skip(1);
    assert!(proxies.all(|address| networks.contains(*address)));

    let of_name = |name: &str| -> Vec<&[u8]> {
        let found = fields.iter().filter(|(other, _)| *other == name);
        found.map(|(_, value)| value.as_slice()).collect()
    };
    let is_forwarded =
        of_name("x-forwarded-for").is_empty() && of_name("X-Forwarded-Proto").is_empty();
    if !is_forwarded {
        let list = of_name("x-forwarded-for").join(&b","[..]);
        assert_eq!(client_simply(&list, peer, &networks), found.client);
        let joined: Vec<_> = ["X-Forwarded-Proto", "X-Forwarded-Port", "x-forwarded-for"]
            .into_iter()
            .map(|name| (name, of_name(name).join(&b","[..])))
            .filter(|(_, value)| !value.is_empty())
            .collect();
        if joined.iter().any(|(name, _)| *name != "X-Forwarded-Port") {
            assert_eq!(relayed(&joined, peer, &networks).as_ref(), Some(&found));
        }
    }

    // Whatever a client sends, its proxies append to it, or send it in a field before theirs.
    if networks.contains(found.client) {
        return;
    }
    let name = if is_forwarded {
        "Forwarded"
    } else {
        "x-forwarded-for"
    };
    let mut before = fields.clone();
    before.insert(0, (name, claim.clone()));
    assert_eq!(relayed(&before, peer, &networks).as_ref(), Some(&found));
    let mut appended = fields;
    if let Some((_, value)) = appended.iter_mut().find(|(other, _)| *other == name) {
        let claim = [&claim[..], b", "].concat();
        value.splice(0..0, claim);
        assert_eq!(relayed(&appended, peer, &networks).as_ref(), Some(&found));
    }
}

fn relayed(fields: &[(&str, Vec<u8>)], peer: IpAddr, trusted: &NetworkSet) -> Option<Relayed> {
    let mut lines = b"GET / HTTP/1.1\r\n".to_vec();
    for (name, value) in fields {
        lines.extend([name.as_bytes(), b": ", value, b"\r\n"].concat());
    }
    let request = Request {
        client: Some(peer),
        ..request_with(&lines)
    };
    Some(Relayed::clone(&*Relayed::of(&request, trusted)?))
}

/// The rightmost address that is not trusted, of those before the first that is malformed.
fn client_simply(list: &[u8], peer: IpAddr, trusted: &NetworkSet) -> IpAddr {
    let list = String::from_utf8_lossy(list);
    let elements = list.split(',').rev().map(|element| {
        // As other parsers of HTTP trim.
        element.trim_matches([' ', '\t'])
    });
    let mut client = peer;
    for element in elements.filter(|element| !element.is_empty()) {
        if !trusted.contains(client) {
            break;
        }
        let with_port = element
            .parse()
            .ok()
            .filter(|address: &std::net::SocketAddr| {
                let is_scoped = element.contains('%');
                address.port() != 0 && !is_scoped
            });
        let bracketed = element
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'));
        let bracketed = bracketed.filter(|address| address.contains(':'));
        let found = match (element.parse(), with_port) {
            (Ok(address), _) => Some(address),
            (Err(_), Some(address)) => Some(address.ip()),
            (Err(_), None) => bracketed.and_then(|address| address.parse().ok()),
        };
        match found {
            Some(address) => client = IpAddr::to_canonical(&address),
            None => break,
        }
    }
    client
}

/// A request with these lines.
fn request_with(lines: &[u8]) -> Request<'_> {
    Request {
        method: "GET",
        target: b"/",
        authority: b"a",
        version: "HTTP/1.1",
        fields: Fields::Lines(lines),
        client: None,
        port: None,
        tls: None,
        socket: None,
        accepted: None,
        relayed: None,
    }
}

/// The fields of a request for a file: conditions, ranges, codings, cookies. They follow the length
/// of the file in two octets.
///
/// # Panics
/// If what is sent is no part of the file, or in a coding that the client does not know.
pub(crate) fn file_request(octets: &[u8]) {
    let Some((length, lines)) = octets.split_first_chunk::<2>() else {
        return;
    };
    let length = u64::from(u16::from_be_bytes(*length));
    let mut head = b"GET / HTTP/1.1\r\n".to_vec();
    head.extend(lines);
    let request = request_with(&head);
    let version = Version {
        etag: "\"a-b\"".to_owned(),
        modified: 784_111_777,
    };
    let extent = Conditions::of(&request).extent(&version, length);
    if let Extent::Part(part) = &extent {
        assert!(
            part.start < part.end && part.end <= length,
            "{part:?} of {length}"
        );
    }
    if request.fields.get(&http::header::RANGE).is_empty() {
        assert!(!matches!(extent, Extent::Part(_) | Extent::Unsatisfiable));
    }

    let values: Vec<_> = request
        .fields
        .iter()
        .filter(|(name, _)| name.eq_ignore_ascii_case(b"accept-encoding"))
        .map(|(_, value)| value.to_ascii_lowercase())
        .collect();
    let accepted = values.concat();
    let names = |name: &str| memchr::memmem::find(&accepted, name.as_bytes()).is_some();
    let preference = choose_coding(request.fields, &model::Coding::ALL);
    if let Some(coding) = preference.coding {
        assert!(names(coding.as_str()) || names("*"), "{coding:?}");
    }
    for coding in Codings::of(&accepted).iter() {
        assert!(names(coding.token()) || names("*"), "{coding:?}");
    }
    _ = forbids_changes(request.fields);
    for value in request.cookies("snigate") {
        assert!(!value.is_empty() && !value.contains(&b';'));
    }
}

/// The path of a request.
///
/// # Panics
/// If a file would be looked for outside its root, or if two ways to read the path contradict each
/// other.
pub(crate) fn request_path(octets: &[u8]) {
    let target = origin_form(octets);
    let path = path::without_query(target);
    if let Some(file) = FilePath::of(path) {
        let mut names = file.names().split(|&octet| octet == b'/');
        assert!(
            file.names().is_empty() || names.all(|name| !matches!(name, b"" | b"." | b"..")),
            "{}",
            file.names().escape_ascii()
        );
        assert!(!file.names().contains(&0));
    }
    // Nobody takes a plain path for another one.
    let plain = path::read_plainly(path);
    let is_plain = |octet: &u8| octet.is_ascii_alphanumeric() || *octet == b'/';
    let has_plain_octets = path.starts_with(b"/") && path.iter().all(is_plain);
    if has_plain_octets && memchr::memmem::find(path, b"//").is_none() {
        assert_eq!(&*plain, path);
        assert_eq!(path::resolve(path, <[u8]>::to_vec), Some(path.to_vec()));
        assert!(!path::has_parent_segment(path));
    }
    // A prefix that a path has can be stripped from it.
    for end in 1..=plain.len().min(64) {
        let prefix = plain.get(..end).unwrap_or_default();
        if path::covers(prefix, &plain) {
            let rest = path::strip_prefix(path, prefix);
            let rest = rest.map(|rest| path::read_plainly(rest).into_owned());
            assert_eq!(
                rest.as_deref(),
                plain.get(end..),
                "{}",
                prefix.escape_ascii()
            );
        }
    }
    // If every reading leads below a folder, the path does not leave it.
    let below = path::resolve(path, |path| path::covers(b"/a", path));
    if below == Some(true) && path.starts_with(b"/") {
        let file = FilePath::of(path);
        assert!(
            file.is_none_or(|file| path::covers(b"a", file.names())),
            "{}",
            path.escape_ascii()
        );
    }
}
