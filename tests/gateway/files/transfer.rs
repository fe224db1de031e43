//! Large files, slow clients, and files that change meanwhile.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};

use super::{VERSIONS, config, over, with_route};
use crate::support::{
    Act, Builder, Gateway, H2, Origin, TlsClient, is_end, read, serving, wait_for,
};

const MIB: u64 = 1 << 20;

/// A gateway with a file of so many octets, which repeat a pattern at first.
fn gateway(length: u64, limits: &str) -> Gateway {
    let builder = with_route("files: { root: www }").server(limits);
    with_big_file(builder, length).start()
}

fn with_big_file(builder: Builder, length: u64) -> Builder {
    let path = builder.dir().join("www/big.bin");
    fs::create_dir_all(builder.dir().join("www")).expect("a directory");
    fs::write(&path, pattern()).expect("a file");
    let file = File::options().write(true).open(&path).expect("a file");
    file.set_len(length).expect("a sparse file");
    builder
}

/// A gateway with a large file and, at `/app`, an upstream that may have one request at a time.
fn beside(upstream: &Origin) -> Builder {
    let routes = "{ path: /app, upstream: app }, { files: { root: www } }";
    let text = format!(
        "upstreams: {{ app: {{ servers: [\"{}\"] }} }}\n{}",
        upstream.address(),
        config("", routes)
    );
    let builder = with_big_file(serving(&[&["a.test"]], text), 64 * MIB);
    builder.server("limits: { upstream_connections: 1 }")
}

/// How often a gateway has the file open.
fn open_files(gateway: &Gateway) -> usize {
    let descriptors = fs::read_dir(format!("/proc/{}/fd", gateway.pid())).expect("it runs");
    let links = descriptors.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    links.filter(|link| link.ends_with("www/big.bin")).count()
}

fn pattern() -> Vec<u8> {
    (0..MIB).map(|at| (at % 251) as u8).collect()
}

#[test]
fn a_large_file_takes_little_memory() {
    let gateway = gateway(256 * MIB, "");
    for version in VERSIONS {
        let small = over(version, &gateway, "/big.bin")
            .args(["--header", "Range: bytes=0-1048575"])
            .send();
        assert_eq!((small.status, small.body), (206, pattern()));
        let before = gateway.memory();
        let saved = gateway.dir().join("saved");
        let reply = over(version, &gateway, "/big.bin")
            .arg("--no-include")
            .arg("--output")
            .arg(&saved)
            .args([
                "--write-out",
                "HTTP/%{http_version} %{response_code} x\r\n\r\n\n",
            ])
            .send();
        assert_eq!(reply.status, 200);
        let grown = gateway.memory().saturating_sub(before);
        assert!(grown < 32 * MIB, "{grown} octets over {version}");
        let same = std::process::Command::new("cmp")
            .arg(&saved)
            .arg(gateway.dir().join("www/big.bin"))
            .status();
        assert!(same.expect("cmp is installed").success());
    }
}

#[test]
fn a_truncated_file_is_never_taken_for_complete() {
    let gateway = gateway(64 * MIB, "");
    let path = gateway.dir().join("www/big.bin");
    let resize = |length| {
        let file = File::options().write(true).open(&path).expect("a file");
        file.set_len(length).expect("resized");
    };
    let mut stream = TlsClient::named("a.test").connect(gateway.https);
    stream
        .write_all(b"GET /big.bin HTTP/1.1\r\nHost: a.test\r\n\r\n")
        .expect("taken");
    let mut got = vec![0; 4096];
    stream.read_exact(&mut got).expect("the beginning");
    resize(MIB);
    let mut octets = got.len() as u64;
    let mut buffer = vec![0; 65536];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => octets += count as u64,
            Err(error) => {
                assert!(
                    is_end(&error) || error.to_string().contains("eof"),
                    "{error}"
                );
                break;
            }
        }
    }
    assert!(octets < 64 * MIB, "{octets}");

    resize(64 * MIB);
    let mut h2 = H2::connect(gateway.https, "a.test");
    let request = h2.request("GET", "/big.bin").body(()).expect("valid");
    let (answer, _) = h2.begin(request, false);
    let failed = h2.block_on(async {
        let mut body = answer.await.expect("a response").into_body();
        let first = body.data().await.expect("a part").expect("no failure");
        resize(MIB);
        _ = body.flow_control().release_capacity(first.len());
        while let Some(part) = body.data().await {
            match part {
                Ok(part) => _ = body.flow_control().release_capacity(part.len()),
                Err(error) => return Some(error),
            }
        }
        None
    });
    let failed = failed.expect("the stream is reset");
    assert_eq!(failed.reason(), Some(h2::Reason::INTERNAL_ERROR));
    gateway.wait_for_log("a file cannot be read");
}

#[test]
fn a_client_that_stops_reading_is_cut() {
    let gateway = gateway(64 * MIB, "limits: { idle: 1s }");
    let mut stream = TlsClient::named("a.test").connect(gateway.https);
    stream
        .write_all(b"GET /big.bin HTTP/1.1\r\nHost: a.test\r\n\r\n")
        .expect("taken");
    wait_for("the file to be open", || {
        (open_files(&gateway) == 1).then_some(())
    });
    wait_for("the file to be closed", || {
        (open_files(&gateway) == 0).then_some(())
    });
    let mut h2 = H2::connect(gateway.https, "a.test");
    let request = h2.request("GET", "/big.bin").body(()).expect("valid");
    let (answer, _body) = h2.begin(request, false);
    let response = h2.block_on(answer).expect("a response");
    wait_for("the file to be open", || {
        (open_files(&gateway) == 1).then_some(())
    });
    wait_for("the file to be closed", || {
        (open_files(&gateway) == 0).then_some(())
    });
    drop(response);
}

#[test]
fn a_client_that_goes_away_is_not_sent_the_rest() {
    let gateway = gateway(512 * MIB, "");
    let mut stream = TlsClient::named("a.test").connect(gateway.https);
    stream
        .write_all(b"GET /big.bin HTTP/1.1\r\nHost: a.test\r\n\r\n")
        .expect("taken");
    let mut got = vec![0; 4096];
    stream.read_exact(&mut got).expect("the beginning");
    drop(stream);
    wait_for("the file to be closed", || {
        (open_files(&gateway) == 0).then_some(())
    });
}

#[test]
fn many_requests_share_a_connection() {
    let gateway = gateway(MIB, "");
    let mut stream = TlsClient::named("a.test").connect(gateway.https);
    for _ in 0..3 {
        assert_eq!(stream.get("a.test", "/big.bin").body, pattern());
        assert_eq!(stream.get("a.test", "/none").status, 404);
        assert_eq!(stream.get("a.test", "/a.txt").text(), "0123456789");
    }
    let mut h2 = H2::connect(gateway.https, "a.test");
    let answers: Vec<_> = (0..50)
        .map(|_| {
            let request = h2.request("GET", "/big.bin").body(()).expect("valid");
            h2.begin(request, false).0
        })
        .collect();
    // They share the window of the connection, so all of them are read at the same time.
    let replies = h2.block_on(futures::future::join_all(
        answers
            .into_iter()
            .map(async |answer| read(answer.await.expect("a response")).await),
    ));
    for reply in replies {
        assert_eq!(reply.expect("complete").body, pattern());
    }
}

#[test]
fn files_that_nobody_takes_leave_upstreams_alone() {
    let origin = Origin::start(|_| vec![Act::respond(200, "")]);
    let gateway = beside(&origin).start();
    let mut h2 = H2::connect(gateway.https, "a.test");
    let request = h2.request("GET", "/big.bin").body(()).expect("valid");
    let response = h2.begin(request, false).0;
    let response = h2.block_on(response).expect("a response");
    wait_for("the file to be open", || {
        (open_files(&gateway) == 1).then_some(())
    });
    // Over the same connection, and over others.
    assert_eq!(h2.get("/app").status, 200);
    for version in VERSIONS {
        assert_eq!(over(version, &gateway, "/app").send().status, 200);
    }
    assert_eq!(open_files(&gateway), 1);
    drop(response);
}

#[test]
fn one_connection_has_its_share_of_open_files() {
    let origin = Origin::start(|_| vec![Act::respond(200, "")]);
    let gateway = beside(&origin).descriptors(512).start();
    let mut h2 = H2::connect(gateway.https, "a.test");
    let responses: Vec<_> = (0..40)
        .map(|_| {
            let request = h2.request("GET", "/big.bin").body(()).expect("valid");
            let response = h2.begin(request, false).0;
            h2.block_on(response).expect("a response")
        })
        .collect();
    let sent = |status: u16| {
        let with_it = responses.iter().filter(|one| one.status() == status);
        with_it.count()
    };
    assert!(sent(200) >= 5, "{}", sent(200));
    assert_eq!(sent(200) + sent(503), 40);
    let refused = gateway.metric("snigate_requests_refused_total{reason=\"too_many_files\"}");
    assert_eq!(refused, Some(sent(503) as f64));
    assert!(open_files(&gateway) <= 40, "{}", open_files(&gateway));
    assert_eq!(h2.get("/app").status, 200);
    for version in VERSIONS {
        let range = ["--header", "Range: bytes=0-9"];
        let reply = over(version, &gateway, "/big.bin").args(range).send();
        assert_eq!((reply.status, reply.body.len()), (206, 10));
    }
}
