//! Upgraded connections: what goes in comes out at the other end.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use super::{in_front_of, passing_to};
use crate::support::{
    Act, Gateway, Origin, TlsClient, TlsStream, connect, read_head, read_response, serving,
};

const UPGRADE: &str = "GET /ws HTTP/1.1\r\nHost: a.test\r\nConnection: keep-alive, Upgrade\r\n\
                       Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// A server that agrees to every upgrade, greets at once and echoes until the end.
fn echo() -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || serve(stream));
        }
    });
    address
}

fn serve(mut stream: TcpStream) {
    agree(&mut stream);
    let mut other = stream.try_clone().expect("a copy");
    let _ = std::io::copy(&mut stream, &mut other);
}

fn agree(stream: &mut TcpStream) {
    let Ok(Some(_)) = read_head(stream) else {
        return;
    };
    // The greeting comes with the head, in one segment.
    let head = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                 Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\nhi";
    let _ = stream.write_all(head);
}

fn gateway(address: std::net::SocketAddr) -> Gateway {
    serving(
        &[&["a.test"]],
        format!(
            "upstreams: {{ app: {{ servers: [\"{address}\"] }} }}\n\
             sites: [{{ hosts: [a.test], routes: [\
             {{ upstream: app, timeout: {{ connect: 1s, read: 1s }} }}] }}]\n"
        ),
    )
    .server("limits: { header_read: 1s, idle: 1s }")
    .start()
}

fn upgraded(stream: &mut (impl Read + Write)) {
    stream.write_all(UPGRADE.as_bytes()).expect("taken");
    let answer = read_response(stream).expect("an answer");
    assert_eq!(answer.status, 101, "{}", answer.head);
    assert_eq!(answer.header("upgrade"), Some("websocket"));
    assert_eq!(
        answer
            .header("connection")
            .map(str::to_ascii_lowercase)
            .as_deref(),
        Some("upgrade")
    );
    assert!(answer.header("sec-websocket-accept").is_some());
    echoes(stream, b"", b"hi");
}

fn echoes(stream: &mut (impl Read + Write), sent: &[u8], expected: &[u8]) {
    stream.write_all(sent).expect("taken");
    let mut got = vec![0; expected.len()];
    stream.read_exact(&mut got).expect("an echo");
    assert!(got == expected);
}

fn tls(gateway: &Gateway) -> TlsStream {
    TlsClient::named("a.test")
        .alpn(&["http/1.1"])
        .connect(gateway.https)
}

#[test]
fn a_websocket_echoes_large_frames_and_survives_quiet() {
    let gateway = gateway(echo());
    let mut stream = tls(&gateway);
    upgraded(&mut stream);
    echoes(&mut stream, b"small", b"small");
    // Longer than every time-out for requests: quiet is no fault here.
    thread::sleep(Duration::from_millis(2500));
    echoes(&mut stream, b"after", b"after");
    let large: Vec<u8> = (0..60_000u32).flat_map(u32::to_be_bytes).collect();
    for _ in 0..4 {
        echoes(&mut stream, &large, &large);
    }
}

#[test]
fn of_five_hundred_upgrades_none_is_lost() {
    const CLIENTS: usize = 20;
    const EACH: usize = 25;
    let agreed = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\
                  Upgrade: websocket\r\n\r\n";
    let message = b"twenty-four octets long.";
    let origin =
        Origin::early(move |_| vec![Act::send(agreed), Act::Echo(message.len()), Act::Close]);
    let gateway = passing_to(origin.address(), "").over_own_lane().start();
    let talk = || -> std::io::Result<()> {
        let mut stream = tls(&gateway);
        stream.write_all(UPGRADE.as_bytes())?;
        let answer = read_response(&mut stream)?;
        assert_eq!(answer.status, 101, "{}", answer.head);
        stream.write_all(message)?;
        let mut echo = [0; 24];
        stream.read_exact(&mut echo)?;
        assert_eq!(&echo, message);
        // The server closes, and so does the gateway.
        assert_eq!(stream.read(&mut echo)?, 0);
        Ok(())
    };
    let lost = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                for _ in 0..EACH {
                    if let Err(error) = talk() {
                        lost.lock().expect("not poisoned").push(error.to_string());
                    }
                }
            });
        }
    });
    let lost = lost.into_inner().expect("not poisoned");
    assert!(lost.is_empty(), "{}: {lost:?}", lost.len());
    assert_eq!(origin.connections(), CLIENTS * EACH);
}

#[test]
fn nothing_is_taken_before_the_upgrade_is_granted() {
    let gateway = gateway(echo());
    let mut stream = tls(&gateway);
    let answer = stream.exchange([UPGRADE.as_bytes(), b"GET / HTTP/1.1\r\n"].concat());
    assert!(
        answer.starts_with(b"HTTP/1.1 400"),
        "{}",
        answer.escape_ascii()
    );
}

#[test]
fn a_close_on_either_side_ends_both() {
    let (ended, end) = mpsc::channel();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let gateway = gateway(listener.local_addr().expect("an address"));
    let farewell = vec![7; 1 << 20];
    let last = farewell.clone();
    thread::spawn(move || {
        let (mut first, _) = listener.accept().expect("a connection");
        agree(&mut first);
        first.write_all(&last).expect("taken");
        drop(first);
        let (mut second, _) = listener.accept().expect("a connection");
        agree(&mut second);
        let mut rest = Vec::new();
        let _ = second.read_to_end(&mut rest);
        let _ = ended.send(rest);
    });
    let mut stream = tls(&gateway);
    upgraded(&mut stream);
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest);
    assert!(rest == farewell, "{} octets", rest.len());

    let mut stream = tls(&gateway);
    upgraded(&mut stream);
    stream.write_all(b"bye").expect("taken");
    drop(stream);
    let rest = end.recv_timeout(Duration::from_secs(5)).expect("an end");
    assert_eq!(rest, b"bye");
}

#[test]
fn an_upgrade_that_is_refused_is_an_ordinary_answer() {
    let origin = Origin::named("no");
    let gateway = in_front_of(&origin);
    let mut stream = tls(&gateway);
    for _ in 0..3 {
        let answer = stream.request(UPGRADE);
        assert_eq!((answer.status, &*answer.text()), (200, "no"));
        assert_eq!(answer.header("connection"), Some("close"));
        drop(stream);
        stream = tls(&gateway);
    }
    // What comes behind it is never taken for another request by the upstream.
    let smuggled = format!("{UPGRADE}GET /smuggled HTTP/1.1\r\nHost: a.test\r\n\r\n");
    let before = origin.requests().len();
    stream.exchange(smuggled);
    let requests = origin.requests();
    assert!(
        requests[before..]
            .iter()
            .all(|request| request.connection != requests[before].connection
                || request.number <= requests[before].number
                || request.header("x-forwarded-for").is_some()),
        "{requests:?}"
    );
}

#[test]
fn an_upgrade_over_plain_http_goes_where_the_site_is() {
    let address = echo();
    let gateway = serving(
        &[&["a.test"]],
        format!(
            "upstreams: {{ app: {{ servers: [\"{address}\"] }} }}\n\
             sites: [{{ hosts: [a.test], tls: off, upstream: app }}]\n"
        ),
    )
    .start();
    let mut stream = connect(gateway.http);
    upgraded(&mut stream);
    echoes(&mut stream, b"plain", b"plain");
}

#[test]
fn an_upgrade_that_is_refused_has_the_time_of_its_route() {
    // The first stalls in its body, the second continues in parts that come in time.
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n";
    let part = || [Act::Pause(Duration::from_millis(400)), Act::send("x")];
    let stalling = Origin::start(move |_| vec![Act::send(head), Act::send("x"), Act::Silence]);
    let steady = Origin::start(move |_| {
        let mut acts = vec![Act::send(head)];
        (0..8).for_each(|_| acts.extend(part()));
        acts
    });
    let refused = gateway(stalling.address());
    let mut stream = tls(&refused);
    let begun = Instant::now();
    let answer = stream.exchange(UPGRADE);
    assert!(
        answer.starts_with(b"HTTP/1.1 200"),
        "{}",
        answer.escape_ascii()
    );
    assert!(
        begun.elapsed() < Duration::from_secs(10),
        "{:?}",
        begun.elapsed()
    );
    let refused = gateway(steady.address());
    let answer = tls(&refused).exchange(UPGRADE);
    assert!(answer.ends_with(b"xxxxxxxx"), "{}", answer.escape_ascii());
}

#[test]
fn an_upgrade_that_is_never_answered_is_504() {
    let origin = Origin::silent();
    let gateway = gateway(origin.address());
    let answer = tls(&gateway).request(UPGRADE);
    assert_eq!(answer.status, 504, "{}", answer.head);
    gateway.wait_for_log("an upstream failed");
}

#[test]
fn a_server_has_the_last_word() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        agree(&mut stream);
        let mut all = Vec::new();
        let _ = stream.read_to_end(&mut all);
        let _ = stream.write_all(b"bye");
    });
    let gateway = serving(
        &[&["a.test"]],
        format!(
            "upstreams: {{ app: {{ servers: [\"{address}\"] }} }}\n\
             sites: [{{ hosts: [a.test], tls: off, upstream: app }}]\n"
        ),
    )
    .over_own_lane()
    .start();
    let mut stream = connect(gateway.http);
    upgraded(&mut stream);
    // Longer than a server has for it once its client has ended its side.
    thread::sleep(Duration::from_millis(2500));
    stream.shutdown(Shutdown::Write).expect("ended");
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).expect("an end");
    assert_eq!(rest, b"bye");
}
