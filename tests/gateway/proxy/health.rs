//! Health checks: what servers see of them, and what clients have of them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::{VERSIONS, over, states, upstream_config, wait_for_state, with_upstream};
use crate::support::{Act, Gateway, Origin, Received, wait_for};

/// Whether a request is a check.
fn is_check(request: &Received) -> bool {
    request.line() == "GET /healthz HTTP/1.1"
}

/// An origin that says that it is healthy, or not, and serves other requests in any case.
fn checked() -> (Origin, Arc<AtomicBool>) {
    let healthy = Arc::new(AtomicBool::new(true));
    let set = Arc::clone(&healthy);
    let origin = Origin::start(move |request| {
        let status = match is_check(request) && !set.load(Ordering::Relaxed) {
            true => 500,
            false => 200,
        };
        vec![Act::respond(status, "x")]
    });
    (origin, healthy)
}

/// How many requests of clients an origin has had.
fn served(origin: &Origin) -> usize {
    let requests = origin.requests();
    requests.iter().filter(|one| !is_check(one)).count()
}

fn gauge(gateway: &Gateway, address: SocketAddr) -> Option<f64> {
    let name = format!("snigate_upstream_healthy{{server=\"{address}\",upstream=\"app\"}}");
    gateway.metric(&name)
}

fn keys(origins: [SocketAddr; 2]) -> String {
    let [one, other] = origins;
    format!(
        "servers: [\"{one}\", \"{other}\"], health: {{ path: /healthz, every: 100ms, \
         healthy: 2, unhealthy: 3, host: app.internal }}"
    )
}

#[test]
fn a_server_whose_checks_fail_gets_nothing_until_they_succeed() {
    let ((first, healthy), (second, _)) = (checked(), checked());
    let (one, other) = (first.address(), second.address());
    let gateway = with_upstream(&keys([one, other])).start();
    wait_for("gauges", || {
        (gauge(&gateway, one)? + gauge(&gateway, other)? == 2.0).then_some(())
    });
    let checks = first.wait_for_requests(3);
    for check in &checks {
        assert!(is_check(check), "{check:?}");
        assert_eq!(check.header("host"), Some("app.internal"));
        assert_eq!(check.header("connection"), Some("close"));
        assert_eq!(check.number, 0, "each has its own connection");
    }

    healthy.store(false, Ordering::Relaxed);
    let took = wait_for_state(&gateway, one, "down");
    eprintln!("unhealthy after {took:?}");
    assert_eq!(
        (gauge(&gateway, one), gauge(&gateway, other)),
        (Some(0.0), Some(1.0))
    );
    gateway.wait_for_log("upstream_down");
    gateway.wait_for_log("the response has the status 500");
    let before = served(&first);
    for version in VERSIONS {
        for _ in 0..4 {
            assert_eq!(over(version, &gateway, "a.test", "/").send().status, 200);
        }
    }
    assert_eq!(served(&first), before);

    healthy.store(true, Ordering::Relaxed);
    let took = wait_for_state(&gateway, one, "up");
    eprintln!("healthy after {took:?}");
    assert_eq!(gauge(&gateway, one), Some(1.0));
    gateway.wait_for_log("upstream_up");
    for _ in 0..4 {
        over("1.1", &gateway, "a.test", "/").send();
    }
    assert_eq!(served(&first), before + 2);
}

#[test]
fn without_a_healthy_server_requests_are_sent_all_the_same() {
    let ((first, one_healthy), (second, other_healthy)) = (checked(), checked());
    let gateway = with_upstream(&keys([first.address(), second.address()])).start();
    for healthy in [&one_healthy, &other_healthy] {
        healthy.store(false, Ordering::Relaxed);
    }
    for origin in [&first, &second] {
        wait_for_state(&gateway, origin.address(), "down");
    }
    for version in VERSIONS {
        for _ in 0..2 {
            assert_eq!(over(version, &gateway, "a.test", "/").send().status, 200);
        }
    }
    let both = [served(&first), served(&second)];
    assert_eq!(both, [VERSIONS.len(); 2], "they take turns");
    gateway.wait_for_log("and so are all others");
    other_healthy.store(true, Ordering::Relaxed);
    wait_for_state(&gateway, second.address(), "up");
    for _ in 0..2 {
        assert_eq!(over("1.1", &gateway, "a.test", "/").send().status, 200);
    }
    assert_eq!(served(&first), both[0]);
}

#[test]
fn without_a_server_that_works_clients_get_502() {
    let dead = Origin::refusing().address();
    let gateway = with_upstream(&format!(
        "servers: [\"{dead}\"], health: {{ tcp: true, every: 100ms, unhealthy: 1 }}"
    ))
    .start();
    wait_for_state(&gateway, dead, "down");
    for version in VERSIONS {
        assert_eq!(over(version, &gateway, "a.test", "/").send().status, 502);
    }
}

#[test]
fn a_reload_that_changes_an_upstream_keeps_what_is_down() {
    let ((first, healthy), (second, _)) = (checked(), checked());
    let addresses = [first.address(), second.address()];
    let keys = keys(addresses);
    let mut gateway = with_upstream(&keys).start();
    healthy.store(false, Ordering::Relaxed);
    wait_for_state(&gateway, addresses[0], "down");
    let before = served(&first);
    let changed = keys.replacen(
        &format!("\"{}\"", addresses[0]),
        &format!("{{ address: \"{}\", weight: 3 }}", addresses[0]),
        1,
    );
    let certificates = "certificates: [{ directory: certs }]\n";
    gateway.replace_config(format!("{certificates}{}", upstream_config(&changed)));
    assert_eq!(gateway.reload().0, 200);
    for _ in 0..8 {
        assert_eq!(over("1.1", &gateway, "a.test", "/").send().status, 200);
    }
    assert_eq!(states(&gateway)[&addresses[0]], "down");
    assert_eq!(served(&first), before);
    healthy.store(true, Ordering::Relaxed);
    wait_for_state(&gateway, addresses[0], "up");
}

#[test]
fn a_dead_server_is_found_before_a_request_is() {
    let (dead, alive) = (Origin::refusing(), Origin::named("x"));
    let gateway = with_upstream(&format!(
        "servers: [\"{}\", \"{}\"], health: {{ tcp: true, every: 100ms, unhealthy: 1 }}",
        dead.address(),
        alive.address()
    ))
    .start();
    let took = wait_for_state(&gateway, dead.address(), "down");
    eprintln!("unhealthy after {took:?}");
    for _ in 0..4 {
        assert_eq!(over("1.1", &gateway, "a.test", "/").send().status, 200);
    }
    let failed = "snigate_upstream_attempts_total{result=\"connect_failed\",upstream=\"app\"}";
    assert_eq!(gateway.metric(failed), Some(0.0));
    assert_eq!(states(&gateway)[&alive.address()], "up");
}

#[test]
fn a_server_that_is_slow_or_sends_anything_else_is_not_healthy() {
    let slow = Origin::start(|request| match is_check(request) {
        true => vec![Act::Pause(Duration::from_secs(1)), Act::respond(200, "x")],
        false => vec![Act::respond(200, "x")],
    });
    let endless = Origin::start(|request| match is_check(request) {
        true => vec![Act::send(format!(
            "HTTP/1.1 200 OK\r\nA: {}",
            "a".repeat(100_000)
        ))],
        false => vec![Act::respond(200, "x")],
    });
    let garbage = Origin::raw("220 mail.example ESMTP\r\n\r\n");
    for (origin, reason) in [
        (slow, "no response within 200ms"),
        (endless, "the head of the response is too long"),
        (garbage, "the response is not HTTP/1"),
    ] {
        let alive = checked().0;
        let gateway = with_upstream(&format!(
            "servers: [\"{}\", \"{}\"], health: {{ path: /healthz, every: 100ms, \
             timeout: 200ms, unhealthy: 2 }}",
            origin.address(),
            alive.address()
        ))
        .start();
        wait_for_state(&gateway, origin.address(), "down");
        gateway.wait_for_log(reason);
    }
}

#[test]
fn a_reload_keeps_what_is_known_and_stops_what_is_gone() {
    let ((first, healthy), (second, _)) = (checked(), checked());
    let one = first.address();
    let keys = keys([one, second.address()]);
    let mut gateway = with_upstream(&keys).start();
    healthy.store(false, Ordering::Relaxed);
    wait_for_state(&gateway, one, "down");

    let certificates = "certificates: [{ directory: certs }]\n";
    let same = upstream_config(&keys).replace("access: off", "access: off, level: debug");
    gateway.replace_config(format!("{certificates}{same}"));
    assert_eq!(gateway.reload().0, 200);
    assert_eq!(states(&gateway)[&one], "down");
    assert_eq!(gauge(&gateway, one), Some(0.0));

    let unchecked = format!("servers: [\"{one}\", \"{}\"]", second.address());
    gateway.replace_config(format!("{certificates}{}", upstream_config(&unchecked)));
    assert_eq!(gateway.reload().0, 200);
    assert_eq!(states(&gateway)[&one], "up");
    wait_for("the gauge to go", || {
        gauge(&gateway, one).is_none().then_some(())
    });
    // Nothing is to happen, for several times as long as the time between two checks.
    let (before, start) = (first.requests().len(), Instant::now());
    while start.elapsed() < Duration::from_millis(500) {
        assert!(first.requests().len() <= before + 1, "checks continue");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(gateway.stop().success());
}
