//! HTTP/2 from the client.

use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use http::{HeaderValue, Request, StatusCode};
use tokio::net::TcpStream;
use tokio::time::sleep;

use super::fixture::*;

async fn connect(gateway: std::net::SocketAddr) -> SendRequest<Bytes> {
    let tcp = TcpStream::connect(gateway).await.expect("a connection");
    let (client, connection) = h2::client::handshake(tcp).await.expect("HTTP/2");
    tokio::spawn(async move { connection.await.ok() });
    client.ready().await.expect("ready")
}

async fn ask(
    client: &mut SendRequest<Bytes>,
    request: http::request::Builder,
) -> Result<(StatusCode, Result<Vec<u8>, h2::Error>), h2::Error> {
    let request = request.body(()).expect("a request");
    let (answer, _) = client.send_request(request, true)?;
    let answer = answer.await?;
    let status = answer.status();
    let mut body = answer.into_body();
    let mut all = Vec::new();
    while let Some(part) = body.data().await {
        match part {
            Ok(part) => all.extend_from_slice(&part),
            Err(error) => return Ok((status, Err(error))),
        }
    }
    Ok((status, Ok(all)))
}

fn get() -> http::request::Builder {
    Request::get("http://a.example/x")
}

#[tokio::test]
async fn requests_are_passed_on_as_http1() {
    let origin = Origin::start(|_, _| ok("hello")).await;
    let mut client = connect(before(&origin).await).await;
    let cookies = get().header("cookie", "a=1").header("cookie", "b=2");
    let (status, body) = ask(&mut client, cookies).await.expect("an answer");
    assert_eq!(
        (status, &*body.expect("a body")),
        (StatusCode::OK, &b"hello"[..])
    );
    let seen = origin.seen().remove(0).to_lowercase();
    assert!(seen.starts_with("get /x http/1.1\r\n"), "{seen}");
    assert!(
        seen.contains("host: a.example\r\n") && seen.contains("cookie: a=1; b=2\r\n"),
        "{seen}"
    );
}

#[tokio::test]
async fn failures_before_the_head_have_a_status() {
    let origin = Origin::start(|_, number| match number {
        0 => reply("", Then::Close),
        1 => reply("", Then::Hang),
        2 => reply("HTTP/1.1 101 Switching Protocols\r\n\r\n", Then::Hang),
        _ => reply("HTTP/1.1 200 OK\r\nX: a\0\r\n\r\n", Then::Hang),
    })
    .await;
    let mut client = connect(before(&origin).await).await;
    for status in [502, 504, 502, 502] {
        let (got, body) = ask(&mut client, get())
            .await
            .expect("a status, not a reset");
        assert_eq!(got.as_u16(), status);
        assert!(String::from_utf8_lossy(&body.expect("a page")).contains("Request "));
    }
}

#[tokio::test]
async fn a_cut_answer_is_reset() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
    ] {
        let origin = Origin::start(move |_, _| reply(answer, Then::Close)).await;
        let mut client = connect(before(&origin).await).await;
        match ask(&mut client, get()).await {
            Ok((_, body)) => assert!(body.expect_err("cut").is_reset()),
            Err(error) => assert!(error.is_reset(), "{error}"),
        }
    }
}

#[tokio::test]
async fn what_cannot_be_served_has_a_status() {
    let origin = Origin::start(|_, _| ok("hello")).await;
    let mut client = connect(before(&origin).await).await;
    for (request, status) in [
        (Request::get("http://b.example/"), 404),
        (Request::trace("http://a.example/"), 405),
        (Request::connect("a.example:80"), 405),
        (
            Request::get("http://a.example/").header("host", "b.example"),
            400,
        ),
        (
            Request::get("http://a.example/").header("expect", "cake"),
            417,
        ),
    ] {
        let (got, _) = ask(&mut client, request).await.expect("a status");
        assert_eq!(got.as_u16(), status);
    }
    let te = get().header("te", HeaderValue::from_static("gzip"));
    assert!(ask(&mut client, te).await.is_err());
    assert!(origin.seen().is_empty());
}

#[tokio::test]
async fn a_body_that_does_not_come_is_the_clients_fault() {
    let origin = Origin::start(|_, _| ok("hello")).await;
    let mut client = connect(before(&origin).await).await;
    let request = Request::post("http://a.example/")
        .body(())
        .expect("a request");
    let (answer, mut body) = client.send_request(request, false).expect("sent");
    body.send_data(Bytes::from_static(b"half"), false)
        .expect("sent");
    assert_eq!(
        answer.await.expect("a status").status(),
        StatusCode::REQUEST_TIMEOUT
    );
}

#[tokio::test]
async fn a_reset_takes_the_upstream_request_along() {
    let origin = Origin::start(|_, _| reply("", Then::Hang)).await;
    let mut client = connect(before(&origin).await).await;
    let request = get().body(()).expect("a request");
    let (answer, mut stream) = client.send_request(request, true).expect("sent");
    while origin.seen().is_empty() {
        sleep(Duration::from_millis(5)).await;
    }
    stream.send_reset(h2::Reason::CANCEL);
    drop(answer);
    origin.wait_for_closed(1).await;
}
