//! Servers of HTTP/2 that have no room, or of whose addresses one does not answer.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::http2_connections::{greet, send_at_once};
use super::{VERSIONS, in_front_of_http2, over, states, with_upstream};
use crate::support::{
    Call, Crowded, Gateway, H2, H2Server, H2Setup, ROOT, Resolver, serving, wait_for,
};

#[test]
fn a_client_that_has_many_streams_does_not_shut_others_out() {
    let setup = H2Setup {
        max_streams: Some(1),
        ..H2Setup::default()
    };
    let server = H2Server::with(setup, async |mut call: Call| {
        if call.head.uri.path() == "/held" {
            call.reset_reason().await;
        } else {
            call.send_head(204, &[], true);
        }
    });
    let gateway = in_front_of_http2(&server);
    let mut greedy = H2::connect(gateway.https, "a.test");
    let _held: Vec<_> = (0..80)
        .map(|_| {
            let request = greedy.request("GET", "/held").body(()).expect("a request");
            greedy.begin(request, false)
        })
        .collect();
    wait_for("all places", || (server.requests() == 64).then_some(()));
    for version in VERSIONS {
        let reply = over(version, &gateway, "a.test", "/").send();
        assert_eq!(reply.status, 204, "HTTP/{version}");
    }
    assert_eq!(server.requests(), 64 + VERSIONS.len());
}

/// A gateway in front of a server of HTTP/2 whose name has a second address, which does not answer.
#[track_caller]
fn beside_a_dead_address(server: &H2Server, resolver: &Resolver, keys: &str) -> (Crowded, Gateway) {
    const NAME: &str = "app.internal";
    let port = server.address().port();
    let dead = SocketAddr::from(([127, 0, 0, 3], port));
    let crowded = Crowded::start_at(dead);
    resolver.set_addresses(NAME, 60, &[dead.ip(), server.address().ip()]);
    let gateway = serving(
        &[&["a.test"]],
        format!(
            "upstreams: {{ app: {{ servers: [\"{NAME}:{port}\"], {keys} }} }}\n\
             sites: [{{ hosts: [a.test], \
             routes: [{{ upstream: app, timeout: {{ connect: 10s }}, retries: 0 }}] }}]\n"
        ),
    )
    .server(&format!("resolvers: [\"{}\"]", resolver.address()))
    .start();
    (crowded, gateway)
}

#[test]
fn the_next_address_is_tried_while_one_does_not_answer() {
    let tls = ROOT.leaf(&["origin.test"]).make();
    let secure = "tls: { server_name: origin.test, ca_file: root.pem }";
    for (keys, tls) in [
        ("protocol: h2".to_owned(), None),
        (format!("protocol: h2, {secure}"), Some(tls.clone())),
        (format!("protocol: auto, {secure}"), Some(tls)),
    ] {
        let setup = H2Setup {
            tls: tls.map(|pair| (pair, &b"\x02h2\x08http/1.1"[..])),
            ..H2Setup::default()
        };
        let (server, resolver) = (H2Server::with(setup, greet), Resolver::start());
        let (_crowded, gateway) = beside_a_dead_address(&server, &resolver, &keys);
        let mut h2 = H2::connect(gateway.https, "a.test");
        let mut longest = Duration::ZERO;
        for _ in 0..4 {
            let begun = Instant::now();
            // All of them, though they wait for the same connection.
            send_at_once(&mut h2, 10);
            longest = longest.max(begun.elapsed());
        }
        eprintln!("{keys}: at most {longest:.2?} with one of two addresses dead");
        assert!(longest < Duration::from_secs(5), "{keys}: {longest:?}");
        assert_eq!((server.requests(), server.connections()), (40, 1), "{keys}");
    }
}

#[test]
fn requests_go_to_another_address_where_one_has_no_room() {
    const SERVICE: &str = "_http._tcp.app.internal";
    let setup = H2Setup {
        max_streams: Some(1),
        ..H2Setup::default()
    };
    let slow = H2Server::with(setup, async |mut call: Call| {
        tokio::time::sleep(Duration::from_secs(2)).await;
        call.send_head(204, &[], true);
    });
    let (quick, resolver) = (H2Server::start(greet), Resolver::start());
    resolver.set_addresses("app.internal", 60, &[slow.address().ip()]);
    let ports = [&slow, &quick].map(|server| server.address().port());
    resolver.set_services(SERVICE, 60, &ports.map(|port| (0, 1, port, "app.internal")));
    let gateway = with_upstream(&format!("servers: [\"srv:{SERVICE}\"], protocol: h2"))
        .server(&format!("resolvers: [\"{}\"]", resolver.address()))
        .start();
    let mut clients = [(); 2].map(|()| H2::connect(gateway.https, "a.test"));
    // Half of them go to the slow server, which may have no more than 64 connections.
    let requests = clients.each_mut().map(|h2| {
        let requests = (0..80).map(|_| {
            let request = h2.request("GET", "/").body(()).expect("a request");
            h2.begin(request, false).0
        });
        requests.collect::<Vec<_>>()
    });
    for (h2, requests) in clients.iter().zip(requests) {
        h2.block_on(async {
            for response in requests {
                assert!(response.await.expect("a head").status().is_success());
            }
        });
    }
    assert_eq!((slow.requests(), quick.requests()), (64, 96));
    // It is no dead one for that.
    assert_eq!(states(&gateway)[&slow.address()], "up");
}
