//! Cancelled requests: they reach no upstream, and a client that cancels few of them is served.

use std::io::Write;
use std::time::Instant;

use super::{ENHANCE_YOUR_CALM, FRAMES, PRIORITY, WINDOW_UPDATE, cut_with, reset};
use crate::limits::{SECOND, limited};
use crate::support::{Act, Frame, Frames, H2, Origin};

#[test]
fn rapid_resets_open_few_connections_to_an_upstream() {
    let origin = Origin::start(|request| {
        if request.line().contains("/slow") {
            vec![Act::Silence]
        } else {
            vec![Act::respond(200, "fast")]
        }
    });
    let gateway = limited(&origin, "idle: 60s");
    let mut frames = Frames::connect(gateway.https, "a.test", &[]);
    let mut streams = (1u32..).step_by(2);
    let mut asked = 0;
    while asked < FRAMES {
        let batch: Vec<u32> = streams.by_ref().take(10).collect();
        let bytes = |frame: fn(u32) -> Frame| -> Vec<u8> {
            batch
                .iter()
                .flat_map(|&stream| frame(stream).bytes())
                .collect()
        };
        let requests = bytes(|stream| Frame::get(stream, "a.test", "/slow"));
        if frames.0.write_all(&requests).is_err() {
            break;
        }
        asked += batch.len();
        let enough = Instant::now() + SECOND * 2;
        while origin.connections() < asked && Instant::now() < enough {
            std::thread::yield_now();
        }
        if origin.connections() < asked || frames.0.write_all(&bytes(reset)).is_err() {
            break;
        }
    }
    assert_eq!(cut_with(&mut frames), Some(ENHANCE_YOUR_CALM));
    let connections = origin.connections();
    assert!(
        (150..=350).contains(&connections),
        "{connections} connections"
    );
    let mut other = H2::connect(gateway.https, "a.test");
    assert_eq!(other.get("/").text(), "fast");
}

#[test]
fn a_request_that_is_taken_back_at_once_reaches_no_upstream() {
    let origin = Origin::named("x");
    let gateway = limited(&origin, "idle: 60s");
    let mut frames = Frames::connect(gateway.https, "a.test", &[]);
    let mut bytes = Vec::new();
    for stream in (1..20).step_by(2) {
        bytes.extend(Frame::get(stream, "a.test", "/back").bytes());
        bytes.extend(reset(stream).bytes());
    }
    bytes.extend(Frame::get(21, "a.test", "/").bytes());
    frames.0.write_all(&bytes).expect("taken");
    frames.until(|frame| frame.stream == 21 && frame.flags & Frame::END_STREAM != 0);
    assert_eq!(origin.requests().len(), 1);
}

#[test]
fn a_client_that_cancels_and_acknowledges_much_is_served() {
    let origin = Origin::start(|request| {
        if request.line().contains("/slow") {
            vec![Act::Silence]
        } else {
            vec![Act::respond(200, [b'x'; 3000])]
        }
    });
    let gateway = limited(&origin, "idle: 60s");
    let mut frames = Frames::connect(gateway.https, "a.test", &[]);
    for stream in (1..1200).step_by(4) {
        frames.send(&Frame::new(PRIORITY, 0, stream, [0; 5]));
        frames.send(&Frame::get(stream, "a.test", "/slow"));
        frames.send(&Frame::get(stream + 2, "a.test", "/fast"));
        let end = frames.until(|frame| {
            frame.kind == Frame::GOAWAY
                || (frame.stream == stream + 2 && frame.flags & Frame::END_STREAM != 0)
        });
        let end = end.expect("an answer");
        assert_eq!(end.kind, Frame::DATA, "{end:?} at {stream}");
        for which in [0, stream + 2] {
            frames.send(&Frame::new(WINDOW_UPDATE, 0, which, [0, 0, 16, 0]));
        }
        frames.send(&reset(stream));
    }
}
