//! Compressed responses, as curl and the codings' own decoders see them.

mod configured;
mod streams;

use std::io::Read;

use super::{PINGORA, VERSIONS, over, passing_to};
use crate::support::{Act, Gateway, Origin, Received, serving};

/// The codings, with the fields that a client sends to get each.
const CODINGS: [&str; 3] = ["zstd", "br", "gzip"];

/// A text of some length in which much is said twice.
fn text(len: usize) -> String {
    let mut text = String::new();
    for number in 0_u64.. {
        if text.len() >= len {
            break;
        }
        text += &format!(
            "line {} of {}\n",
            number.wrapping_mul(2_654_435_761),
            number
        );
    }
    text.truncate(len);
    text
}

/// Responds with a text as the path says: `/SIZE`, in chunks with `/chunked/SIZE`.
fn texts() -> Origin {
    Origin::start(|request| {
        let path = request.line().split(' ').nth(1).unwrap_or_default();
        let size = path.rsplit('/').next().and_then(|size| size.parse().ok());
        let body = text(size.unwrap_or(5_000));
        let fields = "Content-Type: text/plain; charset=utf-8\r\nETag: \"abc\"\r\n\
                      Accept-Ranges: bytes\r\nVary: Origin\r\nRepr-Digest: sha-256=:eA==:\r\n";
        let is_head = request.line().starts_with("HEAD ");
        let mut octets = match path.starts_with("/chunked") {
            true => format!("HTTP/1.1 200 OK\r\n{fields}Transfer-Encoding: chunked\r\n\r\n"),
            false => {
                let length = body.len();
                format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: {length}\r\n\r\n")
            }
        };
        if is_head {
            return vec![Act::send(octets)];
        }
        if !path.starts_with("/chunked") {
            return vec![Act::send(octets + &body)];
        }
        for chunk in body.as_bytes().chunks(3_000) {
            octets += &format!(
                "{:x}\r\n{}\r\n",
                chunk.len(),
                String::from_utf8_lossy(chunk)
            );
        }
        vec![Act::send(octets + "0\r\n\r\n")]
    })
}

fn compressing(origin: &Origin) -> Gateway {
    passing_to(origin.address(), ", compress: on").start()
}

/// What a decoder makes of the beginning of a body, or all of it.
fn decode(coding: &str, octets: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::new();
    let _ = match coding {
        "zstd" => zstd::stream::read::Decoder::new(octets)
            .expect("a decoder")
            .read_to_end(&mut decoded),
        "br" => brotli::Decompressor::new(octets, 4096).read_to_end(&mut decoded),
        _ => flate2::read::GzDecoder::new(octets).read_to_end(&mut decoded),
    };
    decoded
}

#[test]
fn curl_decodes_what_the_server_sent() {
    let origin = texts();
    let gateway = compressing(&origin);
    for version in VERSIONS {
        for coding in CODINGS {
            for path in [
                "/5000",
                "/1024",
                "/3000000",
                "/chunked/7",
                "/chunked/3000000",
            ] {
                let what = format!("{version} {coding} {path}");
                let accept = format!("Accept-Encoding: {coding}");
                let reply = over(version, &gateway, "a.test", path)
                    .args(["--compressed", "-H", &accept])
                    .send();
                assert_eq!(reply.status, 200, "{what}");
                assert_eq!(reply.header("content-encoding"), Some(coding), "{what}");
                let vary = reply.header("vary");
                assert_eq!(vary, Some("Origin, Accept-Encoding"), "{what}");
                assert_eq!(reply.header("etag"), Some("W/\"abc\""), "{what}");
                for gone in ["content-length", "accept-ranges", "repr-digest"] {
                    assert_eq!(reply.header(gone), None, "{what}");
                }
                let size = path.rsplit('/').next().expect("a size");
                let expected = text(size.parse().expect("a number"));
                assert!(reply.text() == expected, "{what}: {}", reply.body.len());
            }
        }
    }
}

#[test]
fn the_client_chooses_the_coding() {
    let origin = texts();
    let gateway = compressing(&origin);
    for version in VERSIONS {
        for (accept, coding) in [
            ("gzip, deflate, br, zstd", Some("zstd")),
            ("gzip;q=1.0, br;q=0.5", Some("gzip")),
            ("*;q=0.1, zstd;q=0", Some("br")),
            ("deflate", None),
            ("identity, gzip;q=0.5", None),
        ] {
            let accept = format!("Accept-Encoding: {accept}");
            let reply = over(version, &gateway, "a.test", "/5000")
                .args(["-H", &accept])
                .send();
            let what = format!("{version} {accept}");
            assert_eq!(reply.header("content-encoding"), coding, "{what}");
            let vary = reply.header("vary");
            assert_eq!(vary, Some("Origin, Accept-Encoding"), "{what}");
            if coding.is_none() {
                assert_eq!(reply.header("content-length"), Some("5000"), "{what}");
                assert_eq!(reply.header("etag"), Some("\"abc\""), "{what}");
                assert_eq!(reply.header("accept-ranges"), Some("bytes"), "{what}");
                assert_eq!(reply.text(), text(5_000));
            }
        }
        // What is small is compressed only for a client that takes nothing else.
        for (accept, coding) in [("gzip", None), ("gzip, identity;q=0", Some("gzip"))] {
            let accept = format!("Accept-Encoding: {accept}");
            let reply = over(version, &gateway, "a.test", "/1023")
                .args(["--compressed", "-H", &accept])
                .send();
            assert_eq!(reply.header("content-encoding"), coding, "{accept}");
            assert_eq!(reply.text(), text(1_023));
        }
    }
}

#[test]
fn a_head_is_the_same_with_and_without_its_body() {
    let origin = texts();
    let gateway = compressing(&origin);
    let accept = ["-H", "Accept-Encoding: br"];
    for version in VERSIONS {
        for path in ["/5000", "/chunked/5000", "/10"] {
            let fields = |more: &str| {
                let get = over(version, &gateway, "a.test", path).args(accept);
                let reply = get.arg(more).send();
                let mut fields: Vec<String> = reply.head.lines().map(str::to_owned).collect();
                fields.retain(|line| {
                    let line = line.to_ascii_lowercase();
                    !line.starts_with("x-request-id") && !line.starts_with("date")
                });
                // Of an unknown length nothing need be said.
                fields.retain(|line| !line.starts_with("Transfer-Encoding"));
                fields
            };
            assert_eq!(fields("--head"), fields("--include"), "{version} {path}");
        }
    }
}

#[test]
fn a_client_of_http_1_0_gets_no_coding() {
    let origin = texts();
    let gateway = compressing(&origin);
    for path in ["/5000", "/chunked/5000"] {
        let reply = gateway
            .curl("a.test", path)
            .cacert(&gateway.dir().join("root.pem"))
            .args(["--http1.0", "-H", "Accept-Encoding: gzip"])
            .send();
        assert_eq!(reply.header("content-encoding"), None);
        assert_eq!(reply.header("vary"), Some("Origin, Accept-Encoding"));
        assert_eq!(reply.text(), text(5_000));
    }
}

#[test]
fn some_responses_are_left_as_they_are() {
    let body = text(5_000);
    let length = body.len();
    let kinds = [
        ("encoded", "200 OK", "Content-Encoding: x", true),
        ("fixed", "200 OK", "Cache-Control: no-transform", false),
        ("image", "200 OK", "Content-Type: image/png", false),
        (
            "grpc",
            "200 OK",
            "Content-Type: application/grpc+json",
            false,
        ),
        ("events", "200 OK", "Content-Type: text/event-stream", false),
        ("untyped", "200 OK", "X: y", false),
        (
            "part",
            "206 Partial",
            "Content-Range: bytes 0-4999/9999",
            true,
        ),
    ];
    let served = body.clone();
    let origin = Origin::start(move |request| {
        let is_asked = |kind: &str| request.line().contains(kind);
        let kind = kinds.iter().find(|(kind, ..)| is_asked(kind));
        let (kind, status, field, _) = kind.expect("a kind");
        let media = match *kind {
            "encoded" | "fixed" | "part" => "Content-Type: text/plain\r\n",
            _ => "",
        };
        let head = format!("HTTP/1.1 {status}\r\n{media}{field}\r\nContent-Length: {length}");
        vec![Act::send(format!("{head}\r\n\r\n{served}"))]
    });
    let gateway = compressing(&origin);
    for version in VERSIONS {
        for (kind, _, field, varies) in kinds {
            let reply = over(version, &gateway, "a.test", &format!("/{kind}"))
                .args(["-H", "Accept-Encoding: gzip, br, zstd"])
                .send();
            let coding = reply.header("content-encoding");
            assert_eq!(coding, (kind == "encoded").then_some("x"), "{kind}");
            assert!(reply.text() == body, "{kind}");
            assert_eq!(reply.header("content-length"), Some("5000"), "{kind}");
            let vary = varies.then_some("Accept-Encoding");
            assert_eq!(reply.header("vary"), vary, "{kind} {field}");
        }
        let reply = over(version, &gateway, "a.test", "/part")
            .args([
                "-H",
                "Accept-Encoding: gzip",
                "-H",
                "Cache-Control: no-transform",
            ])
            .send();
        assert_eq!(reply.header("vary"), None);
    }
}

#[test]
fn a_copy_is_revalidated_with_its_weak_tag() {
    // As the standard has it: weak tags match strong ones.
    let matches = |request: &Received| {
        let tags = request.header("if-none-match").unwrap_or_default();
        tags.split(',')
            .any(|tag| tag.trim().trim_start_matches("W/") == "\"abc\"")
    };
    let origin = Origin::start(move |request| match matches(request) {
        true => vec![Act::send(
            "HTTP/1.1 304 Not Modified\r\nETag: \"abc\"\r\n\r\n",
        )],
        false => {
            let fields = "Content-Type: text/html\r\nETag: \"abc\"\r\nContent-Length: 5000";
            let head = format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n");
            vec![Act::send(head + &text(5_000))]
        }
    });
    let gateway = compressing(&origin);
    for version in VERSIONS {
        let get = |tag: &str| {
            let field = format!("If-None-Match: {tag}");
            over(version, &gateway, "a.test", "/")
                .args(["-H", "Accept-Encoding: gzip", "-H", &field])
                .send()
        };
        let first = get("\"other\"");
        assert_eq!(
            (first.status, first.header("etag")),
            (200, Some("W/\"abc\""))
        );
        for tag in ["W/\"abc\"", "\"abc\""] {
            let again = get(tag);
            assert_eq!((again.status, again.header("etag")), (304, Some(tag)));
            assert_eq!(again.header("vary"), Some("Accept-Encoding"));
            let requests = origin.requests();
            let asked = requests
                .last()
                .and_then(|last| last.header("if-none-match"));
            assert_eq!(asked, Some(tag), "{version}");
        }
    }
}

#[test]
fn a_route_says_how_and_a_site_for_its_routes() {
    let origin = texts();
    let routes = "compress: { algorithms: [gzip, br], min_size: 100B, level: best }, routes: [\
                  { upstream: app }, { path: /chunked, upstream: app, compress: off }, \
                  { path: /10, upstream: app, compress: { types: [text/html] } }, \
                  { path: /respond, respond: { body: text } }]";
    let upstream = format!(
        "upstreams: {{ app: {{ servers: [\"{}\"] }} }}\n",
        origin.address()
    );
    let sites = |keys: &str| format!("{upstream}sites: [{{ hosts: [a.test], {keys} }}]\n");
    // Over Pingora's lane a request that needs the gateway's own takes that.
    let builder = serving(&[&["a.test"]], sites(routes)).over_own_lane();
    let mut gateway = builder.run_by(&PINGORA).start();
    for version in VERSIONS {
        let coding = |path: &str, accept: &str| {
            let accept = format!("Accept-Encoding: {accept}");
            let reply = over(version, &gateway, "a.test", path)
                .args(["-H", &accept])
                .send();
            reply.header("content-encoding").map(str::to_owned)
        };
        let some = |coding: &str| Some(coding.to_owned());
        assert_eq!(coding("/101", "zstd, br, gzip"), some("gzip"));
        assert_eq!(coding("/101", "zstd, br"), some("br"));
        assert_eq!(coding("/101", "zstd"), None);
        assert_eq!(coding("/99", "gzip"), None);
        assert_eq!(coding("/chunked/5000", "gzip"), None);
        assert_eq!(coding("/10/5000", "gzip"), None);
        assert_eq!(coding("/respond", "gzip"), None);
    }
    let certificates = "certificates: [{ directory: certs }]\n";
    gateway.replace_config(certificates.to_owned() + &sites("upstream: app, compress: on"));
    assert_eq!(gateway.reload().0, 200);
    for version in VERSIONS {
        let reply = over(version, &gateway, "a.test", "/chunked/5000")
            .args(["--compressed", "-H", "Accept-Encoding: zstd, gzip"])
            .send();
        assert_eq!(reply.header("content-encoding"), Some("zstd"));
        assert_eq!(reply.text(), text(5_000));
    }
}
