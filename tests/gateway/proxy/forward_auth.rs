//! A service that is asked whether a request is served.

mod connections;
mod hang_ups;

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use super::{VERSIONS, all, over, refused, wait_for_line};
use crate::support::{
    Act, Builder, CurlReply, Gateway, Origin, Received, TlsClient, read_head, serving, wait_for,
};

/// A gateway that asks a service at this address, and has routes of every kind.
fn guarded(app: &Origin, service: &str, keys: &str) -> Builder {
    let builder = serving(
        &[&["a.test"]],
        format!(
            "upstreams: {{ app: {{ servers: [\"{}\"] }} }}\n\
             sites:\n\
             - hosts: [a.test]\n  \
               forward_auth: {{ url: \"http://{service}/verify?by=gateway\", copy_headers: [X-User, X-Groups]{keys} }}\n  \
               routes:\n  \
               - {{ upstream: app }}\n  \
               - {{ path: /set, upstream: app, request_headers: {{ set: {{ X-User: route }} }} }}\n  \
               - {{ path: /own, respond: {{ body: own }} }}\n  \
               - {{ path: /files, files: {{ root: . }}, strip_prefix: true }}\n  \
               - {{ path: /away, redirect: {{ to: \"https://b.test{{path}}\" }} }}\n  \
               - {{ path: /open, forward_auth: off, upstream: app }}\n\
             log: {{ access: access.log }}\n",
            app.address(),
        ),
    );
    fs::write(builder.dir().join("file.txt"), "file").expect("a file");
    builder
}

/// A response of a service with these lines of a head, each with its end.
fn response(status: u16, lines: &str, body: &str) -> Vec<Act> {
    let length = body.len();
    vec![Act::send(format!(
        "HTTP/1.1 {status} Status\r\n{lines}Content-Length: {length}\r\n\r\n{body}"
    ))]
}

/// Admits those that have a cookie, and sends others to its login page.
fn login(request: &Received) -> Vec<Act> {
    match request.header("cookie") {
        Some(cookie) if cookie.contains("session=ann") => response(
            200,
            "X-User: ann\r\nX-Other: no\r\nSet-Cookie: session=ann2\r\nSet-Cookie: seen=1\r\n",
            "ok",
        ),
        _ => response(
            302,
            "Location: https://login.test/?back=%2F\r\nSet-Cookie: state=1\r\nSet-Cookie: nonce=2\r\n\
             Content-Type: text/html\r\nX-Secret: inner\r\n",
            "<a>log in</a>",
        ),
    }
}

const ANN: [&str; 2] = ["--cookie", "session=ann"];

#[test]
fn a_service_admits_requests_and_says_whose_they_are() {
    let (app, service) = (Origin::named("app"), Origin::start(login));
    let gateway = guarded(&app, &service.address().to_string(), "").start();
    for version in VERSIONS {
        for (path, status) in [
            ("/x?y=1", 200),
            ("/own", 200),
            ("/files/file.txt", 200),
            ("/away", 302),
        ] {
            let reply = over(version, &gateway, "a.test", path).args(ANN).send();
            assert_eq!(reply.status, status, "{version} {path}");
            assert_eq!(
                all(&reply.head, "set-cookie"),
                ["session=ann2", "seen=1"],
                "{path}"
            );
        }
        let lying = ["--header", "X-User: root", "--header", "x-groups: wheel"];
        let reply = over(version, &gateway, "a.test", "/lying")
            .args(ANN)
            .args(lying);
        assert_eq!(reply.send().status, 200);
        let reply = over(version, &gateway, "a.test", "/set")
            .args(ANN)
            .args(lying);
        assert_eq!(reply.send().status, 200);
    }
    for request in app.requests() {
        let user = if request.line().contains("/set") {
            "route"
        } else {
            "ann"
        };
        assert_eq!(all(&request.head, "x-user"), [user], "{}", request.head);
        assert!(
            all(&request.head, "x-groups").is_empty(),
            "{}",
            request.head
        );
        assert!(all(&request.head, "x-other").is_empty(), "{}", request.head);
    }
}

#[test]
fn a_service_gets_the_request_without_its_body() {
    let (app, service) = (Origin::echo(), Origin::start(login));
    let gateway = guarded(&app, &service.address().to_string(), "").start();
    for version in VERSIONS.into_iter().cycle().take(6) {
        let reply = over(version, &gateway, "a.test", "/form?q=a%20b")
            .args(ANN)
            .args(["--header", "Authorization: Bearer t"])
            .args(["--header", "X-Forwarded-Uri: /public"])
            .args(["--header", "X-Forwarded-Method: GET"])
            .args(["--header", "If-None-Match: \"x\""])
            .args(["--header", "Range: bytes=0-1"])
            .args(["--user-agent", "the client's"])
            .args(["--request", "PUT", "--data", "the body"]);
        let reply = reply.send();
        assert_eq!(reply.status, 200);
        assert!(reply.text().ends_with("the body"), "{}", reply.text());
    }
    for request in service.requests() {
        assert_eq!(request.line(), "GET /verify?by=gateway HTTP/1.1");
        for (name, value) in [
            ("host", service.address().to_string().as_str()),
            ("x-forwarded-method", "PUT"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "a.test"),
            ("x-forwarded-uri", "/form?q=a%20b"),
            ("x-forwarded-for", "127.0.0.1"),
            ("authorization", "Bearer t"),
            ("cookie", "session=ann"),
            ("user-agent", "the client's"),
        ] {
            let mut found = all(&request.head, name);
            // The client may have named the port.
            if name == "x-forwarded-host" {
                found = found
                    .iter()
                    .map(|host| host.split(':').next().unwrap_or(host))
                    .collect();
            }
            assert_eq!(found, [value], "{name}: {}", request.head);
        }
        for name in [
            "content-length",
            "transfer-encoding",
            "if-none-match",
            "range",
            "expect",
        ] {
            assert!(all(&request.head, name).is_empty(), "{}", request.head);
        }
        assert!(request.body.is_empty());
    }
    assert_eq!(service.requests().len(), 6);
    // One is kept as soon as its response has been read, which may be after the client's has.
    assert!(service.connections() < 6, "connections are kept");
}

#[test]
fn clients_get_the_response_of_a_service_that_refuses() {
    let (app, service) = (Origin::named("app"), Origin::start(login));
    let gateway = guarded(&app, &service.address().to_string(), "").start();
    for version in VERSIONS {
        for path in ["/", "/own", "/files/file.txt", "/away"] {
            let reply = over(version, &gateway, "a.test", path).send();
            assert_eq!(
                (reply.status, &*reply.text()),
                (302, "<a>log in</a>"),
                "{path}"
            );
            assert_eq!(
                reply.header("location"),
                Some("https://login.test/?back=%2F")
            );
            assert_eq!(all(&reply.head, "set-cookie"), ["state=1", "nonce=2"]);
            assert_eq!(reply.header("content-type"), Some("text/html"));
            assert_eq!(reply.header("cache-control"), Some("no-store"));
            assert_eq!(reply.header("x-secret"), None);
        }
        // A body that follows is no reason for another answer.
        let posted = over(version, &gateway, "a.test", "/").args(["--data", "body"]);
        assert_eq!(posted.send().status, 302);
        assert_eq!(
            over(version, &gateway, "a.test", "/open").send().status,
            200
        );
    }
    assert_eq!(app.requests().len(), 2, "the open ones");
    assert_eq!(refused(&gateway, "denied"), 10.0);
    wait_for_line(&gateway, " refused=denied");
}

#[test]
fn a_challenge_reaches_clients_of_every_kind() {
    let app = Origin::named("app");
    let service =
        Origin::start(|_| response(401, "WWW-Authenticate: Bearer realm=\"x\"\r\n", "who?"));
    let gateway = guarded(&app, &service.address().to_string(), "").start();
    for version in VERSIONS {
        let asked = || over(version, &gateway, "a.test", "/");
        let reply = asked().send();
        assert_eq!((reply.status, &*reply.text()), (401, "who?"));
        assert_eq!(reply.header("www-authenticate"), Some("Bearer realm=\"x\""));
        let reply = asked().arg("--head").send();
        assert_eq!((reply.status, &*reply.text()), (401, ""));
        let call = asked().args(["--header", "Content-Type: application/grpc", "--data", "x"]);
        let reply = call.send();
        assert_eq!(
            (reply.status, reply.header("grpc-status")),
            (200, Some("16"))
        );
    }
    let upgrade = [
        "--header",
        "Connection: Upgrade",
        "--header",
        "Upgrade: websocket",
    ];
    let reply = over("1.1", &gateway, "a.test", "/").args(upgrade).send();
    assert_eq!(reply.status, 401);
    assert!(app.requests().is_empty());
}

#[test]
fn websockets_are_opened_for_those_that_are_admitted() {
    let app = Origin::start(|_| {
        vec![
            Act::send(
                "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
            ),
            Act::Silence,
        ]
    });
    let service = Origin::start(login);
    let gateway = guarded(&app, &service.address().to_string(), "").start();
    let mut client = TlsClient::named("a.test").connect(gateway.https);
    let request = "GET /ws HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                   Cookie: session=ann\r\nX-User: root\r\n\r\n";
    std::io::Write::write_all(&mut client, request.as_bytes()).expect("taken");
    let head = read_head(&mut client).expect("a head").expect("a response");
    let head = String::from_utf8(head).expect("text");
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    assert_eq!(all(&head, "set-cookie"), ["session=ann2", "seen=1"]);
    let got = &app.wait_for_requests(1)[0];
    assert_eq!(all(&got.head, "x-user"), ["ann"]);
    let asked = &service.requests()[0];
    assert_eq!(
        (asked.header("upgrade"), asked.header("x-forwarded-uri")),
        (None, Some("/ws"))
    );
}

/// Expects that requests are refused because the service does not say.
fn expect_undecided(reply: &CurlReply, what: &str) {
    assert_eq!(reply.status, 503, "{what}: {}", reply.text());
    assert_eq!(reply.header("retry-after"), Some("5"), "{what}");
    assert!(
        reply.text().contains("does not respond"),
        "{what}: {}",
        reply.text()
    );
}

#[test]
fn nothing_is_served_unless_the_service_says_so() {
    let app = Origin::named("app");
    let huge = "x".repeat(65 * 1024);
    let cookie = format!("Set-Cookie: {}\r\n", "x".repeat(17 * 1024));
    let refusing = Origin::refusing();
    let services: Vec<(&str, Option<Origin>)> = vec![
        ("dead", None),
        ("silent", Some(Origin::silent())),
        ("resetting", Some(Origin::resetting())),
        ("garbage", Some(Origin::raw("no HTTP\r\n\r\n"))),
        (
            "cut",
            Some(Origin::raw(
                "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok",
            )),
        ),
        (
            "two lengths",
            Some(Origin::raw(
                "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nok",
            )),
        ),
        (
            "switching",
            Some(Origin::raw(
                "HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
            )),
        ),
        (
            "huge",
            Some({
                let huge = huge.clone();
                Origin::start(move |_| response(200, "", &huge))
            }),
        ),
        (
            "huge refusal",
            Some(Origin::start(move |_| response(403, "", &huge))),
        ),
        (
            "huge fields",
            Some(Origin::start(move |_| response(200, &cookie, ""))),
        ),
    ];
    for (what, service) in &services {
        let address = match service {
            Some(service) => service.address().to_string(),
            None => refusing.address().to_string(),
        };
        let gateway = guarded(&app, &address, ", timeout: 500ms").start();
        for version in VERSIONS {
            let begun = Instant::now();
            let reply = over(version, &gateway, "a.test", "/").args(ANN).send();
            expect_undecided(&reply, what);
            assert!(begun.elapsed() < Duration::from_secs(5), "{what}");
            assert_eq!(
                over(version, &gateway, "a.test", "/open").send().status,
                200
            );
        }
        assert_eq!(refused(&gateway, "undecided"), 2.0, "{what}");
        wait_for_line(&gateway, " refused=undecided");
        wait_for("a line in the log", || {
            gateway
                .log()
                .contains("an authentication service failed")
                .then_some(())
        });
    }
    assert_eq!(app.requests().len(), 2 * services.len(), "the open ones");
}

#[test]
fn requests_that_wait_for_a_service_hold_up_no_others() {
    let app = Origin::named("app");
    let service = Origin::start(|_| vec![Act::Hold, Act::respond(200, "")]);
    let gateway = guarded(&app, &service.address().to_string(), ", timeout: 30s").start();
    thread::scope(|scope| {
        let waiting: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| over("2", &gateway, "a.test", "/").send().status))
            .collect();
        service.wait_for_requests(8);
        for version in VERSIONS {
            assert_eq!(
                over(version, &gateway, "a.test", "/open").send().status,
                200
            );
        }
        service.release();
        for one in waiting {
            assert_eq!(one.join().expect("no panic"), 200);
        }
    });
}

#[test]
fn a_service_changes_with_a_reload() {
    let app = Origin::named("app");
    let (first, second) = (
        Origin::start(login),
        Origin::start(|_| response(204, "", "")),
    );
    let gateway = guarded(&app, &first.address().to_string(), "").start();
    let status = |gateway: &Gateway| over("2", gateway, "a.test", "/").send().status;
    assert_eq!(status(&gateway), 302);
    let text = fs::read_to_string(gateway.dir().join("snigate.yaml")).expect("a configuration");
    let (from, to) = (first.address().to_string(), second.address().to_string());
    gateway.write("snigate.yaml", &text.replace(&from, &to));
    wait_for("the other service", || {
        (status(&gateway) == 200).then_some(())
    });
}
