//! The library as other programs use it: the builder, the examples, and a crate outside of the
//! workspace.

mod builder;
mod examples;
mod on_demand;
mod outside;
mod own_parts;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use openssl::ssl::{Ssl, SslAcceptor};
use openssl::x509::X509;
use snigate::{AcmeIssuer, AcmeIssuerBuilder, Engine, EngineBuilder, EngineHandle};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_openssl::SslStream;

use crate::support::{PATIENCE, Pebble, Port, TlsClient};

/// What the servers here respond with, whatever is asked.
const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\nconnection: close\r\n\r\nhello\n";

/// The CA as an issuer.
fn pebble_issuer(pebble: &Pebble) -> AcmeIssuerBuilder {
    AcmeIssuer::builder()
        .directory(&pebble.directory())
        .root_certificates(pebble.ca_file())
        .order_limit(1000, Duration::from_secs(1))
}

fn root(pebble: &Pebble) -> X509 {
    X509::from_pem(pebble.root().as_bytes()).expect("a certificate")
}

/// Starts what the test has built.
async fn start(builder: EngineBuilder) -> EngineHandle {
    builder.start().await.expect("an engine")
}

/// Ends within a time that is no wait for anything.
async fn stop(engine: &EngineHandle) {
    let stopped = tokio::time::timeout(PATIENCE, engine.stop()).await;
    stopped.expect("it stops");
}

async fn covered(engine: &EngineHandle) {
    let covered = tokio::time::timeout(3 * PATIENCE, engine.wait_until_covered()).await;
    covered.unwrap_or_else(|_| panic!("no certificate: {:#?}", engine.recent_events()));
}

/// Serves TLS at `port` until it is aborted.
async fn serve(port: &Port, acceptor: SslAcceptor) -> JoinHandle<()> {
    let listener = TcpListener::bind(port.address())
        .await
        .expect("a free port");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve_one(acceptor.clone(), stream));
        }
    })
}

async fn serve_one(acceptor: SslAcceptor, stream: TcpStream) {
    let ssl = Ssl::new(acceptor.context()).expect("memory");
    let mut tls = SslStream::new(ssl, stream).expect("memory");
    if std::pin::Pin::new(&mut tls).accept().await.is_ok() {
        let _ = tls.write_all(RESPONSE).await;
        let _ = tls.shutdown().await;
    }
}

/// The names of the certificate that a client gets for `host` which believes nobody but `root`.
async fn served(address: SocketAddr, host: &str, root: &X509) -> Result<Vec<String>, String> {
    let client = TlsClient::named(host).trusting(root);
    let connecting = tokio::task::spawn_blocking(move || {
        let stream = client.try_connect(address)?;
        Ok(stream.names())
    });
    connecting.await.expect("no panic")
}

/// Where cargo has built this.
fn target() -> PathBuf {
    let program = std::env::current_exe().expect("a program");
    // target/PROFILE/deps/PROGRAM
    let target = program.ancestors().nth(3).expect("a target directory");
    target.to_owned()
}

/// Runs cargo offline, with the same target directory and lock as this was built with.
fn cargo(directory: &Path) -> Command {
    let mut command = Command::new(env!("CARGO"));
    command
        .current_dir(directory)
        .env("CARGO_TARGET_DIR", target());
    // What cargo says of this package is not meant for another.
    for (name, _) in std::env::vars().filter(|(name, _)| is_of_package(name)) {
        command.env_remove(name);
    }
    command
}

fn is_of_package(variable: &str) -> bool {
    let prefixes = [
        "CARGO_PKG_",
        "CARGO_BIN_",
        "CARGO_MANIFEST_",
        "CARGO_CRATE_",
    ];
    prefixes.iter().any(|prefix| variable.starts_with(prefix))
}

/// A process that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An engine that asks `pebble` for `names`, kept in memory.
fn engine_at(pebble: &Pebble, names: &[&str]) -> EngineBuilder {
    Engine::builder()
        .storage(snigate::storage::MemoryStorage::default())
        .issuer("ca", pebble_issuer(pebble))
        .manage(names)
}
