//! The table, request by request, and what has to pass all the same.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use super::table::{Case, cases};
use super::{Recorder, SMUGGLED, in_front_of};
use crate::support::{Gateway, TlsClient, connect, is_end};

fn request(case: &Case, host: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = &case.bytes[..];
    while let Some(at) = rest.windows(4).position(|window| window == b"HOST") {
        bytes.extend_from_slice(&rest[..at]);
        bytes.extend_from_slice(host.as_bytes());
        rest = &rest[at + 4..];
    }
    bytes.extend_from_slice(rest);
    bytes
}

/// Sends a case and what would be smuggled behind it; the answer until the close.
fn answer(stream: &mut (impl Read + Write), case: &Case, host: &str) -> String {
    let _ = stream.write_all(&[&request(case, host)[..], SMUGGLED.as_bytes()].concat());
    until_closed(stream)
}

/// What comes until the close, and a word where there is none.
fn until_closed(stream: &mut impl Read) -> String {
    let mut answer = Vec::new();
    let mut buffer = [0; 1024];
    loop {
        match stream.read(&mut buffer) {
            Ok(count @ 1..) => answer.extend_from_slice(&buffer[..count]),
            Err(error) if !is_end(&error) => {
                answer.extend_from_slice(b" HTTP/1.1 left open");
                break;
            }
            Ok(_) | Err(_) => break,
        }
    }
    String::from_utf8_lossy(&answer).into_owned()
}

/// How long a refusal may take, on a busy machine.
fn soon(stream: &TcpStream) {
    let limit = Some(Duration::from_secs(5));
    stream.set_read_timeout(limit).expect("set");
}

/// Sends all; what is wrong with the answers.
fn complaints(mut send: impl FnMut(&Case) -> String) -> Vec<String> {
    let mut complaints = Vec::new();
    for case in cases() {
        let answer = send(&case);
        let expected = format!("HTTP/1.1 {} ", case.status);
        let alone = answer.matches("HTTP/1.1 ").count() == 1;
        if !answer.starts_with(&expected) || !alone {
            let answer: String = answer.chars().take(200).collect();
            complaints.push(format!("{:?} expects {expected}: {answer:?}", case.name));
        }
    }
    complaints
}

/// The origin has seen nothing but what it is asked now.
#[track_caller]
fn origin_is_clean(gateway: &Gateway, recorder: &Recorder) {
    let mut stream = TlsClient::named("a.test").connect(gateway.https);
    assert_eq!(stream.get("a.test", "/control").text(), "ok");
    assert_eq!(recorder.count("/control"), 1);
    for bytes in recorder.seen() {
        assert!(!bytes.contains("smuggled"), "{bytes}");
        for head in bytes.split("\r\n\r\n") {
            let fields = head.to_ascii_lowercase();
            assert!(
                !(fields.contains("\ncontent-length:") && fields.contains("\ntransfer-encoding:")),
                "{head}"
            );
        }
    }
}

#[test]
fn every_ambiguous_request_is_refused_and_its_connection_closed() {
    assert!(cases().len() > 150, "{}", cases().len());
    let recorder = Recorder::start();
    let gateway = in_front_of(&recorder);
    let wrong = complaints(|case| {
        let mut stream = connect(gateway.http);
        soon(&stream);
        answer(&mut stream, case, "plain.test")
    });
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    origin_is_clean(&gateway, &recorder);
}

#[test]
fn every_ambiguous_request_is_refused_over_tls() {
    let recorder = Recorder::start();
    let gateway = in_front_of(&recorder);
    let wrong = complaints(|case| {
        let mut stream = TlsClient::named("a.test").connect(gateway.https);
        soon(stream.tcp());
        answer(&mut stream, case, "a.test")
    });
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    origin_is_clean(&gateway, &recorder);
}

#[test]
fn it_does_not_matter_how_the_octets_are_cut() {
    let recorder = Recorder::start();
    let gateway = in_front_of(&recorder);
    let wrong = complaints(|case| {
        let mut stream = connect(gateway.http);
        soon(&stream);
        stream.set_nodelay(true).expect("set");
        let bytes = request(case, "plain.test");
        // Byte by byte, but for what is only large.
        let (large, small) = bytes.split_at(bytes.len().saturating_sub(400));
        let _ = stream.write_all(large);
        for byte in small {
            if stream.write_all(&[*byte]).is_err() {
                break;
            }
        }
        let _ = stream.write_all(SMUGGLED.as_bytes());
        until_closed(&mut stream)
    });
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    origin_is_clean(&gateway, &recorder);
}

#[test]
fn good_requests_pass_up_to_the_limits() {
    let recorder = Recorder::start();
    let gateway = in_front_of(&recorder);
    let post = |fields: &str, body: &str| {
        format!("POST /good HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n{body}")
    };
    let chunked = "Transfer-Encoding: chunked\r\n";
    let good = [
        post("", ""),
        post("Content-Length: 0\r\n", ""),
        post("content-length:5\r\n", "hello"),
        post("Content-Length: \t5 \t\r\n", "hello"),
        post("Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n0\r\n\r\n"),
        post("transfer-encoding:Chunked \r\n", "5\r\nhello\r\n0\r\n\r\n"),
        post(chunked, "0\r\n\r\n"),
        post(chunked, "00005\r\nhello\r\n000\r\n\r\n"),
        post(chunked, "5;a=\"b\"\r\nhello\r\n0;x\r\nT: v\r\n\r\n"),
        post(chunked, &format!("{}0\r\n\r\n", "1\r\na\r\n".repeat(500))),
        post(
            chunked,
            &format!("1;{}\r\na\r\n0\r\n\r\n", "x".repeat(4000)),
        ),
        post(chunked, &format!("0\r\nT: {}\r\n\r\n", "x".repeat(16_000))),
        post(&"X: y\r\n".repeat(99), ""),
        post(&format!("X: {}\r\n", "y".repeat(60 * 1024)), ""),
        post("X:\r\nY: \t\r\nZ: a\tb \u{fc}\r\n", ""),
        "\r\nGET /good HTTP/1.1\r\nHost: a.test\r\n\r\n".to_owned(),
        "GET /good HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\n\r\nhello".to_owned(),
    ];
    let mut stream = TlsClient::named("a.test").connect(gateway.https);
    for (number, request) in good.iter().enumerate() {
        let shown: String = request.chars().take(120).collect();
        assert_eq!(stream.request(request).status, 200, "{shown:?}");
        assert_eq!(recorder.count("/good"), number + 1, "{shown:?}");
    }
    let path = format!("/{}", "x".repeat(16 * 1024 - 20));
    assert_eq!(stream.get("a.test", &path).status, 200);
    let old = stream.exchange("GET /good HTTP/1.0\r\nHost: a.test\r\n\r\n");
    assert!(old.starts_with(b"HTTP/1.1 200"), "{}", old.escape_ascii());
    origin_is_clean(&gateway, &recorder);
}

#[test]
fn a_connection_field_cannot_take_the_framing_away() {
    let recorder = Recorder::start();
    let gateway = in_front_of(&recorder);
    for name in [
        "Content-Length",
        "Host",
        "X-Forwarded-For",
        "Forwarded",
        "X-Request-Id",
    ] {
        let mut stream = TlsClient::named("a.test").connect(gateway.https);
        let request = format!(
            "POST /named HTTP/1.1\r\nHost: a.test\r\nConnection: keep-alive, {name}\r\n\
             Content-Length: {}\r\n\r\n{SMUGGLED}",
            SMUGGLED.len()
        );
        let status = stream.request(request).status;
        assert!(matches!(status, 200 | 400), "{name}: {status}");
        let mut stream = TlsClient::named("a.test").connect(gateway.https);
        let request = format!(
            "POST /named HTTP/1.1\r\nHost: a.test\r\nConnection: {name}, Transfer-Encoding\r\n\
             Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{SMUGGLED}\r\n0\r\n\r\n",
            SMUGGLED.len()
        );
        let status = stream.request(request).status;
        assert!(matches!(status, 200 | 400), "{name}: {status}");
    }
    let mut heads = 0;
    for bytes in recorder.seen() {
        for (at, _) in bytes.match_indices("POST /named ") {
            heads += 1;
            let head = bytes[at..].split("\r\n\r\n").next().expect("a head");
            let framed = head.contains("Content-Length: ") || head.contains("chunked");
            assert!(framed, "{head}");
            for field in [
                "Host: a.test",
                "X-Forwarded-For: 127.0.0.1",
                "Forwarded: for=",
            ] {
                assert!(head.contains(field), "{field} missing in {head}");
            }
        }
        // Each smuggled request is inside a body, so that the recorder counted it as such.
        let bodies = bytes.matches("GET /smuggled").count();
        assert_eq!(bodies, bytes.matches("POST /named").count(), "{bytes}");
    }
    assert!(heads > 0, "some of them pass");
}
