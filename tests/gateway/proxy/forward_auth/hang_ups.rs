//! Clients that go away while a service is asked about their requests.

use std::io::Write as _;
use std::thread;
use std::time::{Duration, Instant};

use super::guarded;
use crate::proxy::wait_for_line;
use crate::proxy::{VERSIONS, over};
use crate::support::{Act, Gateway, Origin, TlsClient, wait_for};

/// How long a client may have gone unnoticed.
const NOTICED: Duration = Duration::from_secs(5);

fn waiting(app: &Origin, service: &Origin) -> Gateway {
    guarded(app, &service.address().to_string(), ", timeout: 60s").start()
}

/// Expects that nothing is asked of the service any more, soon after now.
fn expect_end(service: &Origin, gateway: &Gateway) {
    let begun = Instant::now();
    wait_for("the end of the question", || {
        (service.open_connections() == 0).then_some(())
    });
    let taken = begun.elapsed();
    assert!(taken < NOTICED, "{taken:?}");
    wait_for_line(gateway, " 499 ");
}

#[test]
fn a_question_ends_with_the_client_whose_request_it_is_about() {
    for version in VERSIONS {
        let (app, service) = (Origin::named("app"), Origin::silent());
        let gateway = waiting(&app, &service);
        let client = over(version, &gateway, "a.test", "/")
            .arg("--max-time")
            .arg("1");
        thread::scope(|scope| {
            let client = scope.spawn(|| client.try_send());
            service.wait_for_requests(1);
            assert!(client.join().expect("no panic").is_err(), "{version}");
        });
        expect_end(&service, &gateway);
        assert!(app.requests().is_empty());
    }
}

#[test]
fn a_client_that_is_gone_is_noticed_behind_what_it_has_sent() {
    let (app, service) = (Origin::named("app"), Origin::silent());
    let gateway = waiting(&app, &service);
    let mut client = TlsClient::named("a.test").connect(gateway.https);
    let head = "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 100000\r\n\r\n";
    client.write_all(head.as_bytes()).expect("taken");
    client.write_all(&[b'x'; 50_000]).expect("taken");
    service.wait_for_requests(1);
    drop(client);
    expect_end(&service, &gateway);
}

#[test]
fn a_body_that_arrives_meanwhile_is_passed_on() {
    let app = Origin::echo();
    let service = Origin::start(|_| vec![Act::Hold, Act::respond(200, "")]);
    let gateway = waiting(&app, &service);
    let mut client = TlsClient::named("a.test").connect(gateway.https);
    let head =
        "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 10\r\nConnection: close\r\n\r\n01234";
    client.write_all(head.as_bytes()).expect("taken");
    service.wait_for_requests(1);
    client.write_all(b"56789").expect("taken");
    service.release();
    let mut reply = Vec::new();
    std::io::Read::read_to_end(&mut client, &mut reply).expect("a response");
    let reply = String::from_utf8_lossy(&reply);
    assert!(reply.ends_with("0123456789"), "{reply}");
}
