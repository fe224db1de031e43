//! Heads that take little to send and much to hold, and answers that nobody takes, so that they are
//! held for long.

use std::io::Write;

use super::{in_front_of, others_are_served};
use crate::support::{Act, Frame, Frames, Gateway, Origin, is_end};

/// Connections, and streams of each.
const CONNECTIONS: usize = 4;
const STREAMS: u32 = 100;

/// What the streams of one connection may hold.
const MEMORY: u64 = 8 << 20;

/// Connections before these. What their requests need for a moment, some 12 MiB on the first where each
/// unpacks to as much as there is room for, the allocator keeps for those after them. What threads and
/// OpenSSL need once is theirs too.
const FIRST: usize = 4;

/// The first entry of the dynamic table.
const ENTRY: u8 = 0x80 | 62;

/// A field that enters the table, and is then named by one octet again and again.
struct Bomb {
    name: &'static str,
    field: (&'static str, &'static str),
    times: usize,
}

const BOMBS: [Bomb; 5] = [
    Bomb {
        name: "as many fields as there may be",
        field: ("x", ""),
        times: 90,
    },
    Bomb {
        name: "too many fields",
        field: ("x", ""),
        times: 1900,
    },
    Bomb {
        name: "far too many fields",
        field: ("x", ""),
        times: 60_000,
    },
    Bomb {
        name: "as many crumbs as there is room for",
        field: ("cookie", "a"),
        times: 1600,
    },
    Bomb {
        name: "too many crumbs",
        field: ("cookie", ""),
        times: 60_000,
    },
];

/// HEADERS and CONTINUATION of one request.
fn request(stream: u32, bomb: &Bomb) -> Vec<u8> {
    let mut block = Frame::get(stream, "a.test", "/large").payload;
    if stream == 1 {
        let (name, value) = bomb.field;
        for (at, text) in [name, value].into_iter().enumerate() {
            if at == 0 {
                block.push(0x40);
            }
            block.push(u8::try_from(text.len()).expect("short"));
            block.extend_from_slice(text.as_bytes());
        }
    }
    block.resize(block.len() + bomb.times, ENTRY);
    let last = block.len().div_ceil(16_384) - 1;
    let parts = block.chunks(16_384).enumerate().map(|(at, part)| {
        let (kind, flags) = match at {
            0 => (Frame::HEADERS, Frame::END_STREAM),
            _ => (Frame::CONTINUATION, 0),
        };
        let end = if at == last { Frame::END_HEADERS } else { 0 };
        Frame::new(kind, flags | end, stream, part).bytes()
    });
    parts.collect::<Vec<_>>().concat()
}

/// Sends a bomb on every stream of a connection that has no window; the connection once each
/// stream has its head of an answer, or once it has ended.
fn hold(gateway: &Gateway, bomb: &Bomb) -> Frames {
    let mut frames = Frames::connect(gateway.https, "a.test", &[(4, 0)]);
    let mut answered = 0;
    for stream in (1..2 * STREAMS).step_by(2) {
        if frames.0.write_all(&request(stream, bomb)).is_err() {
            break;
        }
    }
    while answered < STREAMS {
        match frames.next() {
            Ok(frame) if matches!(frame.kind, Frame::HEADERS | Frame::RST_STREAM) => answered += 1,
            Ok(_) => {}
            Err(error) if is_end(&error) => break,
            Err(error) => panic!("{}: no answer and no end: {error}", bomb.name),
        }
    }
    frames
}

#[test]
fn heads_that_unpack_to_much_hold_little() {
    let origin = Origin::start(|request| match request.line().contains("/large") {
        true => vec![Act::respond(200, vec![b'x'; 1 << 20])],
        false => vec![Act::respond(200, "x")],
    });
    for bomb in &BOMBS {
        // One of its own, since what others have held and given back would count for it. Pingora's
        // proxy holds more for each request.
        let gateway = in_front_of(&origin).over_own_lane().start();
        others_are_served(&gateway, "at first");
        let hold_all =
            |count| -> Vec<Frames> { (0..count).map(|_| hold(&gateway, bomb)).collect() };
        let first = hold_all(FIRST);
        let before = gateway.memory();
        let more = hold_all(CONNECTIONS);
        let growth = gateway.memory().saturating_sub(before);
        let each = growth / u64::try_from(CONNECTIONS).expect("few");
        assert!(each <= MEMORY, "{}: {each} octets", bomb.name);
        others_are_served(&gateway, bomb.name);
        drop((first, more));
    }
}
