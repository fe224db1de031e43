//! `sites` and their routes.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::sync::Arc;

use super::access::{AccessKeys, access};
use super::action::{action, proxy};
use super::compress::compression;
use super::context::Context;
use super::coverage::check_provable;
use super::error_page::{error_pages, maintenance};
use super::hsts::hsts;
use super::places::note_places;
use super::rate_limit::{route_rate, site_rate};
use super::references::Upstreams;
use super::rewrite::rewriting;
use super::route_match::{SeenRoutes, conditions, route_path, sort_routes, warn_unreachable};
use super::site_listen::SiteListeners;
use super::site_tls::{check_certificates, site_tls};
use super::tunnel::tunnel;
use crate::config::model::{
    Access, Action, Maintenance, PathMatch, Route, RouteRate, Server, Site, SiteLimits, SiteTls,
    Tls,
};
use crate::config::problem::At;
use crate::config::schema;
use crate::config::yaml_tree::Place;
use crate::host::Pattern;

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

/// All sites. What `general` has is for those that have none of their own: error pages, and what TLS
/// demands.
pub(super) fn sites(
    ctx: &mut Context<'_>,
    upstreams: &Upstreams,
    general: (&Server, &Tls),
    root: &At<'_>,
) -> Vec<Arc<Site>> {
    let raw = ctx.raw;
    let at = root.key("sites");
    let mut listeners = SiteListeners::of(general.0);
    let (server_pages, general) = (general.0.error_pages.as_ref(), general.1);
    let mut shared = SharedRoutes::default();
    let mut taken: HashMap<Pattern, (usize, Place)> = HashMap::new();
    // Of hosts that are in several sites, all but the first.
    let mut taken_elsewhere: HashMap<Pattern, Vec<(usize, Place)>> = HashMap::new();
    let mut sites: Vec<Arc<Site>> = Vec::with_capacity(raw.sites.len());
    for (index, site) in raw.sites.iter().enumerate() {
        let at = at.index(index);
        let (tls, tls_policy) = site_tls(ctx, site, general, &at);
        let tunnel = tunnel(ctx, site, &tls, general, upstreams, &at);
        let addresses = listeners.addresses(ctx, &site.listen, &tls, &at.key("listen"));
        let hosts_at = at.key("hosts");
        let mut hosts = Vec::with_capacity(site.hosts.len());
        for (host_index, host) in site.hosts.iter().enumerate() {
            let at = hosts_at.index(host_index);
            let Some(pattern) = ctx.pattern(&at, host) else {
                continue;
            };
            let elsewhere = taken_elsewhere.get(&pattern).into_iter().flatten();
            let mut earlier = taken.get(&pattern).into_iter().chain(elsewhere);
            let meets = |(other, _): &&(usize, Place)| {
                // Not in the list yet: the site itself.
                let other = sites.get(*other);
                let listen = &addresses.listen;
                other.is_none_or(|other| listeners.meet(&other.listen, listen))
            };
            if let Some((other, place)) = earlier.find(meets) {
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
                let here = (index, at.place());
                match taken.entry(pattern.clone()) {
                    Entry::Vacant(entry) => _ = entry.insert(here),
                    Entry::Occupied(entry) if entry.get().0 == index => {}
                    Entry::Occupied(entry) => {
                        taken_elsewhere
                            .entry(entry.key().clone())
                            .or_default()
                            .push(here);
                    }
                }
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
        let keys = AccessKeys {
            allow: site.allow.as_deref(),
            deny: site.deny.as_deref(),
            basic_auth: site.basic_auth.as_ref(),
            jwt: site.jwt.as_ref(),
            forward_auth: site.forward_auth.as_ref(),
        };
        let access = access(ctx, keys, None, &at);
        let limits = SiteLimits {
            rate: site_rate(
                ctx,
                site.rate_limit.as_ref(),
                authenticates(access.as_ref()),
                &at.key("rate_limit"),
            ),
            max_requests: usize::try_from(site.max_requests).unwrap_or(0),
        };
        let inherited = Inherited {
            maintenance: maintenance.as_ref(),
            access: access.as_ref(),
        };
        let routes = routes(ctx, site, upstreams, inherited, &at);
        note_places(ctx, &routes, &at);
        check_certificates(ctx, site, tls_policy.as_deref(), &at);
        let routes = routes.into_iter().map(|(_, route)| route).collect();
        sites.push(Arc::new(Site {
            hosts,
            listen: addresses.listen,
            https_port: addresses.https_port,
            tls,
            tls_policy,
            hsts,
            error_pages: match (own_pages, server_pages) {
                (Some(own), Some(others)) => Some(Arc::new(own.with_others(others))),
                (Some(own), None) => Some(Arc::new(own)),
                (None, others) => others.cloned(),
            },
            maintenance,
            access,
            limits,
            routes: shared.share_routes(routes),
            tunnel,
            origin: ctx.origin(&at),
        }));
    }
    sites
}

fn authenticates(access: Option<&Arc<Access>>) -> bool {
    access.is_some_and(|access| access.authenticates())
}

/// What routes that do not say otherwise have from their site.
#[derive(Clone, Copy)]
struct Inherited<'a> {
    maintenance: Option<&'a Arc<Maintenance>>,
    access: Option<&'a Arc<Access>>,
}

/// The routes of a site in the order in which they are tried, with their indices in the file.
fn routes(
    ctx: &mut Context<'_>,
    site: &schema::Site,
    upstreams: &Upstreams,
    inherited: Inherited<'_>,
    at: &At<'_>,
) -> Vec<(usize, Route)> {
    if site.pass_through.is_some() || site.tcp.is_some() {
        return Vec::new();
    }
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
                maintenance: inherited.maintenance.cloned(),
                access: inherited.access.cloned(),
                needs_certificate: false,
                rate: RouteRate::OfSite,
            };
            return proxy.map(|action| (0, route(action))).into_iter().collect();
        }
        (None, None) => {
            let ways = ["routes", "upstream", "pass_through", "tcp"];
            if !ways.iter().any(|key| at.key(key).is_written()) {
                let message = "the site does nothing: it has neither 'routes' nor 'upstream'";
                let hint = "add 'upstream: NAME' or a list of 'routes'; or 'pass_through' or 'tcp'";
                ctx.problems.error(at, message, hint);
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
            Some(raw) => maintenance(ctx, raw, &at.key("maintenance")),
            None => inherited.maintenance.cloned(),
        };
        let keys = AccessKeys {
            allow: route.allow.as_deref(),
            deny: route.deny.as_deref(),
            basic_auth: route.basic_auth.as_ref(),
            jwt: route.jwt.as_ref(),
            forward_auth: route.forward_auth.as_ref(),
        };
        let access = access(ctx, keys, inherited.access, &at);
        let action = action(ctx, route, upstreams, path.as_ref(), &at);
        let rate = route_rate(
            ctx,
            route.rate_limit.as_ref(),
            authenticates(access.as_ref()),
            &at.key("rate_limit"),
        );
        if let (Some(action), Some(path)) = (action, path) {
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
                access,
                needs_certificate: route.client_auth.is_some(),
                rate,
            };
            routes.push((index, route));
        }
    }
    sort_routes(&mut routes);
    warn_unreachable(ctx, &routes, &routes_at);
    routes
}
