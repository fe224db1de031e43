//! The proxy as clients and upstreams see it: the built program between curl, raw sockets and
//! origins that share no code with it.

mod authority;
mod bodies;
mod direct_responses;
mod endings;
mod failures;
mod fields;
mod interim;
mod log;
mod responses;
mod routing;
mod uploads;
mod upstreams;
mod websocket;

use std::net::SocketAddr;

use crate::support::{Builder, Curl, Gateway, Origin, serving};

/// A gateway whose site `a.test` passes everything to this origin.
#[track_caller]
fn in_front_of(origin: &Origin) -> Gateway {
    serving(
        &[&["a.test"]],
        format!(
            "upstreams: {{ app: {{ servers: [\"{}\"] }} }}\n\
             sites: [{{ hosts: [a.test], upstream: app }}]\n\
             log: {{ access: off }}\n",
            origin.address()
        ),
    )
    .start()
}

/// Begins a gateway whose `a.test`, and without TLS `plain.test`, pass everything to this address.
/// `route` adds keys to that route, as `, timeout: { read: 1s }`.
fn passing_to(address: SocketAddr, route: &str) -> Builder {
    let routes = format!("routes: [{{ upstream: app{route} }}]");
    serving(
        &[&["a.test"]],
        format!(
            "upstreams: {{ app: {{ servers: [\"{address}\"] }} }}\n\
             sites:\n\
             - {{ hosts: [a.test], {routes} }}\n\
             - {{ hosts: [plain.test], tls: off, {routes} }}\n\
             log: {{ access: off }}\n"
        ),
    )
}

/// A request over HTTP/1.1 or HTTP/2, as `version` says.
fn over(version: &str, gateway: &Gateway, host: &str, path: &str) -> Curl {
    let version = match version {
        "1.1" => "--http1.1",
        _ => "--http2",
    };
    gateway
        .curl(host, path)
        .cacert(&gateway.dir().join("root.pem"))
        .arg(version)
}

/// The versions that clients speak.
const VERSIONS: [&str; 2] = ["1.1", "2"];
