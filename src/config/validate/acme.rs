//! `issuers: NAME: acme`: an ACME CA and how it is used.
//!
//! The CA is not contacted: only what can be seen without it is checked, down to whether there is
//! a listener that challenges can be answered on.

use std::time::Duration;

use http::Uri;

use super::challenge::challenges;
use super::client::{dns_servers, http_proxy, report_user, roots};
use super::context::Context;
use super::order::order_terms;
use super::preset::{self, Preset};
use super::references::dns_entry;
use crate::config::model::{Acme, ExternalAccount, KeyType, OrderLimit};
use crate::config::problem::{At, nearest};
use crate::config::schema;
use crate::host::HostName;
use crate::secret::Secret;

/// A CA: the URL of its directory, and the preset if it is a known one.
type Ca = (String, Option<&'static Preset>);

pub(super) fn acme(ctx: &mut Context<'_>, raw: &schema::Acme, at: &At<'_>) -> Acme {
    let directory_at = at.key("directory");
    let (directory, preset) = find_ca(ctx, &directory_at, &raw.directory).unwrap_or_default();
    let staging = staging(ctx, raw, &directory, preset, &at.key("staging"));
    let staging_preset = staging.as_deref().and_then(preset::find_preset);
    let key_type = match raw.key_type {
        schema::KeyType::P256 => KeyType::P256,
        schema::KeyType::P384 => KeyType::P384,
        schema::KeyType::Rsa2048 => KeyType::Rsa2048,
        schema::KeyType::Rsa4096 => KeyType::Rsa4096,
        schema::KeyType::Ed25519 => KeyType::Ed25519,
    };
    if key_type == KeyType::Ed25519
        && let Some(preset) = preset
    {
        let message = format!(
            "public CAs do not certify Ed25519 keys: '{}' will refuse them",
            preset.name
        );
        let hint = "use p256, which every client understands";
        ctx.problems.warn(&at.key("key_type"), message, hint);
    }
    Acme {
        directory,
        staging,
        email: email(ctx, raw.email.as_deref(), &at.key("email")),
        challenges: challenges(ctx, raw, at),
        dns: raw
            .dns
            .as_deref()
            .and_then(|dns| dns_entry(ctx, &at.key("dns"), dns)),
        order: order_terms(ctx, raw, [preset, staging_preset], at),
        key_type,
        reuse_key: raw.reuse_key,
        ca_file: raw
            .ca_file
            .as_deref()
            .map(|path| roots(ctx, &at.key("ca_file"), path)),
        eab: raw
            .eab
            .as_ref()
            .and_then(|eab| external_account(ctx, eab, &at.key("eab"))),
        zerossl: None,
        proxy: raw
            .proxy
            .as_deref()
            .and_then(|proxy| http_proxy(ctx, &at.key("proxy"), proxy)),
        order_limit: order_limit(ctx, &raw.limit, &at.key("limit")),
        check_caa: raw.check_caa,
        resolvers: dns_servers(ctx, &at.key("resolvers"), &raw.resolvers),
    }
}

/// Reports a missing external account binding that a known CA requires.
pub(super) fn check_binding(ctx: &mut Context<'_>, raw: &schema::Acme, at: &At<'_>) {
    if raw.eab.is_some() {
        return;
    }
    let preset = preset::find_preset(&raw.directory);
    let own = preset.and_then(|preset| preset.staging);
    let staging = raw.staging.as_deref().or(own).and_then(preset::find_preset);
    if let Some((name, source)) = [preset, staging]
        .into_iter()
        .flatten()
        .find_map(|preset| Some((preset.name, preset.eab?)))
    {
        let message = format!("'{name}' requires external account binding, but there is no 'eab'");
        let hint = format!("{source}; then add 'eab: {{ key_id: …, hmac_key: … }}'");
        ctx.problems.error(&at.key("eab"), message, hint);
    }
}

/// A CA by its name or by the URL of its directory.
fn find_ca(ctx: &mut Context<'_>, at: &At<'_>, raw: &str) -> Option<Ca> {
    let preset = preset::find_preset(raw);
    if let Some(preset) = preset.filter(|preset| preset.name == raw) {
        return Some((preset.directory.to_owned(), Some(preset)));
    }
    if !raw.contains("://") {
        let near = nearest(raw, preset::names()).filter(|_| !at.is_reference());
        let hint = match near {
            Some(near) => format!("did you mean '{near}'?"),
            None => {
                let names: Vec<_> = preset::names().collect();
                format!(
                    "give one of {}, or the https:// URL of a directory",
                    names.join(", ")
                )
            }
        };
        let message = format!("{} is not the name of a known CA", at.quoted());
        ctx.problems.error(at, message, hint);
        return None;
    }
    if raw.contains('@') {
        report_user(ctx, at);
        return None;
    }
    let uri = raw.parse::<Uri>().ok().filter(|uri| uri.host().is_some());
    let scheme = uri.as_ref().and_then(Uri::scheme_str);
    let hint = match scheme {
        // `Uri` drops the fragment silently.
        Some("https") if raw.contains('#') => "leave out '#' and what follows",
        Some("https") => return Some((raw.to_owned(), preset)),
        Some("http") => "write https://: ACME is only used over HTTPS (RFC 8555, section 6.1)",
        _ => "write the https:// URL that the CA gives for its ACME directory",
    };
    let message = format!("{} is not the URL of a directory", at.quoted());
    ctx.problems.error(at, message, hint);
    None
}

/// The directory of the CA at which failed orders are rehearsed.
fn staging(
    ctx: &mut Context<'_>,
    raw: &schema::Acme,
    directory: &str,
    preset: Option<&'static Preset>,
    at: &At<'_>,
) -> Option<String> {
    let Some(staging) = &raw.staging else {
        return preset.and_then(|preset| preset.staging).map(str::to_owned);
    };
    if staging == "off" {
        return None;
    }
    let (url, _) = find_ca(ctx, at, staging)?;
    if url.trim_end_matches('/') == directory.trim_end_matches('/') {
        let message = "this is 'directory' itself: nothing can be rehearsed there";
        ctx.problems
            .error(at, message, "give another directory, or 'off'");
    }
    Some(url)
}

fn email(ctx: &mut Context<'_>, raw: Option<&str>, at: &At<'_>) -> Option<String> {
    let raw = raw?;
    let parts = raw.split_once('@').filter(|(local, _)| {
        let odd = |octet| !u8::is_ascii_graphic(&octet) || b"\"(),:;<>?\\[]".contains(&octet);
        !local.is_empty() && !local.bytes().any(odd)
    });
    let domain = parts.and_then(|(_, domain)| domain.parse::<HostName>().ok());
    if let (Some((local, _)), Some(domain)) = (parts, domain) {
        return Some(format!("{local}@{domain}"));
    }
    let hint = match raw.get(..7) {
        Some(scheme) if scheme.eq_ignore_ascii_case("mailto:") => "leave out 'mailto:'",
        _ => "write one address, such as ops@example.com",
    };
    let message = format!("{} is not an e-mail address", at.quoted());
    ctx.problems.error(at, message, hint);
    None
}

fn external_account(
    ctx: &mut Context<'_>,
    raw: &schema::Eab,
    at: &At<'_>,
) -> Option<ExternalAccount> {
    if raw.key_id.is_empty() || !raw.key_id.bytes().all(|octet| octet.is_ascii_graphic()) {
        let at = at.key("key_id");
        let message = "a key identifier must not be empty or contain blanks";
        ctx.problems.error(&at, message, "copy it from the CA");
    }
    let key = raw.hmac_key.as_ref()?.0.expose().trim_end_matches('=');
    if let Some(message) = odd_key(key) {
        let hint = "give it as the CA does: letters, digits, '-' and '_' without blanks";
        ctx.problems.error(&at.key("hmac_key"), message, hint);
    }
    Some(ExternalAccount {
        key_id: raw.key_id.clone(),
        hmac_key: Secret::new(key.to_owned()),
    })
}

fn order_limit(ctx: &mut Context<'_>, raw: &schema::OrderLimit, at: &At<'_>) -> OrderLimit {
    const SECOND: Duration = Duration::from_secs(1);
    const DAY: Duration = Duration::from_secs(24 * 3600);
    OrderLimit {
        orders: u32::try_from(raw.orders).unwrap_or(u32::MAX),
        per: ctx.duration(&at.key("per"), &raw.per, SECOND, DAY),
    }
}

/// What is wrong with a MAC key, which should be base64url without padding (RFC 4648, section 5).
fn odd_key(key: &str) -> Option<&'static str> {
    let good = |octet: u8| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_');
    if key.is_empty() {
        Some("the key is empty")
    } else if key.contains(char::is_whitespace) {
        Some("the key has blanks or line ends in it")
    } else if key.bytes().all(good) {
        // Six bits each: a single one at the end is less than an octet.
        (key.len() % 4 == 1).then_some("the key is not base64url: a part of it is missing")
    } else if key
        .bytes()
        .all(|octet| good(octet) || matches!(octet, b'+' | b'/'))
    {
        Some("the key is plain base64, not base64url: write '-' for '+' and '_' for '/'")
    } else {
        Some("the key is not base64url: it has other characters in it")
    }
}
