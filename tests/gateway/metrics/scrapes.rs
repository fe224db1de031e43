//! Clients of `/metrics`: what they ask for, several at once, and those that do not read.

use std::io::{Read as _, Write as _};
use std::thread;
use std::time::Duration;

use flate2::read::GzDecoder;

use super::Busy;
use crate::support::{
    Act, Gateway, Origin, TlsClient, connect, curl, exchange, read_response, serving_app, wait_for,
};

fn url(gateway: &Gateway) -> String {
    format!("http://{}/metrics", gateway.admin)
}

const OPEN: &str = "Accept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5";

#[test]
fn a_client_gets_what_it_asks_for() {
    let busy = Busy::start();
    let url = url(&busy.gateway);
    let text = curl(&url).send();
    let kind = Some("text/plain; version=0.0.4; charset=utf-8");
    assert_eq!(text.header("content-type"), kind);
    assert_eq!(text.header("content-encoding"), None);
    assert!(!text.text().contains("# EOF") && !text.text().contains("trace_id"));

    let open = curl(&url).args(["-H", OPEN]).send();
    let kind = Some("application/openmetrics-text; version=1.0.0; charset=utf-8");
    assert_eq!(open.header("content-type"), kind);
    let open = open.text();
    assert!(open.ends_with("\n# EOF\n") && !open.contains("\n\n"));
    assert!(open.contains("# TYPE snigate_requests counter\n"));
    assert!(open.contains("# UNIT snigate_request_duration_seconds seconds\n"));
    let exemplar = format!("# {{trace_id=\"{}\"}} ", super::TRACE);
    assert!(open.contains(&exemplar), "{open}");

    let gzip = ["-H", "Accept-Encoding: gzip"];
    let compressed = curl(&url).args(["-H", OPEN]).args(gzip).send();
    assert_eq!(compressed.header("content-encoding"), Some("gzip"));
    let mut text = String::new();
    let mut decoder = GzDecoder::new(&compressed.body[..]);
    decoder.read_to_string(&mut text).expect("gzip");
    assert!(text.ends_with("\n# EOF\n"));
}

/// Under load, with two that read at once and others that never do.
#[test]
fn metrics_can_be_read_whatever_others_do() {
    let origin = Origin::named("app");
    let gateway = serving_app(origin.address()).start();
    let mut stalled: Vec<_> = (0..6)
        .map(|_| {
            let mut stream = connect(gateway.admin);
            let head = format!("GET /metrics HTTP/1.1\r\nHost: {}\r\n\r\n", gateway.admin);
            // More than once, so that what is not read fills the socket's buffers.
            for _ in 0..20 {
                stream.write_all(head.as_bytes()).expect("taken");
            }
            stream
        })
        .collect();
    let requests = 40;
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..10 {
                    let reply = curl(&url(&gateway)).args(["-H", OPEN]).send();
                    assert_eq!(reply.status, 200);
                    assert!(reply.text().ends_with("# EOF\n"));
                }
            });
        }
        let mut stream = connect(gateway.http);
        for _ in 0..requests {
            let head = "GET / HTTP/1.1\r\nHost: plain.test\r\n\r\n";
            stream.write_all(head.as_bytes()).expect("taken");
            let reply = read_response(&mut stream).expect("a response");
            assert_eq!(reply.status, 200);
        }
    });
    let counted = r#"snigate_requests_total{site="plain.test",status="2xx"}"#;
    assert_eq!(gateway.metric(counted), Some(f64::from(requests)));
    let upstream = r#"snigate_upstream_first_byte_seconds_count{upstream="app"}"#;
    assert_eq!(gateway.metric(upstream), Some(f64::from(requests)));
    stalled.clear();
}

/// However many parts it comes in.
#[test]
fn each_response_is_timed_once() {
    let origin = Origin::start(|_| {
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        let part = [
            Act::Pause(Duration::from_millis(5)),
            Act::send("1\r\nx\r\n"),
        ];
        let parts = std::iter::repeat_n(part, 10).flatten();
        let begin = std::iter::once(Act::send(head));
        begin.chain(parts).chain([Act::send("0\r\n\r\n")]).collect()
    });
    let gateway = serving_app(origin.address()).start();
    let reply = TlsClient::named("a.test")
        .connect(gateway.https)
        .get("a.test", "/");
    assert_eq!(reply.text(), "x".repeat(10));
    for name in ["duration", "first_byte"] {
        let count = format!("snigate_upstream_{name}_seconds_count{{upstream=\"app\"}}");
        let counted = wait_for("the count", || {
            gateway.metric(&count).filter(|count| *count > 0.0)
        });
        assert_eq!(counted, 1.0, "{name}");
    }
}

/// Every reason in the access log is one in the metrics.
#[test]
fn refusals_in_the_log_and_in_the_metrics_agree() {
    let origin = Origin::named("app");
    let site = format!(
        "upstreams: {{ app: {{ servers: [\"{}\"] }} }}\n\
         sites:\n\
         - hosts: [plain.test]\n  tls: off\n  routes:\n\
         \x20 - {{ path: /get, methods: [GET], upstream: app }}\n\
         \x20 - {{ path: /closed, deny: [\"0.0.0.0/0\"], upstream: app }}\n\
         log: {{ access: access.log, format: json }}\n",
        origin.address()
    );
    let gateway = Gateway::start(site);
    let refused = [
        ("GET / HTTP/1.1\r\nHost: plain.test", "no_route"),
        (
            "POST /get HTTP/1.1\r\nContent-Length: 0\r\nHost: plain.test",
            "method",
        ),
        ("GET /closed HTTP/1.1\r\nHost: plain.test", "forbidden"),
        ("GET / HTTP/1.1\r\nHost: other.test", "unknown_host"),
        ("GET / HTTP/1.1\r\nHost: a b", "invalid"),
        ("TRACE / HTTP/1.1\r\nHost: plain.test", "invalid"),
    ];
    for (head, _) in refused {
        let mut stream = connect(gateway.http);
        let head = format!("{head}\r\nConnection: close\r\n\r\n");
        exchange(&mut stream, &head);
    }
    for (_, reason) in refused {
        let expected = refused.iter().filter(|(_, other)| *other == reason).count();
        let metric = format!("snigate_requests_refused_total{{reason={reason:?}}}");
        assert_eq!(gateway.metric(&metric), Some(expected as f64), "{reason}");
        let log = wait_for("the log", || {
            let log = std::fs::read_to_string(gateway.dir().join("access.log")).ok()?;
            (log.lines().count() == refused.len()).then_some(log)
        });
        let member = format!("\"refused\":{reason:?}");
        assert_eq!(log.matches(&member).count(), expected, "{reason}: {log}");
    }
}
