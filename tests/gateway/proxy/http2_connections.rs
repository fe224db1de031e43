//! Connections to servers of HTTP/2: how many there are, and what becomes of their requests when
//! they end.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::Reason;

use super::{in_front_of_http2, upstream_config, with_upstream};
use crate::support::{Call, Frame, Frames, H2, H2Server, H2Setup, read, serving, wait_for};

/// Sends so many requests at once and waits for all responses.
pub(super) fn send_at_once(h2: &mut H2, count: usize) {
    let requests: Vec<_> = (0..count)
        .map(|_| {
            let request = h2.request("GET", "/").body(()).expect("a request");
            h2.begin(request, false).0
        })
        .collect();
    h2.block_on(async {
        for response in requests {
            let reply = read(response.await.expect("a head"))
                .await
                .expect("its end");
            assert_eq!((reply.status, &*reply.text()), (200, "hello"));
        }
    });
}

pub(super) async fn greet(mut call: Call) {
    let mut response = call.send_head(200, &[], false);
    response.send_data("hello".into(), true).expect("open");
}

#[test]
fn requests_share_connections() {
    let server = H2Server::start(greet);
    let gateway = in_front_of_http2(&server);
    let mut h2 = H2::connect(gateway.https, "a.test");
    for _ in 0..3 {
        send_at_once(&mut h2, 50);
    }
    assert_eq!((server.requests(), server.connections()), (150, 1));
}

#[test]
fn no_connection_has_more_streams_than_its_server_allows() {
    let setup = H2Setup {
        max_streams: Some(1),
        ..H2Setup::default()
    };
    let server = H2Server::with(setup, greet);
    let gateway = in_front_of_http2(&server);
    let mut h2 = H2::connect(gateway.https, "a.test");
    send_at_once(&mut h2, 1);
    assert_eq!(server.connections(), 1);
    send_at_once(&mut h2, 30);
    assert!(server.connections() > 1);
    let before = server.connections();
    send_at_once(&mut h2, 1);
    assert_eq!((server.requests(), server.connections()), (32, before));
}

#[test]
fn connections_count_and_not_their_requests() {
    let server = H2Server::start(async |mut call: Call| {
        tokio::time::sleep(Duration::from_millis(300)).await;
        call.send_head(204, &[], true);
    });
    let keys = format!("servers: [\"{}\"], protocol: h2", server.address());
    let gateway = with_upstream(&keys)
        .server("limits: { upstream_connections: 8 }")
        .start();
    let mut h2 = H2::connect(gateway.https, "a.test");
    assert_eq!(h2.get("/").status, 204);
    let mut waiting = Vec::new();
    for _ in 0..6 {
        // Each has its place before the next one comes.
        let before = server.requests();
        let request = h2.request("GET", "/").body(()).expect("a request");
        waiting.push(h2.begin(request, false).0);
        wait_for("a request", || (server.requests() > before).then_some(()));
    }
    h2.block_on(async {
        for response in waiting {
            assert_eq!(response.await.expect("a head").status(), 204);
        }
    });
}

#[test]
fn a_refused_stream_is_sent_again() {
    let server = H2Server::start(async |mut call: Call| {
        if call.number == 1 {
            call.respond.send_reset(Reason::REFUSED_STREAM);
            return;
        }
        let (body, _) = call.read_body().await;
        let mut response = call.send_head(200, &[], false);
        response.send_data(body.into(), true).expect("open");
    });
    let gateway = in_front_of_http2(&server);
    let mut h2 = H2::connect(gateway.https, "a.test");
    for requests in [1, 3] {
        let request = h2.request("POST", "/");
        let reply = h2
            .send(request, Some(Bytes::from("hello")))
            .expect("a response");
        assert_eq!((reply.status, &*reply.text()), (200, "hello"));
        assert_eq!(server.requests(), requests);
    }
}

#[test]
fn a_retry_counts_as_the_first_attempt_does() {
    let server = H2Server::start(async |mut call: Call| match call.number {
        0 => call.respond.send_reset(Reason::REFUSED_STREAM),
        1 => std::future::pending().await,
        _ => _ = call.send_head(204, &[], true),
    });
    let keys = format!("servers: [\"{}\"], protocol: h2", server.address());
    let gateway = with_upstream(&keys)
        .server("limits: { upstream_connections: 1 }")
        .start();
    let ask = || H2::connect(gateway.https, "a.test").get("/").status;
    let mut h2 = H2::connect(gateway.https, "a.test");
    let request = h2.request("GET", "/").body(()).expect("a request");
    let held = h2.begin(request, false);
    wait_for("the retry", || (server.requests() == 2).then_some(()));
    assert_eq!(ask(), 503);
    drop(held);
    drop(h2);
    wait_for("room", || (ask() == 204).then_some(()));
}

#[test]
fn a_server_that_refuses_all_streams_fails_soon() {
    let server = H2Server::start(async |mut call: Call| {
        call.respond.send_reset(Reason::REFUSED_STREAM);
    });
    let gateway = in_front_of_http2(&server);
    let reply = H2::connect(gateway.https, "a.test").get("/");
    assert_eq!(reply.status, 502);
    assert!((2..6).contains(&server.requests()), "{}", server.requests());
}

#[test]
fn a_request_that_may_have_been_processed_is_not_sent_again() {
    let server = H2Server::start(async |mut call: Call| {
        let _ = call.read_body().await;
        call.respond.send_reset(Reason::INTERNAL_ERROR);
    });
    let gateway = in_front_of_http2(&server);
    let mut h2 = H2::connect(gateway.https, "a.test");
    let request = h2.request("POST", "/");
    let reply = h2
        .send(request, Some(Bytes::from("hello")))
        .expect("a response");
    assert_eq!((reply.status, server.requests()), (502, 1));
}

/// A server that does `serve` with each connection once the head of its first request is here. The
/// number of the connection counts from 0.
fn by_hand(serve: impl Fn(usize, &mut TcpStream) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let serve = Arc::new(serve);
    thread::spawn(move || {
        for (number, mut stream) in listener.incoming().flatten().enumerate() {
            let serve = Arc::clone(&serve);
            thread::spawn(move || {
                let mut preface = vec![0; Frames::PREFACE.len()];
                if stream.read_exact(&mut preface).is_err() {
                    return;
                }
                send(&mut stream, &Frame::new(Frame::SETTINGS, 0, 0, ""));
                while let Some(kind) = next_kind(&mut stream) {
                    if kind == Frame::HEADERS {
                        return serve(number, &mut stream);
                    }
                }
            });
        }
    });
    address
}

fn send(stream: &mut TcpStream, frame: &Frame) {
    let _ = stream.write_all(&frame.bytes());
}

/// Reads a frame and returns its kind.
fn next_kind(stream: &mut TcpStream) -> Option<u8> {
    let mut header = [0; 9];
    stream.read_exact(&mut header).ok()?;
    let [a, b, c, kind, ..] = header;
    let len = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
    stream.read_exact(&mut vec![0; len]).ok()?;
    Some(kind)
}

/// `:status: 200` alone.
fn ok(flags: u8) -> Frame {
    Frame::new(Frame::HEADERS, Frame::END_HEADERS | flags, 1, [0x88])
}

#[test]
fn what_a_server_leaves_out_when_it_ends_is_sent_again() {
    let address = by_hand(|number, stream| match number {
        0 => {
            // No stream has been processed.
            send(stream, &Frame::new(Frame::GOAWAY, 0, 0, [0; 8]));
            while next_kind(stream).is_some() {}
        }
        _ => {
            send(stream, &ok(Frame::END_STREAM));
            while next_kind(stream).is_some() {}
        }
    });
    let gateway = with_upstream(&format!("servers: [\"{address}\"], protocol: h2")).start();
    let mut h2 = H2::connect(gateway.https, "a.test");
    let request = h2.request("POST", "/");
    let reply = h2
        .send(request, Some(Bytes::from("hello")))
        .expect("a response");
    assert_eq!(reply.status, 200);
}

#[test]
fn a_response_that_its_server_does_not_end_is_cut() {
    let address = by_hand(|_, stream| {
        send(stream, &ok(0));
        send(stream, &Frame::new(Frame::DATA, 0, 1, "hel"));
        // The gateway has it before the connection ends.
        thread::sleep(Duration::from_millis(200));
    });
    let gateway = with_upstream(&format!("servers: [\"{address}\"], protocol: h2")).start();
    let reply = H2::connect(gateway.https, "a.test").get("/");
    assert_eq!((reply.status, &*reply.text()), (200, "hel"));
    assert!(reply.cut.is_some());
}

#[test]
fn a_server_that_ends_instead_of_responding_has_failed() {
    let address = by_hand(|_, _| {});
    let gateway = with_upstream(&format!("servers: [\"{address}\"], protocol: h2")).start();
    let mut h2 = H2::connect(gateway.https, "a.test");
    let begun = Instant::now();
    let request = h2.request("POST", "/");
    let reply = h2
        .send(request, Some(Bytes::from("hello")))
        .expect("a response");
    assert_eq!(reply.status, 502);
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_server_that_sends_no_whole_head_is_given_up() {
    let silent = by_hand(|_, stream| while next_kind(stream).is_some() {});
    let trickling = by_hand(|_, stream| {
        send(stream, &Frame::new(Frame::HEADERS, 0, 1, [0x88]));
        // One field of the static table after the other.
        let more = Frame::new(Frame::CONTINUATION, 0, 1, [0x90]).bytes();
        while stream.write_all(&more).is_ok() {
            thread::sleep(Duration::from_millis(300));
        }
    });
    for address in [silent, trickling] {
        let config = format!(
            "upstreams: {{ app: {{ servers: [\"{address}\"], protocol: h2 }} }}\n\
             sites: [{{ hosts: [a.test], routes: [\
             {{ upstream: app, timeout: {{ read: 500ms }} }}] }}]\n"
        );
        let gateway = serving(&[&["a.test"]], config).start();
        let begun = Instant::now();
        let reply = H2::connect(gateway.https, "a.test").get("/");
        assert_eq!(reply.status, 504);
        assert!(begun.elapsed() < Duration::from_secs(5));
    }
}

#[test]
fn connections_to_a_server_that_is_removed_are_closed() {
    let (server, other) = (H2Server::start(greet), H2Server::start(greet));
    let gateway = in_front_of_http2(&server);
    let mut h2 = H2::connect(gateway.https, "a.test");
    send_at_once(&mut h2, 1);
    let keys = format!("servers: [\"{}\"], protocol: h2", other.address());
    let mut gateway = gateway;
    gateway.replace_config(format!(
        "certificates: [{{ directory: certs }}]\n{}",
        upstream_config(&keys)
    ));
    assert_eq!(gateway.reload().0, 200);
    send_at_once(&mut h2, 1);
    server.wait_until_left();
    assert_eq!((server.requests(), other.requests()), (1, 1));
}

#[test]
fn a_connection_that_has_died_is_replaced_though_clients_give_up_early() {
    let (tell, told) = std::sync::mpsc::channel();
    let tell = std::sync::Mutex::new(tell);
    let address = by_hand(move |number, stream| match number {
        0 => {
            let _ = tell.lock().expect("not poisoned").send(());
            // It is gone without a word.
            loop {
                thread::park();
            }
        }
        _ => {
            send(stream, &ok(Frame::END_STREAM));
            while next_kind(stream).is_some() {}
        }
    });
    let gateway = with_upstream(&format!("servers: [\"{address}\"], protocol: h2")).start();
    let mut h2 = H2::connect(gateway.https, "a.test");
    let request = h2.request("GET", "/").body(()).expect("a request");
    let first = h2.begin(request, false);
    told.recv_timeout(Duration::from_secs(5))
        .expect("a request");
    drop(first);
    wait_for("another connection", || {
        let request = h2.request("GET", "/").body(()).expect("a request");
        let (response, _) = h2.begin(request, false);
        let patience = Duration::from_millis(300);
        let waited = h2.block_on(async { tokio::time::timeout(patience, response).await });
        let response = waited.ok()?.expect("a head");
        (response.status() == 200).then_some(())
    });
}
