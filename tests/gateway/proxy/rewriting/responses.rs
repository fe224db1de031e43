//! Changes of responses.

use super::super::{VERSIONS, all, over};
use super::{on_both_lanes, yaml};
use crate::support::{Act, Origin};

#[test]
fn fields_of_responses_are_changed_whoever_responds() {
    let origin = Origin::start(|_| {
        vec![Act::send(
            "HTTP/1.1 103 Early Hints\r\nServer: origin\r\nLink: early\r\n\r\n\
             HTTP/1.1 200 OK\r\nServer: origin\r\nx-frame: origin\r\nLink: one\r\n\
             Content-Length: 2\r\n\r\nok",
        )]
    });
    let edits = r#"response_headers: { set: { X-Frame: "for {path}", Cache-Control: public, Content-Type: a/b }, add: { Link: [two, three] }, remove: [Server] }"#;
    let gone = Origin::refusing();
    let yaml = yaml(
        &origin,
        &format!(
            "  - {{ path: /own, respond: {{ body: own }}, {edits} }}\n  \
             - {{ path: /moved, redirect: {{ to: /own }}, {edits} }}\n  \
             - {{ path: /led, redirect: {{ to: \"https://b.test{{path}}\" }}, {edits} }}\n  \
             - {{ path: /gone, upstream: gone, {edits} }}\n  \
             - {{ path: /plain, upstream: app }}\n  \
             - {{ upstream: app, {edits} }}\n"
        ),
    );
    let gone = format!(
        "upstreams:\n  gone: {{ servers: [\"{}\"] }}\n",
        gone.address()
    );
    let gateways = on_both_lanes(&yaml.replace("upstreams:\n", &gone));
    for gateway in &gateways {
        for version in VERSIONS {
            for (path, status, links, kind, cache) in [
                ("/x", 200, &["one", "two", "three"][..], "a/b", "public"),
                ("/own", 200, &["two", "three"], "a/b", "public"),
                // What describes a body is not for a redirect.
                ("/moved", 302, &["two", "three"], "", "public"),
                ("/led", 302, &["two", "three"], "", "public"),
                // What describes an error page stays.
                (
                    "/gone",
                    502,
                    &["two", "three"],
                    "text/plain; charset=utf-8",
                    "no-store",
                ),
            ] {
                let reply = over(version, gateway, "a.test", path).send();
                assert_eq!(reply.status, status, "{path}");
                let head = &reply.head;
                let frame = format!("for {path}");
                assert_eq!(
                    all(head, "x-frame"),
                    [&*frame],
                    "{path} over {version}: {head}"
                );
                assert_eq!(all(head, "link"), links, "{path} over {version}: {head}");
                let kinds = all(head, "content-type").join(",");
                assert_eq!(kinds, kind, "{path}: {head}");
                assert_eq!(all(head, "cache-control"), [cache], "{path}: {head}");
                assert!(all(head, "server").is_empty(), "{path}: {head}");
                assert_eq!(all(head, "x-request-id").len(), 1, "{path}: {head}");
            }
            let plain = over(version, gateway, "a.test", "/plain").send();
            assert_eq!(plain.header("server"), Some("origin"));
        }
    }
}

#[test]
fn what_describes_a_servers_body_is_not_said_of_pages_and_redirects() {
    let origin = Origin::start(|_| {
        vec![Act::send(
            "HTTP/1.1 404 Not Found\r\nETag: \"theirs\"\r\nContent-Length: 6\r\n\r\ntheirs",
        )]
    });
    let edits = "response_headers: { set: { Content-Encoding: gzip, content-disposition: attachment, \
                 ETag: '\"set\"', Last-Modified: never, Content-Security-Policy: none, X-Own: \"1\" } }";
    let gone = Origin::refusing();
    let routes = format!(
        "  - {{ path: /gone, upstream: gone, {edits} }}\n  \
         - {{ path: /moved, redirect: {{ to: /own }}, {edits} }}\n  \
         - {{ path: /own, respond: {{ body: own }}, {edits} }}\n  \
         - {{ path: /files, files: {{ root: none }}, {edits} }}\n  \
         - {{ upstream: app, {edits} }}\n"
    );
    let gone = format!(
        "upstreams:\n  gone: {{ servers: [\"{}\"] }}\n",
        gone.address()
    );
    let yaml = yaml(&origin, &routes).replace("upstreams:\n", &gone);
    for gateway in &on_both_lanes(&yaml) {
        for version in VERSIONS {
            for (path, status, is_replaced) in [
                ("/gone", 502, true),
                ("/moved", 302, true),
                ("/files/x", 404, true),
                ("/own", 200, false),
                ("/x", 404, false),
            ] {
                let reply = over(version, gateway, "a.test", path).send();
                assert_eq!(reply.status, status, "{path}");
                for (name, value) in [
                    ("content-encoding", "gzip"),
                    ("content-disposition", "attachment"),
                    ("etag", "\"set\""),
                    ("last-modified", "never"),
                ] {
                    let expected = (!is_replaced).then_some(value);
                    assert_eq!(reply.header(name), expected, "{path} over {version}");
                }
                assert_eq!(reply.header("content-security-policy"), Some("none"));
                assert_eq!(reply.header("x-own"), Some("1"), "{path}");
            }
        }
    }
}
