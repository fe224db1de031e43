//! Uploads to servers that respond before they have read everything, read slowly, or read nothing.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{VERSIONS, over, passing_to};
use crate::support::{Act, Gateway, H2, Origin, TcpState, connections_to, upload, within};

const MIB: usize = 1 << 20;

/// A body that is uploaded to `a.test`, by curl over HTTP/1.1, and by a client that reads while it
/// sends over HTTP/2.
struct Upload {
    body: Bytes,
    file: PathBuf,
}

impl Upload {
    /// One of this size, in which no page is like another.
    fn new(gateway: &Gateway, size: usize) -> Self {
        let file = gateway.dir().join("upload");
        let mut body = vec![b'x'; size];
        for (number, page) in body.chunks_exact_mut(4096).enumerate() {
            page[..8].copy_from_slice(&(number as u64).to_be_bytes());
        }
        fs::write(&file, &body).expect("a file");
        Self {
            body: body.into(),
            file,
        }
    }

    /// The status and the body of the response.
    fn send(&self, version: &str, gateway: &Gateway) -> (u16, Vec<u8>) {
        if version == "2" {
            let mut h2 = H2::connect(gateway.https, "a.test");
            let request = h2.request("POST", "/");
            let request = request.header("content-length", self.body.len());
            let reply = h2.send(request, Some(self.body.clone()));
            let reply = reply.expect("a response over HTTP/2");
            assert!(reply.cut.is_none(), "{:?}", reply.cut);
            return (reply.status, reply.body);
        }
        let reply = over(version, gateway, "a.test", "/")
            .args(["-H", "Expect:", "--data-binary"])
            .arg(format!("@{}", self.file.display()))
            .send();
        (reply.status, reply.body)
    }
}

#[test]
fn a_refusal_in_the_middle_of_a_body_arrives_at_once() {
    let refusal = "HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nbig";
    // Until then everything on the way to it is full.
    let wait = Act::Pause(Duration::from_secs(1));
    let origin = Origin::early(move |_| {
        let refuse = Act::send(refusal);
        vec![Act::Take(100_000), wait.clone(), refuse, Act::Hold]
    });
    let gateway = passing_to(origin.address(), "").over_own_lane().start();
    let upload = Upload::new(&gateway, 50 * MIB);
    for version in VERSIONS {
        let start = Instant::now();
        let (status, body) = upload.send(version, &gateway);
        assert_eq!((status, &body[..]), (413, &b"big"[..]), "{version}");
        let took = start.elapsed();
        assert!(took < Duration::from_secs(5), "{version}: {took:?}");
    }
}

#[test]
fn a_server_that_takes_nothing_of_a_body_is_504() {
    let origin = Origin::early(|_| vec![Act::Hold]);
    let route = ", timeout: { send: 3s }";
    let gateway = passing_to(origin.address(), route).over_own_lane().start();
    let upload = Upload::new(&gateway, 20 * MIB);
    for version in VERSIONS {
        let start = Instant::now();
        let (status, _) = upload.send(version, &gateway);
        assert_eq!(status, 504, "{version}");
        let took = start.elapsed();
        assert!(took > Duration::from_millis(900), "{version}: {took:?}");
        assert!(took < Duration::from_secs(8), "{version}: {took:?}");
    }
    gateway.wait_for_log("an upstream failed");
}

#[test]
fn a_server_that_takes_a_body_slowly_gets_all_of_it() {
    let slowly = || [Act::Take(MIB), Act::Pause(Duration::from_millis(100))];
    let origin = Origin::early(move |_| {
        let mut acts: Vec<Act> = (0..32).flat_map(|_| slowly()).collect();
        acts.push(Act::respond(200, "all"));
        acts
    });
    // Far longer than a pause, and shorter than all of them.
    let route = ", timeout: { send: 2s }";
    let gateway = passing_to(origin.address(), route).start();
    let upload = Upload::new(&gateway, 32 * MIB);
    thread::scope(|scope| {
        for version in VERSIONS {
            let (upload, gateway) = (&upload, &gateway);
            scope.spawn(move || {
                let start = Instant::now();
                let (status, body) = upload.send(version, gateway);
                assert_eq!((status, &body[..]), (200, &b"all"[..]), "{version}");
                assert!(start.elapsed() > Duration::from_secs(3), "it was slow");
            });
        }
    });
    assert_eq!(origin.taken(), VERSIONS.len() * 32 * MIB);
}

#[test]
fn an_echo_comes_back_while_its_body_is_sent() {
    let origin = Origin::early(|request| {
        let length = request.header("content-length").expect("a length");
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
        let length = length.parse().expect("a number");
        vec![Act::send(head), Act::Echo(length)]
    });
    let gateway = passing_to(origin.address(), "").over_own_lane().start();
    let upload = Upload::new(&gateway, 20 * MIB);
    for version in VERSIONS {
        let (status, body) = upload.send(version, &gateway);
        assert_eq!(status, 200);
        assert!(body == upload.body, "{version}: {} octets", body.len());
    }
}

#[test]
fn a_request_that_is_reset_leaves_a_server_that_reads_nothing() {
    // It accepts connections, and that is all.
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let SocketAddr::V4(address) = listener.local_addr().expect("an address") else {
        panic!("an address of IPv4")
    };
    let gateway = passing_to(address.into(), "").over_own_lane().start();
    let open = || connections_to(address, TcpState::Established);
    let mut h2 = H2::connect(gateway.https, "a.test");
    let request = h2.request("POST", "/").body(()).expect("a request");
    let (answer, stream) = h2.begin(request, true);
    let sending = upload(stream, vec![0; 20 * MIB].into());
    let (_accepted, _) = listener.accept().expect("a connection");
    // It is stuck once nothing more comes, and is then dropped, which resets the stream.
    h2.block_on(async {
        _ = tokio::time::timeout(Duration::from_secs(2), sending).await;
    });
    assert_eq!(open(), 1);
    drop(answer);
    h2.block_on(tokio::task::yield_now());
    within(Duration::from_secs(5), "the end of the request", || {
        (open() == 0).then_some(())
    });
}

#[test]
fn a_server_that_takes_little_at_a_time_makes_progress() {
    // The kernel accepts more only once a large part of its buffer is free, which takes longer than
    // the time-out.
    let little = || [Act::Take(4096), Act::Pause(Duration::from_millis(100))];
    let origin = Origin::early(move |_| {
        let mut acts: Vec<Act> = (0..80).flat_map(|_| little()).collect();
        acts.extend([Act::Take(8 * MIB - 80 * 4096), Act::respond(200, "all")]);
        acts
    });
    let route = ", timeout: { send: 3s }";
    let gateway = passing_to(origin.address(), route).over_own_lane().start();
    let upload = Upload::new(&gateway, 8 * MIB);
    thread::scope(|scope| {
        for version in VERSIONS {
            let (upload, gateway) = (&upload, &gateway);
            scope.spawn(move || {
                let (status, body) = upload.send(version, gateway);
                assert_eq!((status, &body[..]), (200, &b"all"[..]), "{version}");
            });
        }
    });
}
