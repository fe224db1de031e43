//! Changes during a reload, and reloads under load: nothing is lost and nothing is mixed.

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use nix::sys::signal::Signal;

use super::{Volume, lines_with, reloads, serial, site, under_connections, wait_for_body};
use crate::support::{Ca, Gateway, TlsClient, wait_for};

/// The pair of one generation, and the configuration that names it and answers with its number.
fn generation(gateway: &Gateway, ca: &Ca, number: u32) -> String {
    let pair = ca.leaf(&["a.example", "b.example"]).serial(number).make();
    pair.write(&gateway.dir().join("generations"), &number.to_string());
    generation_config(number)
}

fn generation_config(number: u32) -> String {
    let files = format!("generations/{number}");
    format!(
        "certificates: [{{ files: {{ cert: {files}.pem, key: {files}.key }} }}]\nsites:\n{}{}",
        site("a.example", &number.to_string()),
        site("b.example", &number.to_string())
    )
}

/// Many sites beside `a.example`, so that reading them takes its time.
fn long(body: &str, certificate: &str) -> String {
    let mut text = format!(
        "certificates: [{{ files: {{ cert: {certificate}.pem, key: {certificate}.key }} }}]\nsites:\n{}",
        site("a.example", body)
    );
    for number in 0..1000 {
        let host = format!("plain{number}.example");
        text.push_str(&format!(
            "  - {{ hosts: [{host}], tls: off, routes: [{{ respond: {{ body: x }} }}] }}\n"
        ));
    }
    text
}

/// How long after its beginning a reload is met, in parts of a whole one.
const MOMENTS: u32 = 5;

#[test]
fn a_change_during_a_reload_is_not_lost() {
    let builder = Gateway::builder();
    let ca = Ca::new("Lost Root");
    ca.leaf(&["a.example"]).make().write(builder.dir(), "a");
    let mut gateway = builder.config(long("0", "a")).start();
    let start = Instant::now();
    assert_eq!(gateway.reload().0, 200);
    let whole = start.elapsed();
    for moment in 1..=MOMENTS {
        gateway.replace_config(long("before", "a"));
        // The change of the file begins a reload of its own, which is not the one to meet.
        wait_for_body(&gateway, "a.example", "before");
        let config = fs::read_to_string(&gateway.config).expect("readable");
        let wanted = moment.to_string();
        thread::scope(|scope| {
            let reload = scope.spawn(|| gateway.reload());
            thread::sleep(whole * moment / MOMENTS);
            gateway.write("snigate.yaml", &config.replacen("before", &wanted, 1));
            assert_eq!(reload.join().expect("an answer").0, 200);
        });
        wait_for_body(&gateway, "a.example", &wanted);
    }
}

#[test]
fn a_volume_with_configuration_and_certificates_changes_as_one() {
    let builder = Gateway::builder();
    let ca = Ca::new("One Root");
    let volume = builder.dir().join("volume");
    let publish = |number: u32| {
        let pair = ca.leaf(&["a.example"]).serial(number).make();
        Volume(&volume).publish(
            &number.to_string(),
            &[
                ("sites.yaml", &long(&number.to_string(), "tls")),
                ("tls.pem", &pair.chain),
                ("tls.key", &pair.key),
            ],
        );
    };
    publish(1);
    let gateway = builder.config("include: [\"volume/*.yaml\"]\n").start();
    let start = Instant::now();
    assert_eq!(gateway.reload().0, 200);
    let whole = start.elapsed();
    let seen = under_connections(&gateway, "a.example", ca.certificate(), || {
        for moment in 1..=MOMENTS {
            let number = moment + 1;
            thread::scope(|scope| {
                let reload = scope.spawn(|| gateway.reload());
                thread::sleep(whole * moment / MOMENTS);
                publish(number);
                assert_eq!(reload.join().expect("an answer").0, 200);
            });
            wait_for_body(&gateway, "a.example", &number.to_string());
        }
    });
    let mixed: Vec<_> = seen
        .pairs
        .iter()
        .filter(|(serial, body)| serial != body)
        .collect();
    assert_eq!(mixed, Vec::<&(String, String)>::new());
}

const RELOADS: u32 = 200;

#[test]
fn two_hundred_reloads_under_load_lose_nothing_and_mix_nothing() {
    let start = Instant::now();
    let builder = Gateway::builder();
    let ca = Ca::new("Load Root");
    ca.leaf(&["a.example", "b.example"])
        .serial(1)
        .make()
        .write(&builder.dir().join("generations"), "1");
    let root_file = ca.write(builder.dir());
    let mut gateway = builder.config(generation_config(1)).start();
    let done = AtomicBool::new(false);
    let (newest, connections, requests) =
        (AtomicU32::new(1), AtomicUsize::new(0), AtomicUsize::new(0));
    let (https, root, curl) = (
        gateway.https,
        ca.certificate(),
        gateway.curl("a.example", ""),
    );
    drop(curl);
    let goes_on = || !done.load(Ordering::Relaxed);

    // New connections all along: each sees one generation, and no client sees time run back.
    let reconnecting = |host: &'static str| {
        let mut last = 0;
        while goes_on() {
            let client = TlsClient::named(host).trusting(root);
            let mut stream = client.try_connect(https).expect("no handshake fails");
            let of_certificate = serial(&stream.certificate());
            let response = stream.get(host, "/");
            assert_eq!(response.status, 200, "{response:?}");
            assert_eq!(of_certificate, response.text(), "of one state");
            let of_body: u32 = response.text().parse().expect("a number");
            assert!(of_body >= last, "{last}, then {of_body}");
            last = of_body;
            newest.fetch_max(of_body, Ordering::Relaxed);
            connections.fetch_add(1, Ordering::Relaxed);
        }
    };
    // One connection for all the time.
    let staying = || {
        let mut stream = TlsClient::named("a.example").trusting(root).connect(https);
        let mut last = 0;
        while goes_on() {
            let response = stream.get("a.example", "/");
            assert_eq!(response.status, 200, "{response:?}");
            let number: u32 = response.text().parse().expect("a number");
            assert!(number >= last, "{last}, then {number}");
            last = number;
            requests.fetch_add(1, Ordering::Relaxed);
        }
        assert!(last > RELOADS / 2, "it sees the new routes: {last}");
    };
    // HTTP/2 by curl, many requests on each connection, some at once.
    let by_http2 = || {
        let mut rounds = 0;
        while goes_on() {
            let url = format!("https://b.example:{}/?[1-300]", https.port());
            let output = std::process::Command::new("curl")
                .args([
                    "--disable",
                    "--silent",
                    "--show-error",
                    "--http2",
                    "--max-time",
                    "30",
                ])
                .args(["--parallel", "--parallel-max", "4", "--noproxy", "*"])
                .args([
                    "--write-out",
                    " %{http_code} %{http_version} %{num_connects}\n",
                ])
                .arg("--resolve")
                .arg(format!("b.example:{}:{}", https.port(), https.ip()))
                .arg("--cacert")
                .arg(&root_file)
                .arg(url)
                .output()
                .expect("curl is installed");
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            let complaint = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{}: {complaint}", output.status);
            let good = said.lines().filter(|line| line.contains(" 200 2 ")).count();
            assert_eq!(good, 300, "{said}");
            requests.fetch_add(good, Ordering::Relaxed);
            rounds += 1;
        }
        assert!(rounds > 0);
    };

    thread::scope(|scope| {
        let clients = [
            scope.spawn(|| reconnecting("a.example")),
            scope.spawn(|| reconnecting("b.example")),
            scope.spawn(staying),
            scope.spawn(by_http2),
        ];
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for number in 2..=RELOADS + 1 {
                let text = generation(&gateway, &ca, number);
                gateway.replace_config(text);
                match number % 3 {
                    0 => assert_eq!(gateway.reload().0, 200),
                    1 => gateway.signal(Signal::SIGHUP),
                    // Twice in a row, and once more for the change of the file.
                    _ => {
                        gateway.signal(Signal::SIGHUP);
                        assert_eq!(gateway.reload().0, 200);
                    }
                }
                wait_for("a client to see it", || {
                    let seen = newest.load(Ordering::Relaxed) >= number;
                    let all_run = clients.iter().all(|client| !client.is_finished());
                    (seen || !all_run).then_some(())
                });
                if number > 3 {
                    let old = gateway.dir().join(format!("generations/{}", number - 3));
                    let _ = fs::remove_file(old.with_extension("pem"));
                    let _ = fs::remove_file(old.with_extension("key"));
                }
            }
        }));
        done.store(true, Ordering::Relaxed);
        for client in clients {
            client.join().expect("a client that saw no failure");
        }
        outcome.expect("every reload is taken");
    });
    assert_eq!(newest.into_inner(), RELOADS + 1);
    let (connections, requests) = (connections.into_inner(), requests.into_inner());
    assert!(
        connections >= 200 && requests >= 500,
        "{connections}, {requests}"
    );
    assert!(reloads(&gateway, "ok") >= f64::from(RELOADS));
    assert_eq!(reloads(&gateway, "refused"), 0.0);
    let failed = "snigate_tls_handshakes_total{group=\"none\",resumed=\"false\",\
                  result=\"failed\",version=\"none\"}";
    assert_eq!(gateway.metric(failed).unwrap_or(0.0), 0.0);
    assert_eq!(lines_with(&gateway, &["ERROR"]), Vec::<String>::new());
    eprintln!(
        "{connections} connections, {requests} requests in {:?}",
        start.elapsed()
    );
}
