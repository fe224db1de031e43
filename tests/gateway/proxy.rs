//! The proxy as clients and upstreams see it: the built program between curl, raw sockets and
//! origins that share no code with it.

mod access;
mod announced_clients;
mod authority;
mod balancing;
mod bodies;
mod compression;
mod conditions;
mod direct_responses;
mod draining;
mod endings;
mod error_pages;
mod failures;
mod faults;
mod fields;
mod forward_auth;
mod grpc;
mod grpc_tonic;
mod h2load;
mod health;
mod hsts;
mod http2_connections;
mod http2_room;
mod http2_servers;
mod httpx;
mod interim;
mod jwt;
mod log;
mod maintenance;
mod proxy_protocol;
mod redirects;
mod resolving;
mod responses;
mod retries;
mod rewriting;
mod route_limits;
mod routing;
mod server_tls;
mod silent_resolvers;
mod slow_start;
mod sticky;
mod streams;
mod trailers;
mod trusted_proxies;
mod uploads;
mod upstreams;
mod websocket;
mod websocket_http2;
mod websocket_peers;

use std::collections::HashMap;
use std::fs;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{Builder, Curl, Gateway, H2Server, Origin, serving, wait_for};

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

/// Waits until a line of `access.log` has this in it.
#[track_caller]
fn wait_for_line(gateway: &Gateway, wanted: &str) {
    wait_for(&format!("{wanted} in the access log"), || {
        let log = fs::read_to_string(gateway.dir().join("access.log")).unwrap_or_default();
        log.lines().any(|line| line.contains(wanted)).then_some(())
    });
}

/// How many requests have been refused for this reason.
fn refused(gateway: &Gateway, reason: &str) -> f64 {
    let metric = format!("snigate_requests_refused_total{{reason=\"{reason}\"}}");
    gateway.metric(&metric).unwrap_or_default()
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

/// Begins a gateway whose `a.test` passes everything to the upstream `app` with these keys.
fn with_upstream(keys: &str) -> Builder {
    serving(&[&["a.test"]], upstream_config(keys))
}

/// A gateway whose `a.test` passes everything to this server of HTTP/2.
#[track_caller]
fn in_front_of_http2(server: &H2Server) -> Gateway {
    let address = server.address();
    with_upstream(&format!("servers: [\"{address}\"], protocol: h2")).start()
}

/// The configuration of such a gateway without its certificates.
fn upstream_config(keys: &str) -> String {
    format!(
        "upstreams: {{ app: {{ {keys} }} }}\n\
         sites: [{{ hosts: [a.test], upstream: app }}]\n\
         log: {{ access: off }}\n"
    )
}

/// Begins a gateway whose `a.test` has a route to each of these upstreams, `/0/` and so on.
fn in_front_of_all(upstreams: &[String]) -> Builder {
    let numbered = || upstreams.iter().enumerate();
    let all: String = numbered()
        .map(|(number, keys)| format!("  u{number}: {{ {keys} }}\n"))
        .collect();
    let routes: String = numbered()
        .map(|(number, _)| format!("  - {{ path: /{number}/, upstream: u{number} }}\n"))
        .collect();
    serving(
        &[&["a.test"]],
        format!(
            "upstreams:\n{all}sites:\n- hosts: [a.test]\n  routes:\n{routes}log: {{ access: off }}\n"
        ),
    )
}

/// The state of each address of the upstream `app`.
fn states(gateway: &Gateway) -> HashMap<SocketAddr, String> {
    let answer = gateway.ask("GET", "/api/v1/upstreams");
    let upstreams: Value = serde_json::from_slice(&answer.body).expect("JSON");
    let servers = upstreams[0]["servers"].as_array().expect("servers").iter();
    servers
        .map(|server| {
            let text = |key: &str| server[key].as_str().expect("a text").to_owned();
            (text("address").parse().expect("an address"), text("state"))
        })
        .collect()
}

/// Waits until an address has this state, and returns how long that took.
#[track_caller]
fn wait_for_state(gateway: &Gateway, address: SocketAddr, state: &str) -> Duration {
    let start = Instant::now();
    wait_for(&format!("{address} to be {state}"), || {
        (states(gateway).get(&address).map(String::as_str) == Some(state)).then_some(())
    });
    start.elapsed()
}

/// Has a gateway without another choice of a lane send all requests over Pingora's.
const PINGORA: [&str; 3] = ["sh", "-c", "exec \"$0\" \"$@\" --lane pingora"];

/// The values of a field in a head.
fn all<'a>(head: &'a str, name: &str) -> Vec<&'a str> {
    head.lines()
        .filter_map(|line| line.split_once(": "))
        .filter(|(field, _)| field.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.trim_end())
        .collect()
}

/// The versions that clients speak.
const VERSIONS: [&str; 2] = ["1.1", "2"];
