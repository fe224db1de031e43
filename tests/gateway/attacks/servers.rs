//! Servers that are not what they should be: whatever they send, the gateway serves its other
//! clients, and none gets what was meant for another.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use crate::support::{Frame, Frames, Gateway, H2, H2Reply, serving};

const PUSH_PROMISE: u8 = 5;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const WHOLE: u8 = Frame::END_HEADERS | Frame::END_STREAM;

fn frame(kind: u8, flags: u8, stream: u32, payload: impl Into<Vec<u8>>) -> Vec<u8> {
    Frame::new(kind, flags, stream, payload).bytes()
}

fn setting(name: u16, value: u32) -> Vec<u8> {
    let payload = [&name.to_be_bytes()[..], &value.to_be_bytes()].concat();
    frame(Frame::SETTINGS, 0, 0, payload)
}

/// A server of HTTP/2 that sends its settings, and these octets once a request is there.
fn server(octets: Vec<u8>) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let address = listener.local_addr().expect("an address");
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let octets = octets.clone();
            thread::spawn(move || _ = serve(stream, &octets));
        }
    });
    address
}

fn serve(mut stream: TcpStream, octets: &[u8]) -> std::io::Result<()> {
    stream.write_all(&frame(Frame::SETTINGS, 0, 0, []))?;
    let mut preface = [0; Frames::PREFACE.len()];
    stream.read_exact(&mut preface)?;
    let mut is_asked = false;
    loop {
        let mut header = [0; 9];
        stream.read_exact(&mut header)?;
        let [a, b, c, kind, flags, ..] = header;
        let len = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        let mut payload = vec![0; len];
        stream.read_exact(&mut payload)?;
        match kind {
            Frame::SETTINGS if flags & 1 == 0 => {
                stream.write_all(&frame(Frame::SETTINGS, 1, 0, []))?;
            }
            PING if flags & 1 == 0 => stream.write_all(&frame(PING, 1, 0, payload))?,
            Frame::HEADERS if !is_asked => {
                is_asked = true;
                stream.write_all(octets)?;
            }
            _ => {}
        }
    }
}

/// The answer through a gateway in front of such a server.
fn answer(gateway: &Gateway) -> H2Reply {
    let mut h2 = H2::connect(gateway.https, "a.test");
    let request = h2.request("GET", "/");
    h2.send(request, None).expect("a status, and no bare reset")
}

/// A gateway in front of a server of HTTP/2, with a response of its own at `/own`.
#[track_caller]
fn before_server(address: SocketAddr, read: &str) -> Gateway {
    serving(
        &[&["a.test"]],
        format!(
            "upstreams: {{ app: {{ servers: [\"{address}\"], protocol: h2 }} }}\n\
             sites:\n\
             - hosts: [a.test]\n\
             \x20 routes:\n\
             \x20 - {{ path: /own, respond: {{ body: own }} }}\n\
             \x20 - {{ path: /, upstream: app, retries: 0, timeout: {{ read: {read} }} }}\n\
             log: {{ access: off }}\n"
        ),
    )
    .start()
}

#[test]
fn frames_of_a_server_that_are_malformed_are_its_failure() {
    let head = |fields: &[(&str, &str)]| frame(Frame::HEADERS, WHOLE, 1, Frame::fields(fields));
    let begun = |fields: &[(&str, &str)]| {
        frame(Frame::HEADERS, Frame::END_HEADERS, 1, Frame::fields(fields))
    };
    let ok = (":status", "200");
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("frames of nothing", setting(5, 0)),
        ("frames too large", setting(5, 1 << 24)),
        ("a window beyond all", setting(4, 0x8000_0000)),
        (
            "a window of nothing more",
            frame(WINDOW_UPDATE, 0, 0, [0; 4]),
        ),
        (
            "a window too large",
            frame(WINDOW_UPDATE, 0, 0, [0x7f, 0xff, 0xff, 0xff]),
        ),
        ("no status", head(&[("x", "y")])),
        ("no number", head(&[(":status", "2xx")])),
        ("two statuses", head(&[ok, (":status", "404")])),
        ("a status after other fields", head(&[("x", "y"), ok])),
        ("a line end", head(&[ok, ("x", "a\r\nset-cookie: evil=1")])),
        ("a NUL", head(&[ok, ("x", "a\0b")])),
        ("a name with a colon", head(&[ok, ("x: y", "z")])),
        ("a name with capitals", head(&[ok, ("X-Evil", "z")])),
        ("no name", head(&[ok, ("", "z")])),
        ("chunks", head(&[ok, ("transfer-encoding", "chunked")])),
        ("a switch", head(&[(":status", "101")])),
        ("index 0", frame(Frame::HEADERS, WHOLE, 1, [0x80])),
        (
            "a promise",
            frame(PUSH_PROMISE, Frame::END_HEADERS, 1, [0, 0, 0, 2, 0x88]),
        ),
        ("DATA before its head", frame(Frame::DATA, 0, 1, "evil")),
        ("a short PING", frame(PING, 0, 0, [0; 7])),
        (
            "no HTTP/2",
            b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil".to_vec(),
        ),
        (
            "the end of a length that has not come",
            [
                begun(&[ok, ("content-length", "5")]),
                frame(Frame::DATA, Frame::END_STREAM, 1, "evil"),
            ]
            .concat(),
        ),
        (
            "a head without end",
            [
                frame(Frame::HEADERS, 0, 1, Frame::fields(&[ok])),
                vec![frame(Frame::CONTINUATION, 0, 1, Frame::fields(&[("x", "y")])); 5000].concat(),
            ]
            .concat(),
        ),
    ];
    let mut wrong = Vec::new();
    for (name, octets) in cases {
        let address = server(octets);
        let gateway = before_server(address, "3s");
        let reply = answer(&gateway);
        let is_failure = match reply.status {
            502 | 504 => true,
            // What has begun is cut.
            200 => reply.cut.is_some(),
            _ => false,
        };
        if !is_failure || reply.headers.contains_key("set-cookie") {
            wrong.push(format!(
                "{name}: {} {:?} {}",
                reply.status,
                reply.cut,
                reply.text()
            ));
        }
        let own = H2::connect(gateway.https, "a.test").get("/own");
        assert_eq!(own.text(), "own", "{name}");
        assert!(!gateway.log().contains("panicked"), "{name}");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_server_of_http2_that_floods_costs_its_own_requests_alone() {
    for (name, octets) in [
        ("PING", frame(PING, 0, 0, [0; 8])),
        ("SETTINGS", setting(4, 65_535)),
        ("unknown", frame(0x0c, 0, 0, [0; 4096])),
        ("empty DATA", frame(Frame::DATA, 0, 1, [])),
    ] {
        let mut flood = frame(
            Frame::HEADERS,
            Frame::END_HEADERS,
            1,
            Frame::fields(&[(":status", "200")]),
        );
        for _ in 0..20_000 {
            flood.extend_from_slice(&octets);
        }
        let address = server(flood);
        let gateway = before_server(address, "2s");
        let before = gateway.memory();
        let mut h2 = H2::connect(gateway.https, "a.test");
        let request = h2.request("GET", "/").body(()).expect("a request");
        let (response, _stream) = h2.begin(request, false);
        for _ in 0..10 {
            assert_eq!(h2.get("/own").text(), "own", "{name}");
            thread::sleep(Duration::from_millis(20));
        }
        drop(response);
        let growth = gateway.memory().saturating_sub(before);
        assert!(growth < 32 << 20, "{name}: {growth} octets");
        assert!(!gateway.log().contains("panicked"), "{name}");
    }
}
