//! Collectors that fail, hang, or are not the right ones.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::{collector, get, sites, spans, taken, traced};
use crate::support::{Act, Ca, Origin, TlsOrigin, serving, wait_for};

#[test]
fn a_collector_that_fails_gets_the_spans_later() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counting = Arc::clone(&asked);
    let collector = Origin::start(move |_| match counting.fetch_add(1, Ordering::Relaxed) {
        0 => vec![Act::send(
            "HTTP/1.1 503 Busy\r\nRetry-After: 0\r\nContent-Length: 0\r\n\r\n",
        )],
        1 => vec![Act::Reset],
        _ => vec![taken()],
    });
    let app = Origin::named("app");
    let gateway = traced(&app, &collector, "sample: 1").start();
    assert_eq!(get(&gateway, "/").send().status, 200);
    wait_for("the third attempt", || {
        (asked.load(Ordering::Relaxed) == 3).then_some(())
    });
    let bodies: Vec<_> = collector
        .requests()
        .into_iter()
        .map(|one| one.body)
        .collect();
    assert!(
        bodies.iter().all(|body| *body == bodies[0]),
        "the same spans"
    );
    let exported = "snigate_trace_spans_total{result=\"exported\"}";
    wait_for("the count", || {
        (gateway.metric(exported) == Some(2.0)).then_some(())
    });
}

#[test]
fn a_collector_that_asks_for_an_eternity_gets_the_spans_at_the_end() {
    let asked = AtomicUsize::new(0);
    let collector = Origin::start(move |_| match asked.fetch_add(1, Ordering::Relaxed) {
        0 => vec![Act::send(format!(
            "HTTP/1.1 429 Busy\r\nRetry-After: {}\r\nContent-Length: 0\r\n\r\n",
            u64::MAX
        ))],
        _ => vec![taken()],
    });
    let app = Origin::named("app");
    let mut gateway = traced(&app, &collector, "sample: 1").start();
    assert_eq!(get(&gateway, "/").send().status, 200);
    collector.wait_for_requests(1);
    assert!(gateway.stop().success());
    assert_eq!(collector.requests().len(), 2);
}

#[test]
fn a_collector_is_verified_by_its_ca() {
    let (app, ca) = (Origin::named("app"), Ca::new("Collectors"));
    let collector = TlsOrigin::start(&ca.leaf(&["localhost"]).make());
    let port = collector.address().port();
    for (root, is_trusted) in [(&ca, true), (&Ca::new("Others"), false)] {
        let tracing = format!(
            "tracing: {{ endpoint: \"https://localhost:{port}\", sample: 1, \
             ca_file: collectors.pem }}\n"
        );
        let builder = serving(&[&["a.test"]], tracing + &sites(&app));
        fs::write(builder.dir().join("collectors.pem"), root.pem()).expect("written");
        let mut gateway = builder.start();
        let before = collector.names().len();
        assert_eq!(get(&gateway, "/").send().status, 200);
        if is_trusted {
            let exported = "snigate_trace_spans_total{result=\"exported\"}";
            wait_for("the spans", || {
                (gateway.metric(exported) == Some(2.0)).then_some(())
            });
        }
        // It tries once more.
        assert!(gateway.stop().success());
        let connections = collector.names().len() - before;
        assert_eq!(connections > 0, is_trusted, "{connections}");
    }
}

#[test]
fn a_collector_that_hangs_holds_up_nobody() {
    let collector = Origin::start(|_| vec![Act::Hold]);
    let app = Origin::named("app");
    let mut gateway = traced(&app, &collector, "sample: 1").start();
    assert_eq!(get(&gateway, "/").send().status, 200);
    wait_for("the attempt", || {
        (!collector.requests().is_empty()).then_some(())
    });
    for _ in 0..20 {
        let reply = get(&gateway, "/").args(["--max-time", "5"]).send();
        assert_eq!(reply.status, 200);
    }
    assert!(gateway.stop().success());
}

#[test]
fn the_last_spans_are_exported_at_the_end() {
    let (app, collector) = (Origin::named("app"), collector());
    let mut gateway = traced(&app, &collector, "sample: 1").start();
    assert_eq!(get(&gateway, "/last").send().status, 200);
    assert!(gateway.stop().success());
    spans(&collector, 2);
}
