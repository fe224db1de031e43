//! Many slow clients at once, and one that is not.

use std::io::Write;
use std::time::{Duration, Instant};

use super::{SECOND, limited};
use crate::support::{Act, Frame, Frames, Gateway, Origin, TlsClient, connect, within};

/// How many of each kind.
const EACH: usize = 50;

/// What a slow client may cost.
const MEMORY: u64 = 64 * 1024;

/// A slow client, held open for as long as it lives.
type Slow = Box<dyn Send>;

/// Every kind of slowness.
fn slow(kind: usize, gateway: &Gateway) -> Slow {
    match kind {
        // A handshake that never begins.
        0 => Box::new(connect(gateway.https)),
        // A head without end.
        1 => {
            let mut stream = TlsClient::named("a.test").connect(gateway.https);
            let begun = format!("GET / HTTP/1.1\r\nHost: a.test\r\nX: {}", "x".repeat(500));
            stream.write_all(begun.as_bytes()).expect("taken");
            Box::new(stream)
        }
        // A connection that is kept for later.
        2 => {
            let mut stream = TlsClient::named("a.test").connect(gateway.https);
            assert_eq!(stream.get("a.test", "/").status, 200);
            Box::new(stream)
        }
        // Fields without end.
        _ => {
            let mut frames = Frames::connect(gateway.https, "a.test", &[]);
            let fields = Frame::get(1, "a.test", "/").payload;
            frames.send(&Frame::new(Frame::HEADERS, 0, 1, fields));
            Box::new(frames)
        }
    }
}

#[test]
fn two_hundred_slow_clients_cost_little_and_hinder_nobody() {
    let origin = Origin::start(|_| vec![Act::respond(200, "x")]);
    let gateway = limited(&origin, "handshake: 120s, header_read: 120s, idle: 120s");
    // What is paid once, by whoever comes first.
    for kind in (0..4).cycle().take(40) {
        drop(slow(kind, &gateway));
    }
    within(SECOND * 10, "all to be gone", || {
        (gateway.metric("snigate_connections{listener=\"https\"}") == Some(0.0)).then_some(())
    });
    let before = gateway.memory();
    let crowd: Vec<Slow> = (0..4 * EACH)
        .map(|number| slow(number % 4, &gateway))
        .collect();
    let mut worst = Duration::ZERO;
    for version in ["--http1.1", "--http2"].into_iter().cycle().take(20) {
        let start = Instant::now();
        let reply = gateway
            .curl("a.test", "/")
            .args([version, "--insecure"])
            .send();
        assert_eq!(reply.status, 200);
        worst = worst.max(start.elapsed());
    }
    assert!(worst < SECOND, "an innocent client waited {worst:?}");
    let each = gateway.memory().saturating_sub(before) / crowd.len() as u64;
    assert!(each <= MEMORY, "{each} octets for each slow client");
    drop(crowd);
}
