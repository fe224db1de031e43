//! What HTTP/2 can say and HTTP/1 cannot must not be said to an upstream.

use super::{Recorder, in_front_of};
use crate::support::{Frame, Frames, TlsClient};

const PSEUDO: [(&str, &str); 4] = [
    (":method", "POST"),
    (":scheme", "https"),
    (":authority", "a.test"),
    (":path", "/case"),
];

/// The fields of a request, with `change` for what is asked in the usual way.
fn with(change: &[(&'static str, &'static str)]) -> Vec<(&'static str, &'static str)> {
    let mut fields = PSEUDO.to_vec();
    for (name, value) in change {
        match fields.iter_mut().find(|(known, _)| known == name) {
            Some(field) => field.1 = value,
            None => fields.push((name, value)),
        }
    }
    fields
}

/// Sends a request with these fields and this body. Whether it was refused: by a reset, by the end
/// of the connection, or by a 4xx.
fn refused(frames: &mut Frames, stream: u32, fields: &[(&str, &str)], body: &str) -> bool {
    frames.send(&Frame::new(
        Frame::HEADERS,
        Frame::END_HEADERS,
        stream,
        Frame::fields(fields),
    ));
    frames.send(&Frame::new(Frame::DATA, Frame::END_STREAM, stream, body));
    let end = frames.until(|frame| {
        frame.kind == Frame::GOAWAY
            || (frame.stream == stream && matches!(frame.kind, Frame::HEADERS | Frame::RST_STREAM))
    });
    match end {
        // 200 is one octet in the static table, and so is 400; other statuses are longer.
        Some(frame) if frame.kind == Frame::HEADERS => frame.payload.first() != Some(&0x88),
        _ => true,
    }
}

#[test]
fn fields_that_would_change_the_message_are_refused() {
    let recorder = Recorder::start();
    let gateway = in_front_of(&recorder);
    let smuggled = "0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a.test\r\n\r\n";
    let cases = [
        with(&[("transfer-encoding", "chunked")]),
        with(&[("transfer-encoding", "x")]),
        with(&[("connection", "transfer-encoding")]),
        with(&[("keep-alive", "1")]),
        with(&[("upgrade", "h2c")]),
        with(&[("proxy-connection", "close")]),
        with(&[("te", "gzip")]),
        with(&[("content-length", "5")]),
        with(&[("content-length", "999")]),
        with(&[("content-length", "x")]),
        with(&[("content-length", "47"), ("content-length ", "5")]),
        with(&[("x", "a\r\nTransfer-Encoding: chunked")]),
        with(&[("x", "a\nGET /smuggled HTTP/1.1")]),
        with(&[("x", "a\rb")]),
        with(&[("x", "a\0b")]),
        with(&[("x\r\ny", "a")]),
        with(&[("x: y\r\nz", "a")]),
        with(&[("x y", "a")]),
        with(&[("x:y", "a")]),
        with(&[("", "a")]),
        with(&[("Upper", "a")]),
        with(&[("Transfer-Encoding", "chunked")]),
        with(&[("host", "b.test")]),
        with(&[(
            ":path",
            "/case HTTP/1.1\r\nHost: a.test\r\n\r\nGET /smuggled",
        )]),
        with(&[(":path", "/a b")]),
        with(&[(":path", "/a\0b")]),
        with(&[(":path", "case")]),
        with(&[(":path", "")]),
        with(&[(":path", "*")]),
        with(&[(":path", "http://b.test/case")]),
        with(&[(":method", "GET /smuggled HTTP/1.1\r\nX: ")]),
        with(&[(":method", "P OST")]),
        with(&[(":method", "")]),
        with(&[(":scheme", "x\r\ny")]),
        with(&[(":authority", "a.test\r\nX: y")]),
        with(&[(":authority", "x@a.test")]),
        with(&[(":authority", "a.test/x")]),
        with(&[(":authority", "a.test b")]),
        with(&[(":authority", "")]),
        with(&[(":status", "200")]),
        with(&[(":protocol", "websocket")]),
        with(&[(":unknown", "x")]),
        [&with(&[("x", "y")])[..], &[(":path", "/smuggled")]].concat(),
        [&PSEUDO[..], &[(":path", "/smuggled")]].concat(),
        [&PSEUDO[..], &[(":method", "GET")]].concat(),
        PSEUDO[1..].to_vec(),
        PSEUDO[..3].to_vec(),
    ];
    let mut passed = Vec::new();
    for fields in &cases {
        let mut frames = Frames::connect(gateway.https, "a.test", &[]);
        if !refused(&mut frames, 1, fields, smuggled) {
            passed.push(format!("{fields:?}"));
        }
    }
    // These are decided by what comes first, the answer or the body, and by what counts as the
    // target; either way nothing but the plain request gets through.
    for change in [("content-length", "0"), (":path", "/a#b")] {
        let mut frames = Frames::connect(gateway.https, "a.test", &[]);
        refused(&mut frames, 1, &with(&[change]), smuggled);
    }
    for bytes in recorder.seen() {
        assert!(!bytes.contains('#'), "{bytes}");
        for line in ["\r\nGET /smuggled", "HTTP/1.1\r\nHost: a.test\r\n\r\nGET"] {
            // Where a body passes, it is framed as one.
            if let Some(at) = bytes.find(line) {
                assert!(bytes[..at].contains("chunked\r\n"), "{bytes}");
            }
        }
    }
    assert!(passed.is_empty(), "{}", passed.join("\n"));
    let mut stream = TlsClient::named("a.test").connect(gateway.https);
    assert_eq!(stream.get("a.test", "/control").text(), "ok");
}

#[test]
fn a_length_is_given_once_and_in_digits() {
    let recorder = Recorder::start();
    let gateway = in_front_of(&recorder);
    for lengths in [
        &["2", "2"][..],
        &["2", "02"],
        &["02", "2"],
        &["2, 2"],
        &["2,2"],
        &["+2"],
        &["2 "],
        &["0x2"],
        &[""],
    ] {
        let mut frames = Frames::connect(gateway.https, "a.test", &[]);
        let lengths = lengths.iter().map(|length| ("content-length", *length));
        let fields: Vec<_> = PSEUDO.into_iter().chain(lengths).collect();
        assert!(refused(&mut frames, 1, &fields, "ok"), "{fields:?}");
    }
    assert_eq!(recorder.count("/case"), 0);
    let mut frames = Frames::connect(gateway.https, "a.test", &[]);
    let fields = with(&[("content-length", "002")]);
    assert!(!refused(&mut frames, 1, &fields, "ok"));
    let seen = recorder.seen().concat().to_ascii_lowercase();
    assert!(seen.contains("\r\ncontent-length: 2\r\n"), "{seen}");
}

#[test]
fn no_upstream_gets_a_whole_request_whose_body_is_longer_than_declared() {
    let recorder = Recorder::start();
    let gateway = in_front_of(&recorder);
    for (length, declared, more) in [
        ("0", "", "x"),
        ("00", "", "x"),
        ("5", "hello", "x"),
        ("1", "h", "ello"),
    ] {
        let mut frames = Frames::connect(gateway.https, "a.test", &[]);
        let fields = Frame::fields(&with(&[("content-length", length)]));
        let head = Frame::new(Frame::HEADERS, Frame::END_HEADERS, 1, fields);
        frames.send(&head);
        if !declared.is_empty() {
            frames.send(&Frame::new(Frame::DATA, 0, 1, declared));
        }
        // All that may be passed on has been: a later request is answered.
        frames.send(&Frame::get(3, "a.test", "/after"));
        frames.until(|frame| frame.stream == 3 && frame.flags & Frame::END_STREAM != 0);
        frames.send(&Frame::new(Frame::DATA, Frame::END_STREAM, 1, more));
        let end = frames.until(|frame| frame.stream == 1 || frame.kind == Frame::GOAWAY);
        let is_answered = end.is_some_and(|frame| {
            frame.kind == Frame::HEADERS && frame.payload.first() == Some(&0x88)
        });
        assert!(!is_answered, "content-length: {length}");
    }
    for bytes in recorder.seen() {
        let Some(at) = bytes.find("POST /case") else {
            continue;
        };
        let (head, body) = bytes[at..].split_once("\r\n\r\n").expect("a head");
        let head = head.to_ascii_lowercase();
        let length = head.split("content-length: ").nth(1).expect("a length");
        let length: usize = length
            .lines()
            .next()
            .unwrap_or_default()
            .parse()
            .expect("a number");
        assert!(body.len() < length, "{bytes}");
    }
    // Where the end comes in time the request is whole, in one part or in crumbs.
    let mut frames = Frames::connect(gateway.https, "a.test", &[]);
    let fields = Frame::fields(&with(&[("content-length", "5")]));
    frames.send(&Frame::new(Frame::HEADERS, Frame::END_HEADERS, 1, fields));
    for part in ["h", "ell", "o"] {
        frames.send(&Frame::new(Frame::DATA, 0, 1, part));
    }
    frames.send(&Frame::new(Frame::DATA, Frame::END_STREAM, 1, ""));
    let end = frames.until(|frame| frame.stream == 1).expect("an answer");
    assert_eq!(end.payload.first(), Some(&0x88), "200");
    let empty = with(&[("content-length", "0")]);
    assert!(!refused(&mut frames, 3, &empty, ""));
}

#[test]
fn a_good_request_made_by_hand_passes() {
    let recorder = Recorder::start();
    let gateway = in_front_of(&recorder);
    let mut frames = Frames::connect(gateway.https, "a.test", &[]);
    let fields = with(&[
        ("content-length", "5"),
        ("te", "trailers"),
        ("x", "a\tb\u{fc}"),
    ]);
    assert!(!refused(&mut frames, 1, &fields, "hello"));
    assert!(!refused(
        &mut frames,
        3,
        &with(&[("host", "a.test")]),
        "0\r\n\r\nhello"
    ));
    assert_eq!(recorder.count("/case"), 2);
    // A body without a length is in chunks, whatever it looks like.
    let seen = recorder.seen().concat();
    assert!(
        seen.contains("\r\nA\r\n0\r\n\r\nhello\r\n0\r\n\r\n")
            || seen.contains("\r\na\r\n0\r\n\r\nhello\r\n0\r\n\r\n"),
        "{seen}"
    );
}

#[test]
fn pseudo_fields_in_trailers_reach_no_upstream() {
    let recorder = Recorder::start();
    let gateway = in_front_of(&recorder);
    let mut frames = Frames::connect(gateway.https, "a.test", &[]);
    let head = Frame::fields(&PSEUDO);
    let trailers = Frame::fields(&[
        (":path", "/smuggled"),
        (":authority", "b.test"),
        (":status", "200"),
        ("x-trailer", "smuggled"),
    ]);
    frames.send(&Frame::new(Frame::HEADERS, Frame::END_HEADERS, 1, head));
    frames.send(&Frame::new(Frame::DATA, 0, 1, "hello"));
    let flags = Frame::END_HEADERS | Frame::END_STREAM;
    frames.send(&Frame::new(Frame::HEADERS, flags, 1, trailers));
    frames.until(|frame| frame.kind == Frame::RST_STREAM || frame.flags & Frame::END_STREAM != 0);
    let seen = recorder.seen().concat();
    assert!(
        !seen.contains("smuggled") && !seen.contains("b.test"),
        "{seen}"
    );
}

/// The ways in which an HTTP/2 body without a length can end, as frames of stream 0.
fn ends_of_a_body() -> [Vec<Frame>; 6] {
    const PADDED: u8 = 8;
    let data = |flags, payload: &[u8]| Frame::new(Frame::DATA, flags, 0, payload);
    let padding = [3, 0, 0, 0];
    let trailers = Frame::new(
        Frame::HEADERS,
        Frame::END_HEADERS | Frame::END_STREAM,
        0,
        Frame::fields(&[("x-sum", "1")]),
    );
    [
        vec![data(0, b"hello"), data(Frame::END_STREAM, b"")],
        vec![data(Frame::END_STREAM, b"")],
        vec![
            data(0, b"hello"),
            data(Frame::END_STREAM | PADDED, &padding),
        ],
        vec![
            data(0, b"hello"),
            data(PADDED, &padding),
            data(0, b""),
            data(Frame::END_STREAM, b""),
        ],
        vec![data(0, b"hello"), trailers.clone()],
        vec![data(PADDED, &padding), trailers],
    ]
}

#[test]
fn a_body_in_chunks_ends_once_however_its_stream_does() {
    let recorder = Recorder::start();
    let gateway = in_front_of(&recorder);
    let mut frames = Frames::connect(gateway.https, "a.test", &[]);
    let mut requests = 0;
    // What is sent too much may come after the answer: the next round shows it.
    for _ in 0..3 {
        for end in ends_of_a_body() {
            let stream = 2 * requests + 1;
            requests += 1;
            let head = Frame::new(
                Frame::HEADERS,
                Frame::END_HEADERS,
                stream,
                Frame::fields(&PSEUDO),
            );
            frames.send(&head);
            for frame in end {
                frames.send(&Frame { stream, ..frame });
            }
            let answer = frames.until(|frame| {
                frame.stream == stream && matches!(frame.kind, Frame::HEADERS | Frame::RST_STREAM)
            });
            let answer = answer.expect("an answer");
            assert_eq!(answer.payload.first(), Some(&0x88), "{answer:?}");
        }
    }
    let seen = recorder.seen();
    for bytes in &seen {
        let mut rest = bytes.as_str();
        while !rest.is_empty() {
            let (head, after) = rest.split_once("\r\n\r\n").expect("a head");
            assert!(head.starts_with("POST /case HTTP/1.1\r\n"), "{bytes}");
            rest = after
                .strip_prefix("0\r\n\r\n")
                .or_else(|| after.strip_prefix("5\r\nhello\r\n0\r\n\r\n"))
                .unwrap_or_else(|| panic!("not one end of a body: {after:?}"));
        }
    }
    let count = seen.concat().matches("POST ").count();
    assert_eq!(count, usize::try_from(requests).expect("few"));
}
