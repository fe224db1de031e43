//! What clients do wrong has lines in the log, and no flood of them.

use std::io::Write;
use std::time::Instant;

use super::{Read, closed_after};
use crate::support::{Gateway, Origin, TlsClient, connect, serving, wait_for};

/// How many of each kind there are.
const EACH: usize = 100;

/// The lines of one kind.
fn lines(gateway: &Gateway, what: &str) -> Vec<String> {
    let log = gateway.log();
    let lines = log.lines().filter(|line| line.contains(what));
    lines.map(str::to_owned).collect()
}

/// How many lines these say were not written.
fn held_back(lines: &[String]) -> usize {
    let counts = lines.iter().filter_map(|line| {
        let (_, rest) = line.split_once("held_back=")?;
        rest.split(' ').next()?.parse::<usize>().ok()
    });
    counts.sum()
}

/// Does one thing wrong again and again, and checks that what is written is little and says all.
fn bounded(gateway: &Gateway, what: &str, says: &[&str], wrong: impl Fn()) {
    let start = Instant::now();
    let mut done = EACH;
    (0..EACH).for_each(|_| wrong());
    wait_for(&format!("a line that counts others of {what:?}"), || {
        let written = lines(gateway, what);
        let told = written.len() + held_back(&written);
        if told > EACH {
            return Some(());
        }
        done += 1;
        wrong();
        None
    });
    let written = lines(gateway, what);
    let seconds = usize::try_from(start.elapsed().as_secs()).expect("few");
    assert!(written.len() <= seconds + 2, "{written:?}");
    assert!(written.len() + held_back(&written) <= done, "{written:?}");
    for say in says {
        assert!(written.iter().all(|line| line.contains(say)), "{written:?}");
    }
}

#[test]
fn failures_of_clients_have_few_lines_that_say_who() {
    let origin = Origin::named("x");
    let gateway = serving(
        &[&["a.test"]],
        format!(
            "tls: {{ unknown_sni: reject }}\n\
             upstreams: {{ app: {{ servers: [\"{}\"] }} }}\n\
             sites: [{{ hosts: [a.test], upstream: app }}]\n\
             log: {{ access: off, level: debug }}\n",
            origin.address()
        ),
    );
    let mut gateway = gateway.start();

    let failed = "TLS handshake failed";
    let garbage = || {
        let mut stream = connect(gateway.https);
        stream.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("taken");
        closed_after(&mut stream, Instant::now());
    };
    bounded(
        &gateway,
        failed,
        &["peer=127.0.0.1:", "result=\"failed\""],
        garbage,
    );
    let before = lines(&gateway, failed).len();
    let unknown = || {
        let refused = TlsClient::named("b.test").try_connect(gateway.https);
        assert!(refused.is_err(), "it has no certificate");
        let written = lines(&gateway, failed);
        let named = |line: &String| {
            line.contains("server_name=\"b.test\"") && line.contains("unknown_name=true")
        };
        written.iter().skip(before).any(named).then_some(())
    };
    wait_for("a line with the name", unknown);

    let refused = || {
        let mut stream = connect(gateway.http);
        stream.write_all(b"not http\r\n\r\n").expect("taken");
        let _ = stream.read(&mut [0; 64]);
    };
    bounded(
        &gateway,
        "refused a request",
        &["peer=127.0.0.1:", "status="],
        refused,
    );

    // With a default certificate the same name is a miss and no failure.
    let config = std::fs::read_to_string(&gateway.config).expect("a file");
    let config = config.replace("unknown_sni: reject", "default_certificate: a.test");
    gateway.write("snigate.yaml", &config);
    assert_eq!(gateway.reload().0, 200);
    let missed = || drop(TlsClient::named("B.test").connect(gateway.https));
    let says = ["peer=127.0.0.1:", "server_name=\"b.test\""];
    bounded(&gateway, "presented the default one", &says, missed);
    assert!(gateway.exited().is_none());
}
