//! HTTP/2 connections whose frames are malformed, out of order or not understood.

mod order;

use std::io::Write;

use super::{before, others_are_served};
use crate::support::{Frame, Frames, Gateway, Origin, TlsClient, is_end, wait_for};

const PRIORITY: u8 = 2;
const PUSH_PROMISE: u8 = 5;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const ACK: u8 = 1;
const PADDED: u8 = 8;
const WITH_PRIORITY: u8 = 0x20;
const WHOLE: u8 = Frame::END_HEADERS | Frame::END_STREAM;

const PROTOCOL_ERROR: u32 = 1;
const FLOW_CONTROL_ERROR: u32 = 3;
const STREAM_CLOSED: u32 = 5;
const FRAME_SIZE_ERROR: u32 = 6;
const COMPRESSION_ERROR: u32 = 9;

/// The codes for a frame of the wrong length: the particular one, or the general one.
const SIZE: &[u32] = &[FRAME_SIZE_ERROR, PROTOCOL_ERROR];

/// What becomes of a connection.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// It ends with one of these codes.
    Cut(&'static [u32]),
    /// Stream 1 ends with one of these codes, and the connection serves other streams.
    Reset(&'static [u32]),
    /// Either of the two (RFC 9113, section 6.9.1), depending on how much has been read meanwhile.
    CutOrReset(&'static [u32]),
    /// It serves other streams, as if nothing had been sent.
    Served,
}

use End::{Cut, CutOrReset, Reset, Served};

fn frame(kind: u8, flags: u8, stream: u32, payload: impl Into<Vec<u8>>) -> Vec<u8> {
    Frame::new(kind, flags, stream, payload).bytes()
}

fn setting(name: u16, value: u32) -> Vec<u8> {
    let payload = [&name.to_be_bytes()[..], &value.to_be_bytes()].concat();
    frame(Frame::SETTINGS, 0, 0, payload)
}

fn get(stream: u32) -> Vec<u8> {
    Frame::get(stream, "a.test", "/").bytes()
}

fn fields() -> Vec<u8> {
    Frame::get(1, "a.test", "/").payload
}

/// A request whose body is to come.
fn begun() -> Vec<u8> {
    frame(Frame::HEADERS, Frame::END_HEADERS, 1, fields())
}

/// A request whose fields end with these octets of HPACK.
fn coded(more: &[u8]) -> Vec<u8> {
    frame(Frame::HEADERS, WHOLE, 1, [&fields()[..], more].concat())
}

fn number(payload: &[u8], at: usize) -> u32 {
    let octets = payload.get(at..at + 4).expect("a number");
    u32::from_be_bytes(octets.try_into().expect("four"))
}

/// Sends the octets, and then a request on stream 7; what becomes of it.
fn outcome(gateway: &Gateway, octets: &[u8]) -> (Option<u32>, Option<u32>, bool) {
    let mut frames = Frames::connect(gateway.https, "a.test", &[]);
    _ = frames.0.write_all(octets);
    _ = frames.0.write_all(&get(7));
    let (mut goaway, mut reset, mut is_served) = (None, None, false);
    loop {
        match frames.next() {
            Ok(frame) if frame.kind == Frame::GOAWAY => goaway = Some(number(&frame.payload, 4)),
            Ok(frame) if frame.kind == Frame::RST_STREAM && frame.stream == 1 => {
                reset = Some(number(&frame.payload, 0));
            }
            Ok(frame) if frame.stream == 7 && frame.flags & Frame::END_STREAM != 0 => {
                is_served = true;
                break;
            }
            Ok(_) => {}
            Err(error) if is_end(&error) => break,
            Err(error) => panic!("no frame and no end: {error}"),
        }
    }
    (goaway, reset, is_served)
}

/// Sends all cases; the connection, the process and other clients fare as they should.
#[track_caller]
fn all(cases: &[(&str, Vec<u8>, End)]) {
    let origin = Origin::named("x");
    let gateway = before(&origin);
    let mut wrong = Vec::new();
    for (name, octets, end) in cases {
        let seen = outcome(&gateway, octets);
        let is_right = match (end, seen) {
            (Cut(codes), (Some(code), _, false)) => codes.contains(&code),
            (Reset(codes), (None, Some(code), true)) => codes.contains(&code),
            (CutOrReset(codes), (Some(code), _, false) | (None, Some(code), true)) => {
                codes.contains(&code)
            }
            (Served, (None, None, true)) => true,
            _ => false,
        };
        if !is_right {
            wrong.push(format!("{name}: {end:?}, but {seen:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    others_are_served(&gateway, "after all");
    wait_for("all connections to be closed", || {
        let open = gateway.metric("snigate_connections{listener=\"https\"}")?;
        (open == 0.0).then_some(())
    });
    let log = gateway.log();
    assert!(!log.contains("panicked") && !log.contains("ERROR"), "{log}");
}

#[test]
fn frames_of_unknown_kinds_are_ignored() {
    let mut cases = Vec::new();
    // ALTSVC, ORIGIN, PRIORITY_UPDATE, those between, and what nobody has named.
    for kind in (0x0a..=0x11).chain([0x42, 0xff]) {
        for stream in [0, 1, 7, 0x7fff_ffff] {
            let name: &str = format!("{kind:#x} of {stream}").leak();
            let octets = [
                frame(kind, 0, stream, []),
                frame(kind, 0xff, stream, [0xff; 4]),
                frame(kind, 0x04, stream, [0; 300]),
            ];
            cases.push((name, octets.concat(), Served));
        }
    }
    all(&cases);
}

#[test]
fn malformed_frames_end_their_stream_or_connection() {
    let reset = |len: usize| frame(Frame::RST_STREAM, 0, 1, vec![0; len]);
    let update = |stream, value: u32| frame(WINDOW_UPDATE, 0, stream, value.to_be_bytes());
    let priority = |len: usize| frame(PRIORITY, 0, 1, vec![0; len]);
    all(&[
        (
            "a window of nothing more",
            update(0, 0),
            Cut(&[PROTOCOL_ERROR]),
        ),
        (
            "a window too large",
            update(0, 0x7fff_ffff),
            Cut(&[FLOW_CONTROL_ERROR]),
        ),
        (
            "a stream's window of nothing more",
            [begun(), update(1, 0)].concat(),
            Cut(&[PROTOCOL_ERROR]),
        ),
        (
            "a stream's window too large",
            [begun(), update(1, 0x7fff_ffff)].concat(),
            Reset(&[FLOW_CONTROL_ERROR]),
        ),
        (
            "a window of an idle stream",
            update(1, 1),
            Cut(&[PROTOCOL_ERROR]),
        ),
        (
            "a short WINDOW_UPDATE",
            frame(WINDOW_UPDATE, 0, 0, [0; 3]),
            Cut(SIZE),
        ),
        (
            "a window beyond all",
            setting(4, 0x8000_0000),
            Cut(&[FLOW_CONTROL_ERROR, PROTOCOL_ERROR]),
        ),
        ("frames of nothing", setting(5, 0), Cut(&[PROTOCOL_ERROR])),
        (
            "frames too small",
            setting(5, 16_383),
            Cut(&[PROTOCOL_ERROR]),
        ),
        (
            "frames too large",
            setting(5, 1 << 24),
            Cut(&[PROTOCOL_ERROR]),
        ),
        ("push, perhaps", setting(2, 2), Cut(&[PROTOCOL_ERROR])),
        ("an unknown setting", setting(0x1234, u32::MAX), Served),
        ("the largest table", setting(1, u32::MAX), Served),
        (
            "no table, and the largest",
            [setting(1, 0), setting(1, u32::MAX)].concat(),
            Served,
        ),
        (
            "half a setting",
            frame(Frame::SETTINGS, 0, 0, [0; 5]),
            Cut(SIZE),
        ),
        (
            "settings of a stream",
            frame(Frame::SETTINGS, 0, 1, []),
            Cut(&[PROTOCOL_ERROR]),
        ),
        (
            "settings that acknowledge",
            frame(Frame::SETTINGS, ACK, 0, [0; 6]),
            Cut(SIZE),
        ),
        ("a short PING", frame(PING, 0, 0, [0; 7]), Cut(SIZE)),
        (
            "a PING of a stream",
            frame(PING, 0, 1, [0; 8]),
            Cut(&[PROTOCOL_ERROR]),
        ),
        (
            "a reset of an idle stream",
            reset(4),
            Cut(&[PROTOCOL_ERROR]),
        ),
        ("a short reset", [begun(), reset(3)].concat(), Cut(SIZE)),
        (
            "a reset of no stream",
            frame(Frame::RST_STREAM, 0, 0, [0; 4]),
            Cut(&[PROTOCOL_ERROR]),
        ),
        (
            "a promise",
            [
                begun(),
                frame(PUSH_PROMISE, Frame::END_HEADERS, 1, [0, 0, 0, 2, 0x82]),
            ]
            .concat(),
            Cut(&[PROTOCOL_ERROR]),
        ),
        ("a short priority", priority(4), Cut(SIZE)),
        (
            "a frame too large",
            frame(Frame::DATA, 0, 1, vec![0; 16_385]),
            Cut(SIZE),
        ),
        (
            "DATA of no stream",
            frame(Frame::DATA, 0, 0, "x"),
            Cut(&[PROTOCOL_ERROR]),
        ),
        (
            "DATA of an idle stream",
            frame(Frame::DATA, 0, 1, "x"),
            Cut(&[PROTOCOL_ERROR, STREAM_CLOSED]),
        ),
        (
            "padding longer than its frame",
            [begun(), frame(Frame::DATA, PADDED, 1, [9, b'x'])].concat(),
            Cut(&[PROTOCOL_ERROR]),
        ),
        (
            "padding longer than its fields",
            frame(Frame::HEADERS, WHOLE | PADDED, 1, [0xff, 0x82]),
            Cut(&[PROTOCOL_ERROR]),
        ),
        (
            "fields without their whole priority",
            frame(Frame::HEADERS, WHOLE | WITH_PRIORITY, 1, [0; 4]),
            Cut(&[PROTOCOL_ERROR, FRAME_SIZE_ERROR]),
        ),
        (
            "fields of no stream",
            frame(Frame::HEADERS, WHOLE, 0, fields()),
            Cut(&[PROTOCOL_ERROR]),
        ),
        ("a stream of the server's", get(2), Cut(&[PROTOCOL_ERROR])),
        (
            "a malformed frame after an error",
            [
                update(0, 0),
                frame(PING, 0, 0, [0; 3]),
                frame(0x0a, 0xff, 1, [0xff; 9]),
                frame(Frame::SETTINGS, 0, 0, [0; 5]),
            ]
            .concat(),
            Cut(&[PROTOCOL_ERROR]),
        ),
    ]);
}

#[test]
fn fields_that_do_not_decode_end_their_connection() {
    const BAD: End = Cut(&[COMPRESSION_ERROR, PROTOCOL_ERROR]);
    all(&[
        ("index 0", coded(&[0x80]), BAD),
        ("an index of no entry", coded(&[0xff, 0x80, 0x01]), BAD),
        ("an index without end", coded(&[0xff; 20]), BAD),
        (
            "a name of no entry",
            coded(&[0x7f, 0x80, 0x01, 1, b'x']),
            BAD,
        ),
        (
            "a table too large",
            frame(Frame::HEADERS, WHOLE, 1, [0x3f, 0xe1, 0xff, 0x03]),
            BAD,
        ),
        ("a table that changes late", coded(&[0x20]), BAD),
        ("a name cut short", coded(&[0, 9, b'x']), BAD),
        (
            "a value cut short",
            coded(&[0, 1, b'x', 0x7f, 0xff, 0xff, 0x03, b'y']),
            BAD,
        ),
        (
            "a length without end",
            coded(&[0, 1, b'x', 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
            BAD,
        ),
        (
            "a code of the end",
            coded(&[0, 1, b'x', 0x84, 0xff, 0xff, 0xff, 0xff]),
            BAD,
        ),
        (
            "padding too long",
            coded(&[0, 1, b'x', 0x82, 0x1f, 0xff]),
            BAD,
        ),
        (
            "padding that is none",
            coded(&[0, 1, b'x', 0x81, 0x18]),
            BAD,
        ),
        (
            "no fields at all",
            frame(Frame::HEADERS, WHOLE, 1, []),
            Reset(&[PROTOCOL_ERROR]),
        ),
    ]);
}

#[test]
fn what_is_no_http_2_is_closed() {
    let origin = Origin::named("x");
    let gateway = before(&origin);
    for octets in [
        &b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n"[..],
        b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",
        b"\0\0\0\x04\0\0\0\0\0",
        &[0xff; 4096],
    ] {
        let mut frames = Frames::silent(gateway.https, "a.test");
        _ = frames.0.write_all(octets);
        let answer = frames.0.exchange("");
        assert!(!answer.starts_with(b"HTTP"), "{}", answer.escape_ascii());
    }
    // And HTTP/2 is none of HTTP/1.1, with TLS or without.
    let preface = [Frames::PREFACE, &get(1)].concat();
    let answer = TlsClient::named("a.test")
        .alpn(&["http/1.1"])
        .connect(gateway.https)
        .exchange(&preface);
    assert!(
        answer.starts_with(b"HTTP/1.1 400"),
        "{}",
        answer.escape_ascii()
    );
    let mut plain = crate::support::connect(gateway.http);
    let answer = crate::support::exchange(&mut plain, &preface);
    assert!(
        answer.starts_with(b"HTTP/1.1 400"),
        "{}",
        answer.escape_ascii()
    );
    assert!(origin.requests().is_empty());
    others_are_served(&gateway, "after all");
}
