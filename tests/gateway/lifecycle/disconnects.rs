//! Clients that go away.

use std::io::Write;

use super::{SECOND, in_front_of};
use crate::support::{Act, H2, Origin, TlsClient, within};

/// Waits until nothing is open at the origin.
fn let_go(origin: &Origin, limit: std::time::Duration) {
    within(limit, "the request to be dropped at the origin", || {
        (origin.open_connections() == 0).then_some(())
    });
}

/// One that never answers, and one that never stops.
fn origins() -> [Origin; 2] {
    let endless = Origin::start(|_| {
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        let mut acts = vec![Act::send(head)];
        for _ in 0..600 {
            acts.push(Act::send("1\r\nx\r\n"));
            acts.push(Act::Pause(SECOND / 20));
        }
        acts
    });
    [Origin::silent(), endless]
}

#[test]
fn a_closed_connection_ends_its_request() {
    for origin in origins() {
        let gateway = in_front_of(&origin).start();
        for request in [
            "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3\r\n\r\nabc",
        ] {
            let before = origin.requests().len();
            let mut stream = TlsClient::named("a.test").connect(gateway.https);
            stream.write_all(request.as_bytes()).expect("taken");
            origin.wait_for_requests(before + 1);
            drop(stream);
            let_go(&origin, SECOND * 5);
        }
    }
}

#[test]
fn a_reset_stream_ends_its_request_and_no_other() {
    for origin in origins() {
        let gateway = in_front_of(&origin).start();
        let mut h2 = H2::connect(gateway.https, "a.test");
        let request = || h2_get();
        let (answer, mut stream) = h2.begin(request(), false);
        origin.wait_for_requests(1);
        let start = std::time::Instant::now();
        h2.block_on(async { stream.send_reset(h2::Reason::CANCEL) });
        let_go(&origin, SECOND);
        assert!(start.elapsed() < SECOND, "{:?}", start.elapsed());
        drop(answer);
        assert!(!h2.is_closed());

        let (_answer, _stream) = h2.begin(request(), false);
        origin.wait_for_requests(2);
        drop(h2);
        let_go(&origin, SECOND * 5);
    }
}

fn h2_get() -> http::Request<()> {
    let request = http::Request::get("https://a.test/");
    request.body(()).expect("a request")
}
