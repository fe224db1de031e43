//! Upstreams that are reached otherwise than by a plain connection to an address.

use std::path::Path;
use std::sync::Arc;

use openssl::ssl::{SslAcceptor, SslFiletype, SslMethod};
use snigate::config::model::{SiteTls, Upstream, UpstreamAddress, UpstreamServer, UpstreamTls};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};

use super::fixture::*;

fn one(address: UpstreamAddress, tls: UpstreamTls) -> Arc<Upstream> {
    Arc::new(Upstream {
        tls,
        ..Upstream::new("app", vec![UpstreamServer::new(address)])
    })
}

async fn ask_through(upstream: Arc<Upstream>) -> String {
    let routes = vec![("/", pass_to(upstream))];
    let gateway = gateway(vec![site(&["a.example"], SiteTls::Off, routes)]).await;
    ask(gateway, get("/")).await
}

const HELLO: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

#[tokio::test]
async fn a_name_is_looked_up_and_each_of_its_addresses_tried() {
    // `localhost` may have two addresses of which the origin serves one.
    let origin = Origin::start(|_, _| ok("hello")).await;
    let host = "localhost".parse().expect("a name");
    let name = UpstreamAddress::Name {
        host,
        port: origin.address.port(),
    };
    assert!(
        ask_through(one(name, UpstreamTls::Off))
            .await
            .ends_with("hello")
    );
    let host = "no-such-host.invalid".parse().expect("a name");
    let name = UpstreamAddress::Name { host, port: 80 };
    assert!(
        ask_through(one(name, UpstreamTls::Off))
            .await
            .starts_with("HTTP/1.1 502 ")
    );
}

#[tokio::test]
async fn a_unix_socket_is_an_address() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("app.sock");
    let listener = UnixListener::bind(&path).expect("a socket");
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        _ = stream.read(&mut [0; 4096]).await;
        _ = stream.write_all(HELLO).await;
    });
    let unix = UpstreamAddress::Unix(path);
    assert!(
        ask_through(one(unix, UpstreamTls::Off))
            .await
            .ends_with("hello")
    );
}

/// A TLS origin with a certificate for `name`, and the file of its root.
async fn tls_origin(folder: &Path, name: &str) -> (UpstreamAddress, std::path::PathBuf) {
    let key = rcgen::KeyPair::generate().expect("a key");
    let certificate = rcgen::CertificateParams::new(vec![name.to_owned()])
        .expect("a name")
        .self_signed(&key)
        .expect("a certificate");
    let (cert_file, key_file) = (folder.join("cert.pem"), folder.join("key.pem"));
    std::fs::write(&cert_file, certificate.pem()).expect("written");
    std::fs::write(&key_file, key.serialize_pem()).expect("written");
    let mut acceptor = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls()).expect("TLS");
    acceptor
        .set_certificate_chain_file(&cert_file)
        .expect("a chain");
    acceptor
        .set_private_key_file(&key_file, SslFiletype::PEM)
        .expect("a key");
    let acceptor = Arc::new(acceptor.build());
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let (acceptor, tcp) = (Arc::clone(&acceptor), tcp.into_std().expect("a socket"));
            tokio::task::spawn_blocking(move || {
                use std::io::{Read, Write};
                tcp.set_nonblocking(false).expect("blocking");
                if let Ok(mut stream) = acceptor.accept(tcp) {
                    _ = stream.read(&mut [0; 4096]);
                    _ = stream.write_all(HELLO);
                }
            });
        }
    });
    (UpstreamAddress::Ip(address), cert_file)
}

#[tokio::test]
async fn tls_servers_are_verified_unless_that_is_off() {
    let folder = tempfile::tempdir().expect("a folder");
    let (address, root) = tls_origin(folder.path(), "app.internal").await;
    let name = |name: &str| Some(name.parse().expect("a name"));
    let tls = |server_name, verify, ca_file| UpstreamTls::On {
        server_name,
        verify,
        ca_file,
        client_certificate: None,
    };
    let root = || Some(root.clone());
    for (tls, trusted) in [
        (tls(name("app.internal"), true, root()), true),
        (tls(name("app.internal"), true, None), false),
        (tls(name("other.internal"), true, root()), false),
        (
            tls(
                name("app.internal"),
                true,
                Some(folder.path().join("none.pem")),
            ),
            false,
        ),
        (tls(None, true, root()), false),
        (tls(name("other.internal"), false, None), true),
        (tls(None, false, None), true),
    ] {
        let answer = ask_through(one(address.clone(), tls.clone())).await;
        let expected = if trusted {
            "HTTP/1.1 200 "
        } else {
            "HTTP/1.1 502 "
        };
        assert!(answer.starts_with(expected), "{tls:?}: {answer}");
    }
}

#[tokio::test]
async fn a_certificate_for_the_address_of_a_server_is_enough() {
    for (name, status) in [("127.0.0.1", 200), ("127.0.0.2", 502), ("localhost", 502)] {
        let folder = tempfile::tempdir().expect("a folder");
        let (address, root) = tls_origin(folder.path(), name).await;
        let tls = UpstreamTls::On {
            server_name: None,
            verify: true,
            ca_file: Some(root),
            client_certificate: None,
        };
        assert_status(&ask_through(one(address, tls)).await, status);
    }
}
