//! What happens to certificates, by callback and by stream, and validations by `http-01` in an HTTP
//! server of the program's own.
//!
//! ```sh
//! cargo run --example events -- 0.0.0.0:80 www.example.com letsencrypt-staging
//! ```
//!
//! It ends once the name has its certificate. A fourth argument names a file with the roots to trust
//! for the CA's own HTTPS.

#![allow(clippy::print_stdout, reason = "an example prints what happens")]

use std::env::args;

use axum::Router;
use axum::http::{HeaderMap, StatusCode, Uri};
use snigate::event::EventKind;
use snigate::storage::MemoryStorage;
use snigate::{AcmeIssuer, ChallengeType, Engine};
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = args().skip(1).collect();
    let [address, name, directory, roots @ ..] = &*arguments else {
        return Err("usage: events ADDRESS:PORT NAME DIRECTORY [ROOTS]".into());
    };
    let mut ca = AcmeIssuer::builder()
        .directory(directory)
        .challenges([ChallengeType::Http01]);
    if let Some(roots) = roots.first() {
        ca = ca.root_certificates(roots);
    }
    let engine = Engine::builder()
        .storage(MemoryStorage::default())
        .issuer("ca", ca)
        .manage([name])
        .on_event(|event| println!("callback: {} {}", event.kind.as_str(), event.message))
        .start()
        .await?;

    let http01 = engine.http01();
    let answer = move |headers: HeaderMap, uri: Uri| async move {
        let host = headers.get("host").and_then(|host| host.to_str().ok());
        let answer = http01.find(host.unwrap_or_default(), uri.path()).await;
        answer.ok_or(StatusCode::NOT_FOUND)
    };
    let listener = TcpListener::bind(address).await?;
    let server =
        tokio::spawn(async move { axum::serve(listener, Router::new().fallback(answer)).await });

    let mut events = engine.events();
    while let Some(event) = events.next().await {
        println!("stream: {}", serde_json::to_string(&*event)?);
        if event.kind == EventKind::CertificateObtained {
            break;
        }
    }
    engine.wait_until_covered().await;
    engine.stop().await;
    server.abort();
    println!("{name} has a certificate");
    Ok(())
}
