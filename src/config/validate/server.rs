//! `server`, `tls` and `renewal`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::client::dns_servers;
use super::client_auth::client_auth;
use super::context::Context;
use super::error_page::error_pages;
use super::listen::Taken;
use super::network::network;
use super::tls_options::TlsOptions;
use super::trusted_proxies::trusted_proxies;
use super::value::{FOREVER, MOMENT};
use crate::config::model::{
    Admin, Balancers, Limits, Server, SessionTickets, Tls, TlsPolicy, TlsVersion, UnknownSni,
};
use crate::config::problem::At;
use crate::config::schema;
use crate::printable::Printable as _;

pub(super) fn server(ctx: &mut Context<'_>, raw: &schema::Server, at: &At<'_>) -> Server {
    let (https_at, http_at, admin_at) = (at.key("https"), at.key("http"), at.key("admin"));
    let mut taken = Taken::default();
    let https = taken.claim_list(ctx, &raw.https, &https_at);
    let http = taken.claim_list(ctx, &raw.http, &http_at);
    let has_sites = ctx.raw.sites.iter().any(|site| !site.listen.is_empty());
    if raw.https.is_empty() && raw.http.is_empty() && !has_sites {
        let message = "there is no listener: 'https' and 'http' are both empty";
        ctx.problems.error(at, message, "give at least one address");
    }
    let admin = admin(ctx, raw, &admin_at, at);
    taken.claim_admin(ctx, &admin, admin_at);
    let token_at = at.key("admin_token");
    if let Some(token) = &raw.admin_token {
        let token = token.0.expose();
        if token.is_empty() || !token.bytes().all(|octet| octet.is_ascii_graphic()) {
            let message = "a token must have at least one character, all printable ASCII";
            let hint = "make one with: openssl rand -hex 32";
            ctx.problems.error(&token_at, message, hint);
        }
    }
    if let Some(user) = &raw.user
        && (user.is_empty() || user.contains([':', '/', ' ', '\0']))
    {
        let at = at.key("user");
        let message = format!("{} is not a user name", at.quoted());
        ctx.problems
            .error(&at, message, "name a user of this system");
    }
    if raw.https_optional && raw.http.is_empty() {
        let message = "it has no effect: 'server.http' is empty";
        let hint = "give an address there, or remove this";
        ctx.problems.warn(&at.key("https_optional"), message, hint);
    }
    let threads = match usize::try_from(raw.threads) {
        Ok(0) | Err(_) => std::thread::available_parallelism().map_or(1, usize::from),
        Ok(threads) => threads,
    };
    Server {
        https,
        http,
        admin,
        admin_token: raw.admin_token.as_ref().map(|token| token.0.clone()),
        threads,
        user: raw.user.clone(),
        grace_period: ctx.duration(
            &at.key("grace_period"),
            &raw.grace_period,
            Duration::ZERO,
            Duration::from_secs(24 * 3600),
        ),
        resolvers: dns_servers(ctx, &at.key("resolvers"), &raw.resolvers),
        trusted_proxies: trusted_proxies(ctx, &raw.trusted_proxies, &at.key("trusted_proxies")),
        balancers: balancers(ctx, raw, &at.key("proxy_protocol")),
        limits: limits(ctx, &raw.limits, &at.key("limits")),
        https_optional: raw.https_optional,
        error_pages: error_pages(ctx, &raw.error_pages, &at.key("error_pages")).map(Arc::new),
    }
}

/// Who begins connections with a header of the PROXY protocol.
fn balancers(ctx: &mut Context<'_>, raw: &schema::Server, at: &At<'_>) -> Balancers {
    let trusted = raw.proxy_protocol.as_ref().map(|raw| &*raw.trusted);
    let trusted_at = at.key("trusted");
    let entries = trusted.unwrap_or_default().iter().enumerate();
    let (unix, networks): (Vec<_>, Vec<_>) = entries.partition(|(_, text)| *text == "unix");
    let networks = networks.into_iter();
    Balancers {
        networks: networks
            .filter_map(|(index, text)| network(ctx, &trusted_at.index(index), text))
            .collect(),
        unix: !unix.is_empty(),
    }
}

fn admin(ctx: &mut Context<'_>, raw: &schema::Server, at: &At<'_>, server: &At<'_>) -> Admin {
    if raw.admin == "off" {
        return Admin::Off;
    }
    if let Some(path) = raw.admin.strip_prefix("unix:") {
        return Admin::Unix(ctx.socket_path(at, path));
    }
    let Some(address) = ctx.listen_address(at, &raw.admin) else {
        return Admin::Off;
    };
    let token = server.key("admin_token");
    if !address.ip().to_canonical().is_loopback()
        && raw.admin_token.is_none()
        && !token.is_written()
    {
        ctx.problems.error(
            at,
            "the admin API is open to others: the address is not loopback, and there is no \
             'admin_token'",
            "give an 'admin_token', or listen on 127.0.0.1 or a unix: socket",
        );
    }
    Admin::Tcp(address)
}

fn limits(ctx: &mut Context<'_>, raw: &schema::Limits, at: &At<'_>) -> Limits {
    const HOUR: Duration = Duration::from_secs(3600);
    Limits {
        handshake: ctx.duration(&at.key("handshake"), &raw.handshake, MOMENT, HOUR),
        header_read: ctx.duration(&at.key("header_read"), &raw.header_read, MOMENT, HOUR),
        idle: ctx.duration(&at.key("idle"), &raw.idle, MOMENT, 24 * HOUR),
        max_header_bytes: ctx.size(
            &at.key("max_header_bytes"),
            &raw.max_header_bytes,
            1 << 10,
            1 << 20,
        ),
        max_connections: usize::try_from(raw.max_connections).unwrap_or(usize::MAX),
        max_connections_per_ip: usize::try_from(raw.max_connections_per_ip).unwrap_or(usize::MAX),
        max_handshakes_per_ip: usize::try_from(raw.max_handshakes_per_ip).unwrap_or(usize::MAX),
        h2_streams: u32::try_from(raw.h2_streams).unwrap_or(u32::MAX),
        upstream_connections: usize::try_from(raw.upstream_connections).unwrap_or(usize::MAX),
        max_body: ctx.body_size(&at.key("max_body"), &raw.max_body),
    }
}

pub(super) fn tls(ctx: &mut Context<'_>, raw: &schema::Tls, at: &At<'_>) -> Tls {
    const MINUTE: Duration = Duration::from_secs(60);
    let client_auth = client_auth(ctx, &raw.client_auth, &at.key("client_auth"));
    let options = TlsOptions::from(raw);
    let versions = options.versions(ctx, at).unwrap_or(TlsVersion::ALL);
    let ciphers = options.ciphers(ctx, &versions, at);
    let protocols = options.protocols(ctx, at);
    let default_certificate = raw
        .default_certificate
        .as_ref()
        .and_then(|name| ctx.identifier(&at.key("default_certificate"), name));
    let groups_at = at.key("groups");
    for (index, group) in raw.groups.iter().enumerate() {
        if raw.groups.iter().take(index).any(|before| before == group) {
            let at = groups_at.index(index);
            let message = format!("the group {} is listed twice", at.quoted());
            ctx.problems.error(&at, message, "remove one of the two");
        }
    }
    Tls {
        versions,
        ciphers,
        protocols,
        groups: raw
            .groups
            .iter()
            .map(|group| group.name().to_owned())
            .collect(),
        default_certificate,
        unknown_sni: match raw.unknown_sni {
            schema::UnknownSni::Default => UnknownSni::Default,
            schema::UnknownSni::Reject => UnknownSni::Reject,
        },
        session_tickets: match &raw.session_tickets {
            schema::SessionTickets::Off(_) => SessionTickets::Off,
            schema::SessionTickets::Rotate(tickets) => {
                let at = at.key("session_tickets");
                let at = at.key("rotate");
                let rotate = ctx.duration(&at, &tickets.rotate, MINUTE, 24 * 60 * MINUTE);
                SessionTickets::Rotate(rotate)
            }
        },
        policy: TlsPolicy::new(client_auth, None, None, None).map(Arc::new),
        key_log: raw
            .key_log
            .as_ref()
            .map(|path| key_log(ctx, path, &at.key("key_log"))),
    }
}

/// Said at each start and each reload, so that nobody forgets it.
fn key_log(ctx: &mut Context<'_>, path: &str, at: &At<'_>) -> PathBuf {
    let message = format!(
        "the secrets of all TLS connections are written to {}: whoever reads it can decrypt them",
        at.quoted()
    );
    let hint = "remove this key when you have finished debugging, and the file";
    ctx.problems.warn(at, message, hint);
    let path = ctx.path(at, path);
    // A start would fail, and so would a reload.
    let directory = path.parent().filter(|directory| !directory.is_dir());
    let message = match directory {
        Some(directory) => Some(format!("there is no directory {}", directory.printable())),
        None => path
            .is_dir()
            .then(|| format!("{} is a directory", path.printable())),
    };
    if let Some(message) = message {
        ctx.problems.error(
            at,
            message,
            "give the path of a file in a directory that exists",
        );
    }
    path
}

pub(super) fn renewal(
    ctx: &mut Context<'_>,
    raw: &schema::Renewal,
    at: &At<'_>,
) -> crate::config::model::Renewal {
    if raw.window <= 0.0 || raw.window >= 1.0 {
        let at = at.key("window");
        let message = format!("{} is not a fraction of the lifetime", at.quoted());
        ctx.problems
            .error(&at, message, "give a number between 0 and 1, such as 0.33");
    }
    crate::config::model::Renewal {
        window: raw.window,
        check_every: ctx.duration(
            &at.key("check_every"),
            &raw.check_every,
            Duration::from_secs(1),
            FOREVER,
        ),
        ari: raw.ari,
        required_at_start: raw.required_at_start,
    }
}
