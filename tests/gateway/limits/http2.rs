//! Slow clients of HTTP/2.

use std::io::Write;
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{SECOND, about_a_second, closed_after, limited};
use crate::support::{Act, Frame, Frames, H2, Origin, serving, within};

#[test]
fn the_preface_has_a_deadline() {
    let origin = Origin::named("x");
    let gateway = limited(&origin, "header_read: 1s, idle: 30s");
    let mut silent = Frames::silent(gateway.https, "a.test");
    let start = Instant::now();
    let mut begun = Frames::silent(gateway.https, "a.test");
    begun.0.write_all(&Frames::PREFACE[..10]).expect("taken");
    about_a_second(closed_after(&mut silent.0, start).1);
    about_a_second(closed_after(&mut begun.0, start).1);
    let log = gateway.log();
    assert!(!log.contains("ERROR"), "a client's fault is none: {log}");
}

#[test]
fn a_block_of_fields_has_a_deadline_however_it_dribbles() {
    let origin = Origin::named("x");
    let gateway = limited(&origin, "header_read: 1s, idle: 30s");
    let get = Frame::get(1, "a.test", "/").payload;

    // HEADERS, then CONTINUATION upon CONTINUATION, and never an end.
    let mut endless = Frames::connect(gateway.https, "a.test", &[]);
    endless.send(&Frame::new(Frame::HEADERS, Frame::END_STREAM, 1, &get[..]));
    let start = Instant::now();
    for number in 0..200u8 {
        let field = Frame::fields(&[("x", &number.to_string())]);
        let frame = Frame::new(Frame::CONTINUATION, 0, 1, field);
        if endless.0.write_all(&frame.bytes()).is_err() {
            break;
        }
        thread::sleep(Duration::from_millis(50));
    }
    assert!(start.elapsed() < SECOND * 6, "{:?}", start.elapsed());

    // No CONTINUATION at all.
    let mut forgotten = Frames::connect(gateway.https, "a.test", &[]);
    forgotten.send(&Frame::new(Frame::HEADERS, Frame::END_STREAM, 1, get));
    let start = Instant::now();
    about_a_second(closed_after(&mut forgotten.0, start).1);

    // Half a frame.
    let mut half = Frames::connect(gateway.https, "a.test", &[]);
    let frame = Frame::get(1, "a.test", "/").bytes();
    half.0.write_all(&frame[..frame.len() / 2]).expect("taken");
    let start = Instant::now();
    about_a_second(closed_after(&mut half.0, start).1);
    assert!(origin.requests().is_empty());
}

#[test]
fn an_idle_connection_is_closed() {
    let origin = Origin::named("x");
    let gateway = limited(&origin, "idle: 1s");
    let start = Instant::now();
    let mut unused = Frames::connect(gateway.https, "a.test", &[]);
    let mut used = H2::connect(gateway.https, "a.test");
    assert_eq!(used.get("/").status, 200);
    unused.until_closed();
    about_a_second(start.elapsed());
    used.wait_until_closed(SECOND * 5);
}

#[test]
fn a_request_outlives_the_idle_time() {
    let origin = Origin::start(|_| vec![Act::Pause(SECOND * 2), Act::respond(200, "late")]);
    let gateway = limited(&origin, "idle: 1s");
    let mut h2 = H2::connect(gateway.https, "a.test");
    assert_eq!(h2.get("/").text(), "late");
}

#[test]
fn a_stream_that_takes_no_data_is_cut_and_its_upstream_let_go() {
    let body = vec![0; 16 << 20];
    let origin = Origin::start(move |request| {
        if request.line().contains("/small") {
            vec![Act::respond(200, "small")]
        } else {
            vec![Act::respond(200, &body)]
        }
    });
    let gateway = limited(&origin, "idle: 1s");
    // A window of nothing for the stream; the connection itself continues with others.
    let mut frames = Frames::connect(gateway.https, "a.test", &[(4, 0)]);
    frames.send(&Frame::get(1, "a.test", "/"));
    let start = Instant::now();
    let end = frames.until(|frame| {
        matches!(frame.kind, Frame::RST_STREAM | Frame::GOAWAY) && frame.stream <= 1
    });
    about_a_second(start.elapsed());
    drop(end);
    within(SECOND * 5, "the upstream to be let go", || {
        (origin.open_connections() == 0).then_some(())
    });

    // One that reads nothing at all from its socket.
    let mut deaf = Frames::connect(gateway.https, "a.test", &[(4, 0x7fff_ffff)]);
    deaf.send(&Frame::new(8, 0, 0, 0x7000_0000u32.to_be_bytes()));
    deaf.send(&Frame::get(1, "a.test", "/"));
    origin.wait_for_requests(2);
    within(SECOND * 10, "the upstream to be let go", || {
        (origin.open_connections() == 0).then_some(())
    });
}

#[test]
fn an_own_answer_that_is_not_taken_is_cut() {
    let gateway = serving(
        &[&["a.test"]],
        "sites: [{ hosts: [a.test], routes: [{ respond: { body: own } }] }]\n\
         log: { access: off }\n",
    )
    .server("limits: { idle: 1s }")
    .start();
    let mut frames = Frames::connect(gateway.https, "a.test", &[(4, 0)]);
    let start = Instant::now();
    frames.send(&Frame::get(1, "a.test", "/"));
    frames.until(|frame| {
        matches!(frame.kind, Frame::RST_STREAM | Frame::GOAWAY) && frame.stream <= 1
    });
    about_a_second(start.elapsed());
}

#[test]
fn a_body_that_crawls_is_cut() {
    let origin = Origin::named("x");
    let gateway = limited(&origin, "idle: 60s");
    let mut h2 = H2::connect(gateway.https, "a.test");
    let request = h2.request("POST", "/").body(()).expect("a request");
    let (answer, mut stream) = h2.begin(request, true);
    let start = Instant::now();
    let status = h2.block_on(async {
        let crawl = async {
            while start.elapsed() < SECOND * 20
                && stream
                    .send_data(Bytes::from_static(b"0123456789"), false)
                    .is_ok()
            {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        let (answer, ()) = tokio::join!(
            async { answer.await.map(|answer| answer.status().as_u16()) },
            crawl
        );
        answer
    });
    let took = start.elapsed();
    assert!(took > SECOND * 9 && took < SECOND * 19, "{took:?}");
    if let Ok(status) = status {
        assert_eq!(status, 408);
    }
    assert!(origin.requests().is_empty());
    assert_eq!(h2.get("/").status, 200, "other streams continue");
}

#[test]
fn a_body_that_stops_is_cut() {
    let origin = Origin::named("x");
    let gateway = serving(
        &[&["a.test"]],
        format!(
            "upstreams: {{ app: {{ servers: [\"{}\"] }} }}\n\
             sites: [{{ hosts: [a.test], routes: [\
             {{ upstream: app, timeout: {{ connect: 1s, read: 1s }} }}] }}]\n",
            origin.address()
        ),
    )
    .start();
    let mut h2 = H2::connect(gateway.https, "a.test");
    let request = h2.request("POST", "/").body(()).expect("a request");
    let (answer, mut stream) = h2.begin(request, true);
    stream
        .send_data(Bytes::from_static(b"begun"), false)
        .expect("taken");
    let start = Instant::now();
    let answer = h2.block_on(answer).expect("an answer");
    assert_eq!(answer.status(), 408, "the client is to blame");
    about_a_second(start.elapsed());
    assert!(origin.requests().is_empty());
}

#[test]
fn limits_change_with_a_reload() {
    let origin = Origin::named("x");
    let gateway = limited(&origin, "h2_streams: 7");
    let told = |streams: usize| {
        let client = H2::connect(gateway.https, "a.test");
        within(SECOND * 5, "the server's settings", || {
            (client.max_streams() == streams).then_some(())
        });
    };
    told(7);
    let config = std::fs::read_to_string(&gateway.config).expect("a file");
    let config = config.replace("h2_streams: 7", "h2_streams: 9, idle: 1s");
    gateway.write("snigate.yaml", &config);
    assert_eq!(gateway.reload().0, 200);
    told(9);
    let mut idle = Frames::connect(gateway.https, "a.test", &[]);
    let start = Instant::now();
    about_a_second(closed_after(&mut idle.0, start).1);
}
