//! Servers that people drain: no new requests, and nothing is interrupted.

use std::io::{Read, Write};
use std::thread;

use super::{VERSIONS, over, states};
use crate::support::{
    Act, Builder, Gateway, Origin, Printed, TlsClient, read_response, serving, snigate, wait_for,
};

/// Begins a gateway whose `a.test` passes everything to the upstream `app`, which has these keys in
/// a file of its own.
fn with_own_file(keys: &str) -> Builder {
    let builder = serving(
        &[&["a.test"]],
        "include: [app.yaml]\n\
         sites: [{ hosts: [a.test], upstream: app }]\n\
         log: { access: off }\n",
    );
    std::fs::write(builder.dir().join("app.yaml"), own_file(keys)).expect("a file");
    builder
}

fn own_file(keys: &str) -> String {
    format!("upstreams: {{ app: {{ {keys} }} }}\n")
}

/// `snigate upstreams` with these arguments for a gateway.
fn upstreams(gateway: &Gateway, arguments: &[&str]) -> Printed {
    let admin = gateway.admin.to_string();
    snigate(&[&["upstreams"], arguments, &["--admin", &admin]].concat())
}

/// Sends a request in each version until the origin has got one more, which waits there.
fn hold_one(gateway: &Gateway, origin: &Origin) -> thread::JoinHandle<(u16, String)> {
    let before = origin.requests().len();
    loop {
        let mut stream = TlsClient::named("a.test").connect(gateway.https);
        let request = "GET /long HTTP/1.1\r\nHost: a.test\r\n\r\n";
        stream.write_all(request.as_bytes()).expect("taken");
        let response = thread::spawn(move || {
            let response = read_response(&mut stream).expect("a response");
            (response.status, response.text())
        });
        let is_there = wait_for("the request to be somewhere", || {
            if origin.requests().len() > before {
                return Some(true);
            }
            response.is_finished().then_some(false)
        });
        if is_there {
            return response;
        }
        assert_eq!(response.join().expect("no panic").0, 200);
    }
}

#[test]
fn a_drained_server_finishes_what_it_has_and_gets_nothing_new() {
    let busy = Origin::start(|request| match request.line().contains("/long") {
        true => vec![Act::Hold, Act::respond(200, "long")],
        false => vec![Act::respond(200, "short")],
    });
    let other = Origin::named("other");
    let address = busy.address().to_string();
    let gateway = with_own_file(&format!(
        "servers: [\"{address}\", \"{}\"]",
        other.address()
    ));
    let gateway = gateway.start();
    let long = hold_one(&gateway, &busy);
    let drained = upstreams(&gateway, &["drain", "app", &address]);
    assert_eq!(drained.code, Some(0), "{}", drained.stderr);
    assert!(
        drained.stderr.contains("1 request is in flight"),
        "{}",
        drained.stderr
    );
    let before = busy.requests().len();
    for version in VERSIONS {
        for _ in 0..4 {
            let reply = over(version, &gateway, "a.test", "/").send();
            assert_eq!((reply.status, &*reply.text()), (200, "other"));
        }
    }
    assert_eq!(busy.requests().len(), before);
    assert_eq!(states(&gateway)[&busy.address()], "drained");
    let gauge = format!("snigate_upstream_drained{{server=\"{address}\",upstream=\"app\"}}");
    assert_eq!(gateway.metric(&gauge), Some(1.0));
    let table = upstreams(&gateway, &[]).stdout;
    let row = table.lines().find(|line| line.contains(&address));
    let row: Vec<&str> = row.expect("a row").split_whitespace().collect();
    assert_eq!(row, ["app", &address, "-", "drained", "1", "1"], "{table}");

    let too_soon = upstreams(&gateway, &["drain", "app", &address, "--wait", "1s"]);
    assert_eq!(too_soon.code, Some(1), "{}", too_soon.stderr);
    let expected = format!("1 request is in flight at {address} after 1s");
    assert!(too_soon.stderr.contains(&expected), "{}", too_soon.stderr);
    let waiting = {
        let admin = gateway.admin.to_string();
        thread::spawn(move || {
            let wait = ["--wait", "30s", "--admin", &admin];
            snigate(&[&["upstreams", "drain", "app", &*address], &wait[..]].concat())
        })
    };
    busy.release();
    let (status, body) = long.join().expect("no panic");
    assert_eq!((status, &*body), (200, "long"));
    let waited = waiting.join().expect("no panic");
    assert_eq!(waited.code, Some(0), "{}", waited.stderr);
    assert_eq!(busy.requests().len(), before);

    let address = busy.address().to_string();
    let resumed = upstreams(&gateway, &["resume", "app", &address]);
    assert_eq!(resumed.code, Some(0), "{}", resumed.stderr);
    assert_eq!(gateway.metric(&gauge), None);
    for _ in 0..2 {
        assert_eq!(over("1.1", &gateway, "a.test", "/").send().status, 200);
    }
    assert_eq!(busy.requests().len(), before + 1);
}

#[test]
fn a_websocket_goes_on_at_a_drained_server_and_over_a_reload() {
    let agreed = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\
                  Upgrade: websocket\r\n\r\n";
    let origin = Origin::early(move |_| vec![Act::send(agreed), Act::Echo(8), Act::Close]);
    let address = origin.address().to_string();
    let gateway = with_own_file(&format!("servers: [\"{address}\"]"))
        .over_own_lane()
        .start();
    let mut stream = TlsClient::named("a.test")
        .alpn(&["http/1.1"])
        .connect(gateway.https);
    let upgrade = "GET /ws HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\n\
                   Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    assert_eq!(stream.request(upgrade).status, 101);
    let mut echo = |text: &[u8; 4]| {
        stream.write_all(text).expect("taken");
        let mut echo = [0; 4];
        stream.read_exact(&mut echo).expect("an echo");
        assert_eq!(&echo, text);
    };
    let drained = upstreams(&gateway, &["drain", "app", &address]);
    assert_eq!(drained.code, Some(0), "{}", drained.stderr);
    assert!(
        drained.stderr.contains("no server left"),
        "{}",
        drained.stderr
    );
    assert_eq!(over("1.1", &gateway, "a.test", "/").send().status, 503);
    let none = "snigate_upstream_attempts_total{result=\"drained\",upstream=\"app\"}";
    assert_eq!(gateway.metric(none), Some(1.0));
    echo(b"ping");

    // Another pool takes the place of the one that the WebSocket has come through.
    let keys = format!("servers: [{{ address: \"{address}\", weight: 7 }}]");
    gateway.write("app.yaml", &own_file(&keys));
    assert_eq!(gateway.reload().0, 200);
    assert_eq!(states(&gateway)[&origin.address()], "drained");
    let requests = || {
        let list = upstreams(&gateway, &["list", "--json"]).stdout;
        let list: serde_json::Value = serde_json::from_str(&list).expect("JSON");
        assert_eq!(list[0]["servers"][0]["weight"], 7);
        list[0]["servers"][0]["requests"].as_u64()
    };
    assert_eq!(requests(), Some(1));
    echo(b"pong");
    // The server closes, which ends the WebSocket.
    assert_eq!(stream.read(&mut [0]).expect("an end"), 0);
    wait_for("none to be in flight", || {
        (requests() == Some(0)).then_some(())
    });
    assert_eq!(over("1.1", &gateway, "a.test", "/").send().status, 503);
    assert_eq!(
        upstreams(&gateway, &["resume", "app", &address]).code,
        Some(0)
    );
    assert_eq!(states(&gateway)[&origin.address()], "up");
}

#[test]
fn unknown_names_are_answered_with_the_nearest() {
    let origin = Origin::named("x");
    let address = origin.address().to_string();
    let gateway = with_own_file(&format!("servers: [\"{address}\"]")).start();
    for (arguments, said) in [
        (["drain", "apps", &*address], "did you mean app?".to_owned()),
        (
            ["drain", "app", &address[..address.len() - 1]],
            format!("did you mean {address}?"),
        ),
        (
            ["resume", "app", "unix:/run/x.sock"],
            format!("there is {address}"),
        ),
    ] {
        let printed = upstreams(&gateway, &arguments);
        assert_eq!(printed.code, Some(1), "{}", printed.stderr);
        assert!(printed.stderr.contains(&said), "{}", printed.stderr);
    }
    let path = format!("/api/v1/upstreams/other/servers/{address}/drain");
    let answer = gateway.ask("POST", &path);
    assert_eq!(answer.status, 404);
    assert_eq!(
        answer.header("content-type"),
        Some("application/problem+json")
    );
    assert_eq!(gateway.ask("GET", &path).status, 405);
    assert_eq!(states(&gateway)[&origin.address()], "up");
}

#[test]
fn a_socket_is_drained_too() {
    let origin = Origin::named("x");
    let builder = with_own_file("servers: []");
    let socket = builder.dir().join("app.sock").display().to_string();
    let keys = format!("servers: [\"unix:{socket}\", \"{}\"]", origin.address());
    std::fs::write(builder.dir().join("app.yaml"), own_file(&keys)).expect("a file");
    let gateway = builder.start();
    let drained = upstreams(&gateway, &["drain", "app", &format!("unix:{socket}")]);
    assert_eq!(drained.code, Some(0), "{}", drained.stderr);
    let table = upstreams(&gateway, &["list"]).stdout;
    let row = table.lines().find(|line| line.contains(&socket));
    assert!(row.expect("a row").contains("drained"), "{table}");
}
