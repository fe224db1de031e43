//! How answers and connections end: for clients that still send, that have ended their side, or
//! that are gone.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use super::{VERSIONS, in_front_of, over};
use crate::support::{
    Act, Curl, Frame, Frames, Gateway, Origin, TlsClient, connect, read_head, read_response,
    serving, within,
};

const UPLOAD: u64 = 20_000_000;

/// A server that says 413 once it has read a head, and closes in order.
fn refusing_bodies() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            thread::spawn(move || {
                if let Ok(Some(_)) = read_head(&mut stream) {
                    let answer = "HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\n\
                                  Connection: close\r\n\r\n";
                    let _ = stream.write_all(answer.as_bytes());
                    let _ = stream.shutdown(Shutdown::Write);
                    let _ = std::io::copy(&mut stream, &mut std::io::sink());
                }
            });
        }
    });
    address
}

/// A gateway whose `a.test`, and without TLS `plain.test`, have an early answer of each kind.
fn early() -> Gateway {
    let dead = Origin::refusing();
    let routes = "[{ path: /own, respond: { body: own } }, \
                  { path: /moved, redirect: { to: \"https://c.test/\" } }, \
                  { path: /dead, upstream: dead }, { path: /early, upstream: early }]";
    serving(
        &[&["a.test"], &["b.test"]],
        format!(
            "upstreams: {{ dead: {{ servers: [\"{}\"] }}, early: {{ servers: [\"{}\"] }} }}\n\
             sites:\n\
             - {{ hosts: [a.test], routes: {routes} }}\n\
             - {{ hosts: [b.test], routes: {routes} }}\n\
             - {{ hosts: [plain.test], tls: off, routes: {routes} }}\n\
             log: {{ access: off }}\n",
            dead.address(),
            refusing_bodies(),
        ),
    )
    .start()
}

#[test]
fn a_status_reaches_a_client_that_still_uploads() {
    let gateway = early();
    let file = gateway.dir().join("upload");
    let upload = std::fs::File::create(&file).expect("a file");
    upload.set_len(UPLOAD).expect("room");
    let data = format!("@{}", file.display());
    let send = |curl: Curl| {
        let begun = Instant::now();
        let sent = curl
            .args(["-H", "Expect:", "--data-binary"])
            .arg(&data)
            .try_send();
        sent.map(|reply| (reply.status, begun.elapsed()))
    };
    let wrong = Mutex::new(Vec::new());
    let complain = |what: String| wrong.lock().expect("not poisoned").push(what);
    thread::scope(|scope| {
        for (path, status) in [
            ("/own", 200),
            ("/moved", 302),
            ("/dead", 502),
            ("/early", 413),
        ] {
            let (send, complain, gateway) = (&send, &complain, &gateway);
            let check = move |by: &str, curl: Curl| match send(curl) {
                Ok((got, took)) if got == status && took < Duration::from_secs(15) => {}
                other => complain(format!("{path} over {by}: {other:?}")),
            };
            scope.spawn(move || {
                for _ in 0..20 {
                    check("plain HTTP", gateway.curl_http("plain.test", path));
                    for version in VERSIONS {
                        check(version, over(version, gateway, "a.test", path));
                    }
                }
            });
        }
    });
    // A host of another certificate, asked for on this connection.
    for version in VERSIONS {
        let misdirected = over(version, &gateway, "a.test", "/own").args(["-H", "Host: b.test"]);
        match send(misdirected) {
            Ok((421, _)) => {}
            other => complain(format!("421 over {version}: {other:?}")),
        }
    }
    let wrong = wrong.into_inner().expect("not poisoned");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn an_answered_stream_ends_before_it_is_reset() {
    let gateway = early();
    for (path, first) in [("/own", 0x88), ("/dead", 0x48)] {
        let mut frames = Frames::connect(gateway.https, "a.test", &[]);
        let fields = [
            (":method", "POST"),
            (":scheme", "https"),
            (":authority", "a.test"),
            (":path", path),
        ];
        frames.send(&Frame::new(
            Frame::HEADERS,
            Frame::END_HEADERS,
            1,
            Frame::fields(&fields),
        ));
        let begun = Instant::now();
        let head = frames.until(|frame| frame.stream == 1).expect("an answer");
        assert_eq!(
            (head.kind, head.payload[0]),
            (Frame::HEADERS, first),
            "{path}"
        );
        let is_last =
            |frame: &Frame| frame.kind == Frame::DATA && frame.flags & Frame::END_STREAM != 0;
        frames.until(is_last).expect("its end");
        assert!(begun.elapsed() < Duration::from_secs(4), "{path}");
        // Nothing more comes of the body.
        let reset = frames
            .until(|frame| frame.kind == Frame::RST_STREAM)
            .expect("a reset");
        assert_eq!(reset.payload, [0; 4], "NO_ERROR for {path}");
    }
}

#[test]
fn a_failed_upstream_costs_no_connection() {
    let gateway = early();
    let mut stream = TlsClient::named("a.test").connect(gateway.https);
    let mut plain = connect(gateway.http);
    for _ in 0..3 {
        let reply = stream.get("a.test", "/dead");
        assert_eq!(
            (reply.status, reply.header("connection")),
            (502, Some("keep-alive"))
        );
        let post = "POST /dead HTTP/1.1\r\nHost: plain.test\r\nContent-Length: 2\r\n\r\nhi";
        plain.write_all(post.as_bytes()).expect("taken");
        let reply = read_response(&mut plain).expect("an answer");
        assert_eq!(
            (reply.status, reply.header("connection")),
            (502, Some("keep-alive"))
        );
    }
    assert_eq!(stream.get("a.test", "/own").text(), "own");
}

#[test]
fn a_connection_that_closes_says_so_and_ends_tls_in_order() {
    let origin = Origin::named("ok");
    let gateway = serving(
        &[&["a.test"]],
        format!(
            "upstreams: {{ dead: {{ servers: [\"{}\"] }}, app: {{ servers: [\"{}\"] }} }}\n\
             sites: [{{ hosts: [a.test], routes: [\
             {{ path: /own, respond: {{ body: own }} }}, {{ path: /dead, upstream: dead }}, \
             {{ path: /, upstream: app }}] }}]\n\
             log: {{ access: off }}\n",
            Origin::refusing().address(),
            origin.address(),
        ),
    )
    .start();
    let large = "Content-Length: 10000000\r\n\r\nabc";
    for (what, status) in [
        (
            format!("POST /dead HTTP/1.1\r\nHost: a.test\r\n{large}"),
            502,
        ),
        (
            format!("POST /own HTTP/1.1\r\nHost: a.test\r\n{large}"),
            200,
        ),
        (format!("POST / HTTP/1.1\r\nHost: b.test\r\n{large}"), 421),
        (
            "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n".into(),
            400,
        ),
        (
            "GET / HTTP/1.1\r\nHost: a.test\r\nHost: b.test\r\n\r\n".into(),
            400,
        ),
        (
            "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n".into(),
            200,
        ),
        ("GET /dead HTTP/1.0\r\nHost: a.test\r\n\r\n".into(), 502),
    ] {
        let mut stream = TlsClient::named("a.test").connect(gateway.https);
        let begun = Instant::now();
        stream.write_all(what.as_bytes()).expect("taken");
        let mut all = Vec::new();
        // Without a close_notify this is an error.
        stream
            .read_to_end(&mut all)
            .unwrap_or_else(|error| panic!("{what:?}: {error}"));
        let text = String::from_utf8_lossy(&all).to_lowercase();
        assert!(
            text.starts_with(&format!("http/1.1 {status} ")),
            "{what:?}: {text}"
        );
        assert!(text.contains("connection: close\r\n"), "{what:?}: {text}");
        assert!(
            begun.elapsed() < Duration::from_secs(8),
            "{:?}",
            begun.elapsed()
        );
    }
}

/// Answers after a time that a client needs to end its side.
fn slow() -> Origin {
    Origin::start(|request| {
        vec![
            Act::Pause(Duration::from_millis(700)),
            Act::respond(200, request.line()),
        ]
    })
}

#[test]
fn a_client_that_has_ended_its_side_is_answered() {
    let origin = slow();
    let gateway = serving(
        &[&["a.test"]],
        format!(
            "upstreams: {{ app: {{ servers: [\"{}\"] }} }}\n\
             sites: [{{ hosts: [a.test], upstream: app }}, \
             {{ hosts: [plain.test], tls: off, upstream: app }}]\n",
            origin.address(),
        ),
    )
    .start();
    for count in [1, 3] {
        let requests = |host: &str| {
            (0..count)
                .map(|number| format!("GET /{number} HTTP/1.1\r\nHost: {host}\r\n\r\n"))
                .collect::<String>()
        };
        let mut plain = connect(gateway.http);
        plain
            .write_all(requests("plain.test").as_bytes())
            .expect("taken");
        plain.shutdown(Shutdown::Write).expect("ended");
        let mut tls = TlsClient::named("a.test").connect(gateway.https);
        tls.write_all(requests("a.test").as_bytes()).expect("taken");
        tls.end_sending();
        let streams: [&mut dyn Read; 2] = [&mut plain, &mut tls];
        for mut stream in streams {
            for number in 0..count {
                let reply = read_response(&mut stream).expect("an answer");
                assert_eq!(reply.text(), format!("GET /{number} HTTP/1.1"));
            }
            let mut rest = Vec::new();
            stream.read_to_end(&mut rest).expect("an end in order");
            assert!(rest.is_empty());
        }
    }
}

#[test]
fn a_client_that_is_gone_takes_its_request_along() {
    let origin = Origin::silent();
    let gateway = in_front_of(&origin);
    let counted = || {
        let label = "snigate_upstream_attempts_total{result=\"failed\",upstream=\"app\"}";
        gateway.metric(label).unwrap_or(0.0)
    };
    for reset in [false, true] {
        let mut stream = TlsClient::named("a.test").connect(gateway.https);
        stream
            .write_all(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")
            .expect("taken");
        origin.wait_for_requests(1 + usize::from(reset));
        if reset {
            let socket = socket2::SockRef::from(stream.tcp());
            socket.set_linger(Some(Duration::ZERO)).expect("set");
        }
        drop(stream);
        within(Duration::from_secs(5), "the end of the request", || {
            (origin.open_connections() == 0).then_some(())
        });
    }
    assert_eq!(counted(), 0.0, "no fault of the upstream's");
}

#[test]
fn a_cut_answer_to_an_old_client_ends_in_a_reset() {
    let cut = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";
    let whole = format!("{cut}0\r\n\r\n");
    for (answer, is_whole) in [(cut.to_owned(), false), (whole, true)] {
        let origin = Origin::raw(answer);
        let gateway = serving(
            &[],
            format!(
                "upstreams: {{ app: {{ servers: [\"{}\"] }} }}\n\
                 sites: [{{ hosts: [plain.test], tls: off, upstream: app }}]\n",
                origin.address(),
            ),
        )
        .start();
        let mut stream = connect(gateway.http);
        stream
            .write_all(b"GET / HTTP/1.0\r\nHost: plain.test\r\n\r\n")
            .expect("taken");
        let mut all = Vec::new();
        match stream.read_to_end(&mut all) {
            Ok(_) => assert!(is_whole, "a cut answer looks whole"),
            Err(error) => {
                assert!(!is_whole, "{error}");
                assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
            }
        }
    }
}

#[test]
fn a_client_of_http_1_0_is_served_over_tls() {
    let origin = Origin::named("old");
    let gateway = in_front_of(&origin);
    let mut stream = TlsClient::named("a.test")
        .alpn(&["http/1.0"])
        .connect(gateway.https);
    assert_eq!(stream.alpn().as_deref(), Some("http/1.0"));
    let answer = stream.exchange("GET / HTTP/1.0\r\nHost: a.test\r\n\r\n");
    assert!(answer.ends_with(b"old"), "{}", answer.escape_ascii());
    let newer = TlsClient::named("a.test").alpn(&["http/1.0", "http/1.1"]);
    assert_eq!(
        newer.connect(gateway.https).alpn().as_deref(),
        Some("http/1.1")
    );
}
