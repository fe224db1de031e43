//! What one client's connection may hold of upstreams over HTTP/2, and of the gateway's memory.

use std::fs;
use std::io::Write as _;
use std::net::SocketAddr;
use std::time::Instant;

use super::{SECOND, limited};
use crate::support::{
    Act, Crowded, Frame, Frames, Gateway, Origin, TcpState, TlsClient, connections_to, serving,
    within,
};

const MIB: u64 = 1 << 20;

/// HEADERS of a request whose body is to come.
fn begin(stream: u32, path: &str) -> Frame {
    let mut head = Frame::get(stream, "a.test", path);
    head.flags = Frame::END_HEADERS;
    head
}

/// Streams of one connection, as clients number them.
fn streams(count: u32) -> impl Iterator<Item = u32> {
    (0..count).map(|number| 2 * number + 1)
}

/// A gateway that speaks TLS to its upstream, and waits long for it to be connected.
fn before_tls(upstream: SocketAddr, limits: &str) -> Gateway {
    serving(
        &[&["a.test"]],
        format!(
            "upstreams: {{ app: {{ servers: [\"{upstream}\"], tls: {{ server_name: a.test, verify: false }} }} }}\n\
             sites:\n\
             - hosts: [a.test]\n\
             \x20 routes: [{{ upstream: app, timeout: {{ connect: 60s, read: 60s }} }}]\n",
        ),
    )
    .server(&format!("limits: {{ {limits} }}"))
    .start()
}

/// How many connections to an upstream are in a state.
#[track_caller]
fn count(upstream: SocketAddr, state: TcpState) -> usize {
    match upstream {
        SocketAddr::V4(address) => connections_to(address, state),
        SocketAddr::V6(_) => panic!("tests listen on IPv4"),
    }
}

/// An origin with an answer that is larger than anything the gateway and the kernel may hold of it.
/// One that they held would be complete, and leave its connection for the next request.
fn large() -> Origin {
    let length = 64 * MIB as usize;
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
    Origin::start(move |_| vec![Act::send(&head), Act::Flood(length)])
}

/// By how much the gateway's memory grows while a client with these windows takes nothing of a
/// hundred answers; and that it is cut for it.
#[track_caller]
fn growth_for_a_deaf_client(
    origin: &Origin,
    upstream: SocketAddr,
    gateway: &Gateway,
    stream_window: u32,
    connection_window: u32,
) -> u64 {
    let warm = |gateway: &Gateway| {
        let mut frames = Frames::connect(gateway.https, "a.test", &[(4, 0)]);
        frames.send(&Frame::get(1, "a.test", "/"));
        frames.until(|frame| frame.kind == Frame::HEADERS);
    };
    warm(gateway);
    let is_let_go = || count(upstream, TcpState::Established) == 0;
    within(SECOND * 10, "the upstream to be let go", || {
        is_let_go().then_some(())
    });
    let before = gateway.memory();
    let settings = [(4, stream_window)];
    let mut deaf = Frames::connect(gateway.https, "a.test", &settings);
    if connection_window > 0 {
        deaf.send(&Frame::new(8, 0, 0, connection_window.to_be_bytes()));
    }
    let begun = Instant::now();
    for stream in streams(100) {
        deaf.send(&Frame::get(stream, "a.test", "/"));
    }
    origin.wait_for_requests(101);
    let start = Instant::now();
    let mut most = 0;
    within(SECOND * 30, "the connection to be cut", || {
        most = most.max(gateway.memory());
        is_let_go().then_some(())
    });
    // The first answers have been blocked since before the last requests were at the origin.
    assert!(begun.elapsed() >= SECOND * 5, "{:?}", begun.elapsed());
    deaf.until_closed();
    assert!(start.elapsed() < SECOND * 15, "{:?}", start.elapsed());
    most.saturating_sub(before)
}

#[test]
fn a_hundred_streams_without_a_window_hold_little_and_are_cut() {
    let origin = large();
    let gateway = limited(&origin, "idle: 5s");
    let growth = growth_for_a_deaf_client(&origin, origin.address(), &gateway, 0, 0);
    assert!(growth < 8 * MIB, "{growth} octets");
}

#[test]
fn streams_without_a_window_hold_little_of_upstreams_over_tls() {
    let origin = large();
    let inner = limited(&origin, "idle: 60s");
    let gateway = before_tls(inner.https, "idle: 5s");
    let growth = growth_for_a_deaf_client(&origin, inner.https, &gateway, 0, 0);
    // Each connection to the upstream has the buffers of TLS besides.
    assert!(growth < 16 * MIB, "{growth} octets");
}

#[test]
fn a_client_that_reads_nothing_from_its_socket_holds_little() {
    let origin = large();
    let gateway = limited(&origin, "idle: 5s");
    let growth = growth_for_a_deaf_client(
        &origin,
        origin.address(),
        &gateway,
        0x7fff_ffff,
        0x7000_0000,
    );
    // What is on its way through the connection itself comes on top.
    assert!(growth < 16 * MIB, "{growth} octets");
}

#[test]
fn a_request_that_is_taken_back_is_connected_no_longer() {
    let crowded = Crowded::start();
    let gateway = serving(
        &[&["a.test"]],
        format!(
            "upstreams: {{ app: {{ servers: [\"{}\"] }} }}\n\
             sites:\n\
             - hosts: [a.test]\n\
             \x20 routes: [{{ upstream: app, timeout: {{ connect: 60s, read: 60s }} }}]\n",
            crowded.address()
        ),
    )
    .start();
    let wait_for = |what: &str, connecting: usize| {
        within(SECOND * 10, what, || {
            (count(crowded.address(), TcpState::SynSent) == connecting).then_some(())
        });
    };
    let others = count(crowded.address(), TcpState::SynSent);
    // Stream by stream, and all with their connection.
    for with_connection in [false, true] {
        let mut frames = Frames::connect(gateway.https, "a.test", &[]);
        for stream in streams(40) {
            frames.send(&Frame::get(stream, "a.test", "/"));
        }
        wait_for("connecting", others + 40);
        for stream in streams(40).filter(|_| !with_connection) {
            let cancel = 8_u32.to_be_bytes();
            frames.send(&Frame::new(Frame::RST_STREAM, 0, stream, cancel));
        }
        if !with_connection {
            wait_for("the end of all", others);
        }
        drop(frames);
        wait_for("the end of all", others);
    }
    gateway.wait_for_log("HTTP/2.0\" 499 0");
}

#[test]
fn a_handshake_with_an_upstream_ends_with_its_request() {
    let silent = Origin::silent();
    let gateway = before_tls(silent.address(), "idle: 60s");
    let mut frames = Frames::connect(gateway.https, "a.test", &[]);
    for stream in streams(20) {
        frames.send(&Frame::get(stream, "a.test", "/"));
    }
    within(SECOND * 10, "handshakes", || {
        (silent.open_connections() == 20).then_some(())
    });
    for stream in streams(20) {
        let cancel = 8_u32.to_be_bytes();
        frames.send(&Frame::new(Frame::RST_STREAM, 0, stream, cancel));
    }
    within(SECOND * 5, "the end of all", || {
        (silent.open_connections() == 0).then_some(())
    });
}

#[test]
fn a_client_of_http_1_that_is_gone_is_connected_no_longer() {
    let silent = Origin::silent();
    let gateway = before_tls(silent.address(), "idle: 60s");
    let mut client = TlsClient::named("a.test").connect(gateway.https);
    let request = b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n";
    client.write_all(request).expect("taken");
    within(SECOND * 10, "the handshake", || {
        (silent.open_connections() == 1).then_some(())
    });
    drop(client);
    within(SECOND * 5, "its end", || {
        (silent.open_connections() == 0).then_some(())
    });
}

#[test]
fn a_request_that_goes_on_after_its_answer_lets_its_upstream_go() {
    let origin = Origin::start(|_| vec![Act::respond(200, "ok")]);
    let gateway = limited(&origin, "idle: 60s");
    let mut frames = Frames::connect(gateway.https, "a.test", &[]);
    let start = Instant::now();
    for stream in streams(20) {
        frames.send(&begin(stream, "/"));
    }
    let mut reset = 0;
    while reset < 20 {
        let frame = frames.until(|frame| frame.kind == Frame::RST_STREAM);
        let frame = frame.expect("the connection stays open");
        assert_eq!(frame.payload, [0; 4], "NO_ERROR: the answer is whole");
        reset += 1;
    }
    assert!(start.elapsed() < SECOND * 20, "{:?}", start.elapsed());
    within(SECOND * 5, "the upstreams to be let go", || {
        (origin.open_connections() == 0).then_some(())
    });
    frames.send(&Frame::get(101, "a.test", "/"));
    let answer = frames
        .until(|frame| frame.stream == 101)
        .expect("continues");
    assert_eq!(answer.kind, Frame::HEADERS);
}

#[test]
fn a_body_that_never_begins_is_cut_and_its_upstream_let_go() {
    let origin = Origin::silent();
    let gateway = limited(&origin, "idle: 1s");
    let mut frames = Frames::connect(gateway.https, "a.test", &[]);
    let start = Instant::now();
    frames.send(&begin(1, "/"));
    let end = frames.until(|frame| frame.stream == 1);
    assert_eq!(end.map(|frame| frame.kind), Some(Frame::HEADERS), "408");
    let took = start.elapsed();
    assert!(took > SECOND / 2 && took < SECOND * 8, "{took:?}");
    within(SECOND * 5, "the upstream to be let go", || {
        (origin.open_connections() == 0).then_some(())
    });
    frames.until_closed();
    assert!(start.elapsed() < SECOND * 15, "{:?}", start.elapsed());
}

#[test]
fn greedy_connections_leave_descriptors_and_upstreams_to_others() {
    let silent = Origin::silent();
    let quick = Origin::named("quick");
    let gateway = serving(
        &[&["a.test"]],
        format!(
            "upstreams:\n\
             \x20 silent: {{ servers: [\"{}\"] }}\n\
             \x20 quick: {{ servers: [\"{}\"] }}\n\
             sites:\n\
             - hosts: [a.test]\n\
             \x20 routes:\n\
             \x20 - {{ path: /silent, upstream: silent }}\n\
             \x20 - {{ upstream: quick }}\n\
             - {{ hosts: [plain.test], tls: off, upstream: quick }}\n",
            silent.address(),
            quick.address()
        ),
    )
    .descriptors(512)
    .start();
    let mut greedy: Vec<Frames> = (0..5)
        .map(|_| Frames::connect(gateway.https, "a.test", &[]))
        .collect();
    for frames in &mut greedy {
        for stream in streams(100) {
            frames.send(&Frame::get(stream, "a.test", "/silent"));
        }
        let refused = frames.until(|frame| frame.kind == Frame::HEADERS);
        let head = refused.expect("an answer to those for whom there is no room");
        // 503 is in no table of HPACK.
        assert!(head.payload.windows(3).any(|three| three == b"503") || head.payload[0] != 0x88);
    }
    let refused = gateway.metric("snigate_requests_refused_total{reason=\"no_room\"}");
    assert!(refused.is_some_and(|count| count >= 300.0), "{refused:?}");
    assert!(silent.open_connections() > 50);
    assert!(gateway.descriptors() < 448, "{}", gateway.descriptors());

    // Others are served, over both protocols, and so is whoever runs the gateway.
    for _ in 0..10 {
        let reply = gateway.curl("a.test", "/").arg("--insecure").send();
        assert_eq!((reply.status, reply.text().as_str()), (200, "quick"));
        let reply = gateway.curl_http("plain.test", "/").send();
        assert_eq!((reply.status, reply.text().as_str()), (200, "quick"));
    }
    let config = fs::read_to_string(&gateway.config).expect("a file");
    gateway.write("snigate.yaml", &config.replace("plain.test", "other.test"));
    let (status, answer) = gateway.reload();
    assert_eq!(status, 200, "{answer}");
    assert_eq!(gateway.curl_http("other.test", "/").send().status, 200);

    drop(greedy);
    within(SECOND * 10, "all to be let go", || {
        (silent.open_connections() == 0).then_some(())
    });
    let log = gateway.log();
    assert!(!log.contains("Too many open files"), "{log}");
}

#[test]
fn beyond_the_limit_of_upstream_connections_clients_are_told_to_come_again() {
    let origin = Origin::start(|request| match request.line().contains("/held") {
        true => vec![Act::Hold, Act::respond(200, "held")],
        false => vec![Act::respond(200, "quick")],
    });
    let gateway = limited(&origin, "upstream_connections: 1");
    let held = {
        let request = gateway.curl_http("plain.test", "/held");
        std::thread::spawn(move || request.send())
    };
    origin.wait_for_requests(1);
    let reply = gateway.curl_http("plain.test", "/").send();
    assert_eq!(reply.status, 503);
    assert_eq!(reply.header("retry-after"), Some("5"));
    origin.release();
    let held = held.join().expect("an answer");
    assert_eq!(held.text(), "held");
    within(SECOND * 5, "room", || {
        (gateway.curl_http("plain.test", "/").send().status == 200).then_some(())
    });
}
