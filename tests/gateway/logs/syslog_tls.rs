//! Receivers of syslog messages within TLS (RFC 5425), good ones and bad ones.

use std::fs;
use std::io::{BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;

use openssl::ssl::{SslAcceptor, SslMethod, SslStream};

use super::logging;
use super::syslog::{PATIENCE, read_counted};
use crate::support::{Builder, Ca, Gateway, Origin, TlsClient, wait_for};

const LOST: &str = "snigate_access_log_lines_lost_total";

/// A receiver with a certificate of a CA of its own.
struct Receiver {
    ca: Ca,
    acceptor: SslAcceptor,
    listener: TcpListener,
}

impl Receiver {
    /// One whose certificate is for this name.
    fn named(name: &str) -> Self {
        let ca = Ca::new("Receivers");
        let pair = ca.leaf(&[name]).make();
        let folder = tempfile::tempdir().expect("a folder");
        let (chain, key) = pair.write(folder.path(), "receiver");
        let mut builder =
            SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server()).expect("an acceptor");
        builder.set_certificate_chain_file(chain).expect("a chain");
        let kind = openssl::ssl::SslFiletype::PEM;
        builder.set_private_key_file(key, kind).expect("a key");
        let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
        Self {
            ca,
            acceptor: builder.build(),
            listener,
        }
    }

    fn address(&self) -> SocketAddr {
        self.listener.local_addr().expect("bound")
    }

    /// A gateway that writes its access log to `localhost` there, and has these keys of `syslog`.
    fn gateway(&self, origin: &Origin, syslog: &str) -> Builder {
        let port = self.address().port();
        let place = format!("\"tls://localhost:{port}\"");
        logging(
            origin,
            &format!("access: {place}, target: stderr, syslog: {{ {syslog} }}"),
        )
    }

    fn accept_tcp(&self) -> TcpStream {
        let (stream, _) = self.listener.accept().expect("accepted");
        stream.set_read_timeout(Some(PATIENCE)).expect("set");
        stream
    }

    /// The next connection whose handshake succeeds.
    fn accept(&self) -> BufReader<SslStream<TcpStream>> {
        loop {
            if let Ok(stream) = self.acceptor.accept(self.accept_tcp()) {
                return BufReader::new(stream);
            }
        }
    }
}

fn get(gateway: &Gateway, path: &str) {
    let mut stream = TlsClient::named("a.test").connect(gateway.https);
    assert_eq!(stream.get("a.test", path).status, 200);
}

/// Reads messages up to one that has this.
fn read_until(stream: &mut impl std::io::BufRead, what: &str) {
    loop {
        let message = read_counted(stream).expect("a message");
        if message.text.contains(what) {
            return;
        }
    }
}

fn write_root(ca: &Ca, path: &Path) {
    fs::write(path, ca.pem()).expect("written");
}

#[test]
fn a_receiver_is_verified_by_its_ca() {
    let origin = Origin::named("hello");
    let receiver = Receiver::named("localhost");
    let builder = receiver.gateway(&origin, "ca_file: receivers.pem");
    let root = builder.dir().join("receivers.pem");
    write_root(&receiver.ca, &root);
    let gateway = builder.start();
    get(&gateway, "/first");
    let mut stream = receiver.accept();
    read_until(&mut stream, "\"GET /first HTTP/1.1\" 200");
    get(&gateway, "/second");
    read_until(&mut stream, "/second");
    assert_eq!(gateway.metric(LOST), Some(0.0));
}

#[test]
fn a_receiver_of_another_ca_gets_nothing_until_the_roots_are_its_own() {
    let origin = Origin::named("hello");
    let receiver = Receiver::named("localhost");
    let builder = receiver.gateway(&origin, "ca_file: receivers.pem");
    let root = builder.dir().join("receivers.pem");
    write_root(&Ca::new("Others"), &root);
    // Those of the system do not count where there are others.
    let system = builder.dir().join("system.pem");
    write_root(&receiver.ca, &system);
    let gateway = builder
        .env("SSL_CERT_FILE", &system.to_string_lossy())
        .start();
    get(&gateway, "/waits");
    assert!(receiver.acceptor.accept(receiver.accept_tcp()).is_err());
    gateway.wait_for_log("the access log cannot be sent");
    gateway.wait_for_log("certificate verify failed");
    get(&gateway, "/too");
    write_root(&receiver.ca, &root);
    let mut stream = receiver.accept();
    read_until(&mut stream, "/waits");
    read_until(&mut stream, "/too");
    gateway.wait_for_log("the access log can be sent again");
    assert_eq!(gateway.metric(LOST), Some(0.0));
}

#[test]
fn a_receiver_is_verified_by_the_roots_of_the_system_and_by_name() {
    let origin = Origin::named("hello");
    for (name, is_served) in [("localhost", true), ("other.test", false)] {
        let receiver = Receiver::named(name);
        let builder = receiver.gateway(&origin, "");
        let system = builder.dir().join("system.pem");
        write_root(&receiver.ca, &system);
        let gateway = builder
            .env("SSL_CERT_FILE", &system.to_string_lossy())
            .start();
        get(&gateway, "/x");
        match is_served {
            true => read_until(&mut receiver.accept(), "/x"),
            false => {
                assert!(receiver.acceptor.accept(receiver.accept_tcp()).is_err());
                gateway.wait_for_log("hostname mismatch");
            }
        }
    }
}

#[test]
fn a_receiver_that_hangs_in_the_handshake_is_given_up() {
    let origin = Origin::named("hello");
    let receiver = Receiver::named("localhost");
    let builder = receiver.gateway(&origin, "ca_file: receivers.pem");
    write_root(&receiver.ca, &builder.dir().join("receivers.pem"));
    let gateway = builder.start();
    get(&gateway, "/waits");
    // It takes what comes, and says nothing.
    let mut silent = receiver.accept_tcp();
    get(&gateway, "/too");
    assert!(
        silent.read_to_end(&mut Vec::new()).is_ok(),
        "the gateway closes it"
    );
    gateway.wait_for_log("the access log cannot be sent");
    let mut stream = receiver.accept();
    read_until(&mut stream, "/waits");
    read_until(&mut stream, "/too");
    assert_eq!(gateway.metric(LOST), Some(0.0));
}

#[test]
fn a_receiver_whose_handshake_has_no_end_is_given_up() {
    let origin = Origin::named("hello");
    let receiver = Receiver::named("localhost");
    let builder = receiver.gateway(&origin, "ca_file: receivers.pem");
    write_root(&receiver.ca, &builder.dir().join("receivers.pem"));
    let gateway = builder.start();
    get(&gateway, "/waits");
    let mut slow = receiver.accept_tcp();
    // A record of 16 KiB, an octet at a time.
    let record = [0x16, 3, 3, 0x40, 0]
        .into_iter()
        .chain(std::iter::repeat(0));
    let mut octets = record.take(16 << 10);
    wait_for("the gateway to close it", || {
        let octet = octets.next().expect("it is given up before");
        slow.write_all(&[octet]).err()
    });
    read_until(&mut receiver.accept(), "/waits");
}

#[test]
fn a_receiver_that_reads_nothing_holds_nobody_up() {
    let origin = Origin::named("hello");
    let receiver = Receiver::named("localhost");
    let builder = receiver.gateway(&origin, "ca_file: receivers.pem");
    write_root(&receiver.ca, &builder.dir().join("receivers.pem"));
    let mut gateway = builder.start();
    let mut client = TlsClient::named("a.test").connect(gateway.https);
    let agent = "x".repeat(2000);
    let request = format!("GET / HTTP/1.1\r\nHost: a.test\r\nUser-Agent: {agent}\r\n\r\n");
    assert_eq!(client.request(&request).status, 200);
    let stream = receiver.accept();
    wait_for("lines to be lost", || {
        for _ in 0..200 {
            assert_eq!(client.request(&request).status, 200);
        }
        gateway.metric(LOST).filter(|lost| *lost > 0.0)
    });
    assert!(gateway.stop().success());
    drop(stream);
}
