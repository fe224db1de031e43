//! A ClientHello that is garbage, late or in pieces.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use openssl::ssl::SslOptions;

use super::{gateway, metric_sum, names};
use crate::support::{connect, wait_for, within};

#[test]
fn garbage_in_place_of_a_hello_is_closed_in_time_and_makes_no_noise() {
    let gateway = gateway("");
    let long = vec![b'x'; 100_000];
    let huge_record = [&[22, 3, 1, 0xff, 0xff][..], &[1; 4096]].concat();
    let huge_hello = [&[22, 3, 1, 0x40, 0, 1, 0xff, 0xff, 0xff][..], &[0; 16380]].concat();
    let kinds = [
        &b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n"[..],
        b"\0",
        b"\x80\x2e\x01\x03\x01\0\x15\0\0\0\x10",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\0\x05\x01\0\0\x01\0",
        b"\x16\x03\x03\0\0",
        b"\x15\x03\x03\0\x02\x02\x28",
        b"\x17\x03\x03\0\x10aaaaaaaaaaaaaaaa",
        b"",
        &long,
        &huge_record,
        &huge_hello,
    ];
    let send = |bytes: &[u8]| {
        let shown = bytes.get(..20).unwrap_or(bytes).to_vec();
        let mut stream = connect(gateway.https);
        let start = Instant::now();
        // The other side may have closed before it has read all.
        let _ = stream.write_all(bytes);
        let mut answer = Vec::new();
        match stream.read_to_end(&mut answer) {
            Ok(_) => {}
            Err(error) => assert_eq!(
                error.kind(),
                std::io::ErrorKind::ConnectionReset,
                "{shown:?}"
            ),
        }
        let took = start.elapsed();
        assert!(took < Duration::from_secs(6), "{shown:?}: {took:?}");
        assert!(answer.len() <= 14, "no more than an alert: {answer:?}");
    };
    std::thread::scope(|scope| {
        for bytes in kinds {
            let send = &send;
            scope.spawn(move || send(bytes));
        }
    });
    assert_eq!(
        names(&gateway, "a.example"),
        ["a.example"],
        "it still serves"
    );
    wait_for("all closed", || {
        let open = gateway.metric("snigate_connections{listener=\"https\"}")?;
        (open == 0.0).then_some(())
    });
    let log = gateway.log();
    for noise in ["ERROR", "WARN", "panicked"] {
        assert!(!log.contains(noise), "{log}");
    }
}

#[test]
fn the_deadline_is_for_the_whole_handshake() {
    let gateway = gateway("");
    // A byte at a time, each well in time for a deadline between two reads.
    let mut stream = connect(gateway.https);
    let start = Instant::now();
    let mut hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec();
    hello.resize(500, 7);
    stream
        .set_read_timeout(Some(Duration::from_millis(100)))
        .expect("set");
    let closed = hello.iter().any(|byte| {
        let sent = stream.write_all(&[*byte]);
        let mut buffer = [0; 16];
        let read = stream.read(&mut buffer);
        let goes_on = |error: &std::io::Error| error.kind() == std::io::ErrorKind::WouldBlock;
        sent.is_err() || !read.is_err_and(|error| goes_on(&error))
    });
    assert!(closed);
    let took = start.elapsed();
    assert!((2..6).contains(&took.as_secs()), "{took:?}");
    within(Duration::from_secs(5), "the time-out to be counted", || {
        let counted = metric_sum(
            &gateway,
            "snigate_tls_handshakes_total",
            &["result=\"timeout\""],
        );
        (counted == 1.0).then_some(())
    });
}

/// A stream whose writes go out in pieces, each in a segment and a record of its own where asked.
#[derive(Debug)]
struct Pieces {
    tcp: std::net::TcpStream,
    size: usize,
    records: bool,
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.tcp.read(buffer)
    }
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let is_hello = bytes.starts_with(&[22, 3, 1]);
        if !is_hello {
            return self.tcp.write(bytes);
        }
        let (header, hello) = bytes.split_at(5);
        if self.records {
            for piece in hello.chunks(self.size) {
                let length = u16::try_from(piece.len()).expect("short").to_be_bytes();
                let record = [&header[..3], &length, piece].concat();
                self.tcp.write_all(&record)?;
            }
        } else {
            // What matters is how it begins: all of it by the byte would take its time.
            let (head, rest) = bytes.split_at(200);
            for piece in head
                .chunks(self.size)
                .chain(rest.chunks(self.size.max(400)))
            {
                self.tcp.write_all(piece)?;
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.tcp.flush()
    }
}

#[test]
fn a_hello_in_pieces_is_one_hello() {
    let gateway = gateway("");
    for (size, records) in [
        (1, false),
        (5, false),
        (100, false),
        (1, true),
        (4, true),
        (97, true),
    ] {
        let tcp = connect(gateway.https);
        tcp.set_nodelay(true).expect("set");
        let mut builder =
            openssl::ssl::SslConnector::builder(openssl::ssl::SslMethod::tls_client())
                .expect("a client");
        builder.set_verify(openssl::ssl::SslVerifyMode::NONE);
        // A share for the hybrid group makes a hello of more than a segment.
        builder
            .set_groups_list("X25519MLKEM768:X25519")
            .expect("known groups");
        builder.set_options(SslOptions::NO_TICKET);
        let configuration = builder.build().configure().expect("a client");
        let mut ssl = configuration
            .verify_hostname(false)
            .into_ssl("b.example")
            .expect("a client");
        ssl.set_connect_state();
        let pieces = Pieces { tcp, size, records };
        let mut stream = openssl::ssl::SslStream::new(ssl, pieces).expect("a stream");
        let outcome = stream.connect();
        assert!(outcome.is_ok(), "{size} {records}: {outcome:?}");
        let request = "GET / HTTP/1.1\r\nHost: b.example\r\nConnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        assert!(answer.ends_with("\r\n\r\nb.example"), "{answer}");
    }
}
