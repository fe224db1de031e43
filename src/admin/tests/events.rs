//! The stream of events, over a connection as the listener serves it.

use crate::clock::unix;
use tokio::io::{BufReader, DuplexStream, Lines};
use tokio::task::JoinHandle;

use super::*;
use crate::admin::listener::{LIFETIME, WRITE, serve_connection};
use crate::event::{Event, EventKind, Severity};

fn event(kind: EventKind, domain: &str) -> Event {
    Event::new(
        unix(1_700_000_000),
        kind,
        Severity::Info,
        domain,
        "a message",
    )
}

/// A connection that has requested the events of a path.
struct Subscription {
    lines: Lines<BufReader<DuplexStream>>,
    served: JoinHandle<()>,
    stop: watch::Sender<bool>,
}

async fn subscribe(router: &Router, path: &str) -> Subscription {
    use tokio::io::AsyncBufReadExt;

    let (mut client, server) = tokio::io::duplex(64 * 1024);
    let (stop, stopped) = watch::channel(false);
    let served = tokio::spawn(serve_connection(Box::new(server), router.clone(), stopped));
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    client.write_all(request.as_bytes()).await.expect("sent");
    Subscription {
        lines: BufReader::new(client).lines(),
        served,
        stop,
    }
}

impl Subscription {
    async fn status(&mut self) -> u16 {
        let line = self.lines.next_line().await.expect("readable");
        let line = line.expect("an answer");
        line.split(' ')
            .nth(1)
            .and_then(|code| code.parse().ok())
            .expect("a status")
    }

    /// The rest of the next line with this beginning; `None` at the end.
    async fn next(&mut self, field: &str) -> Option<String> {
        loop {
            let line = self.lines.next_line().await.ok()??;
            if let Some(value) = line.strip_prefix(field) {
                return Some(value.to_owned());
            }
        }
    }

    async fn event(&mut self) -> EventView {
        let data = self.next("data: ").await.expect("an event");
        serde_json::from_str(&data).expect("an event")
    }
}

#[tokio::test]
async fn what_is_kept_comes_first_then_what_happens() {
    let (control, state) = admin(Fake::default());
    let bus = &control.events;
    bus.emit(event(EventKind::CertificateObtained, "a.example"));
    bus.emit(event(EventKind::StorageFailed, ""));
    let router = router(state);
    let mut all = subscribe(&router, "/api/v1/events").await;
    assert_eq!(all.status().await, 200);
    assert_eq!(
        all.next("content-type: ").await.as_deref(),
        Some("text/event-stream")
    );
    let first = all.event().await;
    assert_eq!(first.kind, EventKind::CertificateObtained);
    assert_eq!(all.event().await.kind, EventKind::StorageFailed);
    let mut live = subscribe(&router, "/api/v1/events?live=true").await;
    assert_eq!(live.status().await, 200);
    bus.emit(event(EventKind::CertificateRenewed, "a.example"));
    assert_eq!(all.event().await.kind, EventKind::CertificateRenewed);
    assert_eq!(live.event().await.kind, EventKind::CertificateRenewed);

    let mut wrong = subscribe(&router, "/api/v1/events?live=perhaps").await;
    assert_eq!(wrong.status().await, 400);
    assert_eq!(
        wrong.next("content-type: ").await.as_deref(),
        Some("application/problem+json")
    );
}

#[tokio::test]
async fn times_are_told_as_everywhere() {
    let (control, state) = admin(Fake::default());
    control.events.emit(event(EventKind::StorageFailed, ""));
    let mut all = subscribe(&router(state), "/api/v1/events").await;
    let data = all.next("data: ").await.expect("an event");
    let data: Value = serde_json::from_str(&data).expect("JSON");
    assert_eq!(data["at"], "2023-11-14T22:13:20Z");
    assert_eq!(data["kind"], "storage_failed");
}

#[tokio::test]
async fn a_name_gets_the_events_of_its_certificates_alone() {
    let names = vec!["a.example".to_owned(), "*.b.example".to_owned()];
    let (control, state) = admin(Fake {
        views: vec![CertificateView::missing(names)],
        ..Fake::default()
    });
    let router = router(state);
    let mut of_a = Vec::new();
    for name in ["A.example", "x.b.example", "*.b.example"] {
        let path = format!("/api/v1/events?domain={name}");
        let mut subscription = subscribe(&router, &path).await;
        assert_eq!(subscription.status().await, 200);
        of_a.push(subscription);
    }
    let mut of_c = subscribe(&router, "/api/v1/events?domain=c.example").await;
    assert_eq!(of_c.status().await, 200);
    for domain in ["c.example", "", "a.example"] {
        control
            .events
            .emit(event(EventKind::CertificateObtaining, domain));
    }
    for subscription in &mut of_a {
        assert_eq!(subscription.event().await.domain, "a.example");
    }
    assert_eq!(of_c.event().await.domain, "c.example");
}

#[tokio::test]
async fn a_stream_ends_with_the_gateway() {
    let (_, state) = admin(Fake::default());
    let mut all = subscribe(&router(state), "/api/v1/events").await;
    assert_eq!(all.status().await, 200);
    all.stop.send(true).expect("served");
    // Complete, with the last chunk.
    assert_eq!(all.next("0").await.as_deref(), Some(""));
    all.served.await.expect("no panic");
}

#[tokio::test]
async fn only_so_many_may_listen() {
    let (_, state) = admin(Fake::default());
    let router = router(state);
    let mut all = Vec::new();
    loop {
        let mut next = subscribe(&router, "/api/v1/events").await;
        match next.status().await {
            200 => all.push(next),
            503 => break,
            status => panic!("{status}"),
        }
        assert!(all.len() < 100, "some bound");
    }
    // A subscriber that leaves makes room.
    let gone = all.pop().expect("someone");
    drop(gone.lines);
    gone.served.await.expect("no panic");
    let mut next = subscribe(&router, "/api/v1/events").await;
    assert_eq!(next.status().await, 200);
}

#[tokio::test(start_paused = true)]
async fn a_stream_outlives_other_connections() {
    let (control, state) = admin(Fake::default());
    let router = router(state);
    let mut all = subscribe(&router, "/api/v1/events").await;
    assert_eq!(all.status().await, 200);
    let idle = subscribe(&router, "/healthz").await;
    tokio::time::sleep(3 * LIFETIME).await;
    assert!(idle.served.is_finished());
    control
        .events
        .emit(event(EventKind::CertificateRenewed, "a.example"));
    assert_eq!(all.event().await.kind, EventKind::CertificateRenewed);
}

#[tokio::test(start_paused = true)]
async fn whoever_does_not_read_is_let_go() {
    let (control, state) = admin(Fake::default());
    let (mut client, server) = tokio::io::duplex(64);
    let (_stop, stopped) = watch::channel(false);
    let served = tokio::spawn(serve_connection(Box::new(server), router(state), stopped));
    let request = b"GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n";
    client.write_all(request).await.expect("sent");
    control
        .events
        .emit(event(EventKind::CertificateRenewed, "a.example"));
    let start = tokio::time::Instant::now();
    served.await.expect("no panic");
    assert!(start.elapsed() < 2 * WRITE, "{:?}", start.elapsed());
    drop(client);
}

#[tokio::test]
async fn a_slow_reader_is_told_what_it_missed() {
    let (control, state) = admin(Fake::default());
    let mut all = subscribe(&router(state), "/api/v1/events?live=true").await;
    assert_eq!(all.status().await, 200);
    // More events than are buffered for it, before it has had a chance to read any.
    for _ in 0..5_000 {
        control
            .events
            .emit(event(EventKind::CertificateProgress, "a.example"));
    }
    control
        .events
        .emit(event(EventKind::CertificateRenewed, "a.example"));
    assert_eq!(all.next("event: ").await.as_deref(), Some("lost"));
    let lost = all.next("data: ").await.expect("a number");
    let lost: Value = serde_json::from_str(&lost).expect("JSON");
    assert!(lost["lost"].as_u64().is_some_and(|lost| lost > 0), "{lost}");
    while all.event().await.kind != EventKind::CertificateRenewed {}
}
