//! Addresses come and go while it runs, and no connection is lost.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use super::{TlsClient, body, gateway, under_connections};
use crate::support::{
    Act, H2, Origin, Port, connect, exchange, is_closed, listen, read_response, relisten, serving,
    snigate, wait_for,
};

const SITE: &str = "sites: [{ hosts: [a.test], routes: [{ respond: { body: x } }] }]";

fn get(address: SocketAddr) -> String {
    let mut stream = TlsClient::named("a.test").connect(address);
    stream.get("a.test", "/").text()
}

/// The status of a plain request.
fn plain(address: SocketAddr) -> String {
    let request = "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n";
    let answer = exchange(&mut connect(address), request);
    String::from_utf8_lossy(&answer)
        .split(' ')
        .nth(1)
        .unwrap_or_default()
        .to_owned()
}

#[test]
fn addresses_come_and_go_without_a_restart() {
    let gateway = serving(&[&["a.test"]], SITE).start();
    let (https, http) = (gateway.https, gateway.http);
    let ports = [Port::take(), Port::take()];
    let [more, plain_more] = [ports[0].address(), ports[1].address()];
    relisten(&gateway, &[&https, &more], &[&http, &plain_more]);
    assert_eq!((get(https), get(more)), ("x".to_owned(), "x".to_owned()));
    assert_eq!([plain(http), plain(plain_more)], ["308", "308"]);
    let status = gateway.ask("GET", "/api/v1/status").text();
    let entry =
        |address, protocol| format!("{{\"address\":\"{address}\",\"protocol\":\"{protocol}\"}}");
    for entry in [entry(more, "https"), entry(plain_more, "http")] {
        assert!(status.contains(&entry), "{status}");
    }
    let printed = snigate(&["status", "--admin", &gateway.admin.to_string()]).stdout;
    assert!(printed.contains(&format!("{https}, {more}")), "{printed}");

    relisten(&gateway, &[&https], &[&http]);
    // At once: when the reload is over.
    assert!(is_closed(more) && is_closed(plain_more));
    assert_eq!(get(https), "x");
    let status = gateway.ask("GET", "/api/v1/status").text();
    assert!(!status.contains(&more.to_string()), "{status}");
    for text in ["listening", "no longer listening"] {
        let is_told = |line: &str| line.contains(text) && line.contains(&more.to_string());
        wait_for(text, || gateway.log().lines().any(is_told).then_some(()));
    }
    // And all of one kind.
    relisten(&gateway, &[&https], &[]);
    assert!(is_closed(http));
    relisten(&gateway, &[&https], &[&http]);
    assert_eq!(plain(http), "308");
}

#[test]
fn connections_of_a_removed_address_are_asked_to_end() {
    let origin = Origin::start(|request| match request.line().contains("/slow") {
        true => vec![Act::Hold, Act::respond(200, "slow")],
        false => vec![Act::respond(200, "quick")],
    });
    let config = format!(
        "upstreams: {{ app: {{ servers: [\"{}\"] }} }}\nsites: [{{ hosts: [a.test], upstream: app }}]",
        origin.address()
    );
    let gateway = serving(&[&["a.test"]], config).start();
    let port = Port::take();
    let (kept, gone) = (gateway.https, port.address());
    relisten(&gateway, &[&kept, &gone], &[&gateway.http]);
    let mut stays = TlsClient::named("a.test").connect(kept);
    assert_eq!(stays.get("a.test", "/").status, 200);
    let mut idle = TlsClient::named("a.test").connect(gone);
    assert_eq!(idle.get("a.test", "/").status, 200);
    let mut busy = TlsClient::named("a.test").connect(gone);
    busy.write_all(b"GET /slow HTTP/1.1\r\nHost: a.test\r\n\r\n")
        .expect("taken");
    let mut busy_h2 = H2::connect(gone, "a.test");
    let request = busy_h2.request("GET", "/slow").body(()).expect("a request");
    let (answer, _) = busy_h2.begin(request, false);
    origin.wait_for_requests(4);

    relisten(&gateway, &[&kept], &[&gateway.http]);
    assert!(is_closed(gone));
    assert_eq!(idle.read(&mut [0; 8]).expect("a close in order"), 0);
    origin.release();
    let answered = read_response(&mut busy).expect("a response");
    assert_eq!(answered.text(), "slow");
    assert_eq!(answered.header("connection"), Some("close"));
    let answered = busy_h2.block_on(answer).expect("a response");
    assert_eq!(answered.status(), 200);
    busy_h2.wait_until_closed(Duration::from_secs(10));
    // Those of other addresses notice nothing.
    let answered = stays.get("a.test", "/");
    assert_eq!(answered.status, 200);
    assert_ne!(answered.header("connection"), Some("close"));
}

#[test]
fn an_address_that_cannot_be_bound_refuses_the_whole_reload() {
    let (mut gateway, _) = gateway();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = taken.local_addr().map(|address| (taken, address));
    let (_taken, taken) = taken.expect("an address");
    let (free, https, http) = (Port::take(), gateway.https, gateway.http);
    gateway.replace_config(super::config("two"));
    let (status, refused) = listen(&gateway, &[&https, &free.address(), &taken], &[]);
    assert_eq!(status, 400, "{refused}");
    let reason = format!("cannot listen on {taken}");
    assert!(refused.contains(&reason), "{refused}");
    assert_eq!(body(&gateway, "a.example").as_deref(), Ok("one"));
    assert!(is_closed(free.address()) && !is_closed(http));
    gateway.wait_for_log(&reason);
    relisten(&gateway, &[&https, &free.address()], &[&http]);
    assert_eq!(body(&gateway, "a.example").as_deref(), Ok("two"));
}

#[test]
fn an_address_changes_its_protocol() {
    let gateway = serving(&[&["a.test"]], SITE).start();
    let (https, http) = (gateway.https, gateway.http);
    assert_eq!(
        (get(https), plain(http)),
        ("x".to_owned(), "308".to_owned())
    );
    for _ in 0..3 {
        relisten(&gateway, &[&http], &[&https]);
        assert_eq!(
            (get(http), plain(https)),
            ("x".to_owned(), "308".to_owned())
        );
        relisten(&gateway, &[&https], &[&http]);
        assert_eq!(
            (get(https), plain(http)),
            ("x".to_owned(), "308".to_owned())
        );
    }
}

#[test]
fn all_addresses_of_a_port_take_the_place_of_one() {
    let gateway = serving(&[&["a.test"]], SITE).start();
    let (one, http) = (gateway.https, gateway.http);
    let all = SocketAddr::from(([0, 0, 0, 0], one.port()));
    let other = SocketAddr::from(([127, 0, 0, 2], one.port()));
    for _ in 0..3 {
        relisten(&gateway, &[&all], &[&http]);
        assert_eq!((get(one), get(other)), ("x".to_owned(), "x".to_owned()));
        relisten(&gateway, &[&one], &[&http]);
        assert_eq!(get(one), "x");
        assert!(is_closed(other));
    }
}

#[test]
fn no_connection_is_lost_while_other_addresses_change() {
    let (gateway, ca) = gateway();
    let (https, http) = (gateway.https, gateway.http);
    let ports = [Port::take(), Port::take()];
    let [a, b] = [ports[0].address(), ports[1].address()];
    let seen = under_connections(&gateway, "a.example", ca.certificate(), || {
        for round in 0..30 {
            match round % 3 {
                0 => relisten(&gateway, &[&https, &a], &[&http]),
                1 => relisten(&gateway, &[&b, &https], &[&a, &http]),
                _ => relisten(&gateway, &[&https], &[&b]),
            }
        }
    });
    assert!(seen.connections >= 30, "{}", seen.connections);
}
