//! What a client may take: time, connections, memory.

mod back_pressure;
mod connections;
mod descriptors;
mod floods;
mod http1;
mod http2;
mod lines;
mod rates;
mod slow_clients;
mod upstreams;

use std::io::Read;
use std::time::{Duration, Instant};

use crate::support::{Gateway, Origin, PATIENCE, is_end, serving_app};

const SECOND: Duration = Duration::from_secs(1);

/// A gateway that is short of patience, with these limits; `plain.test` is served without TLS.
#[track_caller]
fn limited(origin: &Origin, limits: &str) -> Gateway {
    serving_app(origin.address())
        .server(&format!("limits: {{ {limits} }}"))
        .start()
}

/// Reads until the other side closes; what came, and how long it took since `start`.
#[track_caller]
fn closed_after(stream: &mut impl Read, start: Instant) -> (Vec<u8>, Duration) {
    let mut all = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => all.extend_from_slice(&buffer[..count]),
            Err(error) if is_end(&error) => break,
            Err(error) => panic!("not closed within {PATIENCE:?}: {error}"),
        }
    }
    (all, start.elapsed())
}

/// Checks that a limit of one second was kept, with room for a busy machine.
#[track_caller]
fn about_a_second(took: Duration) {
    assert!(took >= SECOND * 9 / 10, "cut too early: {took:?}");
    assert!(took < SECOND * 6, "cut too late: {took:?}");
}
