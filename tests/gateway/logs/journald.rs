//! A stand-in for systemd's journal, which reads its native protocol.

use std::collections::HashMap;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use super::logging;
use crate::support::{Origin, TlsClient};

/// The fields of an entry.
fn parse(entry: &[u8]) -> HashMap<String, String> {
    let entry = std::str::from_utf8(entry).expect("UTF-8");
    assert!(entry.ends_with('\n'), "{entry:?}");
    let fields = entry.lines().map(|line| {
        let (name, value) = line.split_once('=').expect("a field");
        let is_name =
            |octet: u8| octet.is_ascii_uppercase() || octet.is_ascii_digit() || octet == b'_';
        assert!(
            name.bytes().all(is_name) && !name.starts_with('_'),
            "{line}"
        );
        assert!(name.len() <= 64, "{line}");
        (name.to_owned(), value.to_owned())
    });
    fields.collect()
}

#[test]
fn entries_have_fields() {
    let origin = Origin::named("hello");
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("socket");
    let receiver = UnixDatagram::bind(&path).expect("bound");
    let patience = Some(Duration::from_secs(30));
    receiver.set_read_timeout(patience).expect("set");
    let place = format!("\"journald:{}\"", path.display());
    let log = format!("access: {place}, target: {place}, access_format: json");
    let gateway = logging(&origin, &log).start();
    let mut octets = vec![0; 1 << 20];
    let mut next_with = |name: &str| loop {
        let count = receiver.recv(&mut octets).expect("an entry");
        let fields = parse(&octets[..count]);
        if fields.contains_key(name) {
            return fields;
        }
    };
    let mut stream = TlsClient::named("a.test").connect(gateway.https);
    let request = "GET /x HTTP/1.1\r\nHost: a.test\r\nUser-Agent: a\u{2028}\"b\r\n\r\n";
    assert_eq!(stream.request(request).status, 200);
    let fields = next_with("SNIGATE_STATUS");
    for (name, value) in [
        ("PRIORITY", "6"),
        ("SYSLOG_IDENTIFIER", "snigate"),
        ("SNIGATE_LOG", "access-log"),
        ("SNIGATE_STATUS", "200"),
        ("SNIGATE_SNI", "a.test"),
        ("SNIGATE_USER_AGENT", "a\\xE2\\x80\\xA8\"b"),
    ] {
        assert_eq!(fields[name], value, "{fields:?}");
    }
    let line: serde_json::Value = serde_json::from_str(&fields["MESSAGE"]).expect("JSON");
    assert_eq!(line["target"], "/x");
    // The gateway's own log.
    gateway.signal(nix::sys::signal::Signal::SIGHUP);
    let fields = next_with("SNIGATE_SITES");
    assert!(fields["MESSAGE"].contains("reloaded"), "{fields:?}");
    assert_eq!(fields["SNIGATE_LOG"], "log");
    assert_eq!(fields["SNIGATE_MODULE"], "snigate::reload::report");
}
