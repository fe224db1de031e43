//! More connections than there are file descriptors.

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use super::SECOND;
use crate::support::{Gateway, Origin, connect, serving, within};

/// Seconds of processor time that a process has used.
fn processor_time(gateway: &Gateway) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", gateway.pid())).expect("a process");
    let rest = stat.rsplit(") ").next().expect("fields");
    let ticks: Vec<f64> = rest
        .split(' ')
        .filter_map(|field| field.parse().ok())
        .collect();
    // Fields 14 and 15 of all; the state, field 3, is no number and so is not among these.
    (ticks[10] + ticks[11]) / 100.0
}

#[test]
fn with_256_descriptors_400_connections_are_survived() {
    let origin = Origin::named("x");
    let gateway = serving(
        &[&["a.test"]],
        format!(
            "upstreams: {{ app: {{ servers: [\"{}\"] }} }}\n\
             sites:\n\
             - {{ hosts: [a.test], upstream: app }}\n\
             - {{ hosts: [plain.test], tls: off, upstream: app }}\n",
            origin.address()
        ),
    )
    .server("limits: { header_read: 120s, idle: 120s }")
    .descriptors(256)
    .start();
    let crowd: Vec<TcpStream> = (0..400)
        .map(|number| {
            let mut stream = connect(if number % 2 == 0 {
                gateway.http
            } else {
                gateway.https
            });
            let _ = stream.write_all(b"GET / HTTP/1.1\r\n");
            stream
        })
        .collect();
    within(SECOND * 10, "as many as there is room for", || {
        let open =
            |listener| gateway.metric(&format!("snigate_connections{{listener=\"{listener}\"}}"));
        (open("http")? + open("https")? >= 70.0).then_some(())
    });
    let (used, start) = (processor_time(&gateway), Instant::now());
    thread::sleep(Duration::from_secs(2));
    let share = (processor_time(&gateway) - used) / start.elapsed().as_secs_f64();
    assert!(
        share < 0.5,
        "{share} of a core while there is nothing to do"
    );
    assert!(gateway.descriptors() < 256);

    // There is a reserve for a reload and those who watch.
    let config = fs::read_to_string(&gateway.config).expect("a file");
    gateway.write("snigate.yaml", &config.replace("plain.test", "other.test"));
    let (status, answer) = gateway.reload();
    assert_eq!(status, 200, "{answer}");

    drop(crowd);
    let start = Instant::now();
    within(SECOND * 5, "service after relief", || {
        let reply = gateway.curl_http("other.test", "/").try_send().ok()?;
        (reply.status == 200).then_some(())
    });
    assert!(start.elapsed() < SECOND * 5);
    assert_eq!(
        gateway.curl("a.test", "/").arg("--insecure").send().status,
        200
    );
}
