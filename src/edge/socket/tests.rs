use std::future::poll_fn;
use std::pin::pin;

use futures::poll;
use prometheus::IntGauge;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::edge::limits::Connections;

pub(in crate::edge) async fn pair() -> (Socket, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let client = TcpStream::connect(address).await.expect("a connection");
    let (stream, peer) = listener.accept().await.expect("a connection");
    let gauge = IntGauge::new("open", "open").expect("a valid name");
    let guard = Arc::new(Connections::default()).admit(peer.ip(), gauge);
    let guard = guard.expect("room");
    let socket = Socket::new(stream.into(), peer.into(), Duration::from_secs(5), guard);
    (socket, client)
}

/// What has come to the client by now; loopback delivers at once.
fn arrived(client: &TcpStream) -> Vec<u8> {
    let mut space = [0; 1024];
    let count = client.try_read(&mut space).unwrap_or(0);
    space[..count].to_vec()
}

#[tokio::test]
async fn what_a_handshake_writes_goes_when_the_client_is_waited_for() {
    let (socket, mut client) = pair().await;
    let mut socket = socket.for_handshake(Handshake::default());
    socket.write_all(b"hello").await.expect("taken");
    socket.flush().await.expect("noted");
    client.writable().await.expect("open");
    assert_eq!(arrived(&client), b"");
    let mut octet = [0];
    tokio::select! {
        biased;
        _ = socket.read(&mut octet) => panic!("nothing is to be read"),
        ready = client.readable() => ready.expect("it comes"),
    }
    assert_eq!(arrived(&client), b"hello");

    socket.write_all(b"ticket ").await.expect("taken");
    socket.flush().await.expect("noted");
    socket.end_handshake();
    client.write_all(b"request").await.expect("sent");
    let ClientStream::Tcp(stream) = &socket.stream else {
        panic!("it is of TCP");
    };
    stream.readable().await.expect("it comes");
    let mut request = [0; 64];
    assert_eq!(socket.read(&mut request).await.expect("comes"), 7);
    assert_eq!(arrived(&client), b"", "the answer follows at once");
    socket.write_all(b"and answer").await.expect("sent");
    assert_eq!(socket.later.capacity(), 0);
    client.readable().await.expect("it comes");
    assert_eq!(arrived(&client), b"ticket and answer");
}

#[tokio::test]
async fn full_records_leave_with_what_follows_a_flush_or_a_wait() {
    let (mut socket, client) = pair().await;
    let record = [b'x'; RECORD + 22];
    for way in ["more", "flush", "wait"] {
        socket.write_all(&record).await.expect("taken");
        client.writable().await.expect("open");
        assert_eq!(arrived(&client), b"", "{way}");
        match way {
            "more" => socket.write_all(b"y").await.expect("sent"),
            "flush" => socket.flush().await.expect("sent"),
            _ => {
                let mut octet = [0];
                let reading = socket.read(&mut octet);
                let reading = tokio::time::timeout(Duration::from_millis(1), reading);
                reading.await.expect_err("nothing is to be read");
            }
        }
        client.readable().await.expect("it comes");
        while !arrived(&client).is_empty() {}
    }
}

#[tokio::test]
async fn a_handshake_that_fails_leaves_its_alert() {
    let (socket, mut client) = pair().await;
    let mut socket = socket.for_handshake(Handshake::default());
    socket.write_all(b"alert").await.expect("taken");
    drop(socket);
    let mut all = Vec::new();
    client.read_to_end(&mut all).await.expect("the end");
    assert_eq!(all, b"alert");
}

#[tokio::test]
async fn the_client_hello_is_waited_for_and_kept() {
    let (mut socket, mut client) = pair().await;
    let mut has_begun = false;
    // A message of nine octets in two records, and another record.
    let parts = [
        &[22][..],
        &[3, 1, 0],
        &[3, 1, 0],
        &[0, 22, 3, 1, 0],
        &[6, 5, 11, 12],
    ];
    for part in parts {
        {
            let mut hello = pin!(socket.receive_client_hello(&mut has_begun));
            assert!(poll!(hello.as_mut()).is_pending());
        }
        assert_eq!(has_begun, !socket.ahead.is_empty());
        client.write_all(part).await.expect("sent");
        let held = socket.ahead.len();
        while socket.ahead.len() == held {
            let come = poll_fn(|cx| socket.poll_read_ahead(cx)).await;
            come.expect("octets");
        }
    }
    client.write_all(&[13, 14, 15, 99]).await.expect("sent");
    socket
        .receive_client_hello(&mut false)
        .await
        .expect("a hello");
    socket
        .receive_client_hello(&mut false)
        .await
        .expect("it is there");
    let mut read = [0; 64];
    assert_eq!(socket.read(&mut read).await.expect("octets"), 20);
    let sent = [
        22, 3, 1, 0, 3, 1, 0, 0, 22, 3, 1, 0, 6, 5, 11, 12, 13, 14, 15, 99,
    ];
    assert_eq!(&read[..20], &sent);
}

#[tokio::test]
async fn what_is_no_client_hello_is_not_waited_for() {
    let no_hello = &[22, 3, 1, 0, 9, 2][..];
    for sent in [&b"GET / HTTP/1.1"[..], &[22, 3, 1, 255, 255], no_hello, b""] {
        let (mut socket, mut client) = pair().await;
        client.write_all(sent).await.expect("sent");
        if sent.is_empty() {
            drop(client);
        }
        socket
            .receive_client_hello(&mut false)
            .await
            .expect("an end");
        assert_eq!(&*socket.ahead, sent);
    }
}

#[tokio::test]
async fn what_is_read_ahead_is_handed_on_in_order_and_not_kept() {
    let (mut socket, mut client) = pair().await;
    client.write_all(b"head.content.more").await.expect("sent");
    let mut header = [0; RECORD_HEADER];
    socket.read_exact(&mut header).await.expect("a header");
    assert_eq!(&header, b"head.");
    let mut content = [0; 8];
    socket.read_exact(&mut content).await.expect("the content");
    assert_eq!(&content, b"content.");
    let mut large = [0; 64];
    let count = socket.read(&mut large).await.expect("the rest");
    assert_eq!(&large[..count], b"more");
    assert_eq!(socket.ahead.capacity(), 0);

    drop(client);
    assert_eq!(socket.read(&mut header).await.expect("the end"), 0);
}
