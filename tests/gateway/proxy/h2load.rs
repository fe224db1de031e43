//! Many requests at a time by nghttp2's `h2load`, to nginx.

use std::process::{Command, Stdio};

use super::with_upstream;
use crate::support::{Gateway, Nginx};

const CLIENTS: usize = 20;
const REQUESTS: usize = 2_000;

/// What `h2load` printed.
#[track_caller]
fn h2load(gateway: &Gateway, version: &str) -> String {
    let mut command = Command::new("timeout");
    command.args(["120", "h2load"]);
    match version {
        "1.1" => command.arg("--h1"),
        _ => command.arg("--max-concurrent-streams=10"),
    };
    let output = command
        .arg(format!("--clients={CLIENTS}"))
        .arg(format!("--requests={REQUESTS}"))
        .arg(format!("--connect-to={}", gateway.https))
        .arg(format!("https://a.test:{}/", gateway.https.port()))
        .stdin(Stdio::null())
        .output()
        .expect("coreutils are installed");
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{}: {complaint}; `scripts/install test` installs Debian's package nghttp2-client",
        output.status
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn of_two_thousand_requests_none_fails() {
    for protocol in ["http1", "h2"] {
        // It ends a connection after 1,000 requests.
        let nginx = Nginx::serving(protocol, "location / { return 200 hello; }");
        let address = nginx.address();
        let keys = format!("servers: [\"{address}\"], protocol: {protocol}");
        let gateway = with_upstream(&keys).start();
        for (version, protocol_of_client) in [("1.1", "http/1.1"), ("2", "h2")] {
            let printed = h2load(&gateway, version);
            let has = |line: &str| {
                assert!(printed.contains(line), "{version} to {protocol}: {printed}");
            };
            has(&format!("Application protocol: {protocol_of_client}\n"));
            has(&format!(
                "requests: {REQUESTS} total, {REQUESTS} started, {REQUESTS} done, \
                 {REQUESTS} succeeded, 0 failed, 0 errored, 0 timeout"
            ));
            has(&format!(
                "status codes: {REQUESTS} 2xx, 0 3xx, 0 4xx, 0 5xx"
            ));
            let finished = printed
                .lines()
                .find(|line| line.starts_with("finished in "));
            eprintln!("{version} to {protocol}: {}", finished.unwrap_or_default());
        }
    }
}
