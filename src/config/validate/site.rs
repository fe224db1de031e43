//! `sites` and their routes.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use super::compress::compression;
use super::context::Context;
use super::coverage::check_provable;
use super::error_page::{error_pages, maintenance};
use super::files::files;
use super::hsts::hsts;
use super::places::note_places;
use super::redirect;
use super::references::{self, Upstreams};
use super::retries::retries;
use super::rewrite::rewriting;
use super::route_match::{SeenRoutes, conditions, route_path, sort_routes, warn_unreachable};
use super::value::{FOREVER, MOMENT};
use crate::config::model::{
    Action, ErrorPages, Maintenance, PathMatch, Proxy, Route, Site, SiteTls,
};
use crate::config::problem::At;
use crate::config::schema;
use crate::config::yaml_tree::Place;
use crate::host::Pattern;
use http::{HeaderValue, StatusCode};

/// The routes of all sites, each distinct list held once: most of a great many sites share theirs.
#[derive(Default)]
struct SharedRoutes {
    by_digest: HashMap<u64, Vec<Arc<[Route]>>>,
    hasher: RandomState,
}

impl SharedRoutes {
    fn share_routes(&mut self, routes: Vec<Route>) -> Arc<[Route]> {
        let mut hasher = self.hasher.build_hasher();
        for route in &routes {
            route.path.hash(&mut hasher);
            route.conditions.hash(&mut hasher);
            route.rewriting.hash(&mut hasher);
            route.compression.hash(&mut hasher);
            match &route.action {
                Action::Proxy(proxy) => proxy.upstream.name.hash(&mut hasher),
                Action::Redirect { to, .. } => to.hash(&mut hasher),
                Action::Respond { body, .. } => body.hash(&mut hasher),
                Action::Files(files) => files.root.hash(&mut hasher),
            }
        }
        let alike = self.by_digest.entry(hasher.finish()).or_default();
        if let Some(known) = alike.iter().find(|known| ***known == *routes) {
            return Arc::clone(known);
        }
        let routes: Arc<[Route]> = routes.into();
        alike.push(Arc::clone(&routes));
        routes
    }
}

/// All sites. `server_pages` are the error pages of those that have none of their own.
pub(super) fn sites(
    ctx: &mut Context<'_>,
    upstreams: &Upstreams,
    server_pages: Option<&Arc<ErrorPages>>,
    root: &At<'_>,
) -> Vec<Arc<Site>> {
    let raw = ctx.raw;
    let at = root.key("sites");
    let mut shared = SharedRoutes::default();
    let mut taken: HashMap<Pattern, (usize, Place)> = HashMap::new();
    let mut sites = Vec::with_capacity(raw.sites.len());
    for (index, site) in raw.sites.iter().enumerate() {
        let at = at.index(index);
        let tls = site_tls(ctx, site, &at.key("tls"));
        let hosts_at = at.key("hosts");
        let mut hosts = Vec::with_capacity(site.hosts.len());
        for (host_index, host) in site.hosts.iter().enumerate() {
            let at = hosts_at.index(host_index);
            let Some(pattern) = ctx.pattern(&at, host) else {
                continue;
            };
            if let Some((other, place)) = taken.get(&pattern) {
                let place = ctx.sources.describe(*place);
                let message = format!(
                    "the host {} is already in sites[{other}], at {place}",
                    at.quoted()
                );
                ctx.problems.error(&at, message, "keep it in one site");
            } else {
                if let SiteTls::Issuer(issuer) = &tls {
                    check_provable(ctx, &at, &pattern, std::slice::from_ref(issuer));
                }
                taken.insert(pattern.clone(), (index, at.place()));
                hosts.push(pattern);
            }
        }
        let hsts = site
            .hsts
            .as_ref()
            .map(|raw| hsts(ctx, raw, &tls, &at.key("hsts")));
        let own_pages = error_pages(ctx, &site.error_pages, &at.key("error_pages"));
        let maintenance = site
            .maintenance
            .as_ref()
            .and_then(|raw| maintenance(ctx, raw, &at.key("maintenance")));
        let routes = routes(ctx, site, upstreams, maintenance.as_ref(), &at);
        note_places(ctx, &routes, &at);
        let routes = routes.into_iter().map(|(_, route)| route).collect();
        sites.push(Arc::new(Site {
            hosts,
            tls,
            hsts,
            error_pages: match (own_pages, server_pages) {
                (Some(own), Some(others)) => Some(Arc::new(own.with_others(others))),
                (Some(own), None) => Some(Arc::new(own)),
                (None, others) => others.cloned(),
            },
            maintenance,
            routes: shared.share_routes(routes),
            origin: ctx.origin(&at),
        }));
    }
    sites
}

fn site_tls(ctx: &mut Context<'_>, site: &schema::Site, at: &At<'_>) -> SiteTls {
    let raw = ctx.raw;
    match &*site.tls {
        "auto" => SiteTls::Auto(references::first_issuer(ctx).into_iter().collect()),
        "off" => SiteTls::Off,
        name if raw.issuers.contains_key(name) => {
            SiteTls::Issuer(references::use_issuer(ctx, name))
        }
        name => {
            let known = ["auto", "off"].into_iter();
            let known = known.chain(references::issuer_names(raw));
            references::report_dangling(ctx, at, "issuer", "issuers", known, name);
            SiteTls::Off
        }
    }
}

/// The routes of a site in the order in which they are tried, with their indices in the file.
/// `maintenance` is that of the site.
fn routes(
    ctx: &mut Context<'_>,
    site: &schema::Site,
    upstreams: &Upstreams,
    maintenance: Option<&Arc<Maintenance>>,
    at: &At<'_>,
) -> Vec<(usize, Route)> {
    let compress = site.compress.as_ref();
    let compress = compress.and_then(|raw| compression(ctx, raw, &at.key("compress")));
    let raw = match (&site.routes, &site.upstream) {
        (Some(routes), None) => routes,
        (None, Some(name)) => {
            let upstream_at = at.key("upstream");
            let timeout = schema::Timeout::default();
            let proxy = proxy(ctx, &upstream_at, name, upstreams, &timeout, None, at);
            let route = |action| Route {
                path: PathMatch::from("/"),
                conditions: None,
                action,
                rewriting: None,
                compression: compress.clone(),
                maintenance: maintenance.cloned(),
            };
            return proxy.map(|action| (0, route(action))).into_iter().collect();
        }
        (None, None) => {
            if !at.key("routes").is_written() && !at.key("upstream").is_written() {
                let message = "the site does nothing: it has neither 'routes' nor 'upstream'";
                ctx.problems
                    .error(at, message, "add 'upstream: NAME' or a list of 'routes'");
            }
            return Vec::new();
        }
        (Some(_), Some(_)) => {
            let at = at.key("upstream");
            let message = "'upstream' and 'routes' exclude each other";
            let hint = "make it the last of the routes: { upstream: NAME }";
            ctx.problems.error(&at.at_key(), message, hint);
            return Vec::new();
        }
    };
    let routes_at = at.key("routes");
    let mut seen = SeenRoutes::default();
    let mut routes = Vec::with_capacity(raw.len());
    for (index, route) in raw.iter().enumerate() {
        let at = routes_at.index(index);
        let path_at = at.key("path");
        // A path that may be misspelled cannot be compared.
        if !path_at.is_written() && ctx.problems.is_broken(&at) {
            continue;
        }
        let errors = ctx.problems.errors();
        let path = route_path(ctx, &route.path, &path_at);
        let conditions = conditions(ctx, route, &at);
        if let Some(path) = path.as_ref().filter(|_| ctx.problems.errors() == errors) {
            seen.check(ctx, index, path, conditions.as_ref(), &routes_at);
        }
        let rewriting = rewriting(ctx, route, path.as_ref(), site.hsts.is_some(), &at);
        let maintenance = match &route.maintenance {
            Some(raw) => self::maintenance(ctx, raw, &at.key("maintenance")),
            None => maintenance.cloned(),
        };
        if let (Some(action), Some(path)) = (action(ctx, route, upstreams, &at), path) {
            let compression = match &route.compress {
                Some(raw) => compression(ctx, raw, &at.key("compress")),
                None => compress.clone(),
            };
            let has_body = !matches!(action, Action::Redirect { .. });
            let route = Route {
                path,
                conditions,
                action,
                rewriting,
                compression: compression.filter(|_| has_body),
                maintenance,
            };
            routes.push((index, route));
        }
    }
    sort_routes(&mut routes);
    warn_unreachable(ctx, &routes, &routes_at);
    routes
}

fn action(
    ctx: &mut Context<'_>,
    route: &schema::Route,
    upstreams: &Upstreams,
    at: &At<'_>,
) -> Option<Action> {
    if route.upstream.is_none() && !at.key("upstream").is_written() {
        let others = [
            ("timeout", route.timeout.is_some()),
            ("retries", route.retries.is_some()),
            ("max_body", route.max_body.is_some()),
            ("strip_prefix", route.strip_prefix),
            ("rewrite", route.rewrite.is_some()),
            ("host", route.host.is_some()),
            ("request_headers", route.request_headers.is_some()),
            ("compress", route.compress.is_some()),
        ];
        let (has_files, has_body) = (route.files.is_some(), route.respond.is_some());
        for (key, given) in others {
            let (or, is_fit) = match key {
                "strip_prefix" | "rewrite" => (" or 'files'", has_files),
                "compress" => (", 'files' or 'respond'", has_files || has_body),
                _ => ("", false),
            };
            if given && !is_fit {
                let message = format!("'{key}' has no meaning without 'upstream'{or}");
                ctx.problems
                    .error(&at.key(key).at_key(), message, "remove it");
            }
        }
    }
    match (
        &route.upstream,
        &route.redirect,
        &route.respond,
        &route.files,
    ) {
        (Some(name), None, None, None) => {
            let default = schema::Timeout::default();
            let timeout = route.timeout.as_ref().unwrap_or(&default);
            let max_body = route.max_body.as_ref();
            let max_body = max_body.map(|raw| ctx.body_size(&at.key("max_body"), raw));
            let upstream_at = at.key("upstream");
            let mut action = proxy(
                ctx,
                &upstream_at,
                name,
                upstreams,
                timeout,
                route.retries.as_ref(),
                at,
            );
            if let Some(Action::Proxy(proxy)) = &mut action {
                proxy.max_body = max_body;
            }
            action
        }
        (None, None, None, Some(files)) => Some(self::files(ctx, files, &at.key("files"))),
        (None, Some(redirect), None, None) => self::redirect(ctx, redirect, &at.key("redirect")),
        (None, None, Some(respond), None) => self::respond(ctx, respond, &at.key("respond")),
        (None, None, None, None) => {
            let message = "the route does nothing";
            let hint = "give exactly one of 'upstream', 'redirect', 'respond', 'files'";
            ctx.problems.error(at, message, hint);
            None
        }
        _ => {
            let message = "'upstream', 'redirect', 'respond' and 'files' exclude each other";
            ctx.problems
                .error(at, message, "keep one, or make a separate route for each");
            None
        }
    }
}

fn proxy(
    ctx: &mut Context<'_>,
    at: &At<'_>,
    name: &str,
    upstreams: &Upstreams,
    timeout: &schema::Timeout,
    retries: Option<&schema::Retries>,
    route: &At<'_>,
) -> Option<Action> {
    let timeout_at = route.key("timeout");
    let connect = ctx.duration(
        &timeout_at.key("connect"),
        &timeout.connect,
        MOMENT,
        FOREVER,
    );
    let read = ctx.duration(&timeout_at.key("read"), &timeout.read, MOMENT, FOREVER);
    let send = ctx.duration(&timeout_at.key("send"), &timeout.send, MOMENT, FOREVER);
    let total_at = timeout_at.key("total");
    let total = ctx.duration(&total_at, &timeout.total, Duration::ZERO, FOREVER);
    Some(Action::Proxy(Proxy {
        upstream: references::upstream(ctx, at, name, upstreams)?,
        connect_timeout: connect,
        read_timeout: read,
        send_timeout: send,
        total_timeout: Some(total).filter(|total| !total.is_zero()),
        max_body: None,
        retries: self::retries(ctx, retries, &route.key("retries")),
    }))
}

fn redirect(ctx: &mut Context<'_>, raw: &schema::Redirect, at: &At<'_>) -> Option<Action> {
    let status =
        status(raw.status).filter(|status| matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308));
    if status.is_none() {
        let at = at.key("status");
        let message = format!("{} is not a redirect status", at.quoted());
        ctx.problems.error(
            &at,
            message,
            "give 301 or 308 for good, 302, 303 or 307 for now",
        );
    }
    let to = redirect::target(ctx, &at.key("to"), &raw.to);
    Some(Action::Redirect {
        to: to?,
        status: status?,
    })
}

fn respond(ctx: &mut Context<'_>, raw: &schema::Respond, at: &At<'_>) -> Option<Action> {
    let status = status(raw.status).filter(|status| (200..600).contains(&status.as_u16()));
    let Some(status) = status else {
        let at = at.key("status");
        let message = format!("{} is not a response status", at.quoted());
        ctx.problems
            .error(&at, message, "give a number from 200 to 599");
        return None;
    };
    if matches!(status.as_u16(), 204 | 205 | 304) && !raw.body.is_empty() {
        let message = "a response with this status has no body";
        ctx.problems
            .error(&at.key("body"), message, "remove the body");
    }
    let Ok(content_type) = HeaderValue::from_str(&raw.content_type) else {
        let at = at.key("content_type");
        let message = format!("{} is not a media type", at.quoted());
        ctx.problems.error(
            &at,
            message,
            "write a type such as text/html; charset=utf-8",
        );
        return None;
    };
    Some(Action::Respond {
        status,
        body: bytes::Bytes::from(raw.body.clone()),
        content_type,
    })
}

fn status(number: u64) -> Option<StatusCode> {
    StatusCode::from_u16(u16::try_from(number).ok()?).ok()
}
