//! `webhook` over TLS: who is trusted, and what a server that is not learns.

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::thread;

use openssl::pkey::PKey;
use openssl::ssl::{SslAcceptor, SslMethod};
use openssl::x509::X509;

use super::*;
use crate::support::{Ca, Pair, ROOT, read_head};

/// A receiver with this certificate. Its address, and the heads of all requests.
fn receiver(pair: &Pair) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let mut acceptor = SslAcceptor::mozilla_modern_v5(SslMethod::tls_server()).expect("TLS");
    let certificate = X509::from_pem(pair.chain.as_bytes()).expect("a certificate");
    acceptor
        .set_certificate(&certificate)
        .expect("a certificate");
    let key = PKey::private_key_from_pem(pair.key.as_bytes()).expect("a key");
    acceptor.set_private_key(&key).expect("its key");
    let acceptor = acceptor.build();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let address = listener.local_addr().expect("an address");
    let heads = Arc::<Mutex<Vec<String>>>::default();
    let seen = Arc::clone(&heads);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = acceptor.accept(stream.expect("a connection")) else {
                continue;
            };
            if let Ok(Some(head)) = read_head(&mut stream) {
                let head = String::from_utf8_lossy(&head).into_owned();
                seen.lock().expect("not poisoned").push(head);
                let answer = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
                let _ = stream.write_all(answer.as_bytes());
            }
        }
    });
    (address, heads)
}

#[test]
fn a_server_is_trusted_by_its_ca_file_and_others_learn_nothing() {
    let (other, own) = (Ca::new("Another Root"), ROOT.leaf(&["localhost"]).make());
    let (good, heads) = receiver(&own);
    let (stranger, of_stranger) = receiver(&other.leaf(&["localhost"]).make());
    let (misnamed, of_misnamed) = receiver(&ROOT.leaf(&["other.test"]).make());
    let (expired, of_expired) = receiver(&ROOT.leaf(&["localhost"]).expired().make());
    let entry = |name: &str, address: SocketAddr, more: &str| {
        let port = address.port();
        format!(
            "- {{ name: {name}, on: [config_reloaded], digest: 0s, webhook: {{ url: \
             \"https://localhost:{port}/hook-of-secret\", headers: {{ Authorization: Bearer t0ken \
             }}{more} }} }}\n"
        )
    };
    let trusting = ", ca_file: root.pem";
    let events = [
        entry("good", good, trusting),
        entry("stranger", stranger, trusting),
        entry("misnamed", misnamed, trusting),
        entry("expired", expired, trusting),
        entry("system", good, ""),
    ];
    let builder = Gateway::builder();
    std::fs::write(builder.dir().join("root.pem"), ROOT.pem()).expect("a file");
    let gateway = builder.config(config(&events.concat())).start();
    gateway.reload();
    wait_for_deliveries(&gateway, "good", 1.0);
    for hook in ["stranger", "misnamed", "expired", "system"] {
        wait_for("a failure", || {
            (attempts(&gateway, hook, "failed") >= 1.0).then_some(())
        });
        assert_eq!(
            attempts(&gateway, hook, "given_up"),
            0.0,
            "it may be mended"
        );
    }
    let heads = heads.lock().expect("not poisoned").clone();
    assert_eq!(heads.len(), 1, "{heads:?}");
    assert!(heads[0].starts_with("POST /hook-of-secret "), "{heads:?}");
    for heads in [of_stranger, of_misnamed, of_expired] {
        assert_eq!(*heads.lock().expect("not poisoned"), [""; 0]);
    }
    let log = gateway.log();
    assert!(log.contains("certificate verify failed"), "{log}");
    assert!(
        !log.contains("t0ken") && !log.contains("hook-of-secret"),
        "{log}"
    );
}
