//! Connections that are passed through by the name in their ClientHello.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use super::{OctetServer, hello, in_front_of, lines, noise};
use crate::support::{
    Ca, Port, TlsClient, TlsOrigin, connect, curl, exchange, s_client, wait_for, within,
};

const RAW: &str = "- { hosts: [raw.test, \"*.raw.test\"], pass_through: app }";

#[test]
fn a_connection_is_passed_through_by_its_name_alone() {
    let ca = Ca::new("Behind");
    let origin = TlsOrigin::start(&ca.leaf(&["raw.test", "*.raw.test"]).make());
    let gateway = in_front_of(origin.address(), "", RAW).start();
    for name in ["raw.test", "x.raw.test", "RAW.test"] {
        let client = TlsClient::named(name).trusting(ca.certificate());
        let mut stream = client.connect(gateway.https);
        assert_eq!(stream.names(), ["raw.test", "*.raw.test"]);
        assert_eq!(stream.get("raw.test", "/").text(), "nobody");
    }
    // As if the gateway had a challenge: it is the server's.
    let client = TlsClient::named("raw.test").alpn(&["acme-tls/1"]);
    assert_eq!(client.connect(gateway.https).names()[0], "raw.test");
    wait_for("all to be seen", || {
        (origin.names().len() == 4).then_some(())
    });
    // All others are served as ever.
    let mut own = TlsClient::named("a.test").connect(gateway.https);
    assert_eq!(own.get("a.test", "/").text(), "own");
    assert_eq!(own.get("raw.test", "/").status, 421);
    for name in ["x.x.raw.test", "other.test"] {
        let refused = TlsClient::named(name).try_connect(gateway.https);
        let why = refused.err().expect("no certificate");
        assert!(why.contains("unrecognized name"), "{why}");
    }
    assert!(TlsClient::nameless().try_connect(gateway.https).is_err());
    assert_eq!(origin.names().len(), 4, "the server has seen none of them");
    // Over plain HTTP there is only the way to TLS.
    let reply = gateway.curl_http("raw.test", "/x").send();
    assert_eq!(reply.status, 308);
    let location = format!("https://raw.test:{}/x", gateway.https.port());
    assert_eq!(reply.header("Location"), Some(&*location));
}

#[test]
fn a_name_is_passed_through_at_the_listener_of_its_site_alone() {
    let ca = Ca::new("Behind");
    let origin = TlsOrigin::start(&ca.leaf(&["raw.test"]).make());
    let port = Port::take();
    let inside = port.address();
    let site = format!("- {{ hosts: [raw.test], listen: [\"{inside}\"], pass_through: app }}");
    let gateway = in_front_of(origin.address(), "", &site).start();
    let client = TlsClient::named("raw.test").trusting(ca.certificate());
    assert_eq!(client.connect(inside).get("raw.test", "/").text(), "nobody");
    // Elsewhere the name is unknown, as those of others are there.
    for (name, address) in [("raw.test", gateway.https), ("a.test", inside)] {
        let refused = TlsClient::named(name).try_connect(address);
        let why = refused.err().expect("no certificate");
        assert!(why.contains("unrecognized name"), "{name}: {why}");
    }
    let mut own = TlsClient::named("a.test").connect(gateway.https);
    assert_eq!(own.get("a.test", "/").text(), "own");
    assert_eq!(origin.names(), [Some("raw.test".to_owned())]);
}

#[test]
fn no_certificate_is_wanted_for_a_name_that_is_passed_through() {
    let server = OctetServer::echo();
    let gateway = in_front_of(server.address, "", RAW)
        .config("issuers: { local: { local_ca: { } } }")
        .start();
    // It is ready, so nothing is missing.
    let certificates = gateway.ask("GET", "/api/v1/certificates").text();
    assert!(!certificates.contains("*.raw.test"), "{certificates}");
    let sites = gateway.ask("GET", "/api/v1/sites").text();
    assert!(sites.contains("\"tls\":\"pass_through\""), "{sites}");
    assert!(sites.contains("\"pass_through\":\"app\""), "{sites}");
}

#[test]
fn the_server_gets_what_the_client_sends_however_it_is_cut() {
    let (received, seen) = mpsc::channel();
    let server = OctetServer::start(move |mut stream| {
        let mut all = Vec::new();
        stream.read_to_end(&mut all).expect("an end");
        _ = received.send(all);
        _ = stream.write_all(b"done");
    });
    let gateway = in_front_of(server.address, "", RAW).start();
    let whole = hello("raw.test");
    assert!(whole.len() > 1200, "it has a post-quantum key share");
    let in_records = |size: usize| {
        let records = whole[5..].chunks(size).map(|part| {
            let length = (part.len() as u16).to_be_bytes();
            [&whole[..3], &length, part].concat()
        });
        records.collect::<Vec<_>>().concat()
    };
    for (octets, segment) in [
        (whole.clone(), whole.len()),
        (whole.clone(), 1),
        (in_records(1), 7000),
        (in_records(100), 33),
    ] {
        let sent = [&octets[..], &noise(3000, 7)].concat();
        let mut client = connect(gateway.https);
        client.set_nodelay(true).expect("set");
        for part in sent.chunks(segment) {
            client.write_all(part).expect("open");
            thread::yield_now();
        }
        client.shutdown(Shutdown::Write).expect("open");
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).expect("an answer");
        assert_eq!(answer, b"done");
        assert!(seen.recv().expect("it is told") == sent, "not as it was");
    }
}

#[test]
fn what_is_no_hello_never_reaches_a_server() {
    let server = OctetServer::echo();
    let gateway = in_front_of(server.address, "", RAW)
        .server("limits: { handshake: 2s }")
        .start();
    let whole = hello("raw.test");
    let at = whole
        .windows(8)
        .position(|octets| octets == b"raw.test")
        .expect("a name");
    let with = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut octets = whole.clone();
        change(&mut octets);
        octets
    };
    let mut odd = whole.clone();
    // Not the type of a host name.
    odd[at - 3] = 1;
    for octets in [
        odd,
        with(&|octets| octets[at + 3] = 0),
        with(&|octets| octets[at - 1] += 1),
        with(&|octets| octets[43] = 40),
        b"GET / HTTP/1.1\r\nHost: raw.test\r\n\r\n".to_vec(),
    ] {
        let answer = exchange(&mut connect(gateway.https), &octets);
        assert!(answer.is_empty() || answer[0] == 21, "{answer:?}");
    }
    // Too slow, or not whole.
    let mut late = connect(gateway.https);
    let began = Instant::now();
    late.write_all(&whole[..whole.len() - 1]).expect("open");
    assert_eq!(exchange(&mut late, ""), b"");
    let took = began.elapsed();
    assert!((2..6).contains(&took.as_secs()), "{took:?}");
    let mut cut = connect(gateway.https);
    cut.write_all(&whole[..100]).expect("open");
    cut.shutdown(Shutdown::Write).expect("open");
    exchange(&mut cut, "");
    within(Duration::from_secs(5), "the time-out to be counted", || {
        let text = gateway.ask("GET", "/metrics").text();
        let is_counted = |line: &str| {
            line.starts_with("snigate_tls_handshakes_total") && line.contains("\"timeout\"")
        };
        text.lines().any(is_counted).then_some(())
    });
    assert_eq!(server.accepted(), 0);
    assert_eq!(
        TlsClient::named("a.test").connect(gateway.https).alpn(),
        None
    );
}

#[test]
fn a_hello_and_its_handshake_have_one_deadline() {
    let server = OctetServer::echo();
    let gateway = in_front_of(server.address, "", RAW)
        .server("limits: { handshake: 3s }")
        .start();
    let mut client = connect(gateway.https);
    let began = Instant::now();
    let whole = hello("a.test");
    let (first, rest) = whole.split_at(whole.len() - 1);
    client.write_all(first).expect("open");
    // Nothing is to happen for two of the three seconds.
    thread::sleep(Duration::from_secs(2));
    client.write_all(rest).expect("open");
    exchange(&mut client, "");
    let took = began.elapsed();
    assert!((3..5).contains(&took.as_secs()), "{took:?}");
}

#[test]
fn much_passes_in_both_directions_and_a_line_says_how_much() {
    const MUCH: usize = 64 << 20;
    let server = OctetServer::start(|stream| {
        let mut sending = stream.try_clone().expect("a clone");
        let down = thread::spawn(move || {
            sending.write_all(&noise(MUCH, 2)).expect("open");
            sending.shutdown(Shutdown::Write).expect("open");
        });
        let mut all = Vec::new();
        (&stream).read_to_end(&mut all).expect("an end");
        assert!(
            all.split_off(all.len() - MUCH) == noise(MUCH, 1),
            "not as it was"
        );
        down.join().expect("no panic");
    });
    let gateway = in_front_of(server.address, "", RAW).start();
    let hello = hello("raw.test");
    let mut client = connect(gateway.https);
    client.write_all(&hello).expect("open");
    let mut sending = client.try_clone().expect("a clone");
    let up = thread::spawn(move || {
        sending.write_all(&noise(MUCH, 1)).expect("open");
        sending.shutdown(Shutdown::Write).expect("open");
    });
    let mut all = Vec::new();
    client.read_to_end(&mut all).expect("an end");
    assert!(all == noise(MUCH, 2), "not as it was");
    up.join().expect("no panic");
    let line = lines(&gateway, 1).remove(0);
    assert_eq!(line["client"], "127.0.0.1");
    assert_eq!(line["host"], "raw.test");
    assert_eq!(line["method"], "pass_through");
    assert_eq!(line["status"], 200);
    assert_eq!(line["bytes"], MUCH);
    assert_eq!(line["received"], MUCH + hello.len());
    assert_eq!(line["upstream"], server.address.to_string());
    let ended = line["ended"].as_str().expect("text");
    assert!(ended.ends_with("_closed"), "{ended}");
    let metric = |name: &str| gateway.metric(name).unwrap_or(-1.0);
    let sent = "snigate_tunnel_bytes_total{direction=\"sent\",site=\"raw.test\"}";
    assert_eq!(metric(sent), MUCH as f64);
    let total = format!("snigate_tunnels_total{{result=\"{ended}\",site=\"raw.test\"}}");
    assert_eq!(metric(&total), 1.0);
    assert_eq!(metric("snigate_tunnels_open{site=\"raw.test\"}"), 0.0);
}

#[test]
fn many_connections_pass_at_a_time() {
    const MANY: u32 = 150;
    let server = OctetServer::echo();
    let gateway = in_front_of(server.address, "", RAW).start();
    let hello = hello("raw.test");
    let clients: Vec<_> = (0..MANY)
        .map(|number| {
            let mut client = connect(gateway.https);
            client.write_all(&hello).expect("open");
            (number, client)
        })
        .collect();
    wait_for("all to be open", || {
        let open = gateway.metric("snigate_tunnels_open{site=\"raw.test\"}")?;
        (open == f64::from(MANY)).then_some(())
    });
    for (number, mut client) in clients {
        let own = noise(5000, number);
        client.write_all(&own).expect("open");
        client.shutdown(Shutdown::Write).expect("open");
        let mut all = Vec::new();
        client.read_to_end(&mut all).expect("an end");
        assert!(all == [&hello[..], &own].concat(), "{number}");
    }
    assert_eq!(lines(&gateway, MANY as usize).len(), MANY as usize);
}

#[test]
fn other_clients_of_openssl_and_curl_pass() {
    let ca = Ca::new("Behind");
    let origin = TlsOrigin::start(&ca.leaf(&["raw.test"]).make());
    let gateway = in_front_of(origin.address(), "", RAW).start();
    let said = s_client(gateway.https, Some("raw.test"), &[]);
    assert!(said.contains("Behind"), "{said}");
    let root = ca.write(gateway.dir());
    let url = format!("https://raw.test:{}/", gateway.https.port());
    let reply = curl(&url)
        .resolve("raw.test", gateway.https)
        .cacert(&root)
        .send();
    assert_eq!(reply.text(), "nobody");
}
