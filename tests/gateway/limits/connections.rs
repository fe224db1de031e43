//! How many connections there may be.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use super::{SECOND, limited};
use crate::support::{Act, H2, Origin, connect, exchange, read_response, wait_for};

const REQUEST: &str = "GET / HTTP/1.1\r\nHost: plain.test\r\n\r\n";

/// Connections that met as many others as there may be.
const FULL: &str = r#"snigate_connections_limited_total{limit="max_connections"}"#;

#[test]
fn connections_beyond_the_total_wait_and_are_served() {
    let origin = Origin::start(|_| vec![Act::Hold, Act::respond(200, "x")]);
    let gateway = limited(&origin, "max_connections: 3");
    let mut open: Vec<TcpStream> = (0..3).map(|_| connect(gateway.http)).collect();
    for stream in &mut open {
        stream.write_all(REQUEST.as_bytes()).expect("taken");
    }
    origin.wait_for_requests(3);
    let mut waiting = connect(gateway.http);
    waiting.write_all(REQUEST.as_bytes()).expect("taken");
    waiting
        .set_read_timeout(Some(Duration::from_millis(300)))
        .expect("set");
    assert!(waiting.read(&mut [0]).is_err(), "it waits its turn");
    assert_eq!(origin.requests().len(), 3);
    // The admin interface is not among them.
    assert_eq!(gateway.ask("GET", "/healthz").status, 200);
    assert_eq!(gateway.metric(FULL), Some(1.0));
    gateway.wait_for_log("the connection limit is reached");
    waiting.set_read_timeout(Some(SECOND * 10)).expect("set");
    open.pop();
    origin.wait_for_requests(4);
    origin.release();
    assert_eq!(read_response(&mut waiting).expect("an answer").status, 200);
}

#[test]
fn connections_idle_longest_make_room_for_new_ones() {
    let origin = Origin::start(|request| {
        if request.line().contains("/hold") {
            vec![Act::Hold, Act::respond(200, "held")]
        } else {
            vec![Act::respond(200, "x")]
        }
    });
    let gateway = limited(&origin, "max_connections: 4, idle: 1h");
    let mut busy = connect(gateway.http);
    let hold = REQUEST.replace(" / ", " /hold ");
    busy.write_all(hold.as_bytes()).expect("taken");
    origin.wait_for_requests(1);
    // The longer a connection has been idle, the more has come after it, whatever the machine does.
    let silent = connect(gateway.http);
    let mut h2 = H2::connect(gateway.https, "a.test");
    assert_eq!(h2.get("/").text(), "x");
    let mut idle = connect(gateway.http);
    idle.write_all(REQUEST.as_bytes()).expect("taken");
    assert_eq!(read_response(&mut idle).expect("an answer").status, 200);

    // Each new one is served, by the end of whatever has been idle longest.
    let ask = || {
        let mut new = connect(gateway.http);
        new.write_all(REQUEST.as_bytes()).expect("taken");
        assert_eq!(read_response(&mut new).expect("an answer").status, 200);
        new
    };
    let _first = ask();
    assert_eq!((&silent).read(&mut [0]).expect("the end"), 0);
    let _second = ask();
    h2.wait_until_closed(SECOND * 5);
    let _third = ask();
    assert_eq!(idle.read(&mut [0]).expect("the end"), 0);
    // What is in flight stays.
    origin.release();
    assert_eq!(read_response(&mut busy).expect("an answer").text(), "held");
    assert_eq!(gateway.metric(FULL), Some(3.0));
}

#[test]
fn one_client_gets_no_more_than_its_share() {
    let origin = Origin::named("x");
    let gateway = limited(&origin, "max_connections_per_ip: 2");
    let mut open: Vec<TcpStream> = (0..2).map(|_| connect(gateway.http)).collect();
    for stream in &mut open {
        stream.write_all(REQUEST.as_bytes()).expect("taken");
        assert_eq!(read_response(stream).expect("an answer").status, 200);
    }
    for address in [gateway.http, gateway.https] {
        let refused = exchange(&mut connect(address), REQUEST);
        assert_eq!(refused, b"", "one too many at {address}");
    }
    let label = r#"snigate_refused_connections_total{limit="max_connections_per_ip"}"#;
    let metrics = gateway.ask("GET", "/metrics").text();
    assert!(
        metrics.contains("max_connections_per_ip\"} 2"),
        "{label} in {metrics}"
    );
    // Another client, by its address, is not concerned.
    let other = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
    let other = other.expect("a socket");
    let source: std::net::SocketAddr = ([127, 0, 0, 2], 0).into();
    other.bind(&source.into()).expect("bound");
    other.connect(&gateway.http.into()).expect("connected");
    let mut other = TcpStream::from(other);
    other.set_read_timeout(Some(SECOND * 10)).expect("set");
    other.write_all(REQUEST.as_bytes()).expect("taken");
    assert_eq!(read_response(&mut other).expect("an answer").status, 200);

    drop(open);
    wait_for("room again", || {
        exchange(
            &mut connect(gateway.http),
            REQUEST.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n"),
        )
        .starts_with(b"HTTP/1.1 200")
        .then_some(())
    });
}

#[test]
fn limits_change_with_a_reload() {
    let origin = Origin::start(|_| vec![Act::Hold, Act::respond(200, "x")]);
    let gateway = limited(&origin, "max_connections: 1");
    let mut holding = connect(gateway.http);
    holding.write_all(REQUEST.as_bytes()).expect("taken");
    origin.wait_for_requests(1);
    let mut waiting = connect(gateway.http);
    waiting.write_all(REQUEST.as_bytes()).expect("taken");
    let config = std::fs::read_to_string(&gateway.config).expect("a file");
    gateway.write(
        "snigate.yaml",
        &config.replace("max_connections: 1", "max_connections: 5"),
    );
    assert_eq!(gateway.reload().0, 200);
    origin.wait_for_requests(2);
    origin.release();
    assert_eq!(read_response(&mut waiting).expect("an answer").status, 200);
}
