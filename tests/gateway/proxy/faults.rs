//! Servers that die, flap, stall or cannot be found: how soon that is noticed, which is printed,
//! and what clients of other servers have of it meanwhile.

mod resolvers;

use std::fs;
use std::io::{Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{VERSIONS, states, wait_for_state};
use crate::support::{
    Act, Builder, Gateway, H2, Nginx, Origin, Relay, Switch, TlsClient, TlsStream, read, read_head,
    read_response, serving, upload, wait_for,
};

/// Begins a gateway with the site `a.test` of these routes, and the site `b.test`, whose server is
/// `well`.
fn beside(well: &Nginx, upstreams: &str, routes: &str) -> Builder {
    serving(
        &[&["a.test"], &["b.test"]],
        format!(
            "upstreams:\n  well: {{ servers: [\"{}\"] }}\n{upstreams}\
             sites:\n- hosts: [a.test]\n  routes:\n{routes}\
             - {{ hosts: [b.test], upstream: well }}\n\
             log: {{ access: off }}\n",
            well.address()
        ),
    )
}

/// A server without a fault.
fn well() -> Nginx {
    Nginx::serving("http1", "location / { return 200 well; }")
}

/// Stops clients, also where a test fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Does `work` while clients of each of these hosts ask all the time, which must get what they ask
/// for. Those of the last one, `b.test`, must get it soon.
#[track_caller]
fn undisturbed<T>(gateway: &Gateway, hosts: &[&str], work: impl FnOnce() -> T) -> T {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let end = Stop(&stop);
        let clients: Vec<_> = hosts
            .iter()
            .flat_map(|&host| VERSIONS.map(|version| (host, version)))
            .map(|(host, version)| {
                let stop = &stop;
                let asking = scope.spawn(move || latencies(gateway, host, version, stop));
                (host, version, asking)
            })
            .collect();
        let done = work();
        drop(end);
        for (host, version, asking) in clients {
            let mut times = asking.join().expect("each request succeeds");
            times.sort_unstable();
            let (count, slowest) = (times.len(), times.last().copied().unwrap_or_default());
            assert!(count > 10, "{count} requests to {host} over {version}");
            let usual = times[count * 9 / 10];
            eprintln!(
                "  meanwhile {count} requests to {host} over {version}: 90 % within {usual:.1?}, \
                 all within {slowest:.1?}"
            );
            assert!(host != "b.test" || usual < SOON, "{usual:?}");
        }
        done
    })
}

/// What nine of ten requests that have nothing to do with a fault take at most, on a busy machine.
const SOON: Duration = Duration::from_millis(500);

/// How long each request took, until `stop`. Every tenth has a new connection.
fn latencies(gateway: &Gateway, host: &str, version: &str, stop: &AtomicBool) -> Vec<Duration> {
    let mut times = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let mut ask: Box<dyn FnMut() -> (u16, String)> = match version {
            "1.1" => {
                let mut stream = TlsClient::named(host).connect(gateway.https);
                Box::new(move || {
                    let reply = stream.get(host, "/");
                    (reply.status, reply.text())
                })
            }
            _ => {
                let mut h2 = H2::connect(gateway.https, host);
                Box::new(move || {
                    let reply = h2.get("/");
                    assert!(reply.cut.is_none(), "{host}: {:?}", reply.cut);
                    (reply.status, reply.text())
                })
            }
        };
        for _ in 0..10 {
            let start = Instant::now();
            let (status, text) = ask();
            times.push(start.elapsed());
            assert_eq!((status, &*text), (200, "well"), "{host} over {version}");
            // Others need the processor too.
            thread::sleep(Duration::from_millis(2));
        }
    }
    times
}

const MIB: usize = 1024 * 1024;

/// A server that sends slowly, and keeps what it receives in files.
fn slow_nginx(protocol: &str) -> Nginx {
    let nginx = Nginx::serving(
        protocol,
        "client_body_temp_path root/incoming;
        location / { limit_rate 64k; dav_methods PUT; }",
    );
    fs::write(nginx.root().join("large"), vec![b'x'; 8 * MIB]).expect("a file");
    nginx
}

/// Waits until a server has some of a body.
fn wait_for_body(nginx: &Nginx) {
    let incoming = nginx.root().join("incoming");
    wait_for("some of a body", || {
        let file = fs::read_dir(&incoming).ok()?.next()?.ok()?;
        (file.metadata().ok()?.len() > 0).then_some(())
    });
}

fn over_http1(gateway: &Gateway) -> TlsStream {
    TlsClient::named("a.test").connect(gateway.https)
}

/// Kills a server while it sends, and returns how soon the client knew.
fn dies_sending(gateway: &Gateway, version: &str, path: &str, mut nginx: Nginx) -> Duration {
    if version == "1.1" {
        let mut stream = over_http1(gateway);
        let request = format!("GET {path}/large HTTP/1.1\r\nHost: a.test\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("taken");
        let head = read_head(&mut stream).expect("a head").expect("a head");
        assert!(head.starts_with(b"HTTP/1.1 200"), "{}", head.escape_ascii());
        stream.read_exact(&mut [0; 1000]).expect("a part");
        let (start, mut rest) = (Instant::now(), Vec::new());
        nginx.kill();
        let _ = stream.read_to_end(&mut rest);
        assert!(rest.len() < 8 * MIB - 1000, "{}", rest.len());
        return start.elapsed();
    }
    let mut h2 = H2::connect(gateway.https, "a.test");
    let request = h2.request("GET", &format!("{path}/large"));
    let (answer, _) = h2.begin(request.body(()).expect("a request"), false);
    let mut answer = h2.block_on(answer).expect("a response");
    assert_eq!(answer.status(), 200);
    let part = h2.block_on(answer.body_mut().data()).expect("a part");
    drop(part.expect("a part"));
    let start = Instant::now();
    nginx.kill();
    let reply = h2.block_on(read(answer)).expect("the rest");
    assert!(reply.cut.is_some(), "{} octets", reply.body.len());
    let took = start.elapsed();
    // The connection carries other requests.
    assert_eq!(h2.get("/well").text(), "well");
    took
}

/// Kills a server while it receives, and returns how soon the client knew.
fn dies_receiving(gateway: &Gateway, version: &str, path: &str, mut nginx: Nginx) -> Duration {
    if version == "1.1" {
        let mut stream = over_http1(gateway);
        let head = format!(
            "PUT {path}/new HTTP/1.1\r\nHost: a.test\r\nContent-Length: {}\r\n\r\n",
            8 * MIB
        );
        stream.write_all(head.as_bytes()).expect("taken");
        stream.write_all(&vec![b'x'; MIB / 2]).expect("taken");
        wait_for_body(&nginx);
        let start = Instant::now();
        nginx.kill();
        assert_eq!(read_response(&mut stream).expect("a response").status, 502);
        return start.elapsed();
    }
    let mut h2 = H2::connect(gateway.https, "a.test");
    let request = h2.request("PUT", &format!("{path}/new"));
    let request = request.body(()).expect("a request");
    let (answer, stream) = h2.begin(request, true);
    let (start, reply) = h2.block_on(async {
        let sending = tokio::spawn(upload(stream, Bytes::from(vec![b'x'; 8 * MIB])));
        let start = tokio::task::spawn_blocking(move || {
            wait_for_body(&nginx);
            let start = Instant::now();
            nginx.kill();
            start
        });
        let start = start.await.expect("no panic");
        let reply = read(answer.await.expect("a response")).await;
        sending.abort();
        (start, reply.expect("a response"))
    });
    assert_eq!(reply.status, 502);
    let took = start.elapsed();
    assert_eq!(h2.get("/well").text(), "well");
    took
}

#[test]
fn a_server_that_dies_in_the_middle_of_a_body_is_noticed_at_once() {
    let well = well();
    let kinds: Vec<_> = ["http1", "h2"]
        .iter()
        .flat_map(|protocol| VERSIONS.map(|version| (*protocol, version)))
        .flat_map(|kind| [true, false].map(|is_sending| (kind, is_sending)))
        .collect();
    let servers: Vec<Nginx> = kinds.iter().map(|(kind, _)| slow_nginx(kind.0)).collect();
    let (mut upstreams, mut routes) = (String::new(), String::new());
    for (number, (((protocol, _), _), nginx)) in kinds.iter().zip(&servers).enumerate() {
        let address = nginx.address();
        upstreams +=
            &format!("  u{number}: {{ servers: [\"{address}\"], protocol: {protocol} }}\n");
        routes += &format!(
            "  - {{ path: /{number}/, strip_prefix: true, upstream: u{number}, \
             timeout: {{ read: 20s, send: 20s }} }}\n"
        );
    }
    routes += "  - { path: /well, upstream: well }\n";
    let gateway = beside(&well, &upstreams, &routes).start();
    undisturbed(&gateway, &["b.test"], || {
        for (number, (((protocol, version), is_sending), nginx)) in
            kinds.iter().zip(servers).enumerate()
        {
            let path = format!("/{number}");
            let (what, took) = match is_sending {
                true => ("sent", dies_sending(&gateway, version, &path, nginx)),
                false => ("received", dies_receiving(&gateway, version, &path, nginx)),
            };
            eprintln!(
                "the death of a server that {what} over {protocol} was noticed over {version} \
                 after {took:.1?}"
            );
            assert!(took < Duration::from_secs(3), "{took:?}");
            // Nobody listens any more.
            let start = Instant::now();
            let reply = over_http1(&gateway).get("a.test", &format!("{path}/large"));
            assert_eq!(reply.status, 502);
            assert!(start.elapsed() < Duration::from_secs(3));
        }
    });
}

#[test]
fn a_server_that_flaps_fails_no_request() {
    let (well, other) = (well(), well());
    let flapping = Relay::to(other.address(), Switch::Pass);
    let address = flapping.address();
    let upstreams = format!(
        "  app:\n    servers: [\"{address}\", \"{}\"]\n\
         \x20   health: {{ path: /, every: 100ms, timeout: 500ms, healthy: 2, unhealthy: 2 }}\n\
         \x20   eject: {{ failures: 2, within: 10s, for: 500ms }}\n",
        well.address()
    );
    let gateway = beside(&well, &upstreams, "  - { upstream: app }\n").start();
    undisturbed(&gateway, &["a.test", "b.test"], || {
        for round in 1..=4 {
            let start = Instant::now();
            flapping.turn(Switch::Gone);
            wait_for("the server to be left out", || {
                (states(&gateway)[&address] != "up").then_some(())
            });
            let down = start.elapsed();
            flapping.turn(Switch::Pass);
            let up = wait_for_state(&gateway, address, "up");
            eprintln!("round {round}: down was noticed after {down:.1?}, up after {up:.1?}");
            assert!(down < Duration::from_secs(3), "{down:?}");
        }
        // Faster than the checks can follow.
        for _ in 0..8 {
            for switch in [Switch::Gone, Switch::Pass] {
                flapping.turn(switch);
                thread::sleep(Duration::from_millis(150));
            }
        }
        let up = wait_for_state(&gateway, address, "up");
        eprintln!("after 8 faster rounds it was up after {up:.1?}");
    });
}

const READ: Duration = Duration::from_millis(600);
const TOTAL: Duration = Duration::from_millis(1800);

/// One octet after another, with pauses that are shorter than each time-out.
fn trickle(start: &str) -> Vec<Act> {
    let part = || [Act::Pause(READ / 4), Act::send("x")];
    let parts = (0..100).flat_map(|_| part());
    std::iter::once(Act::send(start)).chain(parts).collect()
}

#[test]
fn a_server_that_answers_slowly_is_given_up_in_time() {
    let well = well();
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n";
    // Whether a head comes, and which time is up.
    let kinds = [
        ("silent", vec![Act::Silence], false, READ),
        (
            "slow in its head",
            trickle("HTTP/1.1 200 OK\r\nX: "),
            false,
            READ,
        ),
        (
            "stalled",
            vec![Act::send(head), Act::send("x"), Act::Silence],
            true,
            READ,
        ),
        ("slow in its body", trickle(head), true, TOTAL),
    ];
    let origins = kinds
        .clone()
        .map(|(_, acts, ..)| Origin::start(move |_| acts.clone()));
    let (mut upstreams, mut routes) = (String::new(), String::new());
    for (number, origin) in origins.iter().enumerate() {
        upstreams += &format!("  u{number}: {{ servers: [\"{}\"] }}\n", origin.address());
        routes += &format!(
            "  - {{ path: /{number}, upstream: u{number}, \
             timeout: {{ read: {}ms, total: {}ms }} }}\n",
            READ.as_millis(),
            TOTAL.as_millis()
        );
    }
    routes += "  - { path: /well, upstream: well }\n";
    let gateway = beside(&well, &upstreams, &routes).start();
    undisturbed(&gateway, &["b.test"], || {
        for (number, (name, _, has_head, due)) in kinds.iter().enumerate() {
            for version in VERSIONS {
                let start = Instant::now();
                let status = match version {
                    "1.1" => given_up_over_http1(&gateway, number, *has_head),
                    _ => given_up_over_http2(&gateway, number, *has_head),
                };
                let took = start.elapsed();
                eprintln!(
                    "a server that is {name} was given up over {version} after {took:.2?} \
                     of {due:?}"
                );
                assert_eq!(status, if *has_head { 200 } else { 504 }, "{name}");
                assert!(took >= *due, "{name}: {took:?}");
                assert!(took < *due + Duration::from_secs(3), "{name}: {took:?}");
            }
        }
    });
}

fn given_up_over_http1(gateway: &Gateway, number: usize, has_head: bool) -> u16 {
    let mut stream = over_http1(gateway);
    if !has_head {
        return stream.get("a.test", &format!("/{number}")).status;
    }
    let request = format!("GET /{number} HTTP/1.1\r\nHost: a.test\r\n\r\n");
    let all = stream.exchange(request);
    let head = all.windows(4).position(|octets| octets == b"\r\n\r\n");
    let body = all.len() - (head.expect("a head") + 4);
    assert!(all.starts_with(b"HTTP/1.1 200") && body < 1000, "{body}");
    200
}

/// Others use the same connection meanwhile.
fn given_up_over_http2(gateway: &Gateway, number: usize, has_head: bool) -> u16 {
    let mut h2 = H2::connect(gateway.https, "a.test");
    let request = h2.request("GET", &format!("/{number}"));
    let (slow, _) = h2.begin(request.body(()).expect("a request"), false);
    for _ in 0..20 {
        let start = Instant::now();
        assert_eq!(h2.get("/well").text(), "well");
        assert!(start.elapsed() < Duration::from_secs(2));
    }
    let reply = h2.block_on(async { read(slow.await.expect("a response")).await });
    let reply = reply.expect("a response");
    assert_eq!(reply.cut.is_some(), has_head, "{:?}", reply.cut);
    reply.status
}
