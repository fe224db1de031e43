//! HTTP/2 connections that are more work than use.

mod resets;

use std::io::Write;
use std::time::Instant;

use super::{SECOND, limited};
use crate::support::{Frame, Frames, Gateway, H2, Origin, serving};

const PRIORITY: u8 = 2;

const PING: u8 = 6;

const WINDOW_UPDATE: u8 = 8;

const UNKNOWN: u8 = 0x42;

const ACK: u8 = 1;

const NO_ERROR: u32 = 0;

const ENHANCE_YOUR_CALM: u32 = 11;

/// The frames and octets after which a connection that is of no use has to be cut.
const FRAMES: usize = 1000;

const OCTETS: usize = 1 << 20;

/// The last stream and the code of a GOAWAY.
fn goaway(frame: &Frame) -> (u32, u32) {
    let number = |at: usize| {
        let octets = frame.payload[at..at + 4].try_into().expect("four octets");
        u32::from_be_bytes(octets)
    };
    (number(0), number(4))
}

/// Reads until the connection is announced to end, and then does; the code.
#[track_caller]
fn cut_with(frames: &mut Frames) -> Option<u32> {
    let frame = frames.until(|frame| frame.kind == Frame::GOAWAY)?;
    frames.until_closed();
    Some(goaway(&frame).1)
}

/// Sends `flood` for as long as it may last, and checks that the connection is cut for it.
#[track_caller]
fn is_cut(name: &str, frames: &mut Frames, mut flood: impl FnMut(u32) -> Vec<Frame>) {
    let (mut count, mut octets) = (0, 0);
    let mut bytes = Vec::new();
    for stream in (1..).step_by(2) {
        let part = flood(stream);
        count += part.len();
        let part: Vec<u8> = part.iter().flat_map(Frame::bytes).collect();
        octets += part.len();
        if count > FRAMES || octets > OCTETS {
            break;
        }
        bytes.extend(part);
    }
    // Where the connection is cut meanwhile, there is nothing more to be said.
    _ = frames.0.write_all(&bytes);
    assert_eq!(cut_with(frames), Some(ENHANCE_YOUR_CALM), "{name}");
}

fn own_answers() -> Gateway {
    serving(
        &[&["a.test"]],
        "sites: [{ hosts: [a.test], routes: [{ respond: { body: own } }] }]\n\
         log: { access: off }\n",
    )
    .start()
}

fn reset(stream: u32) -> Frame {
    Frame::new(Frame::RST_STREAM, 0, stream, 8u32.to_be_bytes())
}

/// A request whose body is to come.
fn begun(stream: u32) -> Frame {
    let flags = Frame::END_HEADERS;
    Frame::new(
        Frame::HEADERS,
        flags,
        stream,
        Frame::get(1, "a.test", "/").payload,
    )
}

#[test]
fn a_flood_of_frames_ends_the_connection() {
    let gateway = own_answers();
    let innocent = &mut H2::connect(gateway.https, "a.test");
    let flood = |name: &str, kind: u8, flags: u8, stream: u32, payload: &[u8]| {
        let mut frames = Frames::connect(gateway.https, "a.test", &[]);
        is_cut(name, &mut frames, |_| {
            vec![Frame::new(kind, flags, stream, payload)]
        });
    };
    flood("PING", PING, 0, 0, &[0; 8]);
    flood("acknowledged PING", PING, ACK, 0, &[0; 8]);
    flood("SETTINGS", Frame::SETTINGS, 0, 0, &[]);
    flood(
        "large SETTINGS",
        Frame::SETTINGS,
        0,
        0,
        &[0, 4, 0, 0, 1, 0].repeat(2000),
    );
    flood("PRIORITY", PRIORITY, 0, 1, &[0; 5]);
    flood("WINDOW_UPDATE", WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]);
    flood("unknown", UNKNOWN, 0, 0, &[]);
    flood("large unknown", UNKNOWN, 0, 0, &[0; 16_384]);
    assert_eq!(innocent.get("/").text(), "own");

    let mut frames = Frames::connect(gateway.https, "a.test", &[]);
    frames.send(&begun(1));
    is_cut("empty DATA", &mut frames, |_| {
        vec![Frame::new(Frame::DATA, 0, 1, [])]
    });
    let mut frames = Frames::connect(gateway.https, "a.test", &[]);
    frames.send(&Frame::new(
        Frame::HEADERS,
        0,
        1,
        Frame::get(1, "a.test", "/").payload,
    ));
    is_cut("CONTINUATION", &mut frames, |_| {
        vec![Frame::new(Frame::CONTINUATION, 0, 1, [])]
    });
    // Blocks that end, each in many frames.
    let mut frames = Frames::connect(gateway.https, "a.test", &[]);
    is_cut("split heads", &mut frames, |stream| {
        let mut get = Frame::get(stream, "a.test", "/");
        get.flags = Frame::END_STREAM;
        let mut block = vec![get];
        block.extend(vec![Frame::new(Frame::CONTINUATION, 0, stream, []); 15]);
        block.push(Frame::new(
            Frame::CONTINUATION,
            Frame::END_HEADERS,
            stream,
            [],
        ));
        block
    });
    assert_eq!(innocent.get("/").text(), "own");
    let limited = r#"snigate_connections_limited_total{limit="http2_flood"}"#;
    // Empty DATA and unending CONTINUATION meet limits of the h2 crate first.
    assert!(
        gateway.metric(limited) >= Some(9.0),
        "{:?}",
        gateway.metric(limited)
    );
    assert!(
        gateway
            .log()
            .contains("because of its resets or empty frames")
    );
}

#[test]
fn streams_in_vain_end_the_connection_whoever_ends_them() {
    let gateway = own_answers();
    let connect = || Frames::connect(gateway.https, "a.test", &[]);
    is_cut("requests that are taken back", &mut connect(), |stream| {
        vec![begun(stream), reset(stream)]
    });
    is_cut(
        "resets that the client makes the server send",
        &mut connect(),
        |stream| {
            let too_much = Frame::new(WINDOW_UPDATE, 0, stream, 0x7fff_ffffu32.to_be_bytes());
            vec![begun(stream), too_much]
        },
    );
    is_cut(
        "resets of streams that are over",
        &mut connect(),
        |stream| {
            let get = Frame::get(stream, "a.test", "/");
            if stream == 1 {
                vec![get]
            } else {
                vec![reset(1)]
            }
        },
    );
    is_cut("malformed requests", &mut connect(), |stream| {
        let fields = Frame::fields(&[(":method", "GET"), (":path", "/")]);
        let flags = Frame::END_HEADERS | Frame::END_STREAM;
        vec![Frame::new(Frame::HEADERS, flags, stream, fields)]
    });
    is_cut("requests for two hosts", &mut connect(), |stream| {
        let mut get = Frame::get(stream, "a.test", "/");
        get.payload.extend(Frame::fields(&[("host", "b.test")]));
        vec![get]
    });
    is_cut("too many fields", &mut connect(), |stream| {
        let mut get = Frame::get(stream, "a.test", "/");
        get.payload.extend(Frame::fields(&[("x", "y"); 101]));
        vec![get]
    });
    is_cut("far too large heads", &mut connect(), |stream| {
        let mut frames = vec![Frame::get(stream, "a.test", "/")];
        frames[0].flags = Frame::END_STREAM;
        frames[0].payload.extend(large(200_000));
        split(frames.remove(0))
    });
    // A field of 4 KiB, kept by the client's encoder and named by one octet each time after.
    is_cut("bombs", &mut connect(), |stream| {
        let mut get = Frame::get(stream, "a.test", "/");
        if stream == 1 {
            get.payload.extend([0x40, 1, b'x', 0x7f]);
            get.payload.extend(length_above(127, 4000));
            get.payload.extend([b'y'; 4000]);
        }
        get.payload.extend([0x80 | 62; 200]);
        vec![get]
    });
    is_cut("large trailers", &mut connect(), |stream| {
        let flags = Frame::END_HEADERS | Frame::END_STREAM;
        let fields = Frame::fields(&[("x", "y")].repeat(2000));
        vec![
            begun(stream),
            Frame::new(Frame::HEADERS, flags, stream, fields),
        ]
    });
    assert_eq!(H2::connect(gateway.https, "a.test").get("/").text(), "own");
}

#[test]
fn many_requests_at_once_are_all_answered() {
    let gateway = own_answers();
    let mut frames = Frames::connect(gateway.https, "a.test", &[]);
    let value = "y".repeat(100);
    // Some 60 KB of heads in one go, which are not looked at in one go.
    let mut bytes = Vec::new();
    for stream in (1..200).step_by(2) {
        let mut get = Frame::get(stream, "a.test", "/");
        get.payload.extend(Frame::fields(&[("x", &*value); 5]));
        bytes.extend(get.bytes());
    }
    frames.0.write_all(&bytes).expect("taken");
    let mut answered = 0;
    while answered < 100 {
        let frame = frames.next().expect("more answers");
        answered += usize::from(frame.stream > 0 && frame.flags & Frame::END_STREAM != 0);
    }
}

/// A number of HPACK above what its first octet holds (RFC 7541, section 5.1).
fn length_above(prefix: usize, length: usize) -> Vec<u8> {
    let mut rest = length - prefix;
    let mut octets = Vec::new();
    while rest >= 128 {
        octets.push(u8::try_from(rest % 128).expect("small") | 128);
        rest /= 128;
    }
    octets.push(u8::try_from(rest).expect("small"));
    octets
}

/// A field with a value of so many octets.
fn large(len: usize) -> Vec<u8> {
    let mut field = vec![0, 1, b'x', 0x7f];
    field.extend(length_above(127, len));
    field.resize(field.len() + len, b'y');
    field
}

/// HEADERS and CONTINUATION of frames that are not too large.
fn split(head: Frame) -> Vec<Frame> {
    let parts: Vec<&[u8]> = head.payload.chunks(16_384).collect();
    let kinds = (0..).map(|at| {
        if at == 0 {
            Frame::HEADERS
        } else {
            Frame::CONTINUATION
        }
    });
    let mut frames: Vec<Frame> = kinds
        .zip(parts)
        .map(|(kind, part)| Frame::new(kind, 0, head.stream, part))
        .collect();
    frames[0].flags = head.flags & !Frame::END_HEADERS;
    frames.last_mut().expect("some").flags |= Frame::END_HEADERS;
    frames
}

#[test]
fn heads_are_limited_as_over_http_1() {
    let origin = Origin::named("x");
    let gateway = limited(&origin, "max_header_bytes: 1KiB");
    let mut h2 = H2::connect(gateway.https, "a.test");
    let mut status = |path: &str, fields: &[(&'static str, String)]| {
        let request = h2.request("GET", path);
        let request = fields.iter().fold(request, |request, (name, value)| {
            request.header(*name, value)
        });
        let reply = h2.send(request, None).expect("an answer");
        (reply.status, reply.text())
    };
    let x = |len: usize| ("x", "y".repeat(len));
    let path = |len: usize| format!("/{}", "p".repeat(len));
    assert_eq!(status("/", &[x(500)]).0, 200);
    let (code, text) = status("/", &[x(20_000)]);
    assert_eq!(code, 431);
    assert!(text.contains("The request head is too large."), "{text}");
    assert_eq!(status("/", &[x(200_000)]).0, 431);
    assert_eq!(status("/", &vec![x(1); 1500]).0, 431);
    let (code, text) = status(&path(60_000), &[]);
    assert_eq!(code, 414);
    assert!(text.contains("The request line is too long."), "{text}");
    assert_eq!(status("/", &[]).0, 200, "the connection stays open");
    assert_eq!(origin.requests().len(), 2);
    let refused = r#"snigate_requests_malformed_total{reason="the request line is too long"}"#;
    assert_eq!(gateway.metric(refused), Some(1.0));
}

#[test]
fn a_head_that_is_too_large_is_answered_and_the_limit_is_told() {
    let origin = Origin::named("x");
    let gateway = limited(&origin, "idle: 60s");
    let mut frames = Frames::connect(gateway.https, "a.test", &[]);
    let settings = frames.until(|frame| frame.kind == Frame::SETTINGS);
    let settings = settings.expect("settings").payload;
    let limit: Vec<&[u8]> = settings
        .chunks(6)
        .filter(|setting| setting.starts_with(&[0, 6]))
        .collect();
    assert_eq!(limit, [[0, 6, 0, 1, 0, 0]], "64 KiB");

    let mut h2 = H2::connect(gateway.https, "a.test");
    for size in [66_000, 100_000, 200_000, 250_000] {
        let request = h2.request("GET", "/").header("x", "y".repeat(size));
        assert_eq!(
            h2.send(request, None).expect("an answer").status,
            431,
            "{size}"
        );
    }
    let request = h2.request("GET", "/").header("x", "y".repeat(60_000));
    assert_eq!(h2.send(request, None).expect("an answer").status, 200);
}

#[test]
fn a_connection_is_told_before_it_is_closed_for_idleness() {
    let origin = Origin::named("x");
    let gateway = limited(&origin, "idle: 1s");
    let mut frames = Frames::connect(gateway.https, "a.test", &[]);
    let told = frames.until(|frame| frame.kind == Frame::GOAWAY);
    assert_eq!(goaway(&told.expect("a GOAWAY")), (0x7fff_ffff, NO_ERROR));
    // A request that crosses it is answered, and the last word says so.
    frames.send(&Frame::get(1, "a.test", "/"));
    let mut answered = false;
    let last = frames.until(|frame| {
        answered |= frame.stream == 1 && frame.flags & Frame::END_STREAM != 0;
        frame.kind == Frame::GOAWAY
    });
    assert!(answered);
    assert_eq!(goaway(&last.expect("a GOAWAY")), (1, NO_ERROR));
    frames.until_closed();
}

#[test]
fn an_own_answer_is_sent_for_as_long_as_it_is_taken() {
    let body = "z".repeat(256 * 1024);
    let gateway = serving(
        &[&["a.test"]],
        format!(
            "sites: [{{ hosts: [a.test], routes: [{{ respond: {{ body: {body} }} }}] }}]\n\
             log: {{ access: off }}\n"
        ),
    )
    .server("limits: { idle: 2s }")
    .start();
    const STEP: u32 = 16 * 1024;
    let mut frames = Frames::connect(gateway.https, "a.test", &[(4, STEP)]);
    frames.send(&Frame::new(WINDOW_UPDATE, 0, 0, (1u32 << 24).to_be_bytes()));
    frames.send(&Frame::get(1, "a.test", "/"));
    let (mut taken, start) = (0, Instant::now());
    while taken < body.len() {
        let mut window = STEP as usize;
        while window > 0 && taken < body.len() {
            let frame = frames.next().expect("more of the answer");
            assert_ne!(frame.kind, Frame::RST_STREAM, "cut at {taken}");
            if frame.kind == Frame::DATA {
                window -= frame.payload.len();
                taken += frame.payload.len();
            }
        }
        std::thread::sleep(SECOND * 3 / 10);
        frames.send(&Frame::new(WINDOW_UPDATE, 0, 1, STEP.to_be_bytes()));
    }
    assert!(start.elapsed() > SECOND * 4, "it was meant to be slow");
}
