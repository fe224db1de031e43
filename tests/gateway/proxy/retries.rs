//! Requests that are sent to another server, and how many may be.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::{PINGORA, VERSIONS, over};
use crate::support::{Act, Builder, Origin, TlsClient, read_response, serving};

/// Begins a gateway whose `a.test` passes everything to these origins, with these keys of the route.
fn retrying(origins: &[&Origin], keys: &str) -> Builder {
    retrying_at(origins, "", keys)
}

/// The same with these keys of the upstream.
fn retrying_at(origins: &[&Origin], upstream: &str, keys: &str) -> Builder {
    let servers: Vec<String> = origins
        .iter()
        .map(|origin| format!("\"{}\"", origin.address()))
        .collect();
    serving(
        &[&["a.test"]],
        format!(
            "upstreams: {{ app: {{ servers: [{}]{upstream} }} }}\n\
             sites: [{{ hosts: [a.test], routes: [{{ upstream: app, {keys} }}] }}]\n\
             log: {{ access: off }}\n",
            servers.join(", ")
        ),
    )
}

/// An origin that answers with this status.
fn answering(status: u16) -> Origin {
    Origin::start(move |_| vec![Act::respond(status, "no")])
}

#[test]
fn a_response_with_a_status_is_retried_at_another_server() {
    for status in [502, 503, 504] {
        let (bad, good) = (answering(status), Origin::named("good"));
        let keys = format!("retries: {{ on: [{status}] }}");
        let own = retrying(&[&bad, &good], &keys).start();
        let other = retrying(&[&bad, &good], &keys)
            .over_own_lane()
            .run_by(&PINGORA)
            .start();
        for gateway in [own, other] {
            for version in VERSIONS {
                for method in ["GET", "PUT"] {
                    for _ in 0..2 {
                        let mut request = over(version, &gateway, "a.test", "/");
                        if method == "PUT" {
                            request = request.args(["-X", "PUT", "-d", "body"]);
                        }
                        let reply = request.send();
                        assert_eq!((reply.status, &*reply.text()), (200, "good"), "{version}");
                    }
                }
            }
            let sent = "snigate_upstream_retries_total{result=\"sent\",upstream=\"app\"}";
            assert!(gateway.metric(sent).is_some_and(|count| count >= 3.0));
        }
        let bodies = good.requests().into_iter();
        let mut bodies = bodies.filter(|request| request.line().starts_with("PUT"));
        assert!(bodies.all(|request| request.body == b"body"));
        assert!(!bad.requests().is_empty());
    }
}

#[test]
fn what_is_not_to_be_retried_is_passed_on() {
    let (bad, good) = (answering(503), Origin::named("good"));
    // (the route's retries, further arguments of curl)
    for (rules, arguments) in [
        ("1", ["-X", "GET"]),
        ("{ on: [connect, reset, timeout, 502, 504] }", ["-X", "GET"]),
        ("{ attempts: 0, on: [503] }", ["-X", "GET"]),
        ("{ on: [503] }", ["-d", "a POST"]),
    ] {
        let gateway = retrying(&[&bad, &good], &format!("retries: {rules}")).start();
        for version in VERSIONS {
            let mut statuses: Vec<u16> = (0..2)
                .map(|_| {
                    let request = over(version, &gateway, "a.test", "/");
                    request.args(arguments).send().status
                })
                .collect();
            statuses.sort_unstable();
            assert_eq!(statuses, [200, 503], "{rules} {version}");
        }
    }
    // A response that no other server can replace reaches the client as it is.
    let alone = retrying(&[&bad], "retries: { attempts: 3, on: [503] }").start();
    for version in VERSIONS {
        let before = bad.requests().len();
        let reply = over(version, &alone, "a.test", "/").send();
        assert_eq!((reply.status, &*reply.text()), (503, "no"));
        assert_eq!(bad.requests().len(), before + 1);
    }
}

#[test]
fn every_server_is_tried_once_and_the_last_response_passed_on() {
    let origins = [502, 503, 504].map(answering);
    let rules = "retries: { attempts: 10, on: [502, 503, 504] }";
    let gateway = retrying(&[&origins[0], &origins[1], &origins[2]], rules).start();
    for version in VERSIONS {
        let reply = over(version, &gateway, "a.test", "/").send();
        assert!((502..=504).contains(&reply.status), "{}", reply.status);
        assert_eq!(reply.text(), "no");
    }
    for origin in &origins {
        assert_eq!(origin.requests().len(), 2);
    }
}

#[test]
fn a_body_that_is_too_large_to_be_kept_is_sent_once() {
    let (bad, good) = (answering(503), Origin::named("good"));
    let gateway = retrying(&[&bad, &good], "retries: { on: [503] }").start();
    let mut stream = TlsClient::named("a.test").connect(gateway.https);
    let body = vec![b'x'; 100_000];
    let mut statuses: Vec<u16> = (0..2)
        .map(|_| {
            let head = format!(
                "PUT / HTTP/1.1\r\nHost: a.test\r\nContent-Length: {}\r\n\r\n",
                body.len()
            );
            stream.write_all(head.as_bytes()).expect("taken");
            stream.write_all(&body).expect("taken");
            read_response(&mut stream).expect("a response").status
        })
        .collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 503]);
    assert_eq!((bad.requests().len(), good.requests().len()), (1, 1));
}

#[test]
fn a_server_that_is_late_is_left_for_another() {
    let (late, good) = (Origin::silent(), Origin::named("good"));
    let keys = "timeout: { read: 300ms }, retries: { on: [timeout] }";
    for gateway in [
        retrying(&[&late, &good], keys).start(),
        retrying(&[&late, &good], keys)
            .over_own_lane()
            .run_by(&PINGORA)
            .start(),
    ] {
        for version in VERSIONS {
            for _ in 0..2 {
                let reply = over(version, &gateway, "a.test", "/").send();
                assert_eq!((reply.status, &*reply.text()), (200, "good"), "{version}");
            }
        }
    }
    let gateway = retrying(&[&late, &good], "timeout: { read: 300ms }").start();
    let statuses = [0; 2].map(|_| over("2", &gateway, "a.test", "/").send().status);
    assert!(statuses.contains(&504), "{statuses:?}");
}

#[test]
fn retries_take_no_longer_than_the_whole_request_may() {
    let late = [(); 8].map(|()| Origin::silent());
    let keys = "timeout: { read: 400ms, total: 1s }, retries: { attempts: 10, on: [timeout] }";
    let origins: Vec<&Origin> = late.iter().collect();
    for gateway in [
        retrying(&origins, keys).start(),
        retrying(&origins, keys)
            .over_own_lane()
            .run_by(&PINGORA)
            .start(),
    ] {
        for version in VERSIONS {
            let before: usize = late.iter().map(|origin| origin.requests().len()).sum();
            let start = Instant::now();
            let reply = over(version, &gateway, "a.test", "/").send();
            let took = start.elapsed();
            assert_eq!(reply.status, 504);
            assert!(took >= Duration::from_secs(1), "{took:?}");
            assert!(took < Duration::from_secs(4), "{took:?}");
            let after: usize = late.iter().map(|origin| origin.requests().len()).sum();
            assert!((2..=3).contains(&(after - before)), "{}", after - before);
        }
    }
}

#[test]
fn a_server_that_flaps_costs_no_client_anything() {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let flapping = Origin::start(move |_| match counted.fetch_add(1, Ordering::Relaxed) % 4 {
        0 => vec![Act::respond(503, "no")],
        1 => vec![Act::Reset],
        _ => vec![Act::respond(200, "flapping")],
    });
    let steady = Origin::named("steady");
    let keys = "retries: { on: [connect, reset, 503], budget: 100% }";
    // So that it is not avoided.
    let eject = ", eject: { failures: 1000 }";
    let gateway = retrying_at(&[&flapping, &steady], eject, keys).start();
    let mut stream = TlsClient::named("a.test").connect(gateway.https);
    for number in 0..60 {
        assert_eq!(stream.get("a.test", "/").status, 200, "{number}");
    }
    assert!(count.load(Ordering::Relaxed) >= 20);
}

#[test]
fn retries_do_not_multiply_the_load_of_a_pool_that_fails() {
    const CLIENTS: usize = 4;
    const EACH: usize = 300;
    let origins = [(); 3].map(|()| answering(503));
    let rules = "retries: { attempts: 2, on: [503], budget: 20% }";
    let gateway = retrying(&[&origins[0], &origins[1], &origins[2]], rules).start();
    let ask = || {
        let mut stream = TlsClient::named("a.test").connect(gateway.https);
        for _ in 0..EACH {
            assert_eq!(stream.get("a.test", "/").status, 503);
        }
    };
    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(ask);
        }
    });
    let requests = CLIENTS * EACH;
    let seen: usize = origins.iter().map(|origin| origin.requests().len()).sum();
    let load = seen as f64 / requests as f64;
    eprintln!("{requests} requests, {seen} at the servers: {load:.2} times the load");
    assert!(load < 1.3, "{load}");
    assert!(load > 1.02, "{load}");
    let metric = |result: &str| {
        let labels = format!("result=\"{result}\",upstream=\"app\"");
        let name = format!("snigate_upstream_retries_total{{{labels}}}");
        gateway.metric(&name).unwrap_or_default()
    };
    assert_eq!(metric("sent"), (seen - requests) as f64);
    assert!(metric("over_budget") > 0.0);
}
