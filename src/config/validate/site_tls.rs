//! `tls` and `client_auth` of sites.

use std::ops::RangeInclusive;
use std::sync::Arc;

use super::client_auth::client_auth;
use super::context::Context;
use super::references;
use crate::config::model::{Ciphers, SiteTls, Tls, TlsPolicy, TlsProfile, TlsVersion};
use crate::config::problem::At;
use crate::config::schema;

/// Where the certificate of a site comes from, and what it demands of connections. `general` is what
/// all sites have.
pub(super) fn site_tls(
    ctx: &mut Context<'_>,
    site: &schema::Site,
    general: &Tls,
    at: &At<'_>,
) -> (SiteTls, Option<Arc<TlsPolicy>>) {
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
    let versions = versions(ctx, options, &tls_at);
    let spoken = versions
        .clone()
        .unwrap_or_else(|| of_profile(general.profile));
    let ciphers = ciphers(ctx, options, &spoken, &tls_at);
    let protocols = protocols(ctx, options, &tls_at);
    if tls == SiteTls::Off {
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
        versions.filter(|own| *own != of_profile(general.profile)),
        ciphers,
        protocols,
    );
    (tls, policy.map(Arc::new))
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

/// Mozilla's profile.
pub(super) fn profile(raw: schema::TlsProfile) -> TlsProfile {
    match raw {
        schema::TlsProfile::Intermediate => TlsProfile::Intermediate,
        schema::TlsProfile::Modern => TlsProfile::Modern,
    }
}

fn of_profile(profile: TlsProfile) -> RangeInclusive<TlsVersion> {
    match profile {
        TlsProfile::Intermediate => TlsVersion::Tls12..=TlsVersion::Tls13,
        TlsProfile::Modern => TlsVersion::Tls13..=TlsVersion::Tls13,
    }
}

/// The versions that a site gives itself.
fn versions(
    ctx: &mut Context<'_>,
    raw: &schema::SiteTlsOptions,
    at: &At<'_>,
) -> Option<RangeInclusive<TlsVersion>> {
    let read = |version| match version {
        schema::TlsVersion::Tls12 => TlsVersion::Tls12,
        schema::TlsVersion::Tls13 => TlsVersion::Tls13,
    };
    let Some(versions) = &raw.versions else {
        let profile = raw.profile?;
        return Some(of_profile(self::profile(profile)));
    };
    let at = at.key("versions");
    if raw.profile.is_some() {
        let message = "'profile' and 'versions' exclude each other";
        ctx.problems
            .error(&at.at_key(), message, "keep one of the two");
        return None;
    }
    let (min, max) = (read(versions.min), read(versions.max));
    if min > max {
        let message = "'min' is newer than 'max': no version is left";
        ctx.problems.error(&at, message, "exchange the two");
        return None;
    }
    Some(min..=max)
}

/// The cipher suites that a site gives itself. `spoken` are the versions that need some.
fn ciphers(
    ctx: &mut Context<'_>,
    raw: &schema::SiteTlsOptions,
    spoken: &RangeInclusive<TlsVersion>,
    at: &At<'_>,
) -> Option<Ciphers> {
    let list = raw.ciphers.as_ref()?;
    let at = at.key("ciphers");
    report_twice(ctx, list, &at);
    let of = |is_tls13: bool| {
        let some = list.iter().filter(move |one| one.is_tls13() == is_tls13);
        some.map(|one| one.name()).collect::<Vec<_>>()
    };
    let ciphers = Ciphers {
        tls12: of(false),
        tls13: of(true),
    };
    for (version, name, list, example) in [
        (
            TlsVersion::Tls12,
            "1.2",
            &ciphers.tls12,
            "ECDHE-ECDSA-AES128-GCM-SHA256",
        ),
        (
            TlsVersion::Tls13,
            "1.3",
            &ciphers.tls13,
            "TLS_AES_128_GCM_SHA256",
        ),
    ] {
        match (spoken.contains(&version), list.is_empty()) {
            (true, true) => {
                let message = format!("there is no cipher suite for TLS {name}");
                let hint = format!("add one, such as {example}, or leave that version out");
                ctx.problems.error(&at, message, hint);
            }
            (false, false) => {
                let message =
                    format!("there are cipher suites for TLS {name}, which is not spoken");
                ctx.problems.error(&at, message, "remove them");
            }
            _ => {}
        }
    }
    Some(ciphers)
}

/// The protocols that a site gives itself, in ALPN's names.
fn protocols(
    ctx: &mut Context<'_>,
    raw: &schema::SiteTlsOptions,
    at: &At<'_>,
) -> Option<Box<[&'static str]>> {
    let list = raw.alpn.as_ref()?;
    report_twice(ctx, list, &at.key("alpn"));
    let names = list.iter().flat_map(|protocol| match protocol {
        schema::AlpnProtocol::Http2 => &["h2"][..],
        // HTTP/1.0 is served as HTTP/1.1 is.
        schema::AlpnProtocol::Http1 => &["http/1.1", "http/1.0"],
    });
    Some(names.copied().collect())
}

fn report_twice<T: PartialEq>(ctx: &mut Context<'_>, list: &[T], at: &At<'_>) {
    for (index, one) in list.iter().enumerate() {
        if list.iter().take(index).any(|before| before == one) {
            let at = at.index(index);
            let message = format!("{} is listed twice", at.quoted());
            ctx.problems.error(&at, message, "remove one of the two");
        }
    }
}
