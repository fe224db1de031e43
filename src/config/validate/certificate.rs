//! `certificates`.

use super::context::Context;
use super::coverage::{check_name_count, check_provable, warn_refused_by_public};
use super::references;
use crate::config::model::CertificateSource;
use crate::config::problem::At;
use crate::config::schema;
use crate::host::Pattern;

pub(super) fn certificates(ctx: &mut Context<'_>, root: &At<'_>) -> Vec<CertificateSource> {
    let at = root.key("certificates");
    let raw = ctx.raw;
    let mut sources = Vec::with_capacity(raw.certificates.len());
    for (index, certificate) in raw.certificates.iter().enumerate() {
        let at = at.index(index);
        sources.extend(self::certificate(ctx, certificate, &at));
    }
    sources
}

fn certificate(
    ctx: &mut Context<'_>,
    raw: &schema::Certificate,
    at: &At<'_>,
) -> Option<CertificateSource> {
    if raw.names.is_none() {
        for (key, given) in [("issuer", raw.issuer.is_some()), ("dns", raw.dns.is_some())] {
            if given {
                let message = format!("'{key}' has no meaning without 'names'");
                ctx.problems
                    .error(&at.key(key).at_key(), message, "remove it");
            }
        }
    }
    let origin = ctx.origin(at);
    match (&raw.files, &raw.directory, &raw.names) {
        (Some(files), None, None) => {
            let at = at.key("files");
            let cert = ctx.path(&at.key("cert"), &files.cert);
            let key = match &files.key {
                Some(key) => ctx.path(&at.key("key"), key),
                None => cert.clone(),
            };
            Some(CertificateSource::Files { cert, key, origin })
        }
        (None, Some(directory), None) => {
            let path = ctx.path(&at.key("directory"), directory);
            Some(CertificateSource::Directory { path, origin })
        }
        (None, None, Some(names)) => {
            let names_at = at.key("names");
            let mut named: Vec<(At<'_>, Pattern)> = Vec::with_capacity(names.len());
            for (index, name) in names.iter().enumerate() {
                let at = names_at.index(index);
                let Some(pattern) = ctx.issuable(&at, name) else {
                    continue;
                };
                if named.iter().any(|(_, before)| *before == pattern) {
                    let message = format!("the name {} is listed twice", at.quoted());
                    ctx.problems.error(&at, message, "remove one of the two");
                }
                named.push((at, pattern));
            }
            let dns = raw
                .dns
                .as_deref()
                .and_then(|dns| references::dns_entry(ctx, &at.key("dns"), dns));
            let issuers = references::issuers(ctx, &at.key("issuer"), raw.issuer.as_ref());
            for (name_at, pattern) in &named {
                // A certificate with an entry of `dns` is validated by it, whatever the issuers do
                // otherwise; addresses never are.
                if raw.dns.is_none() || matches!(pattern, Pattern::Ip(_)) {
                    check_provable(ctx, name_at, pattern, &issuers);
                }
                warn_refused_by_public(ctx, name_at, pattern, &issuers);
            }
            check_name_count(ctx, &names_at, named.len(), &issuers);
            let patterns = named.into_iter().map(|(_, pattern)| pattern).collect();
            Some(CertificateSource::Managed {
                names: patterns,
                issuers,
                dns,
                origin,
            })
        }
        (None, None, None) => {
            let message = "the entry names no certificate";
            let hint = "give exactly one of 'files', 'directory', 'names'";
            ctx.problems.error(at, message, hint);
            None
        }
        _ => {
            let message = "'files', 'directory' and 'names' exclude each other";
            ctx.problems
                .error(at, message, "make a separate entry for each");
            None
        }
    }
}
