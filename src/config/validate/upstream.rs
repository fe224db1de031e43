//! `upstreams`.

use std::net::SocketAddr;
use std::sync::Arc;

use http::HeaderName;

use super::client::{named_address, roots};
use super::client_certificate::client_certificate;
use super::context::Context;
use super::health;
use super::references::Upstreams;
use super::slow_start::slow_start;
use super::sticky;
use crate::config::model::{
    Balance, HashKey, Protocol, ProxyProtocolVersion, Upstream, UpstreamAddress, UpstreamServer,
    UpstreamTls,
};
use crate::config::problem::At;
use crate::config::schema;
use crate::host::HostName;

pub(super) fn upstreams(ctx: &mut Context<'_>, at: &At<'_>) -> Upstreams {
    let raw = ctx.raw;
    let mut upstreams = Upstreams::with_capacity(raw.upstreams.len());
    for (name, upstream) in &raw.upstreams {
        let at = at.key(name);
        ctx.check_name(&at, name);
        let name: Arc<str> = Arc::from(name.as_str());
        let upstream = self::upstream(ctx, Arc::clone(&name), upstream, &at);
        upstreams.insert(name, Arc::new(upstream));
    }
    upstreams
}

fn upstream(
    ctx: &mut Context<'_>,
    name: Arc<str>,
    raw: &schema::Upstream,
    at: &At<'_>,
) -> Upstream {
    let eject = raw
        .eject
        .as_ref()
        .map(|eject| health::eject(ctx, eject, &at.key("eject")));
    let balance = balance(ctx, &raw.balance, &at.key("balance"));
    let slow_start = slow_start(
        ctx,
        raw.slow_start.as_ref(),
        &balance,
        &at.key("slow_start"),
    );
    let sticky = raw
        .sticky
        .as_ref()
        .map(|sticky| sticky::sticky(ctx, sticky, &at.key("sticky")));
    let tls = upstream_tls(ctx, &raw.tls, &at.key("tls"));
    let protocol = protocol(raw.protocol, &tls);
    let health = raw
        .health
        .as_ref()
        .map(|health| health::health(ctx, health, protocol, &at.key("health")));
    let named = !matches!(
        tls,
        UpstreamTls::On {
            server_name: None,
            verify: true,
            ..
        }
    );
    let servers_at = at.key("servers");
    let mut servers: Vec<UpstreamServer> = Vec::with_capacity(raw.servers.len());
    for (index, server) in raw.servers.iter().enumerate() {
        let at = servers_at.index(index);
        let address_at = at.key("address");
        let (at, address, options) = match server {
            schema::UpstreamServer::Address(address) => (at, address, None),
            schema::UpstreamServer::Weighted(server) => (address_at, &server.address, Some(server)),
        };
        let Some(address) = server_address(ctx, &at, address) else {
            continue;
        };
        let lacks_name = match &address {
            UpstreamAddress::Unix(_) => Some("TLS to a socket needs a name to verify"),
            // What the records say comes from anyone who can answer for the resolver.
            UpstreamAddress::Service(_) => {
                Some("TLS to servers that SRV records name needs a name to verify")
            }
            UpstreamAddress::Ip(_) | UpstreamAddress::Name { .. } => None,
        };
        if let (false, Some(message)) = (named, lacks_name) {
            ctx.problems
                .error(&at, message, "give 'server_name' in the upstream's 'tls'");
        }
        if servers.iter().any(|before| before.address == address) {
            let message = format!("the server {} is listed twice", at.quoted());
            ctx.problems
                .warn(&at, message, "give it a 'weight' for a larger share");
        }
        let most = options.and_then(|options| options.max_connections);
        servers.push(UpstreamServer {
            address,
            weight: options.map_or(1, |options| u32::try_from(options.weight).unwrap_or(1)),
            backup: options.is_some_and(|options| options.backup),
            max_connections: usize::try_from(most.unwrap_or(raw.max_connections)).unwrap_or(0),
        });
    }
    if !servers.is_empty() && servers.iter().all(|server| server.backup) {
        let message = "every server is a backup";
        let hint = "remove 'backup' from those that are to be used first";
        ctx.problems.error(&servers_at, message, hint);
    }
    Upstream {
        name,
        servers,
        protocol,
        balance,
        sticky,
        keepalive: health::keepalive(ctx, &raw.keepalive, &at.key("keepalive")),
        tls,
        send_proxy_protocol: send_proxy_protocol(ctx, raw, protocol, at),
        health,
        eject,
        slow_start,
    }
}

fn send_proxy_protocol(
    ctx: &mut Context<'_>,
    raw: &schema::Upstream,
    protocol: Protocol,
    at: &At<'_>,
) -> Option<ProxyProtocolVersion> {
    let version = match raw.send_proxy_protocol {
        schema::SendProxyProtocol::Off => return None,
        schema::SendProxyProtocol::V1 => ProxyProtocolVersion::V1,
        schema::SendProxyProtocol::V2 => ProxyProtocolVersion::V2,
    };
    if protocol != Protocol::Http1 {
        let message = "clients would share a connection of HTTP/2, which can name only one of them";
        let hint = "set the upstream's 'protocol' to http1";
        let at = at.key("send_proxy_protocol");
        ctx.problems.error(&at.at_key(), message, hint);
    }
    Some(version)
}

/// What the servers speak: without TLS there is no handshake in which they could choose.
fn protocol(raw: schema::Protocol, tls: &UpstreamTls) -> Protocol {
    match (raw, tls) {
        (schema::Protocol::Http1, _) | (schema::Protocol::Auto, UpstreamTls::Off) => {
            Protocol::Http1
        }
        (schema::Protocol::H2, _) => Protocol::Http2,
        (schema::Protocol::Auto, UpstreamTls::On { .. }) => Protocol::Negotiated,
    }
}

fn balance(ctx: &mut Context<'_>, raw: &schema::Balance, at: &At<'_>) -> Balance {
    let hash = match raw {
        schema::Balance::Method(schema::BalanceMethod::RoundRobin) => return Balance::RoundRobin,
        schema::Balance::Method(schema::BalanceMethod::LeastRequests) => {
            return Balance::LeastRequests;
        }
        schema::Balance::Hash(hash) => &hash.hash,
    };
    let at = at.key("hash");
    Balance::Hash(match hash {
        schema::HashKey::Client(schema::HashClient::ClientIp) => HashKey::ClientIp,
        schema::HashKey::Field(field) => match (&field.header, &field.cookie) {
            (Some(name), _) => {
                let parsed = name.parse::<HeaderName>();
                if parsed.is_err() {
                    let at = at.key("header");
                    let message = format!("{} is not the name of a header field", at.quoted());
                    let hint = "use letters, digits and '-', such as X-User";
                    ctx.problems.error(&at, message, hint);
                }
                parsed.map_or(HashKey::ClientIp, HashKey::Header)
            }
            (None, Some(name)) => {
                sticky::check_cookie_name(ctx, name, &at.key("cookie"));
                HashKey::Cookie(name.as_str().into())
            }
            (None, None) => HashKey::ClientIp,
        },
    })
}

fn upstream_tls(ctx: &mut Context<'_>, raw: &schema::UpstreamTls, at: &At<'_>) -> UpstreamTls {
    match raw {
        schema::UpstreamTls::Switch(schema::Switch::Off) => UpstreamTls::Off,
        schema::UpstreamTls::Switch(schema::Switch::On) => UpstreamTls::On {
            server_name: None,
            verify: true,
            ca_file: None,
            client_certificate: None,
        },
        schema::UpstreamTls::On(options) => {
            let verify_at = at.key("verify");
            if !options.verify {
                let message = "the servers' certificates are not verified: anyone in between \
                               can read and change the traffic";
                let hint = "give 'ca_file' for servers with a private CA";
                ctx.problems.warn(&verify_at, message, hint);
            }
            UpstreamTls::On {
                server_name: options
                    .server_name
                    .as_ref()
                    .and_then(|name| ctx.host(&at.key("server_name"), name)),
                verify: options.verify,
                ca_file: options
                    .ca_file
                    .as_ref()
                    .map(|path| roots(ctx, &at.key("ca_file"), path)),
                client_certificate: client_certificate(ctx, options, at),
            }
        }
    }
}

/// `ADDRESS:PORT`, `NAME:PORT`, `srv:NAME` or `unix:PATH`.
fn server_address(ctx: &mut Context<'_>, at: &At<'_>, raw: &str) -> Option<UpstreamAddress> {
    if raw.starts_with("unix:@") {
        let message = format!(
            "{} is an abstract socket, which is not supported",
            at.quoted()
        );
        let hint = "write unix:PATH with the path of a socket file, such as unix:/run/app.sock";
        ctx.problems.error(at, message, hint);
        return None;
    }
    if let Some(path) = raw.strip_prefix("unix:") {
        return Some(UpstreamAddress::Unix(ctx.socket_path(at, path)));
    }
    if let Some(name) = raw.strip_prefix("srv:") {
        let name = name.parse::<HostName>();
        if name.is_err() {
            let message = format!("{} is not the name of SRV records", at.quoted());
            let hint = "write srv:NAME, such as srv:_http._tcp.app.internal; the records have the \
                        ports";
            ctx.problems.error(at, message, hint);
        }
        return name.ok().map(UpstreamAddress::Service);
    }
    let hint = if raw.contains("://") {
        "leave out the scheme and the path; for https add 'tls: on' to the upstream"
    } else {
        "write ADDRESS:PORT, NAME:PORT, srv:NAME or unix:PATH, such as 127.0.0.1:3000"
    };
    let address = match raw.parse::<SocketAddr>() {
        Ok(address) if address.port() != 0 => Some(UpstreamAddress::Ip(address)),
        Ok(_) => None,
        Err(_) => named_address(raw),
    };
    if address.is_none() {
        let message = format!("{} is not a server's address with a port", at.quoted());
        ctx.problems.error(at, message, hint);
    }
    address
}
