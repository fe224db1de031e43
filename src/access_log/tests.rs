use std::collections::HashMap;
use std::net::IpAddr;
use std::path::Path;

use http::HeaderName;

use super::*;
use crate::clock::unix;
use crate::config::model::{Column, LogField, LogFormat, LogTarget};
use crate::printable::is_control;

/// A request with these values beside the usual ones.
#[derive(Clone)]
struct Sample<'a>(HashMap<LogField, Value<'a>>);

impl Record for Sample<'_> {
    fn value(&self, field: LogField) -> Value<'_> {
        self.0.get(&field).copied().unwrap_or(Value::None)
    }

    fn header(&self, name: &HeaderName) -> &[u8] {
        match name.as_str() {
            "x-a" => b"a \"b",
            "referer" => b"https://b.example/?secret",
            _ => b"",
        }
    }
}

impl<'a> Sample<'a> {
    fn with(mut self, field: LogField, value: Value<'a>) -> Self {
        self.0.insert(field, value);
        self
    }
}

fn sample() -> Sample<'static> {
    let time = Value::Moment(unix(1_763_938_800));
    let values = [
        (LogField::Time, time),
        (LogField::TimeCombined, time),
        (LogField::Client, client(Some(IpAddr::from([192, 0, 2, 7])))),
        (LogField::Host, Value::Text(b"a.example")),
        (LogField::Method, Value::Word("GET")),
        (LogField::Target, Value::Text(b"/x?y=1")),
        (LogField::Version, Value::Word("HTTP/1.1")),
        (LogField::Status, Value::Number(200)),
        (LogField::Bytes, Value::Number(5)),
        (
            LogField::Duration,
            Value::Time(Duration::from_micros(12_345)),
        ),
        (LogField::RequestId, Value::Word("00ff")),
        (LogField::Referer, Value::Text(b"")),
        (LogField::UserAgent, Value::Text(b"curl/8")),
        (LogField::Upstream, Value::Word("10.0.0.1:8080")),
    ];
    Sample(values.into())
}

fn written(format: &AccessFormat, record: &dyn Record) -> String {
    let mut line = Vec::new();
    line::write_line(format, record, &mut line);
    String::from_utf8(line).expect("text")
}

fn text(record: &dyn Record) -> String {
    written(&AccessFormat::usual(LogFormat::Text, &[], &[]), record)
}

fn json(record: &dyn Record) -> String {
    written(&AccessFormat::usual(LogFormat::Json, &[], &[]), record)
}

fn own(format: &str, record: &dyn Record) -> String {
    written(&AccessFormat::parse(format).expect("a format"), record)
}

fn parsed(line: &str) -> serde_json::Value {
    serde_json::from_str(line).expect("valid JSON")
}

#[test]
fn a_text_line_begins_as_the_combined_format() {
    assert_eq!(
        text(&sample()),
        "192.0.2.7 - - [23/Nov/2025:23:00:00 +0000] \"GET /x?y=1 HTTP/1.1\" 200 5 \"-\" \
         \"curl/8\" host=\"a.example\" id=00ff duration=0.012345 upstream=10.0.0.1:8080",
    );
}

#[test]
fn a_json_line_is_json() {
    let value = parsed(&json(&sample()));
    assert_eq!(value["host"], "a.example");
    assert_eq!(value["status"], 200);
    assert_eq!(value["duration"], 0.012_345);
    assert_eq!(value["time"], "2025-11-23T23:00:00Z");
    assert_eq!(value["referer"], "");
    assert_eq!(value.get("user"), None);
}

#[test]
fn a_format_of_ones_own_has_what_it_names() {
    let record = sample().with(LogField::User, Value::Text(b"ann [x] \"y"));
    assert_eq!(
        own("{{{status}}} {user} \"{user}\" {header:X-A}|{sni}", &record),
        "{200} ann__x__\\x22y \"ann [x] \\x22y\" a_\\x22b|-"
    );
    assert_eq!(
        own("{time} {tls_resumed}", &record),
        "2025-11-23T23:00:00Z -"
    );
}

#[test]
fn fields_are_added_and_left_out() {
    let added = [
        Column::Field(LogField::Sni),
        Column::header(HeaderName::from_static("x-a")),
        Column::header(HeaderName::from_static("x-b")),
        Column::header(HeaderName::from_static("referer")),
    ];
    let removed = [LogField::UserAgent, LogField::Query, LogField::Time];
    let record = sample()
        .with(LogField::Sni, Value::Text(b"a.example"))
        .with(LogField::Referer, Value::Text(b"https://b.example/?secret"));
    let line = written(
        &AccessFormat::usual(LogFormat::Text, &added, &removed),
        &record,
    );
    assert!(line.contains("\"GET /x HTTP/1.1\" 200 5 \"https://b.example/\" \"-\" host="));
    assert!(
        line.ends_with(
            " sni=\"a.example\" header_x_a=\"a \\x22b\" header_referer=\"https://b.example/\""
        ),
        "{line}"
    );
    let line = written(
        &AccessFormat::usual(LogFormat::Json, &added, &removed),
        &record,
    );
    let value = parsed(&line);
    assert_eq!(value["target"], "/x");
    assert_eq!(value["header_x_a"], "a \"b");
    for absent in ["user_agent", "time", "header_x_b"] {
        assert_eq!(value.get(absent), None, "{absent}");
    }
}

#[test]
fn a_certificate_is_logged_if_there_is_one() {
    let record = sample()
        .with(LogField::ClientCertSubject, Value::Text(b"CN=\"a\"\n"))
        .with(LogField::ClientCertFingerprint, Value::Word("00ff"));
    let line = text(&record);
    let end = " client_cert_subject=\"CN=\\x22a\\x22\\x0A\" client_cert_fingerprint=00ff";
    assert!(line.ends_with(end), "{line}");
    let value = parsed(&json(&record));
    assert_eq!(value["client_cert_subject"], "CN=\"a\"\n");
    assert_eq!(value["client_cert_fingerprint"], "00ff");
}

#[test]
fn what_became_of_a_tunnel_is_logged() {
    let record = sample()
        .with(LogField::Received, Value::Number(512))
        .with(LogField::Ended, Value::Word("idle"));
    assert!(text(&record).ends_with(" received=512 ended=idle"));
    let value = parsed(&json(&record));
    assert_eq!(value["received"], 512);
    assert_eq!(value["ended"], "idle");
}

#[test]
fn a_connection_without_a_request_has_a_line() {
    let record = RefusedConnection {
        time: unix(0),
        client: None,
        version: "TLS",
        duration: Some(Duration::from_millis(1500)),
        server_name: Some("a\nb"),
        failed: Some("no_shared_cipher"),
        refused: "failed",
        reason: Some("no shared cipher"),
        held_back: 7,
    };
    assert_eq!(
        text(&record),
        "unix - - [01/Jan/1970:00:00:00 +0000] \"- - TLS\" 0 0 \"-\" \"-\" host=\"-\" id=- \
         duration=1.500000 upstream=- failed=no_shared_cipher refused=failed reason=\"no shared cipher\" held_back=7",
    );
    let value = parsed(&json(&record));
    assert_eq!(value["sni"], "a\nb");
    assert_eq!(value["held_back"], 7);
}

#[test]
fn a_long_line_is_cut() {
    let record = sample()
        .with(LogField::UserAgent, Value::Text(&[0xff; 60_000]))
        .with(LogField::Target, Value::Text(&[b'a'; 60_000]))
        .with(
            LogField::Referer,
            Value::Text("€".repeat(60_000).leak().as_bytes()),
        )
        .with(LogField::Host, Value::Text(&[b'\n'; 60_000]));
    for line in [text(&record), json(&record)] {
        assert!(line.len() < 40 * 1024, "{}", line.len());
        assert_eq!(line.matches('…').count(), 4);
    }
    assert!(text(&record).contains("aaa… HTTP/1.1\""));
    let many = "{host}{target}{user_agent}".repeat(50);
    assert!(own(&many, &record).len() < 40 * 1024);
    parsed(&json(&record));
}

#[test]
fn nothing_a_client_sends_hides_what_the_gateway_says() {
    let evil = Value::Text(&[0xad; 60_000]);
    let mut record = sample().with(LogField::Refused, Value::Word("no_route"));
    for field in [
        LogField::Host,
        LogField::Method,
        LogField::Target,
        LogField::Referer,
        LogField::UserAgent,
    ] {
        record = record.with(field, evil);
    }
    let mut journal = Vec::new();
    for format in [LogFormat::Json, LogFormat::Text] {
        let format = AccessFormat::usual(format, &[Column::Field(LogField::Refused)], &[]);
        line::write_journal(&format, &record, &mut journal);
        let journal = String::from_utf8(std::mem::take(&mut journal)).expect("text");
        assert!(journal.len() < 40 * 1024, "{}", journal.len());
        for field in [
            "REQUEST_ID=00ff",
            "UPSTREAM=10.0.0.1:8080",
            "REFUSED=no_route",
        ] {
            let field = format!("\nSNIGATE_{field}\n");
            assert!(journal.contains(&field), "{field}");
        }
    }
}

#[test]
fn nothing_a_client_sends_ends_a_line_or_a_field() {
    let evil = Value::Text(b"a\"\\\r\n\x1b[31m\x00\x85\xff\xc2\x85\xe2\x80\xa8z");
    let mut record = sample();
    for field in [
        LogField::Host,
        LogField::Target,
        LogField::UserAgent,
        LogField::Referer,
    ] {
        record = record.with(field, evil);
    }
    let line = text(&record);
    assert_eq!(line.matches('"').count(), 8);
    let bare = own("{host} {target}", &record);
    assert_eq!(bare.matches(' ').count(), 1);
    let mut journal = Vec::new();
    let format = AccessFormat::usual(LogFormat::Json, &[], &[]);
    line::write_journal(&format, &record, &mut journal);
    let journal = String::from_utf8(journal).expect("text");
    for field in journal.lines() {
        assert!(field.contains('='), "{field}");
        assert!(!field.chars().any(is_control), "{field:?}");
    }
    assert!(journal.contains("\nSNIGATE_STATUS=200\n"), "{journal}");
    let object = json(&record);
    for line in [line, bare, object.clone()] {
        assert!(!line.chars().any(is_control), "{line:?}");
    }
    let host = &parsed(&object)["host"];
    assert!(
        host.as_str()
            .expect("text")
            .starts_with("a\"\\\r\n\u{1b}[31m\0")
    );
}

#[test]
fn lines_reach_a_file_and_a_rotated_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("access.log");
    let settings = Log {
        access: LogTarget::File(path.clone()),
        ..Log::default()
    };
    let lost = IntCounter::new("lost", "lost").expect("a valid name");
    let log = AccessLog::open(&settings, lost.clone()).expect("a log");
    log.write(&sample());
    log.flush(Duration::from_secs(5));
    let rotated = folder.path().join("access.log.1");
    std::fs::rename(&path, &rotated).expect("rotated");
    log.reopen();
    log.write(&sample());
    // Another format, in the same queue.
    let settings = Log {
        access_format: AccessFormat::usual(LogFormat::Json, &[], &[]),
        ..settings
    };
    let log = log.succeed(&settings, lost.clone()).expect("a log");
    log.write(&sample());
    log.flush(Duration::from_secs(5));
    let read = |path: &Path| std::fs::read_to_string(path).expect("a file");
    assert_eq!(read(&rotated).lines().count(), 1);
    let lines = read(&path);
    let lines: Vec<&str> = lines.lines().collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(parsed(lines[1])["status"], 200);
    assert_eq!(lost.get(), 0);
}
