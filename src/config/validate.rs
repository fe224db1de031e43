//! Turns the decoded types into the checked model.
//!
//! Everything that the schema cannot express is found here: references to nothing, values without
//! meaning, parts that contradict each other, features that are not there yet. Each function
//! reports what is wrong and continues with a placeholder, which is never used: a model with errors
//! is thrown away.

mod access;
mod acme;
mod action;
mod certificate;
mod challenge;
mod client;
mod client_auth;
mod client_certificate;
mod compress;
mod context;
mod coverage;
mod dns;
mod error_page;
mod files;
mod forward_auth;
mod health;
mod hsts;
mod issuer;
mod jwt;
mod listen;
mod log;
mod network;
mod notify;
mod on_demand;
mod order;
mod places;
mod preset;
mod program;
mod rate_limit;
mod recipient;
mod redirect;
mod references;
mod retries;
mod revocation;
mod rewrite;
mod route_match;
mod server;
mod site;
mod site_listen;
mod site_tls;
mod slow_start;
mod sticky;
mod template;
mod tls_options;
mod tracing;
mod trusted_proxies;
mod tunnel;
mod tunnel_upstream;
mod unavailable;
mod upstream;
mod validity;
mod value;
mod zerossl;

use std::collections::HashMap;

use indexmap::IndexMap;

pub use self::preset::never_certified;
pub(crate) use self::value::level_fault;

use self::context::{Context, Used};
use super::model::{Config, InMemory, Places, Storage};
use super::problem::{At, Problems};
use super::route_places::RoutePlaces;
use super::schema;
use super::source::Sources;
use super::yaml_tree::Node;

/// Builds the model. It is valid only if no error was reported. `route_places` gets the places of
/// all routes.
pub(super) fn validate(
    raw: &schema::Root,
    root: &Node,
    sources: &mut Sources,
    problems: &mut Problems,
    route_places: Option<&mut RoutePlaces>,
) -> Config {
    let root = &At::root(root);
    let ctx = &mut Context {
        raw,
        sources,
        problems,
        used: Used::default(),
        expressions: HashMap::new(),
        pages: HashMap::new(),
        client_auth: HashMap::new(),
        forward_auths: HashMap::new(),
        jwts: HashMap::new(),
        key_servers: IndexMap::new(),
        route_places,
    };
    let server = server::server(ctx, &raw.server, &root.key("server"));
    let tls = server::tls(ctx, &raw.tls, &root.key("tls"));
    let storage = storage(ctx, &raw.storage, &root.key("storage"));
    let issuers = issuer::issuers(ctx, &root.key("issuers"));
    let dns = dns::dns(ctx, root);
    let (events, vetoes) = notify::hooks(ctx, root);
    let certificates = certificate::certificates(ctx, root);
    let renewal = server::renewal(ctx, &raw.renewal, &root.key("renewal"));
    let revocation = revocation::revocation(ctx, &raw.revocation, &root.key("revocation"));
    let validity = validity::validity(ctx, &raw.validity, &root.key("validity"));
    let on_demand = on_demand::on_demand(ctx, root);
    let upstreams = upstream::upstreams(ctx, &root.key("upstreams"));
    let sites = site::sites(ctx, &upstreams, (&server, &tls), root);
    tunnel::warn_unguarded(ctx, &sites, root);
    tunnel_upstream::check_servers(ctx, &sites, &server, root);
    let log = log::log(ctx, &raw.log, &root.key("log"));
    if raw.sites.is_empty() && raw.certificates.is_empty() && !raw.is_embedded {
        ctx.problems.error(
            root,
            "there is nothing to serve: neither 'sites' nor 'certificates' is given",
            "add 'sites:' with at least one entry",
        );
    }
    let config = Config {
        server,
        tls,
        storage,
        issuers,
        dns,
        certificates: certificates.into(),
        certificates_in_memory: match raw.certificates_in_memory {
            schema::InMemory::All => InMemory::All,
            schema::InMemory::Cache => InMemory::Cache,
        },
        certificate_cache: ctx.size(
            &root.key("certificate_cache"),
            &raw.certificate_cache.0,
            1 << 20,
            1 << 40,
        ),
        renewal,
        revocation,
        validity,
        on_demand,
        upstreams,
        sites,
        key_servers: ctx.key_servers.values().cloned().collect(),
        events,
        vetoes,
        log,
        tracing: tracing::tracing(ctx, root),
        places: Places {
            default_certificate: ctx.origin(&root.key("tls").key("default_certificate")),
            on_demand: ctx.origin(&root.key("on_demand")),
        },
    };
    // With errors, much looks unused that is only misspelled.
    if ctx.problems.errors() == 0 {
        references::warn_unused(ctx, &config, root);
        sticky::warn_shared_cookies(ctx, &config.sites, root);
        coverage::warn_uncovered_sites(ctx, &config, root);
    }
    config
}

fn storage(ctx: &mut Context<'_>, raw: &schema::Storage, at: &At<'_>) -> Storage {
    if let Some(etcd) = &raw.etcd {
        unavailable::etcd(ctx, etcd, &at.key("etcd"));
    }
    let default = schema::FileStorage::default();
    let path = &raw.file.as_ref().unwrap_or(&default).path;
    let at = at.key("file");
    let path = ctx.path(&at.key("path"), path);
    Storage::File { path }
}
