//! Receivers of syslog messages (RFC 5424), which are there or not.

use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use super::logging;
use crate::support::{Origin, TlsClient, wait_for};

pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// A message as RFC 5424 has it.
#[derive(Debug)]
pub(super) struct Message {
    facility: u16,
    severity: u16,
    kind: String,
    pub(super) text: String,
}

/// Reads a message and accepts nothing that the grammar does not have.
fn parse(message: &[u8]) -> Message {
    let message = std::str::from_utf8(message).expect("UTF-8");
    assert!(!message.contains(['\n', '\r', '\0']), "{message:?}");
    let rest = message.strip_prefix('<').expect("a priority");
    let (priority, rest) = rest.split_once('>').expect("a priority");
    assert!(priority == "0" || !priority.starts_with('0'), "{message}");
    let priority: u16 = priority.parse().expect("a number");
    assert!(priority <= 191, "{message}");
    let mut parts = rest.splitn(7, ' ');
    let mut next = || parts.next().expect("a part");
    assert_eq!(next(), "1");
    let time = next();
    let (date, clock) = time.split_once('T').expect("a time");
    assert_eq!(date.len(), 10, "{time}");
    assert!(
        clock.ends_with('Z') && clock.len() <= "00:00:00.000000Z".len(),
        "{time}"
    );
    time.parse::<jiff::Timestamp>().expect("a time");
    let names = [(255, next()), (48, next()), (128, next()), (32, next())];
    for (longest, name) in names {
        assert!(!name.is_empty() && name.len() <= longest, "{message}");
        assert!(
            name.bytes().all(|octet| octet.is_ascii_graphic()),
            "{message}"
        );
    }
    assert_eq!(names[1].1, "snigate");
    names[2].1.parse::<u32>().expect("a process");
    let kind = names[3].1.to_owned();
    let text = next().strip_prefix("- ").expect("no structured data");
    Message {
        facility: priority / 8,
        severity: priority % 8,
        kind,
        text: text.to_owned(),
    }
}

/// The next message of a stream with counted octets (RFC 6587, section 3.4.1).
pub(super) fn read_counted(stream: &mut impl BufRead) -> Option<Message> {
    let mut count = Vec::new();
    stream.read_until(b' ', &mut count).ok()?;
    let count = std::str::from_utf8(count.strip_suffix(b" ")?).expect("a number");
    assert!(!count.starts_with('0'), "{count}");
    let mut message = vec![0; count.parse().expect("a number")];
    stream.read_exact(&mut message).ok()?;
    Some(parse(&message))
}

fn accept(listener: &TcpListener) -> BufReader<TcpStream> {
    let (stream, _) = listener.accept().expect("accepted");
    stream.set_read_timeout(Some(PATIENCE)).expect("set");
    BufReader::new(stream)
}

#[test]
fn datagrams_reach_a_receiver() {
    let origin = Origin::named("hello");
    let receiver = UdpSocket::bind("127.0.0.1:0").expect("bound");
    receiver.set_read_timeout(Some(PATIENCE)).expect("set");
    let port = receiver.local_addr().expect("bound").port();
    let log = format!(
        "access: \"udp://127.0.0.1:{port}\", syslog: {{ facility: local3 }}, target: own.log"
    );
    let gateway = logging(&origin, &log).start();
    let mut stream = TlsClient::named("a.test").connect(gateway.https);
    assert_eq!(stream.get("a.test", "/x").status, 200);
    let mut octets = [0; 65_536];
    let count = receiver.recv(&mut octets).expect("a message");
    let message = parse(&octets[..count]);
    assert_eq!((message.facility, message.severity), (19, 6));
    assert_eq!(message.kind, "access-log");
    assert!(
        message.text.contains("\"GET /x HTTP/1.1\" 200"),
        "{message:?}"
    );
}

#[test]
fn a_socket_gets_the_gateways_own_log() {
    let origin = Origin::named("hello");
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("log");
    let receiver = UnixDatagram::bind(&path).expect("bound");
    receiver.set_read_timeout(Some(PATIENCE)).expect("set");
    let log = format!("access: off, target: \"unix:{}\"", path.display());
    let gateway = logging(&origin, &log).start();
    gateway.signal(nix::sys::signal::Signal::SIGHUP);
    let mut octets = [0; 65_536];
    let mut next = || {
        let count = receiver.recv(&mut octets).expect("a message");
        parse(&octets[..count])
    };
    let message = loop {
        let message = next();
        if message.text.contains("reloaded") {
            break message;
        }
    };
    assert_eq!((message.facility, message.severity), (3, 6));
    assert_eq!(message.kind, "log");
}

#[test]
fn a_receiver_that_stops_gets_the_lines_once_it_is_back() {
    let origin = Origin::named("hello");
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let place = listener.local_addr().expect("bound");
    let gateway = logging(
        &origin,
        &format!("access: \"tcp://{place}\", target: stderr"),
    )
    .start();
    let mut stream = TlsClient::named("a.test").connect(gateway.https);
    assert_eq!(stream.get("a.test", "/first").status, 200);
    let mut receiver = accept(&listener);
    let message = read_counted(&mut receiver).expect("a message");
    assert!(message.text.contains("/first"), "{message:?}");
    // It is gone: requests are served all the same.
    drop((receiver, listener));
    let mut sent = 0;
    wait_for("the failure", || {
        assert_eq!(stream.get("a.test", &format!("/later{sent}")).status, 200);
        sent += 1;
        gateway
            .log()
            .contains("the access log cannot be sent")
            .then_some(())
    });
    assert_eq!(stream.get("a.test", "/last").status, 200);
    let listener = TcpListener::bind(place).expect("bound");
    let mut receiver = accept(&listener);
    let mut texts = Vec::new();
    while !texts.iter().any(|text: &String| text.contains("/last")) {
        texts.push(read_counted(&mut receiver).expect("a message").text);
    }
    gateway.wait_for_log("the access log can be sent again");
    // What the system had accepted before it noticed may be lost, and nothing else.
    assert!(texts.len() >= 2, "{texts:?}");
    assert_eq!(
        gateway.metric("snigate_access_log_lines_lost_total"),
        Some(0.0)
    );
}

#[test]
fn a_receiver_that_reads_nothing_holds_nobody_up() {
    let origin = Origin::named("hello");
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let place = listener.local_addr().expect("bound");
    let log = format!("access: \"tcp://{place}\", target: \"tcp://{place}\"");
    let gateway = logging(&origin, &log).start();
    let mut stream = TlsClient::named("a.test").connect(gateway.https);
    let agent = "x".repeat(2000);
    let request = format!("GET / HTTP/1.1\r\nHost: a.test\r\nUser-Agent: {agent}\r\n\r\n");
    wait_for("lines to be lost", || {
        for _ in 0..200 {
            assert_eq!(stream.request(&request).status, 200);
        }
        gateway
            .metric("snigate_access_log_lines_lost_total")
            .filter(|lost| *lost > 0.0)
    });
}
