//! HTTP/1 from the client.

use std::time::Duration;

use http::StatusCode;
use snigate::config::model::{Action, SiteTls};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::sleep;

use super::fixture::*;

#[tokio::test]
async fn a_request_is_told_of_its_client_and_not_by_its_client() {
    let origin = Origin::start(|_, _| ok("hello")).await;
    let gateway = before(&origin).await;
    let answer = ask(
        gateway,
        "GET http://A.Example.:80/x?y HTTP/1.1\r\nHost: A.Example.:80\r\nX-Forwarded-For: 6.6.6.6\r\n\
         X_Forwarded_For: 6.6.6.6\r\nForwarded: for=6.6.6.6\r\nX-Real-IP: 6.6.6.6\r\n\
         X-Forwarded-Ssl: on\r\nX-Request-Id: forged\r\nProxy: http://evil\r\nTE: trailers\r\n\
         Upgrade: h2c\r\nHTTP2-Settings: AA\r\nKeep-Alive: 5\r\nX-Hop: 1\r\nX-End: 2\r\n\
         Connection: close, X-Hop\r\n\r\n",
    )
    .await;
    assert_status(&answer, 200);
    let answer = answer.to_lowercase();
    let id = answer
        .split("x-request-id: ")
        .nth(1)
        .expect("an id")
        .split("\r\n")
        .next()
        .expect("it");
    assert_eq!(id.len(), 32);
    assert!(
        !answer.contains("server:") && !answer.contains("via:"),
        "{answer}"
    );

    let seen = origin.seen().remove(0).to_lowercase();
    assert!(seen.starts_with("get /x?y http/1.1\r\n"), "{seen}");
    let fields: Vec<&str> = seen.trim_end().split("\r\n").skip(1).collect();
    for field in [
        "host: a.example:80",
        "x-forwarded-for: 127.0.0.1",
        "x-real-ip: 127.0.0.1",
        "x-forwarded-proto: http",
        "x-forwarded-host: a.example:80",
        &format!("x-forwarded-port: {}", gateway.port()),
        "forwarded: for=127.0.0.1;proto=http;host=\"a.example:80\"",
        &format!("x-request-id: {id}"),
        "x-end: 2",
    ] {
        assert!(fields.contains(&field), "{field} in {fields:?}");
    }
    assert_eq!(fields.len(), 9, "{fields:?}");
}

#[tokio::test]
async fn connection_cannot_take_away_what_routing_and_trust_rest_on() {
    let origin = Origin::start(|_, _| ok("hello")).await;
    let gateway = before(&origin).await;
    for name in ["Host", "X-Forwarded-For", ":path", "\"x\""] {
        let request = format!(
            "GET / HTTP/1.1\r\nHost: a.example\r\nX-Forwarded-For: 6.6.6.6\r\nConnection: close, {name}\r\n\r\n",
        );
        assert_status(&ask(gateway, request).await, 400);
    }
    assert!(origin.seen().is_empty());
}

#[tokio::test]
async fn bodies_pass_both_ways() {
    let origin = Origin::start(|_, _| {
        reply(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            Then::Next,
        )
    })
    .await;
    let gateway = before(&origin).await;
    let answer = ask(
        gateway,
        "POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello",
    )
    .await;
    assert_status(&answer, 200);
    assert!(
        answer.ends_with("\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
        "{answer}"
    );
    ask(
        gateway,
        "POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n\
         5\r\nhello\r\n0\r\n\r\n",
    )
    .await;
    let seen = origin.seen();
    assert!(seen[0].ends_with("\r\n\r\nhello"), "{seen:?}");
    assert!(
        seen[1].ends_with("\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
        "{seen:?}"
    );
    // An old client gets the same body, ended by the connection.
    let old = "GET / HTTP/1.0\r\nHost: a.example\r\nConnection: keep-alive\r\n\r\n";
    let answer = ask(gateway, old).await;
    assert!(
        answer.to_lowercase().contains("connection: close\r\n"),
        "{answer}"
    );
    assert!(answer.ends_with("\r\n\r\nabc"), "{answer}");
    assert!(
        !answer.to_lowercase().contains("transfer-encoding"),
        "{answer}"
    );
}

#[tokio::test]
async fn answers_of_our_own_keep_the_connection() {
    let moved = Action::Redirect {
        to: "https://a.example/new".parse().expect("a URI"),
        status: StatusCode::MOVED_PERMANENTLY,
    };
    let gateway = gateway(vec![
        site(
            &["a.example"],
            SiteTls::Off,
            vec![("/old", moved), ("/r", respond("hello\n"))],
        ),
        site(
            &["s.example"],
            SiteTls::Auto(Vec::new()),
            vec![("/", respond("secret"))],
        ),
    ])
    .await;
    let mut client = Client::to(gateway).await;
    client
        .send("GET /r HTTP/1.1\r\nHost: a.example\r\n\r\n")
        .await;
    let answer = client.until("hello\n").await;
    assert_status(&answer, 200);
    assert!(answer.contains("Content-Length: 6\r\n"), "{answer}");
    client
        .send("HEAD /r HTTP/1.1\r\nHost: a.example\r\n\r\n")
        .await;
    let answer = client.until("\r\n\r\n").await;
    assert!(
        answer.contains("Content-Length: 6\r\n") && answer.ends_with("\r\n\r\n"),
        "{answer}"
    );
    client
        .send("POST /old/x?y HTTP/1.1\r\nHost: a.example\r\nContent-Length: 3\r\n\r\nabc")
        .await;
    let answer = client.until("\r\n\r\n").await;
    assert_status(&answer, 301);
    assert!(
        answer.contains("location: https://a.example/new\r\n"),
        "{answer}"
    );
    client
        .send("GET /p/?q=1 HTTP/1.1\r\nHost: S.example.:80\r\n\r\n")
        .await;
    let answer = client.until("\r\n\r\n").await;
    assert_status(&answer, 308);
    assert!(
        answer.contains("location: https://s.example:8443/p/?q=1\r\n"),
        "{answer}"
    );
    for (request, status) in [
        ("GET /none HTTP/1.1\r\nHost: a.example\r\n\r\n", 404),
        ("GET / HTTP/1.1\r\nHost: b.example\r\n\r\n", 404),
        ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
        ("TRACE /r HTTP/1.1\r\nHost: a.example\r\n\r\n", 405),
        ("OPTIONS * HTTP/1.1\r\nHost: a.example\r\n\r\n", 400),
        (
            "GET /r HTTP/1.1\r\nHost: a.example\r\nExpect: cake\r\n\r\n",
            417,
        ),
        ("GET /x/../old HTTP/1.1\r\nHost: a.example\r\n\r\n", 400),
    ] {
        client.send(request).await;
        let answer = client.answer().await;
        assert_status(&answer, status);
        // A client that cannot be understood is not listened to further.
        let closes = answer.to_lowercase().contains("connection: close");
        assert_eq!(closes, status == 400, "{answer}");
        if closes {
            client = Client::to(gateway).await;
        }
    }
}

#[tokio::test]
async fn websockets_pass_and_nothing_else_is_upgraded() {
    let switch = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                  Sec-WebSocket-Accept: x\r\n\r\nearly";
    let origin = Origin::start(move |_, _| reply(switch, Then::Echo)).await;
    let gateway = before(&origin).await;
    let mut client = Client::to(gateway).await;
    client
        .send(
            "GET /chat HTTP/1.1\r\nHost: a.example\r\nUpgrade: WebSocket\r\n\
             Connection: keep-alive, Upgrade\r\nSec-WebSocket-Key: x\r\n\r\n",
        )
        .await;
    let head = client.until("early").await;
    assert_status(&head, 101);
    assert!(
        head.to_lowercase().contains("upgrade: websocket\r\n"),
        "{head}"
    );
    client.send("ping").await;
    assert_eq!(client.until("ping").await, "ping");
    // Longer than either side's time-out for ordinary messages.
    sleep(Duration::from_millis(1500)).await;
    client.send("still").await;
    assert_eq!(client.until("still").await, "still");
    drop(client);
    let seen = origin.seen().remove(0).to_lowercase();
    assert!(seen.contains("upgrade: websocket\r\n") && seen.contains("connection: upgrade\r\n"));

    // A 101 that answers a request without an upgrade is no answer.
    let plain = "GET / HTTP/1.1\r\nHost: a.example\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n";
    let mut client = Client::to(gateway).await;
    client.send(plain).await;
    assert_status(&client.rest().await, 502);
    assert!(!origin.seen()[1].to_lowercase().contains("upgrade"));
}

#[tokio::test]
async fn a_client_that_goes_away_takes_its_upstream_request_along() {
    let origin = Origin::start(|_, _| reply("", Then::Hang)).await;
    let gateway = before(&origin).await;
    let mut client = Client::to(gateway).await;
    client.send(get("/")).await;
    while origin.seen().is_empty() {
        sleep(Duration::from_millis(5)).await;
    }
    drop(client);
    origin.wait_for_closed(1).await;
}

#[tokio::test]
async fn a_body_that_does_not_come_is_the_clients_fault() {
    let origin = Origin::start(|_, _| ok("hello")).await;
    let gateway = before(&origin).await;
    let head = "POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 10\r\n\r\nhalf";
    let mut client = Client::to(gateway).await;
    client.send(head).await;
    assert_status(&client.rest().await, 408);
    let chunk = "POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n";
    let mut client = Client::to(gateway).await;
    client.send(chunk).await;
    assert_status(&client.rest().await, 400);
    assert!(origin.seen().is_empty());
}

#[tokio::test]
async fn an_answer_before_the_whole_request_is_passed_on() {
    let early = "HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = [0; 1024];
            _ = stream.read(&mut head).await;
            _ = stream.write_all(early.as_bytes()).await;
            sleep(Duration::from_millis(100)).await;
        }
    });
    let routes = vec![("/", pass_to(upstream(&[address])))];
    let gateway = gateway(vec![site(&["a.example"], SiteTls::Off, routes)]).await;
    let mut client = Client::to(gateway).await;
    client
        .send("POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 1000000\r\n\r\nhello")
        .await;
    assert_status(&client.rest().await, 413);
}

#[tokio::test]
async fn a_client_that_waits_for_leave_gets_it_from_the_server() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        let mut head = [0; 4096];
        _ = stream.read(&mut head).await;
        _ = stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await;
        _ = stream.read(&mut head).await;
        _ = stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            .await;
        sleep(Duration::from_secs(1)).await;
    });
    let routes = vec![("/", pass_to(upstream(&[address])))];
    let gateway = gateway(vec![site(&["a.example"], SiteTls::Off, routes)]).await;
    let mut client = Client::to(gateway).await;
    let head =
        "PUT / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n";
    client.send(head).await;
    assert_status(&client.until("\r\n\r\n").await, 100);
    client.send("body").await;
    assert_status(&client.answer().await, 200);
}
