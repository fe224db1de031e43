//! Which server gets a request, by the upstream's configuration, and which get none for a while.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;
use std::time::Duration;

use super::{VERSIONS, over, states, wait_for_state, with_upstream};
use crate::support::{Act, Gateway, H2, Origin, TlsClient, serving, wait_for};

/// An origin that answers with the status that is set at the time.
fn with_status() -> (Origin, Arc<AtomicU16>) {
    let status = Arc::new(AtomicU16::new(200));
    let set = Arc::clone(&status);
    let answer = move || vec![Act::respond(set.load(Ordering::Relaxed), "x")];
    (Origin::start(move |_| answer()), status)
}

/// Sends so many requests over one connection and returns their statuses.
fn send(gateway: &Gateway, count: usize) -> Vec<u16> {
    let mut stream = TlsClient::named("a.test").connect(gateway.https);
    (0..count)
        .map(|_| stream.get("a.test", "/").status)
        .collect()
}

/// A request in a thread of its own, whose end is its status and body.
fn send_aside(gateway: &Gateway, path: &'static str) -> thread::JoinHandle<(u16, String)> {
    let mut stream = TlsClient::named("a.test").connect(gateway.https);
    thread::spawn(move || {
        let response = stream.get("a.test", path);
        (response.status, response.text())
    })
}

#[test]
fn the_configuration_says_which_statuses_eject_a_server() {
    let ((bad, status), good) = (with_status(), Origin::named("x"));
    for (statuses, is_ejected) in [("502-504", false), ("500-599", true)] {
        let gateway = with_upstream(&format!(
            "servers: [\"{}\", \"{}\"], eject: {{ failures: 3, status: \"{statuses}\" }}",
            bad.address(),
            good.address()
        ))
        .start();
        status.store(500, Ordering::Relaxed);
        send(&gateway, 20);
        let expected = if is_ejected { "ejected" } else { "up" };
        assert_eq!(states(&gateway)[&bad.address()], expected, "{statuses}");
    }
}

#[test]
fn a_server_that_answers_503_is_ejected_and_comes_back() {
    let ((bad, status), good) = (with_status(), Origin::named("x"));
    let gateway = with_upstream(&format!(
        "servers: [\"{}\", \"{}\"], eject: {{ failures: 3, within: 10s, for: 500ms }}",
        bad.address(),
        good.address()
    ))
    .start();
    status.store(503, Ordering::Relaxed);
    let statuses = send(&gateway, 20);
    let failed = statuses.iter().filter(|status| **status == 503).count();
    assert!((3..=4).contains(&failed), "{statuses:?}");
    assert_eq!(
        gateway.metric("snigate_upstream_ejections_total{upstream=\"app\"}"),
        Some(1.0)
    );
    gateway.wait_for_log("an upstream server is ejected");
    assert_eq!(states(&gateway)[&bad.address()], "ejected");
    status.store(200, Ordering::Relaxed);
    wait_for("it to be used again", || {
        assert_eq!(send(&gateway, 2), [200, 200]);
        (states(&gateway)[&bad.address()] == "up").then_some(())
    });
    let before = bad.requests().len();
    send(&gateway, 10);
    assert_eq!(bad.requests().len(), before + 5);
}

#[test]
fn a_server_that_keeps_failing_is_tried_less_and_less() {
    let ((bad, status), good) = (with_status(), Origin::named("x"));
    let gateway = with_upstream(&format!(
        "servers: [\"{}\", \"{}\"], eject: {{ failures: 1, within: 10s, for: 100ms }}",
        bad.address(),
        good.address()
    ))
    .start();
    status.store(502, Ordering::Relaxed);
    // 100 + 200 + 400 + 800 ms lie between the first five requests.
    let start = std::time::Instant::now();
    let mut stream = TlsClient::named("a.test").connect(gateway.https);
    while bad.requests().len() < 5 {
        assert!(start.elapsed() < Duration::from_secs(30));
        stream.get("a.test", "/");
    }
    let took = start.elapsed();
    eprintln!("the fifth request came after {took:?}");
    assert!(took >= Duration::from_millis(1500), "{took:?}");
}

#[test]
fn a_server_that_is_silent_or_dies_is_ejected() {
    for bad in [Origin::silent(), Origin::resetting()] {
        let good = Origin::named("x");
        let gateway = serving(
            &[&["a.test"]],
            format!(
                "upstreams: {{ app: {{ servers: [\"{}\", \"{}\"], \
                 eject: {{ failures: 2, within: 1m, for: 1m }} }} }}\n\
                 sites: [{{ hosts: [a.test], routes: [{{ upstream: app, retries: 0, \
                 timeout: {{ read: 200ms }} }}] }}]\n",
                bad.address(),
                good.address()
            ),
        )
        .start();
        let start = std::time::Instant::now();
        let statuses = send(&gateway, 12);
        eprintln!("{statuses:?} in {:?}", start.elapsed());
        let failed = statuses.iter().filter(|status| **status != 200).count();
        assert_eq!(failed, 2, "{statuses:?}");
        assert_eq!(states(&gateway)[&bad.address()], "ejected");
    }
}

#[test]
fn a_client_that_stalls_gets_no_server_ejected() {
    let (one, other) = (Origin::named("x"), Origin::named("y"));
    let gateway = serving(
        &[&["a.test"]],
        format!(
            "upstreams: {{ app: {{ servers: [\"{}\", \"{}\"], \
             eject: {{ failures: 1, within: 1m, for: 1m }} }} }}\n\
             sites: [{{ hosts: [a.test], routes: [{{ upstream: app, \
             timeout: {{ total: 300ms }} }}] }}]\n",
            one.address(),
            other.address()
        ),
    )
    .over_own_lane()
    .start();
    for _ in 0..2 {
        let mut stream = TlsClient::named("a.test").connect(gateway.https);
        let reply =
            stream.request("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 100\r\n\r\nabc");
        assert_eq!(reply.status, 408);
        let mut h2 = H2::connect(gateway.https, "a.test");
        let request = h2.request("POST", "/").body(()).expect("a request");
        let (answer, mut body) = h2.begin(request, true);
        body.send_data("abc".into(), false).expect("open");
        let answer = h2.block_on(answer).expect("a response");
        assert_eq!(answer.status(), 408);
    }
    let states = states(&gateway);
    assert_eq!(states[&one.address()], "up");
    assert_eq!(states[&other.address()], "up");
}

#[test]
fn a_server_that_refuses_connections_costs_no_client_anything() {
    let (dead, good) = (Origin::refusing(), Origin::named("x"));
    let gateway = with_upstream(&format!(
        "servers: [\"{}\", \"{}\"], eject: {{ failures: 2, within: 1m, for: 1m }}",
        dead.address(),
        good.address()
    ))
    .start();
    for version in VERSIONS {
        for _ in 0..4 {
            assert_eq!(over(version, &gateway, "a.test", "/").send().status, 200);
        }
    }
    let failed = "snigate_upstream_attempts_total{result=\"connect_failed\",upstream=\"app\"}";
    assert_eq!(gateway.metric(failed), Some(2.0));
    wait_for_state(&gateway, dead.address(), "ejected");
}

#[test]
fn the_only_server_is_never_ejected() {
    let (bad, status) = with_status();
    let gateway = with_upstream(&format!(
        "servers: [\"{}\"], eject: {{ failures: 1, within: 1m, for: 1m }}",
        bad.address()
    ))
    .start();
    status.store(503, Ordering::Relaxed);
    assert_eq!(send(&gateway, 5), [503; 5]);
    status.store(200, Ordering::Relaxed);
    assert_eq!(send(&gateway, 5), [200; 5]);
}

#[test]
fn a_backup_serves_only_while_no_other_server_does() {
    let ((first, status), backup) = (with_status(), Origin::named("x"));
    let gateway = with_upstream(&format!(
        "servers: [\"{}\", {{ address: \"{}\", backup: true }}], \
         eject: {{ failures: 1, within: 1m, for: 2s }}",
        first.address(),
        backup.address()
    ))
    .start();
    assert_eq!(send(&gateway, 6), [200; 6]);
    assert_eq!((first.requests().len(), backup.requests().len()), (6, 0));
    status.store(503, Ordering::Relaxed);
    assert_eq!(send(&gateway, 1), [503]);
    status.store(200, Ordering::Relaxed);
    assert_eq!(send(&gateway, 1), [200]);
    assert_eq!(backup.requests().len(), 1);
    wait_for("the first to be back", || {
        let before = first.requests().len();
        send(&gateway, 1);
        (first.requests().len() > before).then_some(())
    });
    let before = backup.requests().len();
    send(&gateway, 6);
    assert_eq!(backup.requests().len(), before);
}

#[test]
fn a_busy_server_gets_fewer_requests() {
    let busy = Origin::start(|_| vec![Act::Hold, Act::respond(200, "busy")]);
    let free = Origin::named("free");
    let gateway = with_upstream(&format!(
        "servers: [\"{}\", \"{}\"], balance: least_requests",
        busy.address(),
        free.address()
    ))
    .start();
    let mut asides = Vec::new();
    while busy.requests().is_empty() {
        let before = free.requests().len();
        asides.push(send_aside(&gateway, "/"));
        wait_for("the request to arrive", || {
            (free.requests().len() > before || !busy.requests().is_empty()).then_some(())
        });
    }
    for version in VERSIONS {
        for _ in 0..5 {
            let reply = over(version, &gateway, "a.test", "/").send();
            assert_eq!((reply.status, &*reply.text()), (200, "free"));
        }
    }
    assert_eq!(busy.requests().len(), 1);
    busy.release();
    for aside in asides {
        assert_eq!(aside.join().expect("no panic").0, 200);
    }
    wait_for("no request to be in flight", || {
        let answer = gateway.ask("GET", "/api/v1/upstreams").text();
        (answer.matches("\"requests\":0").count() == 2).then_some(())
    });
}

#[test]
fn a_user_stays_at_a_server() {
    let origins = ["1", "2", "3"].map(Origin::named);
    let servers: Vec<String> = origins
        .iter()
        .map(|origin| format!("\"{}\"", origin.address()))
        .collect();
    let servers = servers.join(", ");
    for (balance, field) in [
        ("{ hash: { header: X-User } }", "X-User: "),
        ("{ hash: { cookie: id } }", "Cookie: theme=dark; id="),
    ] {
        let gateway = with_upstream(&format!("servers: [{servers}], balance: {balance}")).start();
        let server_of = |version: &str, user: usize| {
            let request = over(version, &gateway, "a.test", "/");
            let reply = request.args(["-H", &format!("{field}{user}")]).send();
            assert_eq!(reply.status, 200);
            reply.text()
        };
        let mut used: Vec<String> = (0..12)
            .map(|user| {
                let server = server_of("1.1", user);
                assert_eq!(server_of("2", user), server, "{balance} {user}");
                server
            })
            .collect();
        used.sort_unstable();
        used.dedup();
        assert!(used.len() > 1, "{used:?}");
    }
    let gateway = with_upstream(&format!(
        "servers: [{servers}], balance: {{ hash: client_ip }}"
    ))
    .start();
    let mut used: Vec<String> = (0..6)
        .map(|_| over("1.1", &gateway, "a.test", "/").send().text())
        .collect();
    used.dedup();
    assert_eq!(used.len(), 1);
}

#[test]
fn a_full_server_lets_requests_wait() {
    let origin = Origin::start(|_| vec![Act::Hold, Act::respond(200, "x")]);
    let gateway = serving(
        &[&["a.test"]],
        format!(
            "upstreams: {{ app: {{ servers: [\"{}\"], max_connections: 2 }} }}\n\
             sites: [{{ hosts: [a.test], routes: [\
             {{ path: /short, upstream: app, timeout: {{ connect: 200ms }} }}, \
             {{ upstream: app, timeout: {{ connect: 20s }} }}] }}]\n",
            origin.address()
        ),
    )
    .start();
    let mut asides: Vec<_> = (0..2).map(|_| send_aside(&gateway, "/")).collect();
    origin.wait_for_requests(2);
    for version in VERSIONS {
        let start = std::time::Instant::now();
        let reply = over(version, &gateway, "a.test", "/short").send();
        assert_eq!(reply.status, 503);
        assert_eq!(reply.header("retry-after"), Some("5"));
        eprintln!("refused after {:?}", start.elapsed());
        assert!(start.elapsed() >= Duration::from_millis(200));
    }
    let full = "snigate_upstream_attempts_total{result=\"full\",upstream=\"app\"}";
    assert_eq!(gateway.metric(full), Some(2.0));
    asides.extend((0..3).map(|_| send_aside(&gateway, "/")));
    assert_eq!(origin.requests().len(), 2, "no more at a time");
    origin.release();
    for aside in asides {
        assert_eq!(aside.join().expect("no panic").0, 200);
    }
    assert_eq!(origin.requests().len(), 5);
}

#[test]
fn what_a_full_server_cannot_take_goes_to_another() {
    let held = || Origin::start(|_| vec![Act::Hold, Act::respond(200, "x")]);
    let (small, large) = (held(), held());
    let gateway = with_upstream(&format!(
        "servers: [{{ address: \"{}\", max_connections: 1 }}, \"{}\"]",
        small.address(),
        large.address()
    ))
    .start();
    let asides: Vec<_> = (0..6).map(|_| send_aside(&gateway, "/")).collect();
    large.wait_for_requests(5);
    assert_eq!(small.requests().len(), 1);
    small.release();
    large.release();
    for aside in asides {
        assert_eq!(aside.join().expect("no panic").0, 200);
    }
}
