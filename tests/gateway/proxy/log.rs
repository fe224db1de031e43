//! The access log.

use std::fs;

use serde_json::Value;

use super::{VERSIONS, over};
use crate::support::{Gateway, H2, Origin, TlsClient, connect, exchange, logging, wait_for};

fn gateway(origin: &Origin, format: &str) -> Gateway {
    logging(origin, &format!("format: {format}, access: access.log")).start()
}

/// The lines, once there are so many.
fn lines(gateway: &Gateway, count: usize) -> Vec<String> {
    wait_for(&format!("{count} lines in the access log"), || {
        let log = fs::read_to_string(gateway.dir().join("access.log")).unwrap_or_default();
        // The last one may be half written.
        let whole = log.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let lines: Vec<String> = whole.lines().map(str::to_owned).collect();
        (lines.len() >= count).then_some(lines)
    })
}

#[test]
fn a_text_line_tells_of_each_request() {
    let origin = Origin::named("hello");
    let gateway = gateway(&origin, "text");
    for (number, version) in VERSIONS.into_iter().enumerate() {
        let reply = over(version, &gateway, "a.test", "/x?y=z")
            .args(["-A", "agent/1", "-e", "https://from.test/"])
            .send();
        let line = lines(&gateway, number + 1).remove(number);
        let protocol = if version == "2" { "2.0" } else { "1.1" };
        assert!(line.starts_with("127.0.0.1 - - ["), "{line}");
        assert!(
            line.contains(&format!(
                "] \"GET /x?y=z HTTP/{protocol}\" 200 5 \"https://from.test/\" \"agent/1\" \
                 host=\"a.test:{}\" id={} duration=0.",
                gateway.https.port(),
                reply.header("x-request-id").expect("a name"),
            )),
            "{line}"
        );
        assert!(
            line.ends_with(&format!("upstream={}", origin.address())),
            "{line}"
        );
    }
}

#[test]
fn a_json_line_is_json() {
    let origin = Origin::named("hello");
    let gateway = gateway(&origin, "json");
    let reply = over("2", &gateway, "a.test", "/x")
        .args(["-A", "a\"b\\"])
        .send();
    let line: Value = serde_json::from_str(&lines(&gateway, 1)[0]).expect("JSON");
    assert_eq!(line["method"], "GET");
    assert_eq!(line["target"], "/x");
    assert_eq!(line["status"], 200);
    assert_eq!(line["bytes"], 5);
    assert_eq!(line["user_agent"], "a\"b\\");
    assert_eq!(line["version"], "HTTP/2.0");
    assert_eq!(
        line["request_id"],
        reply.header("x-request-id").expect("a name")
    );
    assert_eq!(line["upstream"], origin.address().to_string());
    let unanswered = gateway.curl_http("a.test", "/").send();
    assert_eq!(unanswered.status, 308);
    let line: Value = serde_json::from_str(&lines(&gateway, 2)[1]).expect("JSON");
    assert_eq!(
        (line["status"].as_u64(), &line["upstream"]),
        (Some(308), &Value::Null)
    );
}

/// How often the gateway's own log has a line with this.
fn told(gateway: &Gateway, what: &str) -> usize {
    gateway
        .log()
        .lines()
        .filter(|line| line.contains(what))
        .count()
}

#[test]
fn a_full_disk_is_told_once_and_its_losses_are_counted() {
    const LOST: &str = "snigate_access_log_lines_lost_total";
    let origin = Origin::named("hello");
    let gateway = logging(&origin, "access: access.log").disk().start();
    let mut stream = TlsClient::named("a.test").connect(gateway.https);
    assert_eq!(stream.get("a.test", "/first").status, 200);
    let first = lines(&gateway, 1);
    // Full in the middle of a line.
    gateway.limit_files(first[0].len() as u64 + 20);
    for _ in 0..300 {
        assert_eq!(stream.get("a.test", "/lost").status, 200);
    }
    wait_for("all to be given up", || {
        (gateway.metric(LOST) == Some(300.0)).then_some(())
    });
    gateway.fill_disk(false);
    assert_eq!(stream.get("a.test", "/last").status, 200);
    let lines = lines(&gateway, 3);
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert!(
        lines[1].len() < 20 && lines[0].starts_with(&lines[1][..9]),
        "{lines:?}"
    );
    assert!(lines[2].contains("GET /last "), "{lines:?}");
    gateway.wait_for_log("the access log can be written again");
    assert_eq!(told(&gateway, "the access log cannot be written"), 1);
    assert_eq!(told(&gateway, "the access log can be written again"), 1);
    assert_eq!(told(&gateway, "lost_lines=300"), 1, "{}", gateway.log());
    assert_eq!(gateway.metric(LOST), Some(300.0));
}

#[test]
fn a_rotated_file_is_written_again_only_once_it_is() {
    let origin = Origin::named("hello");
    let gateway = logging(&origin, "access: logs/access.log");
    let (logs, old) = (gateway.dir().join("logs"), gateway.dir().join("logs.old"));
    fs::create_dir(&logs).expect("made");
    let gateway = gateway.start();
    let mut stream = TlsClient::named("a.test").connect(gateway.https);
    assert_eq!(stream.get("a.test", "/one").status, 200);
    fs::rename(&logs, &old).expect("moved");
    gateway.signal(nix::sys::signal::Signal::SIGHUP);
    gateway.wait_for_log("the access log cannot be reopened");
    for _ in 0..10 {
        assert_eq!(stream.get("a.test", "/meanwhile").status, 200);
    }
    let read = |directory: &std::path::Path| {
        fs::read_to_string(directory.join("access.log")).unwrap_or_default()
    };
    wait_for("the lines", || {
        (read(&old).lines().count() == 11).then_some(())
    });
    assert_eq!(told(&gateway, "written again"), 0, "{}", gateway.log());

    // It is found without another signal.
    fs::create_dir(&logs).expect("made");
    wait_for("a line in the new file", || {
        assert_eq!(stream.get("a.test", "/new").status, 200);
        (!read(&logs).is_empty()).then_some(())
    });
    gateway.wait_for_log("the access log can be written again");
    assert_eq!(told(&gateway, "written again"), 1);
    assert_eq!(told(&gateway, "the access log cannot be reopened"), 1);
    assert!(!read(&old).ends_with("/last"));
    let before = read(&old);
    assert_eq!(stream.get("a.test", "/last").status, 200);
    wait_for("the last line", || {
        read(&logs).contains("/last").then_some(())
    });
    assert_eq!(read(&old), before);
}

#[test]
fn what_a_client_sends_is_cut_and_takes_bounded_memory() {
    let origin = Origin::named("hello");
    let dir = tempfile::tempdir().expect("a directory");
    let fifo = dir.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).expect("a fifo");
    // Nobody reads it.
    let reader = fs::OpenOptions::new().read(true).write(true).open(&fifo);
    let _reader = reader.expect("opened");
    let gateway = logging(&origin, &format!("access: {}", fifo.display())).start();
    let mut stream = TlsClient::named("a.test").connect(gateway.https);
    // Escaped, each octet takes four.
    let field = [0xff_u8; 14_000];
    let request = [
        b"GET / HTTP/1.1\r\nHost: a.test\r\nUser-Agent: ",
        &field[..],
        b"\r\nReferer: ",
        &field[..],
        b"\r\n\r\n",
    ]
    .concat();
    assert_eq!(stream.request(&request).status, 200);
    let memory = gateway.memory();
    for _ in 0..400 {
        assert_eq!(stream.request(&request).status, 200);
    }
    let grown = gateway.memory().saturating_sub(memory);
    assert!(grown < 24 << 20, "{} KiB", grown >> 10);
    wait_for("lines to be lost", || {
        gateway
            .metric("snigate_access_log_lines_lost_total")
            .filter(|lost| *lost > 0.0)
    });
}

#[test]
fn no_request_forges_a_line() {
    let origin = Origin::named("hello");
    for format in ["text", "json"] {
        let gateway = gateway(&origin, format);
        let mut stream = TlsClient::named("a.test").connect(gateway.https);
        // Every octet that a field may have, and a few that would hurt.
        let octets: Vec<u8> = (0x21..=0xff).filter(|octet| *octet != 0x7f).collect();
        let request = [
            b"GET /\"id=1\\x%0d%0a\xe2\x80\xa8\xc2\x9b\xff HTTP/1.1\r\nHost: a.test\r\nUser-Agent: ",
            &octets[..],
            b"\r\nReferer: \" 200 0 \"-\" \"forged\xc2\x85\r\n\r\n",
        ]
        .concat();
        let reply = stream.request(request);
        // Whether it is served or refused, it has one line.
        assert!(matches!(reply.status, 200 | 400), "{}", reply.status);
        let count = 1;
        let mut stream = TlsClient::named("a.test").connect(gateway.https);
        assert_eq!(stream.get("a.test", "/last").status, 200);
        let lines = lines(&gateway, count + 1);
        assert_eq!(lines.len(), count + 1, "{lines:?}");
        for line in &lines {
            assert!(!line.chars().any(char::is_control), "{line:?}");
            if format == "json" {
                let line: Value = serde_json::from_str(line).expect("JSON");
                assert!(line["status"] == 200 || line["status"] == u64::from(reply.status));
            }
        }
    }
    let gateway = gateway(&origin, "text");
    let evil = "GET / HTTP/1.1\r\nHost: a.test\r\nUser-Agent: x\ny\r\n\r\n";
    assert!(exchange(&mut connect(gateway.http), evil).starts_with(b"HTTP/1.1 400"));
}

#[test]
fn what_is_refused_unread_has_a_page_and_a_line_too() {
    let origin = Origin::named("hello");
    let gateway = gateway(&origin, "json");
    let long = "x".repeat(20_000);
    let many = "X: y\r\n".repeat(101);
    for (number, (request, status, method, target)) in [
        (
            "GET /a HTTP/1.1\r\nHost: x@a.test\r\n\r\n",
            400,
            "GET",
            "/a",
        ),
        (
            "GET http://a.test:443/b HTTP/1.1\r\nHost: a.test\r\n\r\n",
            400,
            "GET",
            "http://a.test:443/b",
        ),
        ("GET /c HTTP/1.1\r\n\r\n", 400, "GET", "/c"),
        (
            &format!("GET /{long} HTTP/1.1\r\nHost: a.test\r\n\r\n"),
            414,
            "GET",
            "/xxx",
        ),
        (
            &format!("GET /d HTTP/1.1\r\nHost: a.test\r\n{many}\r\n"),
            431,
            "GET",
            "/d",
        ),
        (
            "CONNECT a.test:443 HTTP/1.1\r\nHost: a.test\r\n\r\n",
            405,
            "CONNECT",
            "a.test:443",
        ),
        (
            "GET /e HTTP/1.1\r\nHost: a.test\r\nConnection: host\r\n\r\n",
            400,
            "GET",
            "/e",
        ),
        ("\x16\x03\x01\r\n\r\n", 400, "-", "-"),
    ]
    .into_iter()
    .enumerate()
    {
        let mut stream = TlsClient::named("a.test").connect(gateway.https);
        let reply = stream.request(request);
        assert_eq!(reply.status, status, "{target}");
        assert_eq!(reply.header("server"), None);
        assert_eq!(reply.header("connection"), Some("close"));
        let id = reply.header("x-request-id").expect("a name");
        assert!(reply.text().contains(id), "{}", reply.text());
        let line = lines(&gateway, number + 1).remove(number);
        let line: Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!(line["status"], status);
        assert_eq!(line["method"], method);
        let logged = line["target"].as_str().expect("a target");
        assert!(logged.starts_with(target), "{line}");
        assert_eq!(line["request_id"], id);
        assert_eq!(line["client"], "127.0.0.1");
    }
    assert_eq!(origin.connections(), 0);
}

#[test]
fn over_http2_what_names_two_hosts_has_a_page_and_a_line_too() {
    let origin = Origin::named("hello");
    let gateway = gateway(&origin, "json");
    let mut h2 = H2::connect(gateway.https, "a.test");
    for (number, (fields, why)) in [
        (&[("host", "b.test")][..], "differ"),
        (&[("host", "a.test"), ("host", "a.test")], "ore than one"),
        (&[("host", "x@a.test")], "differ"),
        (
            &[("content-length", "0"), ("content-length", "0")],
            "ore than one",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let mut request = h2.request("GET", "/x");
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let reply = h2.send(request, None).expect("an answer");
        assert_eq!(reply.status, 400, "{fields:?}");
        assert_eq!(reply.header("server"), None);
        let id = reply.header("x-request-id").expect("a name");
        assert!(reply.text().contains(id), "{}", reply.text());
        assert!(reply.text().contains(why), "{}", reply.text());
        let line = lines(&gateway, number + 1).remove(number);
        let line: Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!(line["status"], 400);
        assert_eq!(line["method"], "GET");
        assert_eq!(line["target"], "/x");
        assert_eq!(line["version"], "HTTP/2.0");
        assert_eq!(line["host"], "a.test");
        assert_eq!(line["request_id"], id);
        assert_eq!(line["client"], "127.0.0.1");
    }
    let refused =
        "snigate_requests_malformed_total{reason=\":authority and the Host field differ\"}";
    assert_eq!(gateway.metric(refused), Some(2.0));
    assert_eq!(origin.connections(), 0);
    // However the host is written, it is one, and the connection stays open.
    let port = gateway.https.port();
    for (authority, host) in [("a.test", "A.test"), ("A.test.", "a.test")] {
        let request = http::Request::get(format!("https://{authority}:{port}/"));
        let request = request.header("host", format!("{host}:{port}"));
        assert_eq!(h2.send(request, None).expect("an answer").status, 200);
    }
}

#[test]
fn no_target_is_refused_by_anything_but_the_gateway() {
    let origin = Origin::named("hello");
    let gateway = gateway(&origin, "text");
    for octet in 0x21..=0xff_u8 {
        let mut stream = TlsClient::named("a.test").connect(gateway.https);
        let target = [
            b"GET /x",
            &[octet][..],
            b"y HTTP/1.1\r\nHost: a.test\r\n\r\n",
        ]
        .concat();
        let reply = stream.request(target);
        assert_eq!(reply.header("server"), None, "{octet:#x}: {}", reply.head);
        assert!(
            reply.header("x-request-id").is_some(),
            "{octet:#x}: {}",
            reply.head
        );
    }
}
