//! A peer that takes nothing: what the other peer sends waits there, not in the gateway.

use std::future::poll_fn;
use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use bytes::Bytes;

use super::{SECOND, limited};
use crate::support::{
    Act, Call, Gateway, H2, H2Server, Origin, PATIENCE, TlsClient, connect, read, read_head,
    read_response, serving, upload, within,
};

const MIB: usize = 1 << 20;

/// Far more than may be on its way.
const BODY: usize = 128 * MIB;

/// What may be on its way, nearly all of it in the kernel's buffers: each of the two connections may
/// have 32 MiB to receive and 4 MiB to send.
const MOVED: usize = 80 * MIB;

/// What one request may hold of the gateway's memory.
const HELD: u64 = 8 << 20;

/// A count once it has not changed for a second.
#[track_caller]
fn settled(count: impl Fn() -> usize) -> usize {
    let mut last = (0, Instant::now());
    within(PATIENCE, "everything to stand still", || {
        let now = count();
        if now != last.0 {
            last = (now, Instant::now());
        }
        (now > 0 && last.1.elapsed() > SECOND).then_some(now)
    })
}

/// The gateway's memory once it has served a request of each kind.
#[track_caller]
fn warm(gateway: &Gateway) -> u64 {
    for version in ["--http1.1", "--http2"] {
        let small = gateway.curl("a.test", "/small").args([version, "-d", "x"]);
        assert_eq!(small.arg("--insecure").send().status, 200);
        let small = gateway.curl_http("plain.test", "/small").args(["-d", "x"]);
        assert_eq!(small.send().status, 200);
    }
    gateway.memory()
}

/// A gateway of which only back-pressure is tested, not time.
fn patient(origin: &Origin) -> Gateway {
    limited(origin, "idle: 60s")
}

/// Sends a GET and reads no response until it has been found to wait at its upstream.
#[track_caller]
fn takes_late(
    stream: &mut (impl Read + Write),
    host: &str,
    origin: &Origin,
    gateway: &Gateway,
    before: u64,
) {
    let sent_before = origin.sent();
    let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("taken");
    let sent = settled(|| origin.sent() - sent_before);
    assert!(sent < MOVED, "{host}: {sent} octets");
    let held = gateway.memory().saturating_sub(before);
    assert!(held < HELD, "{host}: {held} octets");
    // It is whole once it is taken.
    read_head(stream).expect("octets").expect("a head");
    let mut body = stream.take(BODY as u64);
    let taken = io::copy(&mut body, &mut io::sink()).expect("all of it");
    assert_eq!(taken, BODY as u64, "{host}");
}

#[test]
fn a_response_that_is_not_taken_waits_at_its_upstream() {
    let origin = Origin::early(|request| {
        if request.line().contains("/small") {
            return vec![Act::Take(1), Act::respond(200, "small")];
        }
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {BODY}\r\n\r\n");
        vec![Act::send(head), Act::Flood(BODY)]
    });
    let gateway = patient(&origin);
    let before = warm(&gateway);
    let mut plain = connect(gateway.http);
    takes_late(&mut plain, "plain.test", &origin, &gateway, before);
    let mut tls = TlsClient::named("a.test").connect(gateway.https);
    takes_late(&mut tls, "a.test", &origin, &gateway, before);
}

#[test]
fn responses_of_http_2_that_are_not_taken_wait_at_their_upstream() {
    const STREAMS: usize = 100;
    let server = H2Server::start(async |mut call: Call| {
        let size = match call.head.uri.path() {
            "/small" => 5,
            _ => BODY,
        };
        let mut response = call.send_head(200, &[], false);
        let mut left = size;
        while left > 0 {
            response.reserve_capacity(left.min(MIB));
            let Some(Ok(room)) = poll_fn(|cx| response.poll_capacity(cx)).await else {
                return;
            };
            left -= room;
            let part = vec![0; room];
            response.send_data(part.into(), left == 0).expect("open");
        }
    });
    let address = server.address();
    let config = format!(
        "upstreams: {{ app: {{ servers: [\"{address}\"], protocol: h2 }} }}\n\
         sites: [{{ hosts: [a.test], routes: [{{ upstream: app }}] }}]\n"
    );
    let gateway = serving(&[&["a.test"]], config).start();
    let mut h2 = H2::connect(gateway.https, "a.test");
    assert_eq!(h2.get("/small").status, 200);
    let before = gateway.memory();
    let requests: Vec<_> = (0..STREAMS)
        .map(|_| h2.request("GET", "/").body(()).expect("a request"))
        .collect();
    let responses: Vec<_> = requests
        .into_iter()
        .map(|request| h2.begin(request, false).0)
        .collect();
    let _responses = h2.block_on(async {
        let mut heads = Vec::new();
        for response in responses {
            heads.push(response.await.expect("a head"));
        }
        heads
    });
    let memory = || usize::try_from(gateway.memory() / 4096).expect("small");
    settled(memory);
    let held = gateway.memory().saturating_sub(before);
    eprintln!("{STREAMS} streams hold {held} octets");
    assert!(held < HELD, "{held} octets");
}

/// Reads a little of a body and the rest once it is released.
fn reluctant() -> Origin {
    Origin::early(|request| {
        if request.line().contains("/small") {
            return vec![Act::Take(1), Act::respond(200, "small")];
        }
        vec![
            Act::Take(MIB),
            Act::Hold,
            Act::Take(BODY - MIB),
            Act::respond(200, "all"),
        ]
    })
}

#[test]
fn a_body_that_is_not_taken_waits_at_its_client_of_http_1() {
    let origin = reluctant();
    let gateway = patient(&origin);
    let before = warm(&gateway);
    let mut stream = connect(gateway.http);
    let mut writer = stream.try_clone().expect("a copy");
    let moved = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&moved);
    let sending = thread::spawn(move || {
        let head = format!("POST / HTTP/1.1\r\nHost: plain.test\r\nContent-Length: {BODY}\r\n\r\n");
        writer.write_all(head.as_bytes()).expect("taken");
        let part = vec![0; MIB / 16];
        for _ in 0..BODY / part.len() {
            writer.write_all(&part).expect("taken");
            count.fetch_add(part.len(), Ordering::Relaxed);
        }
    });
    let sent = settled(|| moved.load(Ordering::Relaxed));
    assert!(sent < MOVED, "{sent} octets");
    let held = gateway.memory().saturating_sub(before);
    assert!(held < HELD, "{held} octets");
    origin.release();
    let reply = read_response(&mut stream).expect("a response");
    assert_eq!((reply.status, &*reply.text()), (200, "all"));
    sending.join().expect("all is sent");
}

#[test]
fn a_body_that_is_not_taken_waits_at_its_client_of_http_2() {
    let origin = reluctant();
    let gateway = patient(&origin);
    let before = warm(&gateway);
    let mut h2 = H2::connect(gateway.https, "a.test");
    let request = h2.request("POST", "/").header("content-length", BODY);
    let (answer, body) = h2.begin(request.body(()).expect("a request"), true);
    let octets = Bytes::from(vec![0; BODY]);
    h2.block_on(async {
        tokio::spawn(upload(body, octets));
    });
    within(SECOND * 10, "the first part", || {
        (origin.taken() > MIB).then_some(())
    });
    settled(|| origin.taken());
    let held = gateway.memory().saturating_sub(before);
    assert!(held < HELD, "{held} octets");
    origin.release();
    let reply = h2.block_on(async { read(answer.await.expect("a response")).await });
    let reply = reply.expect("its body");
    assert_eq!((reply.status, &*reply.text()), (200, "all"));
}
