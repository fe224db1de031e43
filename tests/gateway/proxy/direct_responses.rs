//! Answers of the gateway's own, which take a shorter way than those of upstreams.

use std::fs;

use super::{VERSIONS, over};
use crate::support::{Gateway, H2, Origin, TlsClient, connect, exchange, read, serving, wait_for};

const LARGE: usize = 100_000;

fn gateway(origin: &Origin) -> Gateway {
    serving(
        &[&["a.test"], &["b.test"]],
        format!(
            "upstreams: {{ app: {{ servers: [\"{}\"] }} }}\n\
             sites:\n\
             - hosts: [a.test]\n  \
               routes:\n  \
               - {{ path: /own, respond: {{ body: own }} }}\n  \
               - {{ path: /large, respond: {{ body: \"{}\" }} }}\n  \
               - {{ path: /empty, respond: {{ status: 204 }} }}\n  \
               - {{ path: /moved, redirect: {{ to: \"https://c.test/\" }} }}\n  \
               - {{ path: /, upstream: app }}\n\
             - {{ hosts: [b.test], routes: [{{ respond: {{ body: other }} }}] }}\n\
             log: {{ access: access.log }}\n",
            origin.address(),
            "x".repeat(LARGE),
        ),
    )
    .start()
}

#[test]
fn they_are_whole_over_each_version() {
    let origin = Origin::named("upstream");
    let gateway = gateway(&origin);
    for version in VERSIONS {
        let get = |path| over(version, &gateway, "a.test", path).send();
        let own = get("/own?x");
        assert_eq!((own.status, own.text()), (200, "own".to_owned()));
        assert_eq!(
            own.header("content-type"),
            Some("text/plain; charset=utf-8")
        );
        assert_eq!(own.header("content-length"), Some("3"));
        assert!(own.header("date").is_some());
        assert_eq!(get("/large").text().len(), LARGE);
        let empty = get("/empty");
        assert_eq!((empty.status, empty.header("content-length")), (204, None));
        let moved = get("/moved");
        assert_eq!(moved.header("location"), Some("https://c.test/"));
        assert_eq!(moved.header("content-length"), Some("0"));
        let head = over(version, &gateway, "a.test", "/own").arg("-I").send();
        assert_eq!(
            (head.status, head.header("content-length")),
            (200, Some("3"))
        );
        assert_eq!(get("/").text(), "upstream");
        // What is asked with more than a head has the same answer.
        let post = over(version, &gateway, "a.test", "/own").args(["-d", "body"]);
        assert_eq!(post.send().text(), "own");
    }
}

#[test]
fn they_are_logged_as_others_are() {
    let origin = Origin::named("upstream");
    let gateway = gateway(&origin);
    for (number, version) in VERSIONS.into_iter().enumerate() {
        let reply = over(version, &gateway, "a.test", "/own?y")
            .args(["-A", "agent/1", "-e", "https://from.test/"])
            .send();
        let line = wait_for("a line", || {
            let log = fs::read_to_string(gateway.dir().join("access.log")).unwrap_or_default();
            log.lines().nth(number).map(str::to_owned)
        });
        let protocol = if version == "2" { "2.0" } else { "1.1" };
        let id = reply.header("x-request-id").expect("a name");
        assert!(
            line.contains(&format!(
                "] \"GET /own?y HTTP/{protocol}\" 200 3 \"https://from.test/\" \"agent/1\" \
                 host=\"a.test:{}\" id={id} duration=0.",
                gateway.https.port(),
            )),
            "{line}"
        );
    }
}

#[test]
fn they_share_a_connection_with_those_of_upstreams() {
    let origin = Origin::named("upstream");
    let gateway = gateway(&origin);
    let mut h2 = H2::connect(gateway.https, "a.test");
    let paths: Vec<&str> = ["/own", "/", "/large"]
        .into_iter()
        .cycle()
        .take(60)
        .collect();
    // All at once, and read at once: they share a window.
    let begun: Vec<_> = paths
        .iter()
        .map(|path| {
            let request = h2.request("GET", path).body(()).expect("a request");
            let answer = h2.begin(request, false).0;
            async { read(answer.await.expect("one")).await.expect("whole") }
        })
        .collect();
    let replies = h2.block_on(futures::future::join_all(begun));
    for (path, reply) in paths.into_iter().zip(replies) {
        match path {
            "/own" => assert_eq!(reply.text(), "own"),
            "/large" => assert_eq!(reply.body.len(), LARGE),
            _ => assert_eq!(reply.text(), "upstream"),
        }
    }
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let origin = Origin::named("upstream");
    let gateway = gateway(&origin);
    let mut client = TlsClient::named("a.test").connect(gateway.https);
    let requests = ["/own", "/", "/own", "/empty", "/own"]
        .map(|path| format!("GET {path} HTTP/1.1\r\nHost: a.test\r\n\r\n"))
        .concat();
    let last = "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n";
    let all = exchange(&mut client, requests + last);
    let all = String::from_utf8(all).expect("text");
    let bodies: Vec<&str> = all
        .split("HTTP/1.1 ")
        .skip(1)
        .map(|answer| answer.split("\r\n\r\n").nth(1).unwrap_or_default())
        .collect();
    assert_eq!(bodies, ["own", "upstream", "own", "", "own", "upstream"]);
}

#[test]
fn they_are_for_the_hosts_of_their_connection_alone() {
    let origin = Origin::named("upstream");
    let gateway = gateway(&origin);
    let mut client = TlsClient::named("a.test").connect(gateway.https);
    let request = "GET / HTTP/1.1\r\nHost: b.test\r\nConnection: keep-alive\r\n\r\n";
    let closing = "GET /own HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n";
    let all = client.exchange(request.to_owned() + closing);
    let all = String::from_utf8(all).expect("text");
    assert!(all.starts_with("HTTP/1.1 421 "), "{all}");
    assert!(all.ends_with("\r\n\r\nown"), "{all}");
    let plain = exchange(&mut connect(gateway.http), closing);
    assert!(plain.starts_with(b"HTTP/1.1 308 "));
}
