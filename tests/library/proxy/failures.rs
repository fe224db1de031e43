//! Upstreams that fail, and what the client gets to know of it.

use std::time::{Duration, Instant};

use snigate::config::model::SiteTls;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::sleep;

use super::fixture::*;

#[tokio::test]
async fn a_server_that_refuses_is_passed_over() {
    let origin = Origin::start(|_, _| ok("hello")).await;
    let dead = {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        listener.local_addr().expect("an address")
    };
    let both = pass_to(upstream(&[dead, origin.address]));
    let one = gateway(vec![site(&["a.example"], SiteTls::Off, vec![("/", both)])]).await;
    for _ in 0..6 {
        assert_status(&ask(one, get("/")).await, 200);
    }
    let none = pass_to(upstream(&[dead]));
    let none = gateway(vec![site(&["a.example"], SiteTls::Off, vec![("/", none)])]).await;
    let begun = Instant::now();
    let answer = ask(none, get("/")).await;
    assert_status(&answer, 502);
    assert!(
        answer.contains("text/plain") && answer.contains("cannot be reached"),
        "{answer}"
    );
    assert!(begun.elapsed() < Duration::from_secs(1));
}

#[tokio::test]
async fn a_silent_server_is_504() {
    let origin = Origin::start(|_, _| reply("", Then::Hang)).await;
    let gateway = before(&origin).await;
    assert_status(&ask(gateway, get("/")).await, 504);
    assert_eq!(origin.seen().len(), 1, "a time-out is not repeated");
}

#[tokio::test]
async fn invalid_answers_are_502_and_their_connections_end() {
    let answers: [&[u8]; 14] = [
        b"",
        b"HTTP/1.1 200",
        b"hello\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1, 2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\na",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\rb\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 999999 OK\r\n\r\n",
    ];
    for answer in answers {
        for then in [|| Then::Close, || Then::Reset] {
            let origin = Origin::start(move |_, _| reply(answer, then())).await;
            let gateway = before(&origin).await;
            let got = ask(gateway, get("/")).await;
            assert!(
                got.starts_with("HTTP/1.1 502 "),
                "{:?}: {got}",
                answer.escape_ascii()
            );
            assert_eq!(origin.seen().len(), 1);
        }
    }
    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n";
    let origin = Origin::start(move |_, number| match number {
        0 => reply(answer, Then::Next),
        _ => ok("hello"),
    })
    .await;
    let gateway = before(&origin).await;
    assert_status(&ask(gateway, get("/")).await, 502);
    assert_status(&ask(gateway, get("/")).await, 200);
    assert_eq!(origin.connections(), [0, 1]);
}

#[tokio::test]
async fn octets_after_an_answer_end_its_connection() {
    for extra in ["x", "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"] {
        let first = format!("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello{extra}");
        let origin = Origin::start(move |_, number| match number {
            0 => reply(&first, Then::Next),
            _ => ok("second"),
        })
        .await;
        let gateway = before(&origin).await;
        assert!(ask(gateway, get("/")).await.ends_with("\r\n\r\nhello"));
        assert!(ask(gateway, get("/")).await.ends_with("\r\n\r\nsecond"));
        assert_eq!(origin.connections(), [0, 1]);
    }
}

#[tokio::test]
async fn a_cut_answer_is_seen_as_cut() {
    for (answer, end) in [
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello",
            "\r\n\r\nhello",
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
            "5\r\nhello\r\n",
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n",
            "hello\r\n",
        ),
    ] {
        for then in [|| Then::Close, || Then::Hang] {
            let origin = Origin::start(move |_, _| reply(answer, then())).await;
            let gateway = before(&origin).await;
            let got = ask(gateway, get("/")).await;
            assert_status(&got, 200);
            assert!(got.ends_with(end) && !got.ends_with("0\r\n\r\n"), "{got}");
            assert!(!got.contains("Content-Length: 5"), "{got}");
        }
    }
}

/// Asks twice through one pool; the origin ends the kept connection upon the second request.
async fn ask_on_a_dying_connection(second: &str, then: fn() -> Then) -> (String, Vec<usize>) {
    let origin = Origin::start(move |connection, number| match (connection, number) {
        (0, 0) => ok("first"),
        (0, _) => reply("", then()),
        _ => ok("again"),
    })
    .await;
    let gateway = before(&origin).await;
    assert_status(&ask(gateway, get("/")).await, 200);
    (ask(gateway, second).await, origin.connections())
}

#[tokio::test]
async fn a_dead_kept_connection_costs_a_get_nothing_and_a_post_is_never_sent_twice() {
    for then in [|| Then::Close, || Then::Reset] as [fn() -> Then; 2] {
        let (answer, connections) = ask_on_a_dying_connection(&get("/"), then).await;
        assert!(answer.ends_with("again"), "{answer}");
        assert_eq!(connections, [0, 0, 1]);

        let post =
            "POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 1\r\nConnection: close\r\n\r\nx";
        let (answer, connections) = ask_on_a_dying_connection(post, then).await;
        assert_status(&answer, 502);
        assert_eq!(connections, [0, 0]);
    }
}

#[tokio::test]
async fn a_server_that_dies_while_a_body_comes_is_502() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = [0; 1024];
            _ = stream.read(&mut head).await;
        }
    });
    let routes = vec![("/", pass_to(upstream(&[address])))];
    let gateway = gateway(vec![site(&["a.example"], SiteTls::Off, routes)]).await;
    let mut client = Client::to(gateway).await;
    client
        .send("POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 1000000\r\n\r\nhello")
        .await;
    let more = [b'x'; 10_000];
    for _ in 0..5 {
        sleep(Duration::from_millis(10)).await;
        if client.0.write_all(&more).await.is_err() {
            break;
        }
    }
    let answer = client.until("\r\n\r\n").await;
    assert_status(&answer, 502);
}

#[tokio::test]
async fn an_answer_framed_twice_is_passed_on_framed_once() {
    // Pingora drops the length before anyone can see that there were two (RFC 9112, section 6.3).
    let both =
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    let origin = Origin::start(move |_, _| reply(both, Then::Next)).await;
    let gateway = before(&origin).await;
    let answer = ask(gateway, get("/")).await.to_lowercase();
    assert!(
        answer.contains("transfer-encoding: chunked\r\n"),
        "{answer}"
    );
    assert!(!answer.contains("content-length"), "{answer}");
}

#[tokio::test]
async fn a_put_is_repeated_with_its_body() {
    let put =
        "PUT / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello";
    let (answer, connections) = ask_on_a_dying_connection(put, || Then::Close).await;
    assert!(answer.ends_with("again"), "{answer}");
    assert_eq!(connections, [0, 0, 1]);
}

#[tokio::test]
async fn a_websocket_that_is_not_answered_is_504() {
    let origin = Origin::start(|_, _| reply("", Then::Hang)).await;
    let gateway = before(&origin).await;
    let mut client = Client::to(gateway).await;
    client
        .send(
            "GET /chat HTTP/1.1\r\nHost: a.example\r\nUpgrade: websocket\r\n\
             Connection: Upgrade\r\nSec-WebSocket-Key: x\r\n\r\n",
        )
        .await;
    assert_status(&client.rest().await, 504);
    origin.wait_for_closed(1).await;
}
