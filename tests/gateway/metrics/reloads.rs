//! What a reload removes has no metrics any more, and what remains continues to count.

use std::io::Write as _;

use super::wait_for_count;
use crate::support::{Act, Gateway, Origin, TlsClient, connect, read_response, serving, wait_for};

fn shown(gateway: &Gateway, text: &str) -> usize {
    gateway.ask("GET", "/metrics").text().matches(text).count()
}

#[test]
fn what_is_removed_is_shown_until_the_last_request_to_it_has_ended() {
    let origin = Origin::start(|request| match request.line().contains("/held") {
        true => vec![Act::Hold, Act::respond(200, "held")],
        false => vec![Act::respond(200, "app")],
    });
    let address = origin.address();
    let before = format!(
        "certificates: [{{ directory: certs }}]\n\
         upstreams: {{ app: {{ servers: [\"{address}\"] }}, old: {{ servers: [\"{address}\"] }} }}\n\
         sites:\n\
         - {{ hosts: [app.test], tls: off, upstream: app }}\n\
         - {{ hosts: [old.test], tls: off, upstream: old }}\n\
         - {{ hosts: [raw.test], tcp: {{ upstream: old }} }}\n\
         events: [{{ name: pager, on: [\"*\"], exec: {{ command: [/bin/true] }} }}]\n"
    );
    let mut gateway = serving(&[&["raw.test"]], "").start();
    gateway.replace_config(&before);
    assert_eq!(gateway.reload().0, 200);
    let http = gateway.http;
    let plain = |host: &str, path: &str| {
        let mut stream = connect(http);
        let head = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).expect("taken");
        stream
    };
    for host in ["app.test", "old.test"] {
        let reply = read_response(&mut plain(host, "/")).expect("a response");
        assert_eq!(reply.status, 200);
    }
    let mut tunnel = TlsClient::named("raw.test").connect(gateway.https);
    let reply = tunnel.request("GET / HTTP/1.1\r\nHost: raw.test\r\n\r\n");
    assert_eq!(reply.text(), "app");
    assert_eq!(
        gateway.metric(r#"snigate_tunnels_open{site="raw.test"}"#),
        Some(1.0)
    );
    drop(tunnel);
    wait_for_count(&gateway, r#"snigate_tunnels_open{site="raw.test"}"#, 0);
    let mut held = plain("old.test", "/held");
    origin.wait_for_requests(4);

    let after = format!(
        "certificates: [{{ directory: certs }}]\n\
         upstreams: {{ app: {{ servers: [\"{address}\"], max_connections: 9 }} }}\n\
         sites: [{{ hosts: [app.test], tls: off, upstream: app }}]\n"
    );
    gateway.replace_config(&after);
    assert_eq!(gateway.reload().0, 200);
    wait_for("the end of what nothing uses", || {
        let gone = ["site=\"raw.test\"", "hook=\"pager\""];
        gone.iter()
            .all(|gone| shown(&gateway, gone) == 0)
            .then_some(())
    });
    assert!(
        shown(&gateway, "upstream=\"old\"") > 0,
        "a request is there"
    );
    assert_eq!(
        gateway.metric(r#"snigate_requests_total{site="old.test",status="2xx"}"#),
        Some(1.0)
    );
    origin.release();
    let reply = read_response(&mut held).expect("a response");
    assert_eq!(reply.text(), "held");
    wait_for("the end of what is removed", || {
        let gone = ["upstream=\"old\"", "site=\"old.test\""];
        gone.iter()
            .all(|gone| shown(&gateway, gone) == 0)
            .then_some(())
    });

    let reply = read_response(&mut plain("app.test", "/")).expect("a response");
    assert_eq!(reply.status, 200);
    let counted = r#"snigate_requests_total{site="app.test",status="2xx"}"#;
    wait_for_count(&gateway, counted, 2);
    let attempts = |result: &str| {
        let name = format!("snigate_upstream_attempts_total{{result={result:?},upstream=\"app\"}}");
        gateway.metric(&name).expect("a count")
    };
    assert_eq!(attempts("connected") + attempts("reused"), 2.0);
    wait_for_count(
        &gateway,
        r#"snigate_upstream_duration_seconds_count{upstream="app"}"#,
        2,
    );
}

/// A server that answers 499, as some do, is no client that went away.
#[test]
fn a_status_of_a_server_says_nothing_of_the_client() {
    let origin = Origin::start(|_| vec![Act::respond(499, "x")]);
    let gateway = Gateway::start(format!(
        "upstreams: {{ app: {{ servers: [\"{}\"] }} }}\n\
         sites:\n\
         - {{ hosts: [plain.test], tls: off, upstream: app }}\n",
        origin.address()
    ));
    assert_eq!(gateway.curl_http("plain.test", "/").send().status, 499);
    let counted = r#"snigate_requests_total{site="plain.test",status="4xx"}"#;
    wait_for_count(&gateway, counted, 1);
    let gone = r#"snigate_requests_failed_total{reason="client_gone"}"#;
    assert_eq!(gateway.metric(gone), Some(0.0));
}
