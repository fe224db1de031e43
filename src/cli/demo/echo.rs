//! The demo's upstream: responds to every request with what it received.

use std::fmt::Write;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::thread;

use axum::Router;
use axum::body::Bytes;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use http::StatusCode;

/// The longest body that is read.
const MAX_BODY: usize = 16 * 1024 * 1024;

/// Starts it on a free port of 127.0.0.1, in a thread that ends with the process.
pub(super) fn start() -> io::Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    listener.set_nonblocking(true)?;
    let port = listener.local_addr()?.port();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    thread::Builder::new()
        .name("upstream".to_owned())
        .spawn(move || {
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener)?;
                axum::serve(listener, Router::new().fallback(echo)).await
            })
        })?;
    Ok(port)
}

async fn echo(request: Request) -> Response {
    let (head, body) = request.into_parts();
    let Ok(body) = axum::body::to_bytes(body, MAX_BODY).await else {
        return (StatusCode::PAYLOAD_TOO_LARGE, "too much for a demo\n").into_response();
    };
    describe_request(&head, &body).into_response()
}

fn describe_request(head: &http::request::Parts, body: &Bytes) -> String {
    let mut text = format!("{} {} {:?}\n", head.method, head.uri, head.version);
    for (name, value) in &head.headers {
        let _ = writeln!(
            text,
            "{name}: {}",
            String::from_utf8_lossy(value.as_bytes())
        );
    }
    let _ = writeln!(text, "\n{} bytes of body", body.len());
    text
}
