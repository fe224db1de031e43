//! `tls` and `client_auth` of sites.

use std::ops::RangeInclusive;
use std::sync::Arc;

use super::client_auth::client_auth;
use super::context::Context;
use super::references;
use super::tls_options::TlsOptions;
use crate::config::model::{SiteTls, Tls, TlsPolicy, TlsVersion, TunnelPolicy};
use crate::config::problem::At;
use crate::config::schema;
use crate::host::Pattern;

/// Where the certificate of a site comes from, and what it demands of connections. `general` is what
/// all sites have.
pub(super) fn site_tls(
    ctx: &mut Context<'_>,
    site: &schema::Site,
    general: &Tls,
    at: &At<'_>,
) -> (SiteTls, Option<Arc<TlsPolicy>>) {
    if site.pass_through.is_some() {
        return (SiteTls::PassThrough, None);
    }
    let tls_at = at.key("tls");
    let default = schema::SiteTlsOptions::default();
    let (tls, options) = match &site.tls {
        schema::SiteTls::Certificate(name) => (certificate(ctx, name, &tls_at), &default),
        schema::SiteTls::Options(options) => {
            let at = tls_at.key("certificate");
            (certificate(ctx, &options.certificate, &at), options)
        }
    };
    let auth_at = at.key("client_auth");
    let own = site.client_auth.as_ref();
    let own = own.map(|raw| client_auth(ctx, raw, &auth_at));
    let of_all = general.policy.as_ref();
    let of_all = of_all.and_then(|policy| policy.client_auth.clone());
    let raw = options;
    let options = TlsOptions::from(raw);
    let versions = options.versions(ctx, &tls_at);
    let spoken = versions.as_ref().unwrap_or(&general.versions);
    let ciphers = options.ciphers(ctx, spoken, &tls_at);
    let protocols = match site.tcp.is_some() {
        true => None,
        false => {
            check_protocols(ctx, raw, &tls_at);
            options.protocols(ctx, &tls_at)
        }
    };
    if ciphers.is_none() && versions.is_some() {
        check_inherited_ciphers(ctx, spoken, general, &tls_at);
    }
    let tunnel = tunnel(ctx, site, raw, &tls_at);
    if tls == SiteTls::Off {
        if let Some(key) = options.first_key() {
            let message = format!("'{key}' has no meaning for a site with 'certificate: off'");
            let hint = "write 'tls: off', or give the site a certificate";
            ctx.problems.error(&tls_at.key(key).at_key(), message, hint);
        }
        if let Some(Some(_)) = own {
            let message = "'client_auth' has no meaning for a site with 'tls: off'";
            ctx.problems.error(&auth_at.at_key(), message, "remove it");
        } else if own.is_none() && of_all.is_some() {
            let message = "'tls.client_auth' does not protect this site, which has 'tls: off'";
            let hint = "serve it with TLS, or say 'client_auth: off' in the site";
            ctx.problems.warn(&tls_at, message, hint);
        }
        return (tls, None);
    }
    let policy = TlsPolicy::new(
        own.unwrap_or(of_all),
        versions.filter(|own| *own != general.versions),
        ciphers.filter(|own| general.ciphers.as_ref() != Some(own)),
        protocols.filter(|own| general.protocols.as_ref() != Some(own)),
    );
    let policy = match tunnel {
        Some(tunnel) => Some(TlsPolicy::for_tunnel(policy, tunnel)),
        None => policy,
    };
    (tls, policy.map(Arc::new))
}

/// Checks that the cipher suites of all sites are enough for the versions that a site gives itself.
fn check_inherited_ciphers(
    ctx: &mut Context<'_>,
    spoken: &RangeInclusive<TlsVersion>,
    general: &Tls,
    at: &At<'_>,
) {
    let Some(ciphers) = &general.ciphers else {
        return;
    };
    for version in [TlsVersion::Tls12, TlsVersion::Tls13] {
        if spoken.contains(&version) && ciphers.of(version).is_empty() {
            let name = version.as_str();
            let message = format!("'tls.ciphers' has no cipher suite for {name}");
            let hint = format!("give the site 'ciphers', or leave {name} out");
            ctx.problems.error(at, message, hint);
        }
    }
}

/// Checks that a site asks for the certificates that its routes are for.
pub(super) fn check_certificates(
    ctx: &mut Context<'_>,
    site: &schema::Site,
    policy: Option<&TlsPolicy>,
    at: &At<'_>,
) {
    if policy.is_some_and(|policy| policy.client_auth.is_some()) {
        return;
    }
    let routes_at = at.key("routes");
    for (index, route) in site.routes.iter().flatten().enumerate() {
        if route.client_auth.is_some() {
            let at = routes_at.index(index);
            let message = "the site asks no client for a certificate";
            let hint = "give the site 'client_auth: { mode: optional, ca: FILE }'";
            ctx.problems.error(&at.key("client_auth"), message, hint);
        }
    }
}

/// Where the certificate of a site comes from.
fn certificate(ctx: &mut Context<'_>, name: &str, at: &At<'_>) -> SiteTls {
    let raw = ctx.raw;
    match name {
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

/// Checks that requests can come over the protocols that a site gives itself.
fn check_protocols(ctx: &mut Context<'_>, raw: &schema::SiteTlsOptions, at: &At<'_>) {
    let at = at.key("alpn");
    for (index, name) in raw.alpn.iter().flatten().enumerate() {
        if schema::AlpnProtocol::named(name).is_none() {
            let at = at.index(index);
            let message = format!("requests do not come over {}", at.quoted());
            let hint = "write h2 or http/1.1; other protocols are for sites with 'tcp'";
            ctx.problems.error(&at, message, hint);
        }
    }
}

/// What a site demands whose connections are passed on once TLS is terminated.
fn tunnel(
    ctx: &mut Context<'_>,
    site: &schema::Site,
    raw: &schema::SiteTlsOptions,
    at: &At<'_>,
) -> Option<TunnelPolicy> {
    site.tcp.as_ref()?;
    let at = at.key("alpn");
    let list = raw.alpn.as_ref();
    for (index, name) in list.into_iter().flatten().enumerate() {
        let at = at.index(index);
        if !(1..=255).contains(&name.len()) {
            let message = "the name of a protocol has 1 to 255 octets";
            ctx.problems.error(&at, message, "correct the name");
        } else if name == "acme-tls/1" {
            let message = "acme-tls/1 is for the validation of names by CAs";
            let hint = "remove it: it is negotiated whenever a validation is pending";
            ctx.problems.error(&at, message, hint);
        }
    }
    let host = site.hosts.first()?.parse::<Pattern>().ok()?;
    Some(TunnelPolicy {
        site: host.to_string().into(),
        protocols: list.map(|list| list.iter().map(|name| name.as_str().into()).collect()),
    })
}
