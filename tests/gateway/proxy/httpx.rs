//! What applications in Python have of the gateway: httpx as the client, nginx as the server, each
//! with both versions of HTTP.

use std::fs;

use super::VERSIONS;
use crate::support::{Builder, Nginx, python, serving};

/// Where files are found, and what happens to them on the way. Includes (`ssi`) leave the length
/// open, without which HTTP/1.1 has no trailers.
const LOCATIONS: &str = "
    location / { return 200 \"$connection_requests\"; }
    location /files/ { dav_methods PUT; create_full_put_path on; }
    location /moved { absolute_redirect off; return 302 /files/text; }
    location /kept { absolute_redirect off; return 307 /files/kept; }
    location /gzip/ { alias root/files/; gzip on; gzip_proxied any; gzip_types *; }
    location /compress/ { alias root/files/; }
    location /trailers/ { alias root/files/; add_trailer X-Check done; ssi on; ssi_types *; }
    location /events { default_type text/event-stream; limit_rate 200; }
";

/// Has a function of the script talk over both versions to gateways in front of both.
#[track_caller]
fn talks(function: &str) {
    talks_to(function, |gateway| gateway);
}

/// The same with gateways that are set up further.
#[track_caller]
fn talks_to(function: &str, set_up: impl Fn(Builder) -> Builder) {
    for protocol in ["http1", "h2"] {
        let nginx = Nginx::serving(protocol, LOCATIONS);
        let files = nginx.root().join("files");
        fs::create_dir(&files).expect("a directory");
        let text: String = (0..20_000)
            .map(|number| format!("line {number}\n"))
            .collect();
        fs::write(files.join("text"), text).expect("a file");
        let events = (0..4).map(|number| format!("id: {number}\ndata: {}\n\n", "x".repeat(180)));
        fs::write(nginx.root().join("events"), events.collect::<String>()).expect("a file");
        let gateway = set_up(serving(
            &[&["a.test"]],
            format!(
                "upstreams: {{ app: {{ servers: [\"{}\"], protocol: {protocol} }} }}\n\
                 sites:\n\
                 - hosts: [a.test]\n\
                 \x20 routes:\n\
                 \x20 - {{ path: /compress/, upstream: app, compress: on }}\n\
                 \x20 - {{ path: /old, redirect: {{ to: \"/files/text{{?query}}\", status: 308 }} }}\n\
                 \x20 - {{ upstream: app }}\n\
                 log: {{ access: off }}\n",
                nginx.address()
            ),
        ))
        .start();
        for version in VERSIONS {
            let printed = python(
                "httpx_client.py",
                &[
                    function,
                    version,
                    &gateway.https.port().to_string(),
                    &gateway.http.port().to_string(),
                    &gateway.dir().join("root.pem").display().to_string(),
                ],
            );
            let printed = printed.trim_end();
            eprintln!("{function} over {version} to {protocol}: {printed}");
        }
    }
}

#[test]
fn bodies_stream_both_ways() {
    talks("bodies");
}

#[test]
fn redirects_are_followed() {
    talks("redirects");
}

#[test]
fn codings_are_decoded() {
    talks("codings");
}

#[test]
fn events_arrive_one_by_one() {
    talks("events");
}

#[test]
fn one_connection_carries_many_requests() {
    talks("connections");
}

#[test]
fn requests_run_side_by_side() {
    talks("concurrency");
}

#[test]
fn trailers_arrive() {
    talks_to("trailers", Builder::over_own_lane);
}
