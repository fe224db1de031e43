//! Connections that begin and never continue.

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::{in_front_of, others_are_served};
use crate::support::{Gateway, Origin, TlsClient, connect, within};

/// The first half of a ClientHello, in a record that is complete.
fn half_hello() -> Vec<u8> {
    let mut octets = vec![22, 3, 1, 1, 4, 1, 0, 2, 0, 3, 3];
    octets.resize(5 + 0x104, 7);
    octets
}

/// Opens a connection of some kind: silent, with half of a ClientHello, of half a record, or with
/// half a head.
fn open(gateway: &Gateway, number: usize) -> TcpStream {
    let hello = half_hello();
    let (address, octets) = match number % 4 {
        0 => (gateway.https, &b""[..]),
        1 => (gateway.https, &hello[..]),
        2 => (gateway.https, &hello[..100]),
        _ => (
            gateway.http,
            &b"GET / HTTP/1.1\r\nHost: plain.test\r\nX: "[..],
        ),
    };
    let mut stream = connect(address);
    stream.write_all(octets).expect("taken");
    stream
}

fn patient(origin: &Origin, limits: &str) -> Gateway {
    let limits = format!("limits: {{ handshake: 120s, header_read: 120s, {limits} }}");
    in_front_of(origin).server(&limits).start()
}

#[test]
fn half_open_connections_make_room_for_others() {
    let origin = Origin::named("x");
    let gateway = patient(&origin, "max_connections: 8");
    let mut kept = TlsClient::named("a.test").connect(gateway.https);
    assert_eq!(kept.get("a.test", "/").status, 200);
    let held: Vec<TcpStream> = (0..16).map(|number| open(&gateway, number)).collect();
    // As many as there is room for, and as many again that wait; and then these.
    let start = Instant::now();
    for number in 0..4 {
        others_are_served(&gateway, &format!("number {number}"));
    }
    let took = start.elapsed();
    assert!(took < Duration::from_secs(30), "{took:?}");
    let let_go = r#"snigate_tls_handshakes_total{group="none",result="let_go",resumed="false",version="none"}"#;
    within(Duration::from_secs(5), "a count of them", || {
        gateway.metric(let_go).filter(|count| *count >= 1.0)
    });
    drop(held);
    let log = gateway.log();
    assert!(!log.contains("ERROR"), "{log}");
}

#[test]
fn a_thousand_of_them_cost_little_and_hinder_nobody() {
    const COUNT: usize = 1000;
    let origin = Origin::named("x");
    let gateway = patient(&origin, "idle: 120s");
    // What is paid once.
    drop(
        (0..100)
            .map(|number| open(&gateway, number))
            .collect::<Vec<_>>(),
    );
    let mut kept = TlsClient::named("a.test").connect(gateway.https);
    assert_eq!(kept.get("a.test", "/").status, 200);
    let before = gateway.memory();
    let held: Vec<TcpStream> = (0..COUNT).map(|number| open(&gateway, number)).collect();
    let mut took: Vec<Duration> = (0..200)
        .map(|number| {
            let start = Instant::now();
            if number % 4 == 0 {
                let mut new = TlsClient::named("a.test").connect(gateway.https);
                assert_eq!(new.get("a.test", "/").status, 200);
            } else {
                assert_eq!(kept.get("a.test", "/").status, 200);
            }
            start.elapsed()
        })
        .collect();
    took.sort_unstable();
    let (median, worst) = (took[100], took[197]);
    assert!(median < Duration::from_millis(100), "{median:?}");
    assert!(worst < Duration::from_secs(1), "{worst:?}");
    let each = gateway.memory().saturating_sub(before) / COUNT as u64;
    assert!(each <= 48 * 1024, "{each} octets for each");
    drop(held);
}
