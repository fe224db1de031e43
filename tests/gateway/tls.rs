//! TLS by server name: which certificate, which sessions, which versions, ciphers and protocols.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use openssl::ssl::{SslOptions, SslVersion};

use crate::support::{Ca, Gateway, KeyType, TlsClient, connect, s_client, wait_for, within};

/// A gateway for `a.example`, `b.example`, `*.wild.example` and `x.wild.example`, each with a
/// certificate and a site of its own.
fn gateway(rest: &str) -> Gateway {
    let builder = Gateway::builder();
    let ca = Ca::new("Sni Root").intermediate("Sni Intermediate");
    let certs = builder.dir().join("certs");
    let mut sites = String::new();
    for (file, host) in [
        ("a", "a.example"),
        ("b", "b.example"),
        ("wild", "*.wild.example"),
        ("x", "x.wild.example"),
    ] {
        ca.leaf(&[host]).make().write(&certs, file);
        sites.push_str(&format!(
            "  - {{ hosts: [\"{host}\"], routes: [{{ respond: {{ body: \"{host}\" }} }}] }}\n"
        ));
    }
    builder
        .server("limits: { handshake: 2s }")
        .config(format!(
            "certificates: [{{ directory: certs }}]\nsites:\n{sites}{rest}"
        ))
        .start()
}

#[track_caller]
fn names(gateway: &Gateway, name: &str) -> Vec<String> {
    TlsClient::named(name).connect(gateway.https).names()
}

/// What the library says of a handshake that must fail.
#[track_caller]
fn refused(gateway: &Gateway, name: Option<&str>) -> String {
    let client = name.map_or_else(TlsClient::nameless, TlsClient::named);
    let outcome = client.try_connect(gateway.https);
    outcome
        .err()
        .unwrap_or_else(|| panic!("{name:?} is served"))
}

/// The sum of all series of a metric whose labels hold these texts.
fn metric_sum(gateway: &Gateway, name: &str, labels: &[&str]) -> f64 {
    let text = gateway.ask("GET", "/metrics").text();
    let series = text.lines().filter(|line| line.starts_with(name));
    series
        .filter(|line| labels.iter().all(|label| line.contains(label)))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}

#[test]
fn exact_goes_before_wildcard_and_a_wildcard_covers_one_label() {
    let gateway = gateway("");
    assert_eq!(names(&gateway, "a.example"), ["a.example"]);
    assert_eq!(names(&gateway, "b.example"), ["b.example"]);
    assert_eq!(names(&gateway, "x.wild.example"), ["x.wild.example"]);
    assert_eq!(names(&gateway, "y.wild.example"), ["*.wild.example"]);
    for unknown in [
        "wild.example",
        "a.b.wild.example",
        "c.example",
        "example",
        "a",
    ] {
        let error = refused(&gateway, Some(unknown));
        assert!(error.contains("unrecognized name"), "{unknown}: {error}");
    }
    assert!(refused(&gateway, None).contains("unrecognized name"));
}

#[test]
fn upper_case_and_a_trailing_dot_change_nothing() {
    let gateway = gateway("");
    for name in ["A.EXAMPLE", "a.Example", "a.example.", "A.example."] {
        assert_eq!(names(&gateway, name), ["a.example"], "{name}");
        let mut stream = TlsClient::named(name).connect(gateway.https);
        assert_eq!(stream.get("A.Example.", "/").text(), "a.example", "{name}");
    }
    assert_eq!(names(&gateway, "Y.WILD.example."), ["*.wild.example"]);
    for name in [
        "a.example..",
        ".a.example",
        "a..example",
        "a_b.wild.example",
    ] {
        let outcome = TlsClient::named(name).try_connect(gateway.https);
        let served = outcome.map(|stream| stream.names()).unwrap_or_default();
        assert!(!served.contains(&"a.example".to_owned()), "{name}");
    }
}

#[test]
fn the_default_is_for_those_without_a_name_and_unknown_ones_where_that_is_asked() {
    let gateway = gateway("tls: { default_certificate: a.example }\n");
    for client in [TlsClient::nameless(), TlsClient::named("c.example")] {
        let mut stream = client.connect(gateway.https);
        assert_eq!(stream.names(), ["a.example"]);
        // The certificate, but never another site's content.
        assert_eq!(stream.get("c.example", "/").status, 421);
    }
    // Nor the default's own, for a client that asked for something else.
    let mut stream = TlsClient::named("c.example").connect(gateway.https);
    assert_eq!(stream.get("a.example", "/").status, 421);
    let mut stream = TlsClient::nameless().connect(gateway.https);
    assert_eq!(stream.get("a.example", "/").text(), "a.example");
    assert_eq!(gateway.metric("snigate_tls_unknown_names_total"), Some(2.0));
}

#[test]
fn an_unknown_name_is_rejected_with_alert_112() {
    let gateway = gateway("tls: { default_certificate: a.example, unknown_sni: reject }\n");
    for version in ["-tls1_2", "-tls1_3"] {
        let said = s_client(gateway.https, Some("c.example"), &[version]);
        assert!(said.contains("SSL alert number 112"), "{version}: {said}");
        assert!(
            said.contains("no peer certificate available"),
            "{version}: {said}"
        );
    }
    // No name at all still gets the default, and so does an address, which is none.
    let said = s_client(gateway.https, None, &["-brief"]);
    assert!(said.contains("CONNECTION ESTABLISHED"), "{said}");
    assert_eq!(names(&gateway, "127.0.0.1"), ["a.example"]);
    assert_eq!(gateway.metric("snigate_tls_unknown_names_total"), Some(2.0));
    let failed = metric_sum(
        &gateway,
        "snigate_tls_handshakes_total",
        &["result=\"failed\""],
    );
    assert_eq!(failed, 2.0, "{}", gateway.ask("GET", "/metrics").text());
}

/// A request by `openssl s_client`, which keeps a session in a file or resumes the one there.
/// Whether it was resumed, and what came.
fn by_session(
    address: SocketAddr,
    name: &str,
    version: &str,
    option: &str,
    file: &Path,
) -> (bool, String) {
    let mut child = Command::new("openssl")
        .args([
            "s_client",
            "-connect",
            &address.to_string(),
            "-servername",
            name,
        ])
        .args([version, "-ign_eof", option])
        .arg(file)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("openssl is installed");
    let request = format!("GET / HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n");
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(request.as_bytes()).expect("taken");
    let output = child.wait_with_output().expect("an end");
    drop(stdin);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        said.contains("\nNew, ") || said.contains("\nReused, "),
        "{said}"
    );
    (said.contains("\nReused, "), said)
}

#[test]
fn sessions_are_resumed_for_the_same_name_and_never_for_another() {
    // The wildcard's own certificate covers both of its names, and still a session is of one.
    let gateway = gateway("tls: { default_certificate: a.example }\n");
    for version in ["-tls1_2", "-tls1_3"] {
        let file = gateway.dir().join(format!("session{version}"));
        let go = |name: &str, option: &str| by_session(gateway.https, name, version, option, &file);
        let (resumed, said) = go("y.wild.example", "-sess_out");
        assert!(!resumed && said.contains("200 OK"), "{said}");
        for _ in 0..2 {
            let (resumed, said) = go("y.wild.example", "-sess_in");
            assert!(resumed, "{version}: {said}");
            assert!(said.contains("*.wild.example"), "{said}");
        }
        let (resumed, _) = go("Y.Wild.Example", "-sess_in");
        assert!(resumed, "{version}: the same name in other letters");
        for other in [
            "z.wild.example",
            "x.wild.example",
            "a.example",
            "unknown.example",
        ] {
            let (resumed, said) = go(other, "-sess_in");
            assert!(!resumed, "{version}: {other}: {said}");
        }
    }
    let resumed = |version: &str| {
        metric_sum(
            &gateway,
            "snigate_tls_handshakes_total",
            &["result=\"ok\"", "resumed=\"true\"", version],
        )
    };
    assert_eq!((resumed("TLSv1.2"), resumed("TLSv1.3")), (3.0, 3.0));
}

#[test]
fn a_session_is_good_across_a_reload_but_not_across_another_policy() {
    let mut gateway = gateway("");
    let config = std::fs::read_to_string(&gateway.config).expect("readable");
    let rest = config
        .split_once("certificates:")
        .expect("certificates")
        .1
        .to_owned();
    let session = |gateway: &Gateway| {
        let client = TlsClient::named("a.example").version(SslVersion::TLS1_3);
        let mut stream = client.connect(gateway.https);
        assert_eq!(stream.get("a.example", "/").status, 200);
        stream.session().expect("a ticket")
    };
    let resumes = |gateway: &Gateway, session: &openssl::ssl::SslSessionRef| {
        let client = TlsClient::named("a.example").version(SslVersion::TLS1_3);
        let mut stream = client.session(session).connect(gateway.https);
        assert_eq!(stream.get("a.example", "/").text(), "a.example");
        stream.resumed()
    };
    let before = session(&gateway);
    assert!(resumes(&gateway, &before));
    assert_eq!(gateway.reload().0, 200);
    assert!(resumes(&gateway, &before), "a reload costs no session");

    gateway.replace_config(format!("tls: {{ profile: modern }}\ncertificates:{rest}"));
    assert_eq!(gateway.reload().0, 200);
    assert!(!resumes(&gateway, &before), "made under another policy");
    let under_modern = session(&gateway);
    assert!(resumes(&gateway, &under_modern));
    gateway.replace_config(format!(
        "tls: {{ profile: modern, session_tickets: off }}\ncertificates:{rest}"
    ));
    assert_eq!(gateway.reload().0, 200);
    assert!(!resumes(&gateway, &under_modern), "tickets are off");
    let client = TlsClient::named("a.example");
    let mut stream = client.connect(gateway.https);
    assert_eq!(stream.get("a.example", "/").status, 200);
    assert!(stream.session().is_none(), "none is given either");

    // Keys live in memory alone.
    gateway.replace_config(format!("certificates:{rest}"));
    gateway.restart();
    assert!(!resumes(&gateway, &before));
}

#[test]
fn only_tls_1_2_and_1_3_are_spoken() {
    let gateway = gateway("");
    for (version, good) in [
        (SslVersion::TLS1, false),
        (SslVersion::TLS1_1, false),
        (SslVersion::TLS1_2, true),
        (SslVersion::TLS1_3, true),
    ] {
        let client = TlsClient::named("a.example")
            .version(version)
            .with(|builder| builder.set_cipher_list("ALL:@SECLEVEL=0").expect("a list"));
        let outcome = client.try_connect(gateway.https);
        assert_eq!(outcome.is_ok(), good, "{version:?}: {:?}", outcome.err());
        if let Err(error) = outcome {
            assert!(error.contains("protocol version"), "{version:?}: {error}");
        }
    }
    let ok = metric_sum(&gateway, "snigate_tls_handshakes_total", &["result=\"ok\""]);
    assert_eq!(ok, 2.0);
    let failed = metric_sum(
        &gateway,
        "snigate_tls_handshakes_total",
        &["result=\"failed\""],
    );
    assert_eq!(failed, 2.0);
}

#[test]
fn modern_is_tls_1_3_alone() {
    let gateway = gateway("tls: { profile: modern }\n");
    let said = s_client(gateway.https, Some("a.example"), &["-tls1_2"]);
    assert!(said.contains("alert protocol version"), "{said}");
    let said = s_client(gateway.https, Some("a.example"), &["-tls1_3", "-brief"]);
    assert!(said.contains("Protocol version: TLSv1.3"), "{said}");
}

#[test]
fn only_ecdhe_with_aead_is_spoken_in_tls_1_2() {
    let builder = Gateway::builder();
    let ca = Ca::new("Cipher Root");
    let certs = builder.dir().join("certs");
    for key in [KeyType::Rsa, KeyType::Ecdsa] {
        let name = format!("{key:?}");
        ca.leaf(&["a.example"]).key(key).make().write(&certs, &name);
    }
    let gateway = builder
        .config("certificates: [{ directory: certs }]\n")
        .start();
    for (cipher, good) in [
        ("ECDHE-ECDSA-AES128-GCM-SHA256", true),
        ("ECDHE-RSA-AES128-GCM-SHA256", true),
        ("ECDHE-ECDSA-AES256-GCM-SHA384", true),
        ("ECDHE-RSA-CHACHA20-POLY1305", true),
        ("ECDHE-ECDSA-AES128-SHA256", false),
        ("ECDHE-RSA-AES256-SHA", false),
        ("ECDHE-RSA-AES256-SHA384", false),
        ("AES128-GCM-SHA256", false),
        ("AES256-SHA", false),
        ("DHE-RSA-AES128-GCM-SHA256", false),
        ("DHE-RSA-CHACHA20-POLY1305", false),
        ("ECDHE-ECDSA-AES128-CCM8", false),
        ("AECDH-AES128-SHA", false),
        ("ECDHE-RSA-NULL-SHA", false),
    ] {
        let list = format!("{cipher}:@SECLEVEL=0");
        let arguments = ["-tls1_2", "-cipher", &list];
        let said = s_client(gateway.https, Some("a.example"), &arguments);
        let got = said.contains(&format!("Cipher is {cipher}"));
        assert_eq!(got, good, "{cipher}: {said}");
        assert_eq!(
            said.contains("handshake failure"),
            !good,
            "{cipher}: {said}"
        );
    }
    let all = ["-tls1_2", "-cipher", "ALL:COMPLEMENTOFALL:@SECLEVEL=0"];
    let said = s_client(gateway.https, Some("a.example"), &all);
    assert!(said.contains("Cipher is ECDHE-ECDSA-"), "{said}");
    assert!(said.contains("Compression: NONE"), "{said}");
    assert!(
        said.contains("Secure Renegotiation IS supported"),
        "RFC 5746: {said}"
    );
    assert!(!said.contains("Max Early Data: 1"), "{said}");
}

#[test]
fn x25519mlkem768_is_used_whenever_the_client_offers_it() {
    let gateway = gateway("");
    let group = |groups: &str| {
        let client = TlsClient::named("a.example").version(SslVersion::TLS1_3);
        let set = |builder: &mut openssl::ssl::SslConnectorBuilder| {
            builder.set_groups_list(groups).expect("known groups");
        };
        let mut stream = client.with(set).connect(gateway.https);
        assert_eq!(stream.get("a.example", "/").status, 200);
    };
    let counted = |name: &str| {
        let label = format!("group=\"{name}\"");
        metric_sum(
            &gateway,
            "snigate_tls_handshakes_total",
            &["result=\"ok\"", &label],
        )
    };
    group("X25519MLKEM768:X25519");
    // Last on the client's list and without a share for it: asked for all the same.
    group("X25519:P-256:X25519MLKEM768");
    let text = gateway.ask("GET", "/metrics").text();
    assert_eq!(counted("X25519MLKEM768"), 2.0, "{text}");
    group("X25519");
    group("P-256");
    let text = gateway.ask("GET", "/metrics").text();
    let handshakes = || {
        text.lines()
            .filter(|line| line.contains("handshakes_total{"))
    };
    assert_eq!(counted("X25519MLKEM768"), 2.0);
    assert!(
        handshakes().any(|line| line.to_lowercase().contains("group=\"x25519\"")),
        "{text}"
    );
    assert!(
        !text.contains("a.example\",result"),
        "no name that a client chose: {text}"
    );
}

#[test]
fn a_client_cannot_renegotiate() {
    let gateway = gateway("");
    let mut child = Command::new("openssl")
        .args(["s_client", "-connect", &gateway.https.to_string()])
        .args(["-servername", "a.example", "-tls1_2"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("openssl is installed");
    let mut stdin = child.stdin.take().expect("a pipe");
    // A line that is just R asks s_client for a renegotiation.
    stdin.write_all(b"R\n").expect("taken");
    stdin.flush().expect("taken");
    let mut said = String::new();
    child
        .stderr
        .take()
        .expect("a pipe")
        .read_to_string(&mut said)
        .expect("text");
    child.wait().expect("an end");
    assert!(said.contains("RENEGOTIATING"), "{said}");
    assert!(said.contains("no renegotiation"), "{said}");
}

#[test]
fn alpn_chooses_http_2_then_http_1_1_and_refuses_the_rest() {
    let gateway = gateway("");
    let chosen = |protocols: &[&str]| {
        let stream = TlsClient::named("a.example")
            .alpn(protocols)
            .connect(gateway.https);
        stream.alpn()
    };
    assert_eq!(chosen(&["h2", "http/1.1"]).as_deref(), Some("h2"));
    assert_eq!(chosen(&["http/1.1", "h2"]).as_deref(), Some("h2"));
    assert_eq!(chosen(&["http/1.1"]).as_deref(), Some("http/1.1"));
    assert_eq!(chosen(&["spdy/3", "http/1.1"]).as_deref(), Some("http/1.1"));
    assert_eq!(
        chosen(&["http/1.0", "http/1.1"]).as_deref(),
        Some("http/1.1")
    );
    assert_eq!(chosen(&["http/1.0"]).as_deref(), Some("http/1.0"));
    let mut stream = TlsClient::named("a.example").connect(gateway.https);
    assert_eq!(stream.alpn(), None);
    assert_eq!(stream.get("a.example", "/").status, 200);
    for unknown in ["http/0.9", "h2c", "imap", "acme-tls/1", "\0"] {
        for version in [SslVersion::TLS1_2, SslVersion::TLS1_3] {
            let client = TlsClient::named("a.example")
                .version(version)
                .alpn(&[unknown]);
            let error = client.try_connect(gateway.https).err().unwrap_or_default();
            assert!(
                error.contains("no application protocol"),
                "{unknown}: {error}"
            );
        }
    }
    let said = s_client(gateway.https, Some("a.example"), &["-alpn", "acme-tls/1"]);
    assert!(said.contains("SSL alert number 120"), "{said}");
}

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
    assert_eq!(names(&gateway, "a.example"), ["a.example"], "it goes on");
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

#[test]
fn sni_and_host_must_agree() {
    let gateway = gateway("");
    let mut stream = TlsClient::named("a.example").connect(gateway.https);
    assert_eq!(stream.get("b.example", "/").status, 421);
    let mut stream = TlsClient::named("y.wild.example").connect(gateway.https);
    assert_eq!(stream.get("z.wild.example", "/").text(), "*.wild.example");
    let url = format!("https://a.example:{}/", gateway.https.port());
    for version in ["--http1.1", "--http2"] {
        let reply = crate::support::curl(&url)
            .resolve("a.example", gateway.https)
            .args(["--insecure", version, "--header", "Host: b.example"])
            .send();
        assert_eq!(reply.status, 421, "{version}");
    }
}

/// What the certificate is for that a client without SNI gets at this address.
fn nameless(gateway: &Gateway, address: [u8; 4]) -> Vec<String> {
    let address = SocketAddr::from((address, gateway.https.port()));
    let certificate = TlsClient::nameless().connect(address).certificate();
    let names = certificate.subject_alt_names().expect("names");
    let text = |octets: &[u8]| {
        let octets: [u8; 4] = octets.try_into().expect("four octets");
        std::net::Ipv4Addr::from(octets).to_string()
    };
    names
        .iter()
        .filter_map(|name| match (name.dnsname(), name.ipaddress()) {
            (Some(name), _) => Some(name.to_owned()),
            (None, address) => address.map(text),
        })
        .collect()
}

#[test]
fn a_client_without_sni_gets_the_certificate_of_the_address() {
    let builder = Gateway::builder();
    let ca = Ca::new("Address Root");
    let certs = builder.dir().join("certs");
    for (file, host) in [
        ("a", "a.example"),
        ("one", "127.0.0.1"),
        ("two", "127.0.0.2"),
    ] {
        ca.leaf(&[host]).make().write(&certs, file);
    }
    let site = |host: &str| {
        format!("  - {{ hosts: [\"{host}\"], routes: [{{ respond: {{ body: \"{host}\" }} }}] }}\n")
    };
    let sites = ["a.example", "127.0.0.1", "127.0.0.2"].map(site).concat();
    let rest = format!("certificates: [{{ directory: certs }}]\nsites:\n{sites}");
    let mut gateway = builder
        .also_at([127, 0, 0, 2])
        .also_at([127, 0, 0, 3])
        .config(format!("tls: {{ default_certificate: a.example }}\n{rest}"))
        .start();
    assert_eq!(nameless(&gateway, [127, 0, 0, 1]), ["127.0.0.1"]);
    assert_eq!(nameless(&gateway, [127, 0, 0, 2]), ["127.0.0.2"]);
    assert_eq!(nameless(&gateway, [127, 0, 0, 3]), ["a.example"]);
    // A name is looked for by name, wherever the client has come to.
    assert_eq!(names(&gateway, "a.example"), ["a.example"]);
    assert_eq!(names(&gateway, "unknown.example"), ["a.example"]);

    let mut stream = TlsClient::nameless().connect(gateway.https);
    for (host, status) in [
        ("127.0.0.1", 200),
        ("127.0.0.2", 421),
        ("a.example", 421),
        ("127.0.0.1", 200),
    ] {
        let reply = stream.get(host, "/");
        assert_eq!(reply.status, status, "{host}");
        assert!(status != 200 || reply.text() == host);
    }

    // A session is of one address, as it is of one name.
    let session = stream.session().expect("a session");
    let second = SocketAddr::from(([127, 0, 0, 2], gateway.https.port()));
    for (address, resumed) in [(gateway.https, true), (second, false)] {
        let client = TlsClient::nameless().session(&session);
        assert_eq!(client.connect(address).resumed(), resumed, "{address}");
    }

    // Behind a translation of addresses no client comes to the one that it means.
    gateway.replace_config(format!("tls: {{ default_certificate: 127.0.0.2 }}\n{rest}"));
    assert_eq!(gateway.reload().0, 200);
    assert_eq!(nameless(&gateway, [127, 0, 0, 1]), ["127.0.0.1"]);
    assert_eq!(nameless(&gateway, [127, 0, 0, 3]), ["127.0.0.2"]);
    let elsewhere = SocketAddr::from(([127, 0, 0, 3], gateway.https.port()));
    let mut stream = TlsClient::nameless().connect(elsewhere);
    assert_eq!(stream.get("127.0.0.2", "/").text(), "127.0.0.2");

    // The local CA issues for addresses.
    let third = site("127.0.0.3");
    gateway.replace_config(format!(
        "issuers: {{ local: {{ local_ca: }} }}\n{rest}{third}"
    ));
    assert_eq!(gateway.reload().0, 200);
    assert_eq!(nameless(&gateway, [127, 0, 0, 3]), ["127.0.0.3"]);
    let mut stream = TlsClient::nameless().connect(elsewhere);
    assert_eq!(stream.get("127.0.0.3", "/").text(), "127.0.0.3");
}
