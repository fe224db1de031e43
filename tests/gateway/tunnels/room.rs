//! How many connections are passed on, and which make room for others.

use std::io::{Read, Write};
use std::net::TcpStream;

use super::{OctetServer, hello, in_front_of, lines};
use crate::support::{Gateway, TlsClient, connect, exchange, wait_for};

const RAW: &str = "- { hosts: [raw.test], pass_through: app }";

/// A connection to a server that sends back all it gets.
fn echoed(gateway: &Gateway) -> TcpStream {
    let mut client = connect(gateway.https);
    let hello = hello("raw.test");
    client.write_all(&hello).expect("open");
    client
        .read_exact(&mut vec![0; hello.len()])
        .expect("an echo");
    client
}

#[test]
fn connections_on_which_nothing_passes_make_room() {
    let echo = OctetServer::echo();
    let gateway = in_front_of(echo.address, "", RAW)
        .server("limits: { max_connections: 4 }")
        .start();
    let idle: Vec<TcpStream> = (0..8).map(|_| echoed(&gateway)).collect();
    let mut own = TlsClient::named("a.test").connect(gateway.https);
    assert_eq!(own.get("a.test", "/").text(), "own");
    let lines = lines(&gateway, 4);
    assert!(
        lines.iter().all(|line| line["ended"] == "made_room"),
        "{lines:?}"
    );
    drop(idle);
}

#[test]
fn connections_have_a_share_of_those_to_upstreams() {
    let echo = OctetServer::echo();
    let gateway = in_front_of(echo.address, "", RAW)
        .server("limits: { upstream_connections: 4 }")
        .start();
    let open = [echoed(&gateway), echoed(&gateway)];
    let answer = exchange(&mut connect(gateway.https), hello("raw.test"));
    assert_eq!(answer, b"");
    let line = lines(&gateway, 1).remove(0);
    assert_eq!(line["status"], 503);
    assert_eq!(line["ended"], "refused");
    drop(open);
    wait_for("both to end", || {
        let open = gateway.metric("snigate_tunnels_open{site=\"raw.test\"}")?;
        (open == 0.0).then_some(())
    });
    echoed(&gateway);
}

#[test]
fn a_site_may_limit_its_connections() {
    let echo = OctetServer::echo();
    let site = "- { hosts: [raw.test], pass_through: app, max_requests: 1 }";
    let gateway = in_front_of(echo.address, "", site).start();
    let open = echoed(&gateway);
    let answer = exchange(&mut connect(gateway.https), hello("raw.test"));
    assert_eq!(answer, b"");
    assert_eq!(lines(&gateway, 1)[0]["status"], 503);
    drop(open);
}

#[test]
fn a_client_that_is_denied_later_loses_its_connection() {
    let echo = OctetServer::echo();
    let mut gateway = in_front_of(echo.address, "", RAW).start();
    let mut client = echoed(&gateway);
    gateway.replace_config(format!(
        "certificates: [{{ directory: certs }}]\n\
         upstreams: {{ app: {{ servers: [\"{}\"] }} }}\n\
         log: {{ access: access.log, format: json, level: debug }}\n\
         sites:\n- {{ hosts: [raw.test], pass_through: app, deny: [127.0.0.1] }}\n",
        echo.address
    ));
    let (status, said) = gateway.reload();
    assert_eq!(status, 200, "{said}");
    wait_for("the end", || {
        let passes = client.write_all(b"x").is_ok() && matches!(client.read(&mut [0; 1]), Ok(1..));
        (!passes).then_some(())
    });
    assert_eq!(lines(&gateway, 1)[0]["ended"], "outdated");
}

#[test]
fn nothing_is_passed_on_under_the_certificate_of_another_site() {
    let echo = OctetServer::echo();
    let sites = "- { hosts: [\"*.other.test\"], tcp: app }";
    let gateway = in_front_of(echo.address, "", sites)
        .config("tls: { unknown_sni: default, default_certificate: a.test }")
        .spawn();
    // It is not ready, since a certificate is missing.
    gateway.wait_for_log("Https");
    let mut client = TlsClient::named("x.other.test").connect(gateway.https);
    assert_eq!(client.names()[0], "a.test");
    assert_eq!(client.exchange("hello"), b"");
    assert_eq!(echo.accepted(), 0);
    gateway.wait_for_log("what it was made for is not served on it");
}
