//! What responses with files say, and to whom.

use std::fs;

use super::{VERSIONS, over, with_route, with_site, write};
use crate::support::wait_for;

#[test]
fn a_file_is_served_with_what_describes_it() {
    let gateway = with_site(
        "  hsts: { max_age: 1d }\n",
        "{ files: { root: www }, response_headers: { set: { Cache-Control: max-age=60, X-Id: \"{request_id}\" } } }",
    )
    .start();
    for (number, version) in VERSIONS.into_iter().enumerate() {
        let reply = over(version, &gateway, "/a.txt?x=y").send();
        assert_eq!((reply.status, reply.text()), (200, "0123456789".to_owned()));
        let etag = reply.header("etag").expect("an entity tag").to_owned();
        assert!(etag.starts_with('"') && etag.ends_with("-a\""), "{etag}");
        let modified = reply.header("last-modified").expect("a date");
        assert!(modified.ends_with(" GMT"), "{modified}");
        for (name, value) in [
            ("content-type", "text/plain; charset=utf-8"),
            ("content-length", "10"),
            ("accept-ranges", "bytes"),
            ("vary", "Accept-Encoding"),
            ("cache-control", "max-age=60"),
            ("strict-transport-security", "max-age=86400"),
            ("x-id", reply.header("x-request-id").expect("an id")),
        ] {
            assert_eq!(reply.header(name), Some(value), "{name} over {version}");
        }
        assert!(reply.header("date").is_some() && reply.header("content-encoding").is_none());
        let line = wait_for("a line in the access log", || {
            let log = fs::read_to_string(gateway.dir().join("access.log")).unwrap_or_default();
            log.lines().nth(number * 2).map(str::to_owned)
        });
        assert!(line.contains("\" 200 10 "), "{line}");

        let head = over(version, &gateway, "/a.txt").arg("--head").send();
        assert_eq!((head.status, head.text()), (200, String::new()));
        assert_eq!(head.header("content-length"), Some("10"));
        assert_eq!(head.header("etag"), Some(&*etag));
    }
}

#[test]
fn other_methods_are_refused() {
    let gateway = with_route("files: { root: www }").start();
    for version in VERSIONS {
        for method in ["POST", "PUT", "DELETE", "OPTIONS", "PROPFIND"] {
            let reply = over(version, &gateway, "/a.txt")
                .args(["--request", method, "--data", "x"])
                .send();
            assert_eq!(
                (reply.status, reply.header("allow")),
                (405, Some("GET, HEAD"))
            );
        }
    }
}

#[test]
fn conditional_requests_are_answered() {
    let gateway = with_route("files: { root: www }").start();
    for version in VERSIONS {
        let whole = over(version, &gateway, "/a.txt").send();
        let etag = whole.header("etag").expect("an entity tag");
        let modified = whole.header("last-modified").expect("a date");
        let ask = |fields: &[String]| {
            let mut curl = over(version, &gateway, "/a.txt");
            for field in fields {
                curl = curl.arg("--header").arg(field);
            }
            curl.send()
        };
        for field in [
            format!("If-None-Match: \"x\", {etag}"),
            format!("If-Modified-Since: {modified}"),
        ] {
            let reply = ask(&[field]);
            assert_eq!((reply.status, reply.text()), (304, String::new()));
            assert_eq!(reply.header("etag"), Some(etag));
            assert_eq!(reply.header("vary"), Some("Accept-Encoding"));
            assert_eq!(reply.header("content-length"), None);
        }
        let failed = ask(&["If-Match: \"x\"".to_owned()]);
        assert_eq!(failed.status, 412);
        assert!(!failed.text().contains("0123456789"));
        let matched = ask(&[
            format!("If-Match: {etag}"),
            "If-None-Match: \"x\"".to_owned(),
        ]);
        assert_eq!(
            (matched.status, matched.text()),
            (200, "0123456789".to_owned())
        );
    }
}

#[test]
fn ranges_are_served() {
    let gateway = with_route("files: { root: www }").start();
    for version in VERSIONS {
        let etag = over(version, &gateway, "/a.txt").send();
        let etag = etag.header("etag").expect("an entity tag").to_owned();
        for (range, if_range, status, part, content_range) in [
            ("bytes=2-4", None, 206, "234", Some("bytes 2-4/10")),
            ("bytes=-3", None, 206, "789", Some("bytes 7-9/10")),
            ("bytes=8-99", None, 206, "89", Some("bytes 8-9/10")),
            ("bytes=0-", None, 206, "0123456789", Some("bytes 0-9/10")),
            ("bytes=2-4", Some(&*etag), 206, "234", Some("bytes 2-4/10")),
            ("bytes=2-4", Some("\"x\""), 200, "0123456789", None),
            ("bytes=0-1,4-5", None, 200, "0123456789", None),
            ("bytes=4-2", None, 200, "0123456789", None),
        ] {
            let mut curl =
                over(version, &gateway, "/a.txt").args(["--header", &format!("Range: {range}")]);
            if let Some(if_range) = if_range {
                curl = curl.args(["--header", &format!("If-Range: {if_range}")]);
            }
            let reply = curl.send();
            assert_eq!((reply.status, &*reply.text()), (status, part), "{range}");
            assert_eq!(reply.header("content-range"), content_range, "{range}");
            assert_eq!(
                reply.header("content-length"),
                Some(&*part.len().to_string())
            );
        }
        let beyond = over(version, &gateway, "/a.txt")
            .args(["--header", "Range: bytes=10-"])
            .send();
        assert_eq!(beyond.status, 416);
        assert_eq!(beyond.header("content-range"), Some("bytes */10"));
    }
}

#[test]
fn a_compressed_neighbour_is_sent_to_whoever_takes_it() {
    let builder = with_route("files: { root: www }");
    write(
        &builder.dir().join("www"),
        &[
            ("x.css", "plain"),
            ("x.css.br", "brotli"),
            ("x.css.gz", "gzipped"),
            ("y.png", "image"),
            ("y.png.gz", "gzipped"),
        ],
    );
    let gateway = builder.start();
    for version in VERSIONS {
        let ask = |path, accepted: &str, more: &str| {
            over(version, &gateway, path)
                .args(["--header", &format!("Accept-Encoding: {accepted}")])
                .args(["--header", more])
                .send()
        };
        let plain = over(version, &gateway, "/x.css").send();
        let mut tags = vec![plain.header("etag").expect("a tag").to_owned()];
        for (accepted, coding, text) in [
            ("gzip, br, zstd", Some("br"), "brotli"),
            ("gzip", Some("gzip"), "gzipped"),
            ("zstd", None, "plain"),
            ("br;q=0", None, "plain"),
        ] {
            let reply = ask("/x.css", accepted, "X: y");
            assert_eq!((reply.status, &*reply.text()), (200, text), "{accepted}");
            assert_eq!(reply.header("content-encoding"), coding);
            assert_eq!(
                reply.header("content-type"),
                Some("text/css; charset=utf-8")
            );
            assert_eq!(reply.header("vary"), Some("Accept-Encoding"));
            tags.push(reply.header("etag").expect("a tag").to_owned());
        }
        tags.sort_unstable();
        tags.dedup();
        assert_eq!(tags.len(), 3, "each form has its own: {tags:?}");
        let part = ask("/x.css", "br", "Range: bytes=1-3");
        assert_eq!((part.status, &*part.text()), (206, "rot"));
        let image = ask("/y.png", "gzip", "X: y");
        assert_eq!((&*image.text(), image.header("vary")), ("image", None));
    }
}

#[test]
fn a_file_is_compressed_if_no_neighbour_is() {
    let builder = with_site(
        "  compress: { min_size: 100B }\n",
        "{ path: /plain, strip_prefix: true, files: { root: www }, compress: off }, { files: { root: www } }",
    );
    let long = "the same again and again\n".repeat(10_000);
    write(
        &builder.dir().join("www"),
        &[
            ("long.txt", &*long),
            ("has.txt", &*long),
            ("has.txt.gz", "neighbour"),
            ("image.png", &*long),
        ],
    );
    let gateway = builder.start();
    for (number, version) in VERSIONS.into_iter().enumerate() {
        let get = |path: &str| over(version, &gateway, path).arg("--compressed");
        let plain = over(version, &gateway, "/long.txt").send();
        let strong = plain.header("etag").expect("a tag").to_owned();
        assert_eq!(plain.header("content-encoding"), None);
        assert_eq!(plain.text(), long);

        let reply = get("/long.txt").send();
        assert_eq!(reply.text(), long);
        let weak = format!("W/{strong}");
        for (name, value) in [
            ("etag", Some(&*weak)),
            ("vary", Some("Accept-Encoding")),
            ("content-length", None),
            ("accept-ranges", None),
        ] {
            assert_eq!(reply.header(name), value, "{name} over {version}");
        }
        assert!(reply.header("content-encoding").is_some());
        let line = wait_for("a line in the access log", || {
            let log = fs::read_to_string(gateway.dir().join("access.log")).unwrap_or_default();
            log.lines().nth(number * 12 + 1).map(str::to_owned)
        });
        assert!(!line.contains(&format!(" {} ", long.len())), "{line}");

        let head = get("/long.txt").arg("--head").send();
        assert_eq!(head.header("etag"), Some(&*weak));
        assert!(head.header("content-encoding").is_some());
        // Whoever has an encoded copy learns that it is current.
        for tag in [&strong, &weak] {
            let condition = format!("If-None-Match: {tag}");
            let known = get("/long.txt").args(["-H", &condition]).send();
            assert_eq!((known.status, known.header("etag")), (304, Some(&**tag)));
            assert_eq!(known.header("vary"), Some("Accept-Encoding"));
        }
        let part = get("/long.txt").args(["-H", "Range: bytes=0-7"]).send();
        assert_eq!((part.status, part.text()), (206, "the same".to_owned()));
        assert_eq!(part.header("content-encoding"), None);
        for (path, is_varied) in [
            ("/plain/long.txt", true),
            ("/a.txt", true),
            ("/image.png", false),
            ("/none.txt", false),
        ] {
            let reply = get(path).send();
            assert_eq!(reply.header("content-encoding"), None, "{path}");
            assert_eq!(reply.header("vary").is_some(), is_varied, "{path}");
        }
        let neighbour = over(version, &gateway, "/has.txt")
            .args(["-H", "Accept-Encoding: gzip, zstd;q=0.5"])
            .send();
        assert_eq!(neighbour.text(), "neighbour");
        assert_eq!(neighbour.header("content-encoding"), Some("gzip"));
        let other = over(version, &gateway, "/has.txt")
            .args(["-H", "Accept-Encoding: zstd"])
            .send();
        assert_eq!(other.header("content-encoding"), Some("zstd"));
    }
}
