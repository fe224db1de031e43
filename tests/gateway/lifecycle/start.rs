//! Starting, on a clean ground and on what a crash left.

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::process::Command;
use std::time::{Duration, Instant};

use super::{SECOND, in_front_of};
use crate::support::{Act, Ca, Gateway, Origin, TlsClient, connect};

#[test]
fn after_a_crash_it_serves_again_at_once() {
    let origin = Origin::start(|request| {
        if request.line().contains("/slow") {
            vec![Act::Silence]
        } else {
            vec![Act::respond(200, "x")]
        }
    });
    let mut gateway = in_front_of(&origin).start();
    let mut quickest = Duration::MAX;
    for _ in 0..3 {
        // It dies with connections open in every state, on the same ports as before.
        let mut busy = TlsClient::named("a.test").connect(gateway.https);
        assert_eq!(busy.get("a.test", "/").status, 200);
        let before = origin.requests().len();
        busy.write_all(b"GET /slow HTTP/1.1\r\nHost: a.test\r\n\r\n")
            .expect("taken");
        let _idle = connect(gateway.http);
        origin.wait_for_requests(before + 1);
        gateway.kill();
        let start = Instant::now();
        gateway.restart();
        let mut stream = TlsClient::named("a.test").connect(gateway.https);
        assert_eq!(stream.get("a.test", "/").status, 200);
        quickest = quickest.min(start.elapsed());
    }
    // What a busy machine does to one start, it does not do to each.
    assert!(quickest < SECOND, "{quickest:?}");
}

#[test]
fn a_crash_leaves_no_socket_in_the_way() {
    let dir = tempfile::tempdir().expect("a directory");
    let config = dir.path().join("snigate.yaml");
    let socket = dir.path().join("admin.sock");
    let text = format!(
        "server: {{ https: [], http: [\"127.0.0.1:0\"], admin: \"unix:{}\" }}\n\
         storage: {{ file: {{ path: data }} }}\n\
         sites: [{{ hosts: [a.test], tls: off, routes: [{{ respond: {{ status: 200 }} }}] }}]\n",
        socket.display()
    );
    fs::write(&config, text).expect("a file");
    for _ in 0..2 {
        let mut child = Command::new(env!("CARGO_BIN_EXE_snigate"))
            .args(["run", "--config"])
            .arg(&config)
            .stderr(std::process::Stdio::null())
            .spawn()
            .expect("it starts");
        crate::support::wait_for("the admin socket to answer", || {
            assert!(child.try_wait().expect("a child").is_none(), "it ended");
            std::os::unix::net::UnixStream::connect(&socket).ok()
        });
        child.kill().expect("killed");
        child.wait().expect("ended");
        assert!(socket.exists(), "a crash cleans nothing up");
    }
}

#[test]
fn a_relative_path_to_the_configuration_is_read_once() {
    let origin = Origin::named("x");
    let builder = in_front_of(&origin);
    let alone = Ca::new("Relative Root").intermediate("Relative CA");
    let alone = alone.leaf(&["b.test"]).with_place_of_issuer().make();
    let certificate = alone.certificate.to_pem().expect("PEM");
    fs::write(builder.dir().join("certs/b.crt"), certificate).expect("written");
    fs::write(builder.dir().join("certs/b.key"), &alone.key).expect("written");
    let gateway = builder.relative().start();
    // The file is too fresh to trust its times, so it has been read again and compared by now:
    // what is asked for is done in turn.
    let (status, _) = gateway.reload();
    assert_eq!(status, 200);
    let reloads = gateway.metric("snigate_config_reloads_total{result=\"ok\"}");
    assert_eq!(reloads, Some(1.0), "{}", gateway.log());
    gateway.wait_for_log("configuration reloaded");
    let log = gateway.log();
    for place in ["certificates[0]: ", "certificate_flawed"] {
        let is_warning = |line: &&str| line.contains("chain is incomplete") && line.contains(place);
        let warned = log.lines().filter(is_warning).count();
        assert_eq!(warned, 1, "once for as long as it stays: {log}");
    }
}

#[test]
fn a_port_in_use_is_named() {
    let origin = Origin::named("x");
    let builder = in_front_of(&origin);
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address");
    for key in ["https", "http", "admin"] {
        let mut gateway = Gateway::builder()
            .config(
                "sites: [{ hosts: [a.test], tls: off, routes: [{ respond: { status: 200 } }] }]",
            )
            .spawn();
        gateway.kill();
        let mut config: String = fs::read_to_string(&gateway.config).expect("a file");
        let free = match key {
            "https" => gateway.https,
            "http" => gateway.http,
            _ => gateway.admin,
        };
        config = config.replace(&free.to_string(), &address.to_string());
        gateway.write("snigate.yaml", &config);
        let output = Command::new(env!("CARGO_BIN_EXE_snigate"))
            .args(["run", "--config"])
            .arg(&gateway.config)
            .output()
            .expect("it starts");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{key}: {said}");
        assert!(said.contains(&address.to_string()), "{key}: {said}");
        assert!(said.to_lowercase().contains("use"), "{key}: {said}");
        assert!(!said.contains("panicked"), "{key}: {said}");
    }
    drop(builder);
}
