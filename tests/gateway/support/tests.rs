//! The tests' own tools are tested: a tool that lies makes every test lie.

use std::time::Duration;

use openssl::pkey::PKey;
use openssl::ssl::{SslAcceptor, SslMethod};

use super::{Act, Ca, KeyType, Origin, TlsClient, connect, curl, exchange, wait_for, within};

#[test]
fn an_origin_echoes_and_counts() {
    let origin = Origin::echo();
    let url = format!("http://{}/a?b", origin.address());
    let reply = curl(&url).args(["--data", "xyz", &url]).send();
    assert_eq!(reply.status, 200);
    assert!(
        reply.text().starts_with("POST /a?b HTTP/1.1\r\n"),
        "{}",
        reply.text()
    );
    assert!(reply.text().ends_with("\r\n\r\nxyz"), "{}", reply.text());
    let requests = origin.wait_for_requests(2);
    assert_eq!(origin.connections(), 1, "curl keeps the connection");
    assert_eq!((requests[1].connection, requests[1].number), (0, 1));
    wait_for("the connection to be closed", || {
        (origin.open_connections() == 0).then_some(())
    });
}

#[test]
fn an_origin_breaks_as_it_is_told() {
    let request = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let raw = Origin::raw("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\ncut");
    assert!(exchange(&mut connect(raw.address()), request).ends_with(b"\r\n\r\ncut"));

    let resetting = Origin::resetting();
    assert_eq!(exchange(&mut connect(resetting.address()), request), b"");

    let refusing = Origin::refusing();
    assert!(std::net::TcpStream::connect(refusing.address()).is_err());

    let held = Origin::start(|_| vec![Act::Hold, Act::respond(204, ""), Act::Close]);
    let mut stream = connect(held.address());
    std::io::Write::write_all(&mut stream, request.as_bytes()).expect("sent");
    held.wait_for_requests(1);
    held.release();
    assert!(exchange(&mut stream, "").starts_with(b"HTTP/1.1 204"));

    let silent = Origin::silent();
    let mut stream = connect(silent.address());
    std::io::Write::write_all(&mut stream, request.as_bytes()).expect("sent");
    silent.wait_for_requests(1);
    drop(stream);
    within(Duration::from_secs(5), "the end of it", || {
        (silent.open_connections() == 0).then_some(())
    });
}

#[test]
fn an_origin_leaves_a_body_to_its_script() {
    let origin = Origin::early(|_| vec![Act::Take(2), Act::send("<"), Act::Echo(3), Act::Flood(4)]);
    let mut stream = connect(origin.address());
    let request = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nabcde";
    std::io::Write::write_all(&mut stream, request.as_bytes()).expect("sent");
    let mut answer = [0; 8];
    std::io::Read::read_exact(&mut stream, &mut answer).expect("an answer");
    assert_eq!(&answer, b"<cdexxxx");
    wait_for("all to be counted", || {
        ((origin.taken(), origin.sent()) == (5, 4)).then_some(())
    });
    assert_eq!(origin.requests()[0].body, b"", "nobody has read it");
}

#[test]
fn certificates_are_believed_by_openssl() {
    let root = Ca::new("Test Root");
    let ca = root.intermediate("Test Intermediate");
    for key in [KeyType::Ecdsa, KeyType::Ed25519, KeyType::Rsa] {
        let pair = ca
            .leaf(&["a.example", "*.b.example", "127.0.0.1"])
            .key(key)
            .make();
        let dir = tempfile::tempdir().expect("a directory");
        let (chain, key_file) = pair.write(dir.path(), "a");
        let mut acceptor = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server()).unwrap();
        acceptor.set_certificate_chain_file(chain).unwrap();
        let key_pem = std::fs::read(key_file).unwrap();
        acceptor
            .set_private_key(&PKey::private_key_from_pem(&key_pem).unwrap())
            .unwrap();
        acceptor.check_private_key().unwrap();
        let acceptor = acceptor.build();

        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let mut stream = acceptor.accept(listener.accept().unwrap().0).unwrap();
            super::read_head(&mut stream).unwrap();
            let head = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
            std::io::Write::write_all(&mut stream, head).unwrap();
            stream.shutdown().unwrap();
        });
        let mut client = TlsClient::named("x.b.example")
            .trusting(root.certificate())
            .connect(address);
        assert_eq!(client.names(), ["a.example", "*.b.example"], "{key:?}");
        assert_eq!(client.get("x.b.example", "/").text(), "ok");
        assert!(client.session().is_some());
        assert!(!client.resumed());
        server.join().unwrap();
    }
}

#[test]
fn an_expired_certificate_is_not_believed() {
    let ca = Ca::new("Test Root");
    let expired = ca.leaf(&["a.example"]).expired().make();
    let now = openssl::asn1::Asn1Time::days_from_now(0).unwrap();
    assert!(expired.certificate.not_after() < now.as_ref());
    let other = ca.leaf(&["a.example"]).make();
    let mixed = expired.with_key_of(&other);
    let key = PKey::private_key_from_pem(mixed.key.as_bytes()).unwrap();
    assert!(!mixed.certificate.public_key().unwrap().public_eq(&key));
}
