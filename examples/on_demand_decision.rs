//! Certificates when a client first asks for a name, if the program allows it.
//!
//! ```sh
//! cargo run --example on_demand_decision -- 0.0.0.0:443 customers.txt letsencrypt-staging
//! ```
//!
//! `customers.txt` has a host name per line. It stands for a database: it is read for each decision,
//! and a decision is remembered for a while. A fourth argument names a file with the roots to trust
//! for the CA's own HTTPS.

use std::env::args;
use std::pin::Pin;

use openssl::ssl::Ssl;
use snigate::storage::FileStorage;
use snigate::tls::Handshake;
use snigate::{AcmeIssuer, Engine, OnDemand};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio_openssl::SslStream;

const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\nconnection: close\r\n\r\nhello\n";

/// Whether the file names a customer. An error means that nobody knows now: the client is refused,
/// and the question is asked again for the next one.
async fn is_customer(file: &str, name: &str) -> std::io::Result<bool> {
    let customers = tokio::fs::read_to_string(file).await?;
    Ok(customers.lines().any(|line| line.trim() == name))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = args().skip(1).collect();
    let [address, customers, directory, roots @ ..] = &*arguments else {
        return Err("usage: on_demand_decision ADDRESS:PORT FILE DIRECTORY [ROOTS]".into());
    };
    let mut ca = AcmeIssuer::builder().directory(directory);
    if let Some(roots) = roots.first() {
        ca = ca.root_certificates(roots);
    }
    let customers = customers.clone();
    let engine = Engine::builder()
        .storage(FileStorage::new("certs"))
        .issuer("ca", ca)
        .on_demand(OnDemand::decide(move |name| {
            let customers = customers.clone();
            async move { is_customer(&customers, name.as_str()).await }
        }))
        .start()
        .await?;
    let acceptor = engine.acceptor()?;
    let listener = TcpListener::bind(address).await?;
    loop {
        let (stream, peer) = listener.accept().await?;
        let mut tls = SslStream::new(Ssl::new(acceptor.context())?, stream)?;
        tokio::spawn(async move {
            // So that one network cannot use up what all clients may cause.
            let record = Handshake::new(Some(peer.ip()), None);
            let handshake = record.run(Pin::new(&mut tls).accept());
            if handshake.await.is_ok() {
                let _ = tls.write_all(RESPONSE).await;
                let _ = tls.shutdown().await;
            }
        });
    }
}
