//! `challenges` of an issuer: which can be used, and what they can validate.

use super::context::Context;
use crate::config::model::ChallengeType;
use crate::config::problem::At;
use crate::config::schema::{self, Challenge};

/// A challenge in the configuration.
struct Known {
    kind: ChallengeType,
    /// The key of the listeners that it needs, if it is empty.
    deaf: Option<&'static str>,
}

/// The challenges that can be used, in order.
pub(super) fn challenges(
    ctx: &mut Context<'_>,
    raw: &schema::Acme,
    at: &At<'_>,
) -> Vec<ChallengeType> {
    let root = ctx.raw;
    let at = at.key("challenges");
    let server = &root.server;
    let wanted = wanted(raw, root);
    let mut known: Vec<Known> = Vec::with_capacity(wanted.len());
    for (index, challenge) in wanted.iter().enumerate() {
        let at = at.index(index);
        if matches!(challenge, Challenge::Dns01 | Challenge::DnsAccount01) {
            check_provider(ctx, raw, &at);
        }
        let deaf = deaf(*challenge, server);
        let kind = kind(*challenge);
        if known.iter().any(|before| before.kind == kind) {
            let message = format!("the challenge {} is listed twice", at.quoted());
            ctx.problems.error(&at, message, "remove one of the two");
        }
        known.push(Known { kind, deaf });
    }
    // This is an error already; the lists say nothing more.
    if server.http.is_empty() && server.https.is_empty() {
        return Vec::new();
    }
    let deaf = |key| format!("it needs a listener, and '{key}' is empty");
    let reason = |known: &Known| Some(format!("{}: {}", known.kind.as_str(), deaf(known.deaf?)));
    let reasons: Vec<String> = known.iter().filter_map(reason).collect();
    // An empty list is reported elsewhere, by the schema.
    if !known.is_empty() && reasons.len() == known.len() {
        let message = format!("no challenge can be answered ({})", reasons.join("; "));
        ctx.problems.error(&at, message, "give an address there");
    } else if at.is_written() {
        for (index, known) in known.iter().enumerate() {
            if let Some(key) = known.deaf {
                let kind = known.kind.as_str();
                let message = format!("{kind} cannot be used: {}", deaf(key));
                let hint = "remove it, or give an address there";
                ctx.problems.warn(&at.index(index), message, hint);
            }
        }
    }
    known.retain(|known| known.deaf.is_none());
    known.into_iter().map(|known| known.kind).collect()
}

/// Reports an issuer without a DNS provider to set its records.
fn check_provider(ctx: &mut Context<'_>, raw: &schema::Acme, at: &At<'_>) {
    let root = ctx.raw;
    if root.dns.is_empty() && raw.dns.is_none() && !ctx.problems.is_lost("dns") {
        let message = format!(
            "no DNS provider for {}: there is no entry in 'dns'",
            at.quoted()
        );
        let hint = "add an entry below 'dns:'";
        ctx.problems.error(at, message, hint);
    } else if root.dns.len() > 1 && raw.dns.is_none() {
        let message = format!(
            "certificates without 'dns' cannot be validated by {}: there are several entries, \
             and the issuer names none",
            at.quoted()
        );
        let hint = "add 'dns: NAME' to the issuer";
        ctx.problems.warn(at, message, hint);
    }
}

fn kind(challenge: Challenge) -> ChallengeType {
    match challenge {
        Challenge::Http01 => ChallengeType::Http01,
        Challenge::TlsAlpn01 => ChallengeType::TlsAlpn01,
        Challenge::Dns01 => ChallengeType::Dns01,
        Challenge::DnsAccount01 => ChallengeType::DnsAccount01,
        Challenge::DnsPersist01 => ChallengeType::DnsPersist01,
    }
}

/// The key of the listeners that a challenge needs, if it is empty.
fn deaf(challenge: Challenge, server: &schema::Server) -> Option<&'static str> {
    match challenge {
        Challenge::Http01 => server.http.is_empty().then_some("server.http"),
        Challenge::TlsAlpn01 => server.https.is_empty().then_some("server.https"),
        Challenge::Dns01 | Challenge::DnsAccount01 | Challenge::DnsPersist01 => None,
    }
}

/// The challenges as configured, or the default ones.
fn wanted(raw: &schema::Acme, root: &schema::Root) -> Vec<Challenge> {
    raw.challenges.clone().unwrap_or_else(|| {
        let mut usual = vec![Challenge::TlsAlpn01, Challenge::Http01];
        usual.extend(names_entry(raw, root).then_some(Challenge::Dns01));
        usual
    })
}

/// Returns true if it is clear which entry of `dns` serves a certificate that names none.
fn names_entry(raw: &schema::Acme, root: &schema::Root) -> bool {
    match &raw.dns {
        Some(name) => root.dns.contains_key(name),
        None => root.dns.len() == 1,
    }
}

/// Why an issuer cannot issue for a wildcard, and what to do; `None` if it can. Not for
/// certificates with an entry of `dns`, which are validated by it in any case.
pub(super) fn unprovable(
    raw: &schema::Acme,
    root: &schema::Root,
) -> Option<(&'static str, &'static str)> {
    // A missing entry is an error already.
    if let Some(name) = &raw.dns
        && !root.dns.contains_key(name)
    {
        return None;
    }
    let is_settable = names_entry(raw, root);
    let can = wanted(raw, root).iter().any(|challenge| match challenge {
        Challenge::DnsPersist01 => true,
        Challenge::Dns01 | Challenge::DnsAccount01 => is_settable,
        Challenge::Http01 | Challenge::TlsAlpn01 => false,
    });
    if can {
        return None;
    }
    Some(match root.dns.is_empty() {
        true => (
            "there is no entry in 'dns'",
            "add one, name the hosts one by one, give a certificate in files, or use an issuer \
             with a 'local_ca'",
        ),
        false if is_settable => (
            "its 'challenges' do not contain one",
            "add dns-01 to them, or 'dns: NAME' to the certificate",
        ),
        false => (
            "none of the entries in 'dns' is named",
            "add 'dns: NAME' to the issuer or the certificate",
        ),
    })
}

/// Why an issuer cannot validate an IP address, and what to do; `None` if it can (RFC 8738,
/// section 7).
pub(super) fn unprovable_address(
    raw: &schema::Acme,
    root: &schema::Root,
) -> Option<(String, &'static str)> {
    let wanted = wanted(raw, root);
    let deaf = |challenge: &Challenge| deaf(*challenge, &root.server);
    // An issuer without any usable challenge is an error already.
    if wanted.iter().all(|challenge| deaf(challenge).is_some()) {
        return None;
    }
    let alone = "addresses need an http-01 or tls-alpn-01 challenge";
    let mut usable = wanted
        .iter()
        .filter(|challenge| matches!(challenge, Challenge::Http01 | Challenge::TlsAlpn01));
    if usable.clone().any(|challenge| deaf(challenge).is_none()) {
        return None;
    }
    Some(match usable.find_map(deaf) {
        None => (
            alone.to_owned(),
            "add one of the two to the issuer's 'challenges'",
        ),
        Some(key) => (
            format!("{alone}, and '{key}' is empty"),
            "give an address there, or add the other one of the two to the issuer's 'challenges'",
        ),
    })
}
