//! How connections that are passed on end: by either side, by limits, reloads and stops.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::{OctetServer, hello, in_front_of, lines};
use crate::support::{Gateway, TlsClient, connect};

const RAW: &str = "- { hosts: [raw.test], pass_through: app }";

/// A connection to the server that has got its hello.
fn open(gateway: &Gateway) -> TcpStream {
    let mut client = connect(gateway.https);
    let hello = hello("raw.test");
    client.write_all(&hello).expect("open");
    client
}

/// The same to a server that sends back all it gets.
fn echoed(gateway: &Gateway) -> TcpStream {
    let mut client = connect(gateway.https);
    let hello = hello("raw.test");
    client.write_all(&hello).expect("open");
    let mut back = vec![0; hello.len()];
    client.read_exact(&mut back).expect("an echo");
    assert!(back == hello, "not as it was");
    client
}

#[test]
fn either_side_may_end_its_direction_first() {
    let (told, heard) = mpsc::channel();
    let server = OctetServer::start(move |mut stream| {
        let mut hello = vec![0; hello("raw.test").len()];
        stream.read_exact(&mut hello).expect("a hello");
        stream.write_all(b"server is done").expect("open");
        stream.shutdown(Shutdown::Write).expect("open");
        let mut rest = String::new();
        stream.read_to_string(&mut rest).expect("an end");
        _ = told.send(rest);
    });
    let gateway = in_front_of(server.address, "", RAW).start();
    let mut client = open(&gateway);
    let mut all = String::new();
    client.read_to_string(&mut all).expect("an end");
    assert_eq!(all, "server is done");
    client.write_all(b"client is not").expect("open");
    client.shutdown(Shutdown::Write).expect("open");
    assert_eq!(heard.recv().expect("it is told"), "client is not");
    assert_eq!(lines(&gateway, 1)[0]["ended"], "server_closed");
    // The other way round.
    let echo = OctetServer::echo();
    let gateway = in_front_of(echo.address, "", RAW).start();
    let mut client = open(&gateway);
    client.shutdown(Shutdown::Write).expect("open");
    let mut all = Vec::new();
    client.read_to_end(&mut all).expect("an end");
    assert_eq!(all.len(), hello("raw.test").len());
    assert_eq!(lines(&gateway, 1)[0]["ended"], "client_closed");
}

#[test]
fn a_reset_of_one_side_is_one_for_the_other() {
    let reset = |stream: &TcpStream| {
        let socket = socket2::SockRef::from(stream);
        socket.set_linger(Some(Duration::ZERO)).expect("set");
    };
    let server = OctetServer::start(move |mut stream| {
        let mut hello = vec![0; hello("raw.test").len()];
        stream.read_exact(&mut hello).expect("a hello");
        reset(&stream);
    });
    let gateway = in_front_of(server.address, "", RAW).start();
    let error = open(&gateway).read(&mut [0; 1]).expect_err("a reset");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert_eq!(lines(&gateway, 1)[0]["ended"], "server_reset");
    let (told, heard) = mpsc::channel();
    let server = OctetServer::start(move |mut stream| {
        let mut all = Vec::new();
        _ = stream.write_all(b"x");
        _ = told.send(stream.read_to_end(&mut all).map_err(|error| error.kind()));
    });
    let gateway = in_front_of(server.address, "", RAW).start();
    let mut client = open(&gateway);
    client.read_exact(&mut [0; 1]).expect("the server is there");
    reset(&client);
    drop(client);
    let ended = heard.recv().expect("it is told");
    assert_eq!(ended, Err(ErrorKind::ConnectionReset));
    assert_eq!(lines(&gateway, 1)[0]["ended"], "client_reset");
}

#[test]
fn a_connection_on_which_nothing_passes_is_cut() {
    let echo = OctetServer::echo();
    for (limit, ended) in [("idle: 1s", "idle"), ("total: 1s", "total")] {
        let site = format!("- {{ hosts: [raw.test], pass_through: {{ upstream: app, {limit} }} }}");
        let gateway = in_front_of(echo.address, "", &site).start();
        let mut client = echoed(&gateway);
        let began = Instant::now();
        let read = client.read(&mut [0; 1]);
        assert!(!matches!(read, Ok(1..)), "{read:?}");
        let took = began.elapsed();
        assert!(took < Duration::from_secs(10), "{took:?}");
        assert_eq!(lines(&gateway, 1)[0]["ended"], ended);
    }
}

#[test]
fn open_connections_outlive_a_reload_but_not_the_grace_period() {
    let echo = OctetServer::echo();
    let mut gateway = in_front_of(echo.address, "", RAW)
        .server("grace_period: 1s")
        .start();
    let mut before = echoed(&gateway);
    let with_sites = |sites: &str| {
        format!(
            "certificates: [{{ directory: certs }}]\n\
             upstreams: {{ app: {{ servers: [\"{}\"] }} }}\n\
             log: {{ access: access.log, format: json, level: debug }}\n\
             sites:\n- {{ hosts: [a.test], upstream: app }}\n{sites}\n",
            echo.address
        )
    };
    gateway.replace_config(with_sites(""));
    let (status, said) = gateway.reload();
    assert_eq!(status, 200, "{said}");
    let terminated = TlsClient::named("raw.test").connect(gateway.https);
    assert_eq!(
        terminated.names()[0],
        "a.test",
        "the gateway's own certificate"
    );
    before.write_all(b"still here").expect("open");
    let mut back = [0; 10];
    before.read_exact(&mut back).expect("an echo");
    assert_eq!(&back, b"still here");
    // And back again.
    gateway.replace_config(with_sites(RAW));
    let (status, said) = gateway.reload();
    assert_eq!(status, 200, "{said}");
    let mut after = echoed(&gateway);
    gateway.signal(Signal::SIGTERM);
    gateway.wait_for_log("stopping");
    after.write_all(b"not yet").expect("open");
    after.read_exact(&mut [0; 7]).expect("an echo");
    gateway.wait();
    assert!(!matches!(after.read(&mut [0; 1]), Ok(1..)));
    let lines = lines(&gateway, 2);
    assert!(
        lines.iter().all(|line| line["ended"] == "stopped"),
        "{lines:?}"
    );
}
