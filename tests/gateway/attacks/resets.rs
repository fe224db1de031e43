//! Requests that their client makes the gateway reset, once their upstream works on them.

use std::io::Write;
use std::time::{Duration, Instant};

use super::{before, others_are_served};
use crate::support::{Act, Frame, Frames, Gateway, Origin, is_end};

const PRIORITY: u8 = 2;
const WINDOW_UPDATE: u8 = 8;

/// How many requests an attacker may have an upstream begin before its connection ends.
const MOST: usize = 350;

/// What makes a server reset a stream.
type Provocation = fn(u32) -> Frame;

const PROVOCATIONS: [(&str, Provocation); 6] = [
    ("a window of nothing more", |stream| {
        Frame::new(WINDOW_UPDATE, 0, stream, [0; 4])
    }),
    ("a window too large", |stream| {
        Frame::new(WINDOW_UPDATE, 0, stream, [0x7f, 0xff, 0xff, 0xff])
    }),
    ("a stream that depends on itself", |stream| {
        let payload = [&stream.to_be_bytes()[..], &[0]].concat();
        Frame::new(PRIORITY, 0, stream, payload)
    }),
    ("trailers that are not the end", |stream| {
        let trailers = Frame::fields(&[("x", "y")]);
        Frame::new(Frame::HEADERS, Frame::END_HEADERS, stream, trailers)
    }),
    ("trailers with a pseudo-header field", |stream| {
        let trailers = Frame::fields(&[(":path", "/")]);
        let flags = Frame::END_HEADERS | Frame::END_STREAM;
        Frame::new(Frame::HEADERS, flags, stream, trailers)
    }),
    ("more than was declared", |stream| {
        Frame::new(Frame::DATA, 0, stream, "more than five")
    }),
];

/// A request whose body is to come.
fn begun(stream: u32) -> Frame {
    let fields = Frame::fields(&[
        (":method", "POST"),
        (":scheme", "https"),
        (":authority", "a.test"),
        (":path", "/slow"),
        ("content-length", "5"),
    ]);
    Frame::new(Frame::HEADERS, Frame::END_HEADERS, stream, fields)
}

/// Has requests reset until the connection ends, ten at a time, each batch once the origin has it;
/// how many were asked.
#[track_caller]
fn attack(gateway: &Gateway, origin: &Origin, provoke: Provocation) -> usize {
    let mut frames = Frames::connect(gateway.https, "a.test", &[]);
    let before = origin.requests().len();
    let mut asked = 0;
    let mut streams = (1u32..).step_by(2);
    while asked < 4 * MOST {
        let batch: Vec<u32> = streams.by_ref().take(10).collect();
        let bytes = |frame: fn(u32) -> Frame| -> Vec<u8> {
            let frames = batch.iter().map(|&stream| frame(stream).bytes());
            frames.collect::<Vec<_>>().concat()
        };
        if frames.0.write_all(&bytes(begun)).is_err() {
            break;
        }
        asked += batch.len();
        let enough = Instant::now() + Duration::from_secs(2);
        while origin.requests().len() - before < asked && Instant::now() < enough {
            std::thread::yield_now();
        }
        if origin.requests().len() - before < asked || frames.0.write_all(&bytes(provoke)).is_err()
        {
            break;
        }
    }
    loop {
        match frames.next() {
            Ok(_) => {}
            Err(error) if is_end(&error) => break,
            Err(error) => panic!("the connection is open after {asked} requests: {error}"),
        }
    }
    asked
}

#[test]
fn resets_that_are_provoked_end_their_connection() {
    let origin = Origin::early(|request| match request.line().contains("/slow") {
        true => vec![Act::Silence],
        false => vec![Act::respond(200, "x")],
    });
    let gateway = before(&origin);
    for (name, provoke) in PROVOCATIONS {
        let asked = attack(&gateway, &origin, provoke);
        assert!(asked <= MOST, "{name}: {asked} requests");
        others_are_served(&gateway, name);
    }
    assert!(!gateway.log().contains("panicked"));
}
