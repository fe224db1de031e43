//! What is cut never passes as complete, and what was sent before arrives.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::{Mutex, mpsc};
use std::time::Duration;

use super::{OctetServer, hello, in_front_of, lines, noise};
use crate::support::{TlsClient, connect};

const SITES: &str = "- { hosts: [raw.test], pass_through: app }\n\
                     - { hosts: [tcp.test], tcp: app }";

fn reset(stream: TcpStream) {
    let socket = socket2::SockRef::from(&stream);
    socket.set_linger(Some(Duration::ZERO)).expect("set");
}

/// A server that reads nothing, and resets each connection once it is told to.
fn deaf_server() -> (OctetServer, mpsc::Sender<()>) {
    let (tell, told) = mpsc::channel();
    let told = Mutex::new(told);
    let server = OctetServer::start(move |stream| {
        _ = told.lock().expect("no panic").recv();
        reset(stream);
    });
    (server, tell)
}

/// Writes until nothing more is accepted.
fn fill(client: &mut impl Write, tcp: &TcpStream) {
    let patience = Some(Duration::from_millis(500));
    tcp.set_write_timeout(patience).expect("set");
    while client.write(&[7; 16 * 1024]).is_ok() {}
}

#[test]
fn a_server_that_resets_while_its_client_sends_has_not_ended() {
    let (server, tell) = deaf_server();
    let gateway = in_front_of(server.address, "", SITES).start();
    let mut client = connect(gateway.https);
    client.write_all(&hello("raw.test")).expect("open");
    let tcp = client.try_clone().expect("a clone");
    fill(&mut client, &tcp);
    tell.send(()).expect("it listens");
    let error = client.read(&mut [0; 1]).expect_err("a reset");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert_eq!(lines(&gateway, 1)[0]["ended"], "server_reset");
    let mut client = TlsClient::named("tcp.test").connect(gateway.https);
    let tcp = client.tcp().try_clone().expect("a clone");
    fill(&mut client, &tcp);
    tell.send(()).expect("it listens");
    let read = client.read(&mut [0; 1]);
    assert!(read.is_err(), "no close_notify: {read:?}");
    assert_eq!(lines(&gateway, 2)[1]["ended"], "server_reset");
}

#[test]
fn a_client_that_resets_is_noticed_while_its_server_reads_nothing() {
    let (server, _tell) = deaf_server();
    let gateway = in_front_of(server.address, "", SITES).start();
    let mut client = connect(gateway.https);
    client.write_all(&hello("raw.test")).expect("open");
    let tcp = client.try_clone().expect("a clone");
    fill(&mut client, &tcp);
    drop(tcp);
    reset(client);
    assert_eq!(lines(&gateway, 1)[0]["ended"], "client_reset");
}

#[test]
fn what_a_client_sent_before_it_was_cut_arrives() {
    const MUCH: usize = 2 << 20;
    let (told, heard) = mpsc::channel();
    let server = OctetServer::start(move |mut stream| {
        let mut all = Vec::new();
        let mut piece = [0; 1024];
        let ended = loop {
            match stream.read(&mut piece) {
                Ok(0) => break None,
                Ok(count) => all.extend_from_slice(&piece[..count]),
                Err(error) => break Some(error.kind()),
            }
        };
        _ = told.send((all, ended));
    });
    let gateway = in_front_of(server.address, "", SITES).start();
    let mut client = TlsClient::named("tcp.test").connect(gateway.https);
    client.write_all(&noise(MUCH, 3)).expect("open");
    client
        .tcp()
        .shutdown(std::net::Shutdown::Write)
        .expect("open");
    let (all, ended) = heard.recv().expect("it is told");
    assert!(all == noise(MUCH, 3), "{} of {MUCH}", all.len());
    assert_eq!(ended, Some(ErrorKind::ConnectionReset));
}
