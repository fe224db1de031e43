//! How the servers of an upstream are chosen, watched and left out.

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::config::model::{
    Balance, Eject, HashKey, HealthCheck, KeepAlive, Probe, Protocol, ProxyProtocolVersion,
    StatusSet, Sticky, Upstream, UpstreamAddress,
};

/// The upstream `app` with these keys besides its servers.
fn upstream(keys: &str) -> Arc<Upstream> {
    let loaded = accept(&text(&format!("servers: [\"10.0.0.1:80\"], {keys}")));
    Arc::clone(&loaded.config.upstreams["app"])
}

fn text(keys: &str) -> String {
    format!(
        "upstreams: {{ app: {{ {keys} }} }}\n\
         sites: [{{ hosts: [a.example], tls: off, upstream: app }}]\n"
    )
}

#[test]
fn a_server_is_chosen_as_configured() {
    let balance = |value: &str| upstream(&format!("balance: {value}")).balance.clone();
    assert_eq!(balance("round_robin"), Balance::RoundRobin);
    assert_eq!(balance("least_requests"), Balance::LeastRequests);
    assert_eq!(
        balance("{ hash: client_ip }"),
        Balance::Hash(HashKey::ClientIp)
    );
    let header = HashKey::Header("x-user".parse().expect("a name"));
    assert_eq!(
        balance("{ hash: { header: X-User } }"),
        Balance::Hash(header)
    );
    let cookie = HashKey::Cookie("id".into());
    assert_eq!(balance("{ hash: { cookie: id } }"), Balance::Hash(cookie));
}

#[test]
fn clients_stay_at_their_server_by_a_cookie() {
    assert_eq!(upstream("max_connections: 1").sticky, None);
    let sticky = |keys: &str| upstream(&format!("sticky: {{ {keys} }}")).sticky.clone();
    let of = |max_age| {
        Some(Sticky {
            cookie: "snigate".into(),
            max_age,
        })
    };
    assert_eq!(sticky("cookie: snigate"), of(None));
    let hour = Duration::from_secs(3600);
    assert_eq!(sticky("cookie: snigate, max_age: 1h"), of(Some(hour)));
}

#[test]
fn servers_that_come_up_may_begin_slowly() {
    assert_eq!(upstream("max_connections: 1").slow_start, None);
    let half_a_minute = Some(Duration::from_secs(30));
    assert_eq!(upstream("slow_start: 30s").slow_start, half_a_minute);
}

#[test]
fn without_tls_nothing_is_negotiated() {
    for (keys, protocol) in [
        ("tls: on", Protocol::Http1),
        ("protocol: http1", Protocol::Http1),
        ("protocol: auto", Protocol::Http1),
        ("protocol: auto, tls: on", Protocol::Negotiated),
        ("protocol: h2", Protocol::Http2),
        ("protocol: h2, tls: on", Protocol::Http2),
    ] {
        assert_eq!(upstream(keys).protocol, protocol, "{keys}");
    }
}

#[test]
fn health_may_be_asked_for_over_grpc() {
    let upstream = upstream("protocol: h2, health: { grpc: a.Service, host: a.internal }");
    let probe = Probe::Grpc {
        service: "a.Service".to_owned(),
        host: Some("a.internal".to_owned()),
    };
    assert_eq!(
        upstream.health.as_ref().map(|check| &check.probe),
        Some(&probe)
    );
}

#[test]
fn servers_have_limits_of_their_own() {
    let servers = "servers: [\"a:1\", { address: \"b:1\", backup: true }, \
                   { address: \"c:1\", max_connections: 7 }], max_connections: 3";
    let loaded = accept(&text(servers));
    let servers = &loaded.config.upstreams["app"].servers;
    let limits: Vec<_> = servers
        .iter()
        .map(|one| (one.backup, one.max_connections))
        .collect();
    assert_eq!(limits, [(false, 3), (true, 3), (false, 7)]);
}

#[test]
fn servers_may_be_those_that_srv_records_name() {
    let servers = "servers: [\"srv:_http._tcp.App.internal\", \
                   { address: \"srv:app.service.consul\", weight: 2 }]";
    let loaded = accept(&text(servers));
    let servers = &loaded.config.upstreams["app"].servers;
    let service = |name: &str| UpstreamAddress::Service(name.parse().expect("a name"));
    assert_eq!(servers[0].address, service("_http._tcp.app.internal"));
    assert_eq!(servers[1].address, service("app.service.consul"));
    assert_eq!(servers[0].to_string(), "srv:_http._tcp.app.internal");
    for (servers, words) in [
        ("\"srv:\"", "is not the name of SRV records"),
        ("\"srv:app.internal:80\"", "the records have the ports"),
    ] {
        let found = errors(&text(&format!("servers: [{servers}]")));
        assert!(found[0].contains(words), "{servers}: {found:#?}");
    }
    // Whoever answers for the resolver must not choose the name that is verified.
    let service = "servers: [\"srv:_http._tcp.app.internal\"]";
    let found = errors(&text(&format!("{service}, tls: on")));
    assert!(found[0].contains("needs a name to verify"), "{found:#?}");
    accept(&text(&format!("{service}, tls: {{ verify: false }}")));
    accept(&text(&format!(
        "{service}, tls: {{ server_name: a.internal }}"
    )));
}

#[test]
fn resolvers_of_names_of_servers_are_as_configured() {
    let server = text("servers: [\"a.internal:80\"]");
    assert_eq!(accept(&server).config.server.resolvers, []);
    let given = format!("server: {{ resolvers: [\"10.0.0.53:53\"] }}\n{server}");
    let loaded = accept(&given);
    assert_eq!(
        loaded.config.server.resolvers,
        ["10.0.0.53:53".parse().expect("an address")]
    );
    let found = errors(&given.replace("10.0.0.53:53", "10.0.0.53"));
    assert!(
        found[0].contains("server.resolvers[0]: ") && found[0].contains("ADDRESS:PORT"),
        "{found:#?}"
    );
}

#[test]
fn servers_may_get_the_clients_address() {
    let version = |keys: &str| upstream(keys).send_proxy_protocol;
    assert_eq!(version("max_connections: 0"), None);
    assert_eq!(version("send_proxy_protocol: off"), None);
    assert_eq!(
        version("send_proxy_protocol: v1"),
        Some(ProxyProtocolVersion::V1)
    );
    assert_eq!(
        version("send_proxy_protocol: v2"),
        Some(ProxyProtocolVersion::V2)
    );
}

#[test]
fn connections_are_kept_as_configured() {
    let seconds = Duration::from_secs;
    let keepalive = |keys: &str| upstream(keys).keepalive;
    let rule = |connections, idle| KeepAlive { connections, idle };
    assert_eq!(keepalive("max_connections: 0"), rule(1000, seconds(60)));
    assert_eq!(
        keepalive("keepalive: { connections: 0 }"),
        rule(0, seconds(60))
    );
    assert_eq!(
        keepalive("keepalive: { connections: 64, idle: 4s }"),
        rule(64, seconds(4))
    );
}

#[test]
fn health_and_eject_have_defaults() {
    let seconds = Duration::from_secs;
    let upstream = upstream("health: {}, eject: {}");
    let check = HealthCheck {
        probe: Probe::Http {
            path: "/".to_owned(),
            host: None,
            status: vec![200..=399],
        },
        every: seconds(5),
        timeout: seconds(2),
        healthy: 2,
        unhealthy: 3,
    };
    assert_eq!(upstream.health.as_ref(), Some(&check));
    let eject = Eject {
        failures: 5,
        within: seconds(10),
        status: StatusSet::range(502, 504),
        time: seconds(10),
    };
    assert_eq!(upstream.eject, Some(eject));
}

#[test]
fn health_and_eject_are_as_configured() {
    let upstream = upstream(
        "health: { tcp: true, every: 100ms, timeout: 1m, healthy: 1, unhealthy: 9 }, \
         eject: { failures: 1, within: 1h, status: \"500,502-599\", for: 500ms }",
    );
    let check = HealthCheck {
        probe: Probe::Tcp,
        every: Duration::from_millis(100),
        timeout: Duration::from_secs(60),
        healthy: 1,
        unhealthy: 9,
    };
    assert_eq!(upstream.health.as_ref(), Some(&check));
    assert_eq!(
        upstream.eject,
        Some(Eject {
            failures: 1,
            within: Duration::from_secs(3600),
            status: StatusSet::range(500, 500).with(StatusSet::range(502, 599)),
            time: Duration::from_millis(500),
        })
    );
}

/// `KEY | what the message says | the keys of the upstream`.
const FAULTS: &str = r#"
balance | expected one of round_robin, least_requests | balance: random
balance | write { hash: client_ip } | balance: ip_hash
balance | write least_requests | balance: least_conn
protocol | 'h3' is not known here | protocol: h3
balance.hash | the key 'hash' is missing | balance: {}
balance.hash | exclude each other | balance: { hash: { header: a, cookie: b } }
balance.hash | nothing is chosen | balance: { hash: {} }
balance.hash.header | not the name of a header field | balance: { hash: { header: "a b" } }
balance.hash.cookie | not the name of a cookie | balance: { hash: { cookie: "a;b" } }
sticky.cookie | the key 'cookie' is missing | sticky: {}
sticky.cookie | not the name of a cookie | sticky: { cookie: "a;b" }
sticky.cookie | not the name of a cookie | sticky: { cookie: "" }
sticky.max_age | is too short | sticky: { cookie: a, max_age: 10ms }
sticky.max_age | is too long | sticky: { cookie: a, max_age: 500d }
slow_start | is too short | slow_start: 1ms
slow_start | is too long | slow_start: 2h
slow_start | has no meaning with 'hash' | slow_start: 30s, balance: { hash: client_ip }
health.path | not a path to request | health: { path: healthz }
health.path | not a path to request | health: { path: "/a b" }
health.every | is too short | health: { every: 1ms }
health.every | not a duration | health: { every: often }
health.timeout | is too long | health: { timeout: 2h }
health.healthy | out of range | health: { healthy: 0 }
health.status | not a list of statuses | health: { status: "2xx" }
health.status | expected text | health: { status: 200 }
health.host | not a host | health: { host: "http://a" }
health.path | 'path' has no meaning with 'tcp' | health: { tcp: true, path: / }
health.host | 'host' has no meaning with 'tcp' | health: { tcp: true, host: a }
health.grpc | needs HTTP/2 | health: { grpc: "" }
health.grpc | needs HTTP/2 | protocol: auto, health: { grpc: "" }
health.tcp | 'tcp' has no meaning with 'grpc' | protocol: h2, health: { grpc: a, tcp: true }
health.host | not a host | protocol: h2, health: { grpc: a, host: "a b" }
eject.failures | out of range | eject: { failures: 0 }
eject.for | is too short | eject: { for: 0s }
eject.status | 500-599 | eject: { status: 5xx }
eject.withn | did you mean | eject: { withn: 1s }
max_connections | whole number | max_connections: many
keepalive.idle | is too short | keepalive: { idle: 0s }
keepalive.connections | out of range | keepalive: { connections: 1000001 }
send_proxy_protocol | did you mean | send_proxy_protocol: v3
send_proxy_protocol | can name only one of them | send_proxy_protocol: v2, protocol: h2
tls.key | 'key' has no meaning without 'cert' | tls: { key: a.key }
"#;

#[test]
fn mistakes_are_reported_where_they_are() {
    for row in FAULTS.trim().lines() {
        let [key, words, fault] = row.splitn(3, '|').map(str::trim).collect::<Vec<_>>()[..] else {
            panic!("{row}")
        };
        let found = errors(&text(&format!("servers: [\"10.0.0.1:80\"], {fault}")));
        let [only] = found.as_slice() else {
            panic!("{fault}\n{found:#?}")
        };
        let key = format!(": upstreams.app.{key}: ");
        assert!(
            only.contains(&key) && only.contains(words),
            "{fault}\n{only}"
        );
    }
    let backups = "servers: [{ address: \"a:1\", backup: true }]";
    let found = errors(&text(backups));
    assert!(
        found[0].contains("upstreams.app.servers: every server is a backup"),
        "{found:#?}"
    );
}
