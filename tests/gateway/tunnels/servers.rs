//! Which server gets a connection that is passed on, what it learns, and who gets none.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::sync::mpsc;

use super::{OctetServer, hello, in_front_of, lines};
use crate::support::{Balancer, Port, Sending, TlsClient, connect, exchange, wait_for};

const RAW: &str = "- { hosts: [raw.test], pass_through: app }";

#[test]
fn a_server_that_cannot_be_reached_is_passed_over() {
    let echo = OctetServer::echo();
    let gone = Port::take();
    let both = format!(
        " }}, both: {{ servers: [\"{}\", \"{}\"]",
        gone.address(),
        echo.address
    );
    let sites = "- { hosts: [raw.test], pass_through: both }\n\
                 - { hosts: [gone.raw.test], pass_through: app }";
    let gateway = in_front_of(gone.address(), &both, sites).start();
    let octets = hello("raw.test");
    for _ in 0..4 {
        let mut client = connect(gateway.https);
        client.write_all(&octets).expect("open");
        client.shutdown(Shutdown::Write).expect("open");
        let mut all = Vec::new();
        client.read_to_end(&mut all).expect("an end");
        assert!(all == octets, "not as it was");
    }
    let answer = exchange(&mut connect(gateway.https), hello("gone.raw.test"));
    assert_eq!(answer, b"");
    let lines = lines(&gateway, 5);
    let failed = lines.iter().find(|line| line["host"] == "gone.raw.test");
    let failed = failed.expect("a line");
    assert_eq!(failed["ended"], "unreachable");
    assert_eq!(failed["status"], 502);
    gateway.wait_for_log("a connection could not be passed on");
}

#[test]
fn connections_count_as_requests_of_their_upstream() {
    let echo = OctetServer::echo();
    let gateway = in_front_of(echo.address, ", max_connections: 1", RAW).start();
    let octets = hello("raw.test");
    let mut first = connect(gateway.https);
    first.write_all(&octets).expect("open");
    first
        .read_exact(&mut vec![0; octets.len()])
        .expect("an echo");
    let upstreams = gateway.ask("GET", "/api/v1/upstreams").text();
    assert!(upstreams.contains("\"requests\":1"), "{upstreams}");
    // The second one waits until the first has ended.
    let mut second = connect(gateway.https);
    second.write_all(&octets).expect("open");
    first.shutdown(Shutdown::Write).expect("open");
    first.read_to_end(&mut Vec::new()).expect("an end");
    second
        .read_exact(&mut vec![0; octets.len()])
        .expect("an echo");
    drop(second);
    wait_for("none to be left", || {
        let upstreams = gateway.ask("GET", "/api/v1/upstreams").text();
        upstreams.contains("\"requests\":0").then_some(())
    });
}

#[test]
fn clients_are_known_by_the_proxy_protocol_on_both_sides() {
    let (told, heard) = mpsc::channel();
    let server = OctetServer::start(move |mut stream| {
        let mut all = Vec::new();
        stream.read_to_end(&mut all).expect("an end");
        _ = told.send(all);
    });
    let octets = hello("raw.test");
    let header = b"PROXY TCP4 192.0.2.1 198.51.100.7 56324 443\r\n";
    let binary = [
        &b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c"[..],
        &[192, 0, 2, 1, 198, 51, 100, 7, 0xdc, 0x04, 0x01, 0xbb],
    ];
    for (version, expected) in [("v1", header.to_vec()), ("v2", binary.concat())] {
        let app = format!(", send_proxy_protocol: {version}");
        let gateway = in_front_of(server.address, &app, RAW)
            .server("proxy_protocol: { trusted: [\"127.0.0.77\"] }")
            .start();
        for sending in [Sending::First, Sending::Together, Sending::Crumbs] {
            let balancer = Balancer::start(gateway.https, header, sending);
            let mut client = connect(balancer.address());
            client.write_all(&octets).expect("open");
            client.shutdown(Shutdown::Write).expect("open");
            let all = heard.recv().expect("it is told");
            assert!(
                all == [&expected[..], &octets].concat(),
                "{version} {sending:?}"
            );
        }
        for line in lines(&gateway, 3) {
            assert_eq!(line["client"], "192.0.2.1");
        }
    }
}

#[test]
fn whoever_may_not_have_a_site_gets_nothing_of_it() {
    let echo = OctetServer::echo();
    let site = "- { hosts: [raw.test], pass_through: app, deny: [127.0.0.1] }\n\
                - { hosts: [tcp.test], tcp: app, allow: [192.0.2.0/24] }";
    let gateway = in_front_of(echo.address, "", site).start();
    let answer = exchange(&mut connect(gateway.https), hello("raw.test"));
    assert_eq!(answer, b"");
    let mut within = TlsClient::named("tcp.test").connect(gateway.https);
    assert_eq!(within.exchange("hello"), b"");
    for line in lines(&gateway, 2) {
        assert_eq!(line["status"], 403);
        assert_eq!(line["refused"], "forbidden");
        assert_eq!(line["ended"], "refused");
    }
    assert_eq!(echo.accepted(), 0);
}
