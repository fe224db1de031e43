//! A TLS server on tokio-openssl with certificates from a CA with ACME.
//!
//! ```sh
//! cargo run --example embed_tokio -- 0.0.0.0:443 www.example.com letsencrypt-staging
//! ```
//!
//! The CA validates by `tls-alpn-01` on the same port. A fourth argument names a file with the roots
//! to trust for the CA's own HTTPS.

use std::env::args;
use std::pin::Pin;

use openssl::ssl::Ssl;
use snigate::storage::FileStorage;
use snigate::{AcmeIssuer, Engine};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio_openssl::SslStream;

const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\nconnection: close\r\n\r\nhello\n";

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = args().skip(1).collect();
    let [address, name, directory, roots @ ..] = &*arguments else {
        return Err("usage: embed_tokio ADDRESS:PORT NAME DIRECTORY [ROOTS]".into());
    };
    let mut ca = AcmeIssuer::builder().directory(directory);
    if let Some(roots) = roots.first() {
        ca = ca.root_certificates(roots);
    }
    let engine = Engine::builder()
        .storage(FileStorage::new("certs"))
        .issuer("ca", ca)
        .manage([name])
        .start()
        .await?;
    let acceptor = engine.acceptor()?;
    let listener = TcpListener::bind(address).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        let mut tls = SslStream::new(Ssl::new(acceptor.context())?, stream)?;
        tokio::spawn(async move {
            if Pin::new(&mut tls).accept().await.is_ok() {
                let _ = tls.write_all(RESPONSE).await;
                let _ = tls.shutdown().await;
            }
        });
    }
}
