//! Stopping: what is under way finishes, what is idle does not hold it.

use std::io::{Read, Write};
use std::process::Command;
use std::time::Instant;

use nix::sys::signal::Signal;

use super::{SECOND, in_front_of};
use crate::support::{
    Act, Frame, Frames, Gateway, H2, Origin, TlsClient, TlsStream, connect, curl, read_response,
    within,
};

/// Answers `/slow` once it is released, all else at once.
fn slow() -> Origin {
    Origin::start(|request| {
        if request.line().contains("/slow") {
            vec![Act::Hold, Act::respond(200, "slow")]
        } else {
            vec![Act::respond(200, "quick")]
        }
    })
}

/// A connection with a request in flight.
fn in_flight(gateway: &Gateway, origin: &Origin) -> TlsStream {
    let before = origin.requests().len();
    let mut stream = TlsClient::named("a.test").connect(gateway.https);
    stream
        .write_all(b"GET /slow HTTP/1.1\r\nHost: a.test\r\n\r\n")
        .expect("taken");
    origin.wait_for_requests(before + 1);
    stream
}

/// Waits until the gateway says that it is not ready, still listening on the admin interface.
fn unready(gateway: &Gateway) {
    within(SECOND * 5, "readiness to go", || {
        let url = format!("http://{}/readyz", gateway.admin);
        (curl(&url).try_send().ok()?.status == 503).then_some(())
    });
}

#[test]
fn requests_in_flight_finish_and_no_new_ones_begin() {
    let origin = slow();
    let mut gateway = in_front_of(&origin).server("grace_period: 20s").start();
    let mut busy = in_flight(&gateway, &origin);
    let mut busy_h2 = H2::connect(gateway.https, "a.test");
    let request = busy_h2.request("GET", "/slow").body(()).expect("a request");
    let (answer, _) = busy_h2.begin(request, false);
    origin.wait_for_requests(2);
    gateway.signal(Signal::SIGTERM);
    unready(&gateway);
    within(SECOND * 5, "new connections to be refused", || {
        let refused = |address| std::net::TcpStream::connect(address).is_err();
        (refused(gateway.http) && refused(gateway.https)).then_some(())
    });
    assert!(gateway.exited().is_none(), "it waits for what is in flight");
    origin.release();
    let reply = read_response(&mut busy).expect("an answer");
    assert_eq!((reply.status, &*reply.text()), (200, "slow"));
    assert_eq!(reply.header("connection"), Some("close"));
    let answer = busy_h2.block_on(answer).expect("an answer");
    assert_eq!(answer.status(), 200);
    let reply = busy_h2.block_on(async { answer.into_body().data().await });
    assert_eq!(&reply.expect("a body").expect("whole")[..], b"slow");
    let start = Instant::now();
    assert_eq!(gateway.wait().code(), Some(0));
    assert!(start.elapsed() < SECOND * 2, "{:?}", start.elapsed());
}

#[test]
fn idle_connections_do_not_hold_it() {
    let origin = slow();
    for stop in ["signal", "command"] {
        let mut gateway = in_front_of(&origin).server("grace_period: 20s").start();
        let mut idle = TlsClient::named("a.test").connect(gateway.https);
        assert_eq!(idle.get("a.test", "/").text(), "quick");
        let mut idle_h2 = H2::connect(gateway.https, "a.test");
        assert_eq!(idle_h2.get("/").text(), "quick");
        let _unused = TlsClient::named("a.test")
            .alpn(&["h2"])
            .connect(gateway.https);
        // Told that it is over, this one does not answer.
        let _deaf = Frames::connect(gateway.https, "a.test", &[]);
        let _plain = connect(gateway.http);
        let mut half = connect(gateway.http);
        half.write_all(b"GET / HTTP/1.1\r\n").expect("taken");
        let _unshaken = connect(gateway.https);
        let start = Instant::now();
        if stop == "signal" {
            gateway.signal(Signal::SIGTERM);
        } else {
            let output = Command::new(env!("CARGO_BIN_EXE_snigate"))
                .args(["stop", "--admin", &gateway.admin.to_string()])
                .output()
                .expect("it runs");
            assert!(output.status.success(), "{output:?}");
        }
        assert_eq!(gateway.wait().code(), Some(0));
        assert!(
            start.elapsed() < SECOND * 3,
            "{stop}: {:?}",
            start.elapsed()
        );
        assert_eq!(idle.read(&mut [0]).unwrap_or(0), 0, "it is closed");
        idle_h2.wait_until_closed(SECOND);
    }
}

#[test]
fn readiness_goes_before_the_listeners() {
    let origin = slow();
    let mut gateway = in_front_of(&origin).server("grace_period: 20s").start();
    let _busy = in_flight(&gateway, &origin);
    gateway.signal(Signal::SIGTERM);
    within(SECOND * 5, "a new connection to be refused", || {
        let refused = |address| std::net::TcpStream::connect(address).is_err();
        (refused(gateway.http) || refused(gateway.https)).then_some(())
    });
    let readiness = gateway.ask("GET", "/readyz");
    assert_eq!(readiness.status, 503, "{}", readiness.text());
    assert!(
        readiness.text().contains("stopping"),
        "{}",
        readiness.text()
    );
    origin.release();
    assert_eq!(gateway.wait().code(), Some(0));
}

#[test]
fn a_handshake_that_a_stop_ends_is_no_timeout() {
    let origin = slow();
    let mut gateway = in_front_of(&origin).server("grace_period: 20s").start();
    let mut busy = in_flight(&gateway, &origin);
    let _unshaken = connect(gateway.https);
    let open = "snigate_connections{listener=\"https\"}";
    within(SECOND * 5, "it to be accepted", || {
        (gateway.metric(open) == Some(2.0)).then_some(())
    });
    gateway.signal(Signal::SIGTERM);
    let result = |result: &str| {
        gateway.metric(&format!(
            "snigate_tls_handshakes_total{{group=\"none\",result=\"{result}\",\
             resumed=\"false\",version=\"none\"}}"
        ))
    };
    within(SECOND * 5, "the handshake to be ended", || {
        (result("stopped") == Some(1.0)).then_some(())
    });
    assert_eq!(result("timeout"), Some(0.0));
    origin.release();
    assert_eq!(read_response(&mut busy).expect("an answer").status, 200);
    assert_eq!(gateway.wait().code(), Some(0));
}

/// Requests on one connection whose bodies never end, each with its whole answer.
fn answered_without_end(gateway: &Gateway) -> Frames {
    const COUNT: u32 = 100;
    let mut frames = Frames::connect(gateway.https, "a.test", &[]);
    for number in 0..COUNT {
        let mut head = Frame::get(2 * number + 1, "a.test", "/");
        head.flags = Frame::END_HEADERS;
        frames.send(&head);
    }
    for _ in 0..COUNT {
        let ends = |frame: &Frame| frame.stream > 0 && frame.flags & Frame::END_STREAM != 0;
        frames.until(ends).expect("an answer to each");
    }
    frames
}

#[test]
fn answered_requests_whose_bodies_never_end_do_not_hold_it() {
    let origin = Origin::early(|_| vec![Act::respond(200, "quick")]);
    let mut gateway = in_front_of(&origin).server("grace_period: 60s").start();
    let _first = answered_without_end(&gateway);
    within(SECOND * 10, "the upstream to be let go", || {
        (origin.open_connections() == 0).then_some(())
    });
    let _second = answered_without_end(&gateway);
    let start = Instant::now();
    gateway.signal(Signal::SIGTERM);
    assert_eq!(gateway.wait().code(), Some(0));
    assert!(start.elapsed() < SECOND * 20, "{:?}", start.elapsed());
}

#[test]
fn the_grace_period_ends_the_waiting() {
    let origin = slow();
    let mut gateway = in_front_of(&origin).server("grace_period: 1s").start();
    let _busy = in_flight(&gateway, &origin);
    let start = Instant::now();
    gateway.signal(Signal::SIGTERM);
    gateway.wait();
    let took = start.elapsed();
    assert!(took > SECOND * 9 / 10 && took < SECOND * 4, "{took:?}");
    assert!(gateway.log().contains("grace period"), "{}", gateway.log());
}

#[test]
fn an_interrupt_stops_at_once() {
    let origin = slow();
    let mut gateway = in_front_of(&origin).server("grace_period: 20s").start();
    let _busy = in_flight(&gateway, &origin);
    let start = Instant::now();
    gateway.signal(Signal::SIGINT);
    gateway.wait();
    assert!(start.elapsed() < SECOND * 2, "{:?}", start.elapsed());

    // Also where an orderly stop is under way.
    gateway.restart();
    let _busy = in_flight(&gateway, &origin);
    gateway.signal(Signal::SIGTERM);
    unready(&gateway);
    let start = Instant::now();
    gateway.signal(Signal::SIGINT);
    gateway.wait();
    assert!(start.elapsed() < SECOND * 2, "{:?}", start.elapsed());
}

#[test]
fn the_last_requests_are_in_the_access_log() {
    let origin = slow();
    let mut gateway = crate::support::serving(
        &[&["a.test"]],
        format!(
            "upstreams: {{ app: {{ servers: [\"{}\"] }} }}\n\
             sites: [{{ hosts: [a.test], upstream: app }}]\n\
             log: {{ access: access.log }}\n",
            origin.address()
        ),
    )
    .start();
    let mut stream = TlsClient::named("a.test").connect(gateway.https);
    for _ in 0..200 {
        assert_eq!(stream.get("a.test", "/").status, 200);
    }
    drop(stream);
    assert_eq!(gateway.stop().code(), Some(0));
    let log = std::fs::read_to_string(gateway.dir().join("access.log")).expect("a file");
    assert_eq!(log.lines().count(), 200);
}
