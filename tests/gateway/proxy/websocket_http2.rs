//! WebSockets over HTTP/2 (RFC 8441), with the client of the h2 crate.

mod refusals;

use std::time::Duration;

use bytes::Bytes;
use h2::ext::Protocol;
use h2::{Reason, RecvStream, SendStream};
use http::response::Parts;

use super::{PINGORA, passing_to};
use crate::support::{Act, Gateway, H2, Origin, Received, serving, wait_for};

/// Both directions of a WebSocket.
struct Socket {
    to: SendStream<Bytes>,
    from: RecvStream,
}

impl Socket {
    async fn hear_greeting(&mut self) {
        let greeting = receive(&mut self.from, GREETING.len()).await;
        assert_eq!(greeting, GREETING.as_bytes());
    }

    /// Sends octets and expects them back.
    async fn echo(&mut self, octets: &[u8]) {
        let sending = send(&mut self.to, Bytes::copy_from_slice(octets));
        let ((), got) = tokio::join!(sending, receive(&mut self.from, octets.len()));
        assert!(got == octets, "{} of {} octets", got.len(), octets.len());
    }
}

async fn send(to: &mut SendStream<Bytes>, mut octets: Bytes) {
    while !octets.is_empty() {
        to.reserve_capacity(octets.len());
        let room = std::future::poll_fn(|cx| to.poll_capacity(cx)).await;
        let room = room.expect("open").expect("room");
        let part = octets.split_to(room.min(octets.len()));
        to.send_data(part, false).expect("taken");
    }
}

/// The next `count` octets, or all that come before the end.
async fn receive(from: &mut RecvStream, count: usize) -> Vec<u8> {
    let mut octets = Vec::new();
    while octets.len() < count {
        let Some(part) = from.data().await else {
            break;
        };
        let part = part.expect("a part");
        let released = from.flow_control().release_capacity(part.len());
        released.expect("taken");
        octets.extend_from_slice(&part);
    }
    octets
}

/// The fields that a server sends to open the WebSocket of a request, in HTTP/1.1.
fn switching(request: &Received) -> String {
    let key = request.header("sec-websocket-key").expect("a key");
    let guid = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    let hash = openssl::sha::sha1(format!("{key}{guid}").as_bytes());
    let accept = openssl::base64::encode_block(&hash);
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: chat\r\n\r\n"
    )
}

/// What a server sends in one segment with the response that opens a WebSocket.
const GREETING: &str = "hi";

/// Opens every WebSocket and greets, then does what `acts` says.
fn opening(acts: &'static [Act]) -> Origin {
    Origin::early(move |request| {
        let mut all = vec![Act::send(switching(request) + GREETING)];
        all.extend_from_slice(acts);
        all
    })
}

/// Echoes until the end.
const ECHO: &[Act] = &[Act::Echo(usize::MAX)];

/// A gateway in front of a server, with short time-outs for all but WebSockets.
fn in_front_of(origin: &Origin) -> Gateway {
    let timeout = ", timeout: { connect: 1s, read: 1s, send: 1s }";
    passing_to(origin.address(), timeout)
        .over_own_lane()
        .server("limits: { header_read: 1s, idle: 1s }")
        .start()
}

/// A connection whose server has announced the feature.
fn connect(gateway: &Gateway) -> H2 {
    let h2 = H2::connect(gateway.https, "a.test");
    wait_for("SETTINGS_ENABLE_CONNECT_PROTOCOL", || {
        h2.allows_extended_connect().then_some(())
    });
    h2
}

/// The request for a WebSocket, or for another protocol.
fn extended(h2: &H2, path: &str, protocol: &'static str) -> http::request::Builder {
    h2.request("CONNECT", path)
        .extension(Protocol::from_static(protocol))
        .header("sec-websocket-version", "13")
}

/// Opens a WebSocket, and returns it with the head of the response.
#[track_caller]
fn open(h2: &mut H2, path: &str) -> (Parts, Socket) {
    let request = extended(h2, path, "websocket");
    let request = request.body(()).expect("a request");
    let (answer, to) = h2.begin(request, true);
    h2.block_on(async {
        let (head, from) = answer.await.expect("a response").into_parts();
        assert_eq!(head.status, 200, "{head:?}");
        (head, Socket { to, from })
    })
}

#[test]
fn a_websocket_echoes_and_survives_quiet() {
    let origin = opening(ECHO);
    let gateway = in_front_of(&origin);
    let mut h2 = connect(&gateway);
    let (_, mut socket) = open(&mut h2, "/ws");
    // A ping and a text as a client masks them.
    let ping = b"\x89\x84\x01\x02\x03\x04\x71\x6b\x6d\x63";
    let large: Vec<u8> = (0..250_000_u32).flat_map(u32::to_be_bytes).collect();
    h2.block_on(async {
        socket.hear_greeting().await;
        socket.echo(ping).await;
        socket.echo(b"x").await;
        // Longer than every time-out for requests: quiet is no fault here.
        tokio::time::sleep(Duration::from_millis(2500)).await;
        socket.echo(ping).await;
        for _ in 0..3 {
            socket.echo(&large).await;
        }
    });
}

#[test]
fn the_server_gets_an_upgrade_and_the_client_no_trace_of_it() {
    let origin = opening(ECHO);
    let gateway = in_front_of(&origin);
    let mut h2 = connect(&gateway);
    let request = extended(&h2, "/chat?room=1", "websocket")
        .header("origin", "https://a.test")
        .header("sec-websocket-protocol", "chat, other")
        .header("sec-websocket-extensions", "permessage-deflate")
        .header("sec-websocket-key", "mine")
        .header("cookie", "a=b");
    let (answer, _to) = h2.begin(request.body(()).expect("a request"), true);
    let (head, _from) = h2.block_on(answer).expect("a response").into_parts();
    assert_eq!(head.status, 200);
    assert_eq!(head.headers["sec-websocket-protocol"], "chat");
    for gone in ["connection", "upgrade", "sec-websocket-accept"] {
        assert!(!head.headers.contains_key(gone), "{:?}", head.headers);
    }
    let requests = origin.requests();
    let got = &requests[0];
    assert_eq!(got.line(), "GET /chat?room=1 HTTP/1.1");
    for (name, value) in [
        ("host", "a.test"),
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("origin", "https://a.test"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-protocol", "chat, other"),
        ("sec-websocket-extensions", "permessage-deflate"),
        ("cookie", "a=b"),
        ("x-forwarded-proto", "https"),
    ] {
        assert_eq!(got.header(name), Some(value), "{}", got.head);
    }
    let key = got.header("sec-websocket-key").expect("a key");
    assert_eq!(
        (key.len(), got.head.matches("ec-websocket-key").count()),
        (24, 1)
    );
    assert!(!got.head.contains(":protocol"), "{}", got.head);
}

#[test]
fn many_share_one_connection() {
    let origin = opening(ECHO);
    let gateway = in_front_of(&origin);
    let mut h2 = connect(&gateway);
    let mut sockets: Vec<Socket> = (0..60).map(|_| open(&mut h2, "/ws").1).collect();
    assert_eq!(origin.open_connections(), 60);
    for socket in &mut sockets {
        h2.block_on(socket.hear_greeting());
    }
    for round in 0..3_usize {
        let talks = sockets.iter_mut().enumerate().map(|(number, socket)| {
            let message = vec![u8::try_from(number).expect("small"); 1 + round * 9_000];
            async move { socket.echo(&message).await }
        });
        h2.block_on(futures::future::join_all(talks));
    }
    drop(sockets);
    wait_for("the ends of all", || {
        (origin.open_connections() == 0).then_some(())
    });
}

#[test]
fn either_side_ends_it() {
    // The server ends its side, and what it has sent before arrives.
    const LAST: usize = 200_000;
    let origin = opening(&[Act::Flood(LAST), Act::Close]);
    let gateway = in_front_of(&origin);
    let mut h2 = connect(&gateway);
    let (_, mut socket) = open(&mut h2, "/ws");
    h2.block_on(async {
        let all = receive(&mut socket.from, usize::MAX).await;
        assert_eq!(all.len(), GREETING.len() + LAST);
        assert!(socket.from.is_end_stream());
        socket.to.send_data(Bytes::new(), true).expect("taken");
    });
    drop(socket);
    wait_for("the end", || (origin.open_connections() == 0).then_some(()));

    // The client ends its side, and the server still sends what it has.
    let origin = opening(&[Act::Take(3), Act::Flood(1000), Act::Silence]);
    let gateway = in_front_of(&origin);
    let mut h2 = connect(&gateway);
    let (_, mut socket) = open(&mut h2, "/ws");
    h2.block_on(async {
        let bye = Bytes::from_static(b"bye");
        socket.to.send_data(bye, true).expect("taken");
        let all = receive(&mut socket.from, usize::MAX).await;
        assert_eq!(all.len(), GREETING.len() + 1000);
    });
    wait_for("the end", || (origin.open_connections() == 0).then_some(()));
}

#[test]
fn a_reset_ends_the_servers_side_at_once() {
    // Servers that send, that accept nothing, and that are silent.
    for acts in [
        &[Act::Flood(usize::MAX)][..],
        &[Act::Hold],
        &[Act::Silence],
        ECHO,
    ] {
        let origin = opening(acts);
        let gateway = passing_to(origin.address(), "").over_own_lane().start();
        let mut h2 = connect(&gateway);
        let (_, mut socket) = open(&mut h2, "/ws");
        if matches!(acts, [Act::Hold]) {
            // More than fits between the client and a server that reads nothing.
            let much = Bytes::from(vec![7; 8 << 20]);
            let sent = h2.block_on(async {
                let sending = send(&mut socket.to, much);
                tokio::time::timeout(Duration::from_secs(1), sending).await
            });
            assert!(sent.is_err(), "it is held back");
        }
        socket.to.send_reset(Reason::CANCEL);
        origin.release();
        // In a tunnel nothing else would end it for an hour.
        wait_for("the end", || (origin.open_connections() == 0).then_some(()));
    }
}

#[test]
fn a_server_that_floods_is_held_back() {
    let origin = opening(&[Act::Flood(16 << 20), Act::Close]);
    let gateway = passing_to(origin.address(), "").over_own_lane().start();
    let mut h2 = connect(&gateway);
    let (_, mut socket) = open(&mut h2, "/ws");
    let mut before = usize::MAX;
    let held = wait_for("a server that stands still", || {
        std::thread::sleep(Duration::from_millis(100));
        let sent = origin.sent();
        (sent == std::mem::replace(&mut before, sent) && sent > 0).then_some(sent)
    });
    assert!(held < 8 << 20, "{held} octets");
    let rest = h2.block_on(receive(&mut socket.from, usize::MAX));
    assert_eq!(rest.len(), GREETING.len() + (16 << 20));
}

#[test]
fn one_takes_the_gateways_own_lane() {
    let origin = opening(ECHO);
    let builder = passing_to(origin.address(), "").over_own_lane();
    let gateway = builder.run_by(&PINGORA).start();
    let mut h2 = connect(&gateway);
    let (_, mut socket) = open(&mut h2, "/ws");
    h2.block_on(async {
        socket.hear_greeting().await;
        socket.echo(b"hello").await;
    });
}

#[test]
fn one_is_logged_like_any_upgrade() {
    let origin = opening(&[Act::Flood(10), Act::Close]);
    let gateway = serving(
        &[&["a.test"]],
        format!(
            "upstreams: {{ app: {{ servers: [\"{}\"] }} }}\n\
             sites: [{{ hosts: [a.test], upstream: app }}]\n\
             log: {{ access: access.log, format: json }}\n",
            origin.address()
        ),
    )
    .start();
    let mut h2 = connect(&gateway);
    let (_, mut socket) = open(&mut h2, "/ws");
    h2.block_on(receive(&mut socket.from, usize::MAX));
    let line = wait_for("a line", || {
        let log = std::fs::read_to_string(gateway.dir().join("access.log")).ok()?;
        log.lines().next().map(str::to_owned)
    });
    let line: serde_json::Value = serde_json::from_str(&line).expect("JSON");
    assert_eq!(
        (&line["method"], &line["status"]),
        (&"GET".into(), &101.into())
    );
}
