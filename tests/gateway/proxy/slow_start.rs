//! Servers whose share rises after they have come up.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use super::{wait_for_state, with_upstream};
use crate::support::{Act, Origin, TlsClient};

#[test]
fn a_server_whose_checks_succeed_again_gets_its_share_little_by_little() {
    let works = Arc::new(AtomicBool::new(true));
    let checked = Arc::clone(&works);
    let back = Origin::start(move |request| {
        let fails = request.line().contains("/healthz") && !checked.load(Ordering::Relaxed);
        vec![Act::respond(if fails { 500 } else { 200 }, "back")]
    });
    let steady = Origin::named("steady");
    for balance in ["round_robin", "least_requests"] {
        let gateway = with_upstream(&format!(
            "servers: [\"{}\", \"{}\"], balance: {balance}, slow_start: 4s, \
             health: {{ path: /healthz, every: 100ms, healthy: 1, unhealthy: 1 }}",
            back.address(),
            steady.address()
        ))
        .start();
        let mut stream = TlsClient::named("a.test").connect(gateway.https);
        let mut share = || {
            let start = Instant::now();
            let bodies = (0..100).map(|_| stream.get("a.test", "/").text());
            let count = bodies.filter(|body| body == "back").count();
            eprintln!(
                "{balance}: {count} of 100 requests in {:?}",
                start.elapsed()
            );
            count
        };
        assert_eq!(share(), 50, "nothing has come up since the start");
        works.store(false, Ordering::Relaxed);
        wait_for_state(&gateway, back.address(), "down");
        assert_eq!(share(), 0);
        works.store(true, Ordering::Relaxed);
        wait_for_state(&gateway, back.address(), "up");
        let first = share();
        assert!((1..45).contains(&first), "{first}");
        let mut last = first;
        let start = Instant::now();
        while last < 50 {
            assert!(start.elapsed().as_secs() < 30, "{last}");
            last = share();
        }
    }
}
