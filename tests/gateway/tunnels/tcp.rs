//! Sites whose servers get what is within TLS.

use std::io::{ErrorKind, Read, Write};
use std::sync::{Mutex, mpsc};
use std::thread;

use openssl::pkey::PKey;
use openssl::ssl::{AlpnError, SslAcceptor, SslMethod, SslSession, SslVersion, select_next_proto};
use openssl::x509::X509;

use super::{OctetServer, in_front_of, lines, noise};
use crate::support::{
    Ca, PATIENCE, Pair, Port, TlsClient, TlsOrigin, TlsStream, revocation_list, wait_for,
};

const TCP: &str = "- { hosts: [tcp.test], tcp: app }";

#[test]
fn a_server_gets_what_is_within_tls() {
    let echo = OctetServer::echo();
    let gateway = in_front_of(echo.address, "", TCP).start();
    for version in [SslVersion::TLS1_2, SslVersion::TLS1_3] {
        let client = TlsClient::named("tcp.test").version(version);
        let mut stream = client.connect(gateway.https);
        stream.write_all(b"anything\0").expect("open");
        let mut back = [0; 9];
        stream.read_exact(&mut back).expect("an echo");
        assert_eq!(&back, b"anything\0");
        stream.end_sending();
        assert_eq!(stream.read(&mut [0; 1]).expect("close_notify"), 0);
    }
    for (line, version) in lines(&gateway, 2).iter().zip(["TLSv1.2", "TLSv1.3"]) {
        assert_eq!(line["method"], "tcp");
        assert_eq!(line["version"], version);
        assert_eq!(line["host"], "tcp.test");
        assert_eq!(line["received"], 9);
        assert_eq!(line["bytes"], 9);
        assert_eq!(line["ended"], "client_closed");
    }
    // No request is for it, over whatever connection.
    let mut other = TlsClient::named("a.test").connect(gateway.https);
    assert_eq!(other.get("tcp.test", "/").status, 421);
    assert_eq!(gateway.curl_http("tcp.test", "/").send().status, 421);
    let sites = gateway.ask("GET", "/api/v1/sites").text();
    assert!(sites.contains("\"tcp\":\"app\""), "{sites}");
}

#[test]
fn a_name_gets_octets_at_one_listener_and_requests_at_another() {
    let echo = OctetServer::echo();
    let port = Port::take();
    let inside = port.address();
    for (octets, requests) in [("", inside.to_string()), ("INSIDE", String::new())] {
        let listen = |at: &str| match at {
            "" => String::new(),
            _ => format!(", listen: [\"{inside}\"]"),
        };
        let sites = format!(
            "- {{ hosts: [tcp.test]{}, tcp: app }}\n\
             - {{ hosts: [tcp.test]{}, routes: [{{ respond: {{ body: request }} }}] }}",
            listen(octets),
            listen(&requests),
        );
        let gateway = in_front_of(echo.address, "", &sites).start();
        let (octets, requests) = match octets {
            "" => (gateway.https, inside),
            _ => (inside, gateway.https),
        };
        let mut stream = TlsClient::named("tcp.test").connect(octets);
        stream.write_all(b"anything").expect("open");
        let mut back = [0; 8];
        stream.read_exact(&mut back).expect("an echo");
        assert_eq!(&back, b"anything");
        let mut stream = TlsClient::named("tcp.test").connect(requests);
        assert_eq!(stream.get("tcp.test", "/").text(), "request");
    }
}

#[test]
fn the_server_may_speak_first_and_end_first() {
    let (told, heard) = mpsc::channel();
    let server = OctetServer::start(move |mut stream| {
        stream.write_all(b"220 ready\r\n").expect("open");
        stream.shutdown(std::net::Shutdown::Write).expect("open");
        let mut all = String::new();
        stream.read_to_string(&mut all).expect("an end");
        _ = told.send(all);
    });
    let gateway = in_front_of(server.address, "", TCP).start();
    let mut client = TlsClient::named("tcp.test").connect(gateway.https);
    let mut greeting = String::new();
    client.read_to_string(&mut greeting).expect("close_notify");
    assert_eq!(greeting, "220 ready\r\n");
    client.write_all(b"QUIT\r\n").expect("open");
    client.end_sending();
    assert_eq!(heard.recv().expect("it is told"), "QUIT\r\n");
    assert_eq!(lines(&gateway, 1)[0]["ended"], "server_closed");
}

#[test]
fn what_is_cut_within_tls_is_not_taken_for_its_end() {
    let (told, heard) = mpsc::channel();
    let server = OctetServer::start(move |mut stream| {
        stream.write_all(b"x").expect("open");
        let mut all = Vec::new();
        _ = told.send(stream.read_to_end(&mut all).map_err(|error| error.kind()));
    });
    let gateway = in_front_of(server.address, "", TCP).start();
    let mut client = TlsClient::named("tcp.test").connect(gateway.https);
    client.read_exact(&mut [0; 1]).expect("the server is there");
    client.write_all(b"half of it").expect("open");
    client
        .tcp()
        .shutdown(std::net::Shutdown::Both)
        .expect("open");
    let ended = heard.recv().expect("it is told");
    assert_eq!(ended, Err(ErrorKind::ConnectionReset));
}

#[test]
fn protocols_are_those_of_the_site() {
    let echo = OctetServer::echo();
    let sites = "- { hosts: [tcp.test], tcp: app }\n\
                 - { hosts: [raw.test], tcp: app, tls: { alpn: [mqtt, \"x-amqp\"] } }";
    let gateway = in_front_of(echo.address, "", sites).start();
    let alpn = |name: &str, offered: &[&str]| {
        let mut client = TlsClient::named(name);
        if !offered.is_empty() {
            client = client.alpn(offered);
        }
        client
            .try_connect(gateway.https)
            .map(|stream| stream.alpn())
    };
    for offered in [&["mqtt"][..], &["h2", "http/1.1"], &[]] {
        assert_eq!(alpn("tcp.test", offered), Ok(None), "{offered:?}");
    }
    let mqtt = Ok(Some("mqtt".to_owned()));
    assert_eq!(alpn("raw.test", &["x-amqp", "mqtt"]), mqtt);
    assert_eq!(alpn("raw.test", &[]), Ok(None));
    let why = alpn("raw.test", &["h2"]).expect_err("none of them");
    assert!(why.contains("no application protocol"), "{why}");
}

#[test]
fn clients_show_certificates_where_the_site_demands_them() {
    let echo = OctetServer::echo();
    let clients = Ca::new("Clients");
    let site = "- { hosts: [tcp.test], tcp: app, client_auth: { ca: clients.pem } }";
    let builder = in_front_of(echo.address, "", site);
    std::fs::write(builder.dir().join("clients.pem"), clients.pem()).expect("written");
    let gateway = builder.start();
    let pair = clients.leaf(&["device-7"]).for_client().make();
    let mut known = TlsClient::named("tcp.test")
        .showing(&pair)
        .connect(gateway.https);
    known.write_all(b"hello").expect("open");
    known.read_exact(&mut [0; 5]).expect("an echo");
    known.end_sending();
    assert_eq!(known.read(&mut [0; 1]).expect("close_notify"), 0);
    let line = lines(&gateway, 1).remove(0);
    assert_eq!(line["client_cert_fingerprint"], pair.fingerprint());
    let unknown = TlsClient::named("tcp.test").try_connect(gateway.https);
    let read = unknown.map(|mut stream| stream.read(&mut [0; 1]).is_err());
    assert_ne!(
        read,
        Ok(false),
        "it is refused during the handshake or right after"
    );
    assert_eq!(echo.accepted(), 1);
}

#[test]
fn servers_may_speak_tls_themselves() {
    let ca = Ca::new("Behind");
    let origin = TlsOrigin::start(&ca.leaf(&["inner.test"]).make());
    let tls = ", tls: { ca_file: behind.pem, server_name: inner.test }, send_proxy_protocol: off";
    let builder = in_front_of(origin.address(), tls, TCP);
    std::fs::write(builder.dir().join("behind.pem"), ca.pem()).expect("written");
    let gateway = builder.start();
    let mut client = TlsClient::named("tcp.test").connect(gateway.https);
    assert_eq!(client.get("tcp.test", "/").text(), "nobody");
    assert_eq!(client.get("tcp.test", "/").text(), "nobody");
    assert_eq!(origin.names(), [Some("inner.test".to_owned())]);
}

#[test]
fn a_server_is_offered_the_protocol_that_the_client_speaks() {
    let ca = Ca::new("Behind");
    let pair = ca.leaf(&["inner.test"]).make();
    let (offers, offered) = mpsc::channel();
    let mut acceptor =
        SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server()).expect("OpenSSL");
    let chain = X509::stack_from_pem(pair.chain.as_bytes()).expect("PEM");
    acceptor.set_certificate(&chain[0]).expect("set");
    let key = PKey::private_key_from_pem(pair.key.as_bytes()).expect("PEM");
    acceptor.set_private_key(&key).expect("set");
    let offers = Mutex::new(offers);
    acceptor.set_alpn_select_callback(move |_, protocols| {
        let all = protocols.to_vec();
        offers.lock().expect("no panic").send(all).expect("awaited");
        select_next_proto(b"\x04mqtt", protocols).ok_or(AlpnError::NOACK)
    });
    let acceptor = acceptor.build();
    let server = OctetServer::start(move |stream| {
        let Ok(mut stream) = acceptor.accept(stream) else {
            return;
        };
        let mut octet = [0];
        while stream.read_exact(&mut octet).is_ok() {
            stream.write_all(&octet).expect("open");
        }
    });
    let tls = ", tls: { ca_file: behind.pem, server_name: inner.test }";
    let site = "- { hosts: [tcp.test], tcp: app, tls: { alpn: [x-amqp, mqtt] } }";
    let builder = in_front_of(server.address, tls, site);
    std::fs::write(builder.dir().join("behind.pem"), ca.pem()).expect("written");
    let gateway = builder.start();
    let passes = |client: TlsClient| {
        let mut client = client.connect(gateway.https);
        client.write_all(b"x").expect("open");
        client.read_exact(&mut [0; 1]).expect("an echo");
    };
    passes(TlsClient::named("tcp.test").alpn(&["mqtt", "other"]));
    assert_eq!(
        offered.recv_timeout(PATIENCE).expect("an offer"),
        b"\x04mqtt"
    );
    // Nothing was negotiated, so nothing is offered.
    passes(TlsClient::named("tcp.test"));
    assert_eq!(offered.try_recv(), Err(mpsc::TryRecvError::Empty));
}

#[test]
fn a_client_whose_certificate_is_revoked_loses_its_connection() {
    let echo = OctetServer::echo();
    let clients = Ca::new("Clients");
    let site =
        "- { hosts: [tcp.test], tcp: app, client_auth: { ca: clients.pem, crl: clients.crl } }";
    let builder = in_front_of(echo.address, "", site);
    let dir = builder.dir().to_owned();
    let revoke = |pairs: &[&Pair]| {
        let list = revocation_list(&clients, pairs, 30).to_pem().expect("PEM");
        std::fs::write(dir.join("new.crl"), list).expect("written");
        std::fs::rename(dir.join("new.crl"), dir.join("clients.crl")).expect("renamed");
    };
    std::fs::write(dir.join("clients.pem"), clients.pem()).expect("written");
    revoke(&[]);
    let gateway = builder.start();
    let pairs = ["device-1", "device-2"].map(|name| clients.leaf(&[name]).for_client().make());
    let open = |pair: &Pair| {
        TlsClient::named("tcp.test")
            .showing(pair)
            .connect(gateway.https)
    };
    let [mut good, mut bad] = [open(&pairs[0]), open(&pairs[1])];
    let passes = |client: &mut TlsStream| {
        client.write_all(b"x").is_ok() && matches!(client.read(&mut [0; 1]), Ok(1))
    };
    assert!(passes(&mut good) && passes(&mut bad));
    revoke(&[&pairs[1]]);
    wait_for("the end", || (!passes(&mut bad)).then_some(()));
    let line = lines(&gateway, 1).remove(0);
    assert_eq!(line["ended"], "outdated");
    assert_eq!(line["client_cert_fingerprint"], pairs[1].fingerprint());
    assert!(passes(&mut good));
}

#[test]
fn clients_that_name_nothing_get_the_site_of_the_default_certificate() {
    let echo = OctetServer::echo();
    let gateway = in_front_of(echo.address, "", TCP)
        .config("tls: { default_certificate: tcp.test }")
        .start();
    let mut client = TlsClient::nameless().connect(gateway.https);
    client.write_all(b"hello").expect("open");
    client.read_exact(&mut [0; 5]).expect("an echo");
}

#[test]
fn much_passes_through_tls_in_both_directions() {
    const MUCH: usize = 16 << 20;
    let server = OctetServer::start(|stream| {
        let mut sending = stream.try_clone().expect("a clone");
        let down = thread::spawn(move || {
            sending.write_all(&noise(MUCH, 2)).expect("open");
        });
        let mut all = vec![0; MUCH];
        (&stream).read_exact(&mut all).expect("all of it");
        assert!(all == noise(MUCH, 1), "not as it was");
        down.join().expect("no panic");
        (&stream).write_all(b"got it").expect("open");
    });
    let gateway = in_front_of(server.address, "", TCP).start();
    let mut client = TlsClient::named("tcp.test").connect(gateway.https);
    // Both sides send at the same time, each more than fits anywhere.
    let (up, down) = (noise(MUCH, 1), noise(MUCH, 2));
    let mut got = vec![0; MUCH];
    let parts = up.chunks(64 * 1024).zip(got.chunks_mut(64 * 1024));
    for (sent, received) in parts {
        client.write_all(sent).expect("open");
        client.read_exact(received).expect("open");
    }
    assert!(got == down, "not as it was");
    let mut end = String::new();
    client.read_to_string(&mut end).expect("close_notify");
    assert_eq!(end, "got it");
}

#[test]
fn sessions_do_not_cross_between_octets_and_requests() {
    let echo = OctetServer::echo();
    let gateway = in_front_of(echo.address, "", TCP).start();
    for version in [SslVersion::TLS1_2, SslVersion::TLS1_3] {
        let connect = |name: &str, session: Option<&SslSession>| {
            let client = TlsClient::named(name).version(version);
            let client = match session {
                Some(session) => client.session(session),
                None => client,
            };
            let mut stream = client.connect(gateway.https);
            let resumed = stream.resumed();
            match name {
                "tcp.test" => {
                    stream.write_all(b"x").expect("open");
                    stream.read_exact(&mut [0; 1]).expect("an echo");
                }
                host => assert_eq!(stream.get(host, "/").status, 200),
            }
            (resumed, stream.session())
        };
        let of_octets = connect("tcp.test", None).1.expect("a session");
        let of_requests = connect("a.test", None).1.expect("a session");
        assert!(connect("tcp.test", Some(&of_octets)).0, "{version:?}");
        assert!(!connect("a.test", Some(&of_octets)).0, "{version:?}");
        assert!(!connect("tcp.test", Some(&of_requests)).0, "{version:?}");
    }
}
