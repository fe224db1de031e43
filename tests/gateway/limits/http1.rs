//! Slow clients of HTTP/1.

use std::io::Write;
use std::thread;
use std::time::{Duration, Instant};

use super::{SECOND, about_a_second, closed_after, limited};
use crate::support::{Act, Origin, TlsClient, connect, read_response, within};

const HEAD: &str = "GET / HTTP/1.1\r\nHost: plain.test\r\n";

#[test]
fn a_handshake_has_a_deadline() {
    let origin = Origin::named("x");
    let gateway = limited(&origin, "handshake: 1s");
    let start = Instant::now();
    let mut silent = connect(gateway.https);
    // One that dribbles: a record of which a byte comes now and then.
    let mut dribbling = connect(gateway.https);
    let mut writer = dribbling.try_clone().expect("a copy");
    thread::spawn(move || {
        for byte in [0x16, 3, 1, 2, 0, 1, 0, 1].into_iter().cycle() {
            if writer.write_all(&[byte]).is_err() {
                return;
            }
            thread::sleep(Duration::from_millis(100));
        }
    });
    about_a_second(closed_after(&mut silent, start).1);
    let (_, took) = closed_after(&mut dribbling, start);
    assert!(took < SECOND * 6, "{took:?}");
    let label = r#"snigate_tls_handshakes_total{group="none",result="timeout",resumed="false",version="none"}"#;
    within(SECOND * 5, "a count of time-outs", || {
        gateway.metric(label).filter(|count| *count >= 1.0)
    });
}

#[test]
fn a_head_has_a_deadline_however_it_dribbles() {
    let origin = Origin::named("x");
    let gateway = limited(&origin, "header_read: 1s");
    let mut begun = connect(gateway.http);
    begun.write_all(HEAD.as_bytes()).expect("taken");
    let start = Instant::now();
    let mut dribbling = connect(gateway.http);
    let mut writer = dribbling.try_clone().expect("a copy");
    thread::spawn(move || {
        let head = format!("{HEAD}{}", "X: y\r\n".repeat(90));
        for byte in head.bytes() {
            if writer.write_all(&[byte]).is_err() {
                return;
            }
            thread::sleep(Duration::from_millis(50));
        }
    });
    for stream in [&mut begun, &mut dribbling] {
        let (answer, took) = closed_after(stream, start);
        about_a_second(took);
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 408"));
    }
    // Over TLS, and after a request that was answered.
    let mut stream = TlsClient::named("a.test").connect(gateway.https);
    assert_eq!(stream.get("a.test", "/").status, 200);
    stream.write_all(b"GET / HT").expect("taken");
    let start = Instant::now();
    about_a_second(closed_after(&mut stream, start).1);
    assert_eq!(origin.requests().len(), 1);
}

#[test]
fn an_idle_connection_is_closed() {
    let origin = Origin::named("x");
    let gateway = limited(&origin, "idle: 1s");
    let start = Instant::now();
    let mut fresh = connect(gateway.http);
    let mut fresh_tls = TlsClient::named("a.test").connect(gateway.https);
    let mut used = TlsClient::named("a.test").connect(gateway.https);
    assert_eq!(used.get("a.test", "/").status, 200);
    about_a_second(closed_after(&mut fresh, start).1);
    about_a_second(closed_after(&mut fresh_tls, start).1);
    let (rest, took) = closed_after(&mut used, start);
    about_a_second(took);
    assert!(rest.is_empty(), "an idle connection is closed silently");
}

#[test]
fn a_body_that_crawls_is_cut() {
    let origin = Origin::named("x");
    let gateway = limited(&origin, "idle: 60s");
    // At 100 octets a second, by length and in chunks; and one at 8 KiB a second that continues,
    // far above the least even where the machine is slow.
    let start = Instant::now();
    let crawl = |framing: &str, part: Vec<u8>| {
        let mut stream = connect(gateway.http);
        let head = format!("POST / HTTP/1.1\r\nHost: plain.test\r\n{framing}\r\n\r\n");
        stream.write_all(head.as_bytes()).expect("taken");
        let mut writer = stream.try_clone().expect("a copy");
        thread::spawn(move || {
            while writer.write_all(&part).is_ok() && start.elapsed() < SECOND * 60 {
                thread::sleep(Duration::from_millis(100));
            }
        });
        stream
    };
    let chunk = b"a\r\n0123456789\r\n";
    let mut by_length = crawl("Content-Length: 1000000", vec![0; 10]);
    let mut chunked = crawl("Transfer-Encoding: chunked", chunk.to_vec());
    let mut steady = crawl("Content-Length: 106496", vec![0; 820]);
    for stream in [&mut by_length, &mut chunked] {
        let (answer, took) = closed_after(stream, start);
        assert!(took > SECOND * 9 && took < SECOND * 20, "{took:?}");
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    }
    assert_eq!(read_response(&mut steady).expect("an answer").status, 200);
    assert!(start.elapsed() > SECOND * 11, "it was slow indeed");
}

#[test]
fn a_client_that_takes_no_data_is_cut_and_its_upstream_let_go() {
    let body = vec![0; 64 << 20];
    let origin = Origin::start(move |_| vec![Act::respond(200, &body)]);
    let gateway = limited(&origin, "idle: 1s");
    let mut stuck = connect(gateway.http);
    stuck
        .write_all(format!("{HEAD}\r\n").as_bytes())
        .expect("taken");
    let mut stuck_tls = TlsClient::named("a.test").connect(gateway.https);
    stuck_tls
        .write_all(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")
        .expect("taken");
    origin.wait_for_requests(2);
    let start = Instant::now();
    within(SECOND * 10, "the end of both exchanges", || {
        (origin.open_connections() == 0).then_some(())
    });
    about_a_second(start.elapsed());
    within(SECOND * 5, "both connections to be closed", || {
        let open =
            |listener| gateway.metric(&format!("snigate_connections{{listener=\"{listener}\"}}"));
        (open("http") == Some(0.0) && open("https") == Some(0.0)).then_some(())
    });
}
