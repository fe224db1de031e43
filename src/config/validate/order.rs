//! What an order asks for besides its names: profile, chain, lifetime, extensions.

use std::time::Duration;

use super::context::Context;
use super::preset::{Fact, Preset};
use crate::config::model::{OrderTerms, PreferredChain, Profile};
use crate::config::problem::{At, nearest};
use crate::config::schema;

const HOUR: Duration = Duration::from_secs(3600);

/// Public certificates were once valid this long; private CAs may exceed it by default.
const LONGEST: Duration = Duration::from_secs(398 * 24 * 3600);

/// `presets` are the CA and its staging environment, if they are known.
pub(super) fn order_terms(
    ctx: &mut Context<'_>,
    raw: &schema::Acme,
    presets: [Option<&'static Preset>; 2],
    at: &At<'_>,
) -> OrderTerms {
    let presets: Vec<_> = presets.into_iter().flatten().collect();
    OrderTerms {
        profile: profile(ctx, raw.profile.as_ref(), &presets, &at.key("profile")),
        preferred_chain: raw
            .preferred_chain
            .as_ref()
            .and_then(|chain| preferred_chain(ctx, chain, &at.key("preferred_chain"))),
        lifetime: lifetime(ctx, raw, &presets, &at.key("lifetime")),
        common_name: raw.common_name,
        must_staple: must_staple(ctx, raw.must_staple, &presets, &at.key("must_staple")),
    }
}

fn profile(
    ctx: &mut Context<'_>,
    raw: Option<&schema::Profile>,
    presets: &[&Preset],
    at: &At<'_>,
) -> Option<Profile> {
    let raw = raw?;
    let name = raw.name();
    let (required, at) = match raw {
        schema::Profile::Name(_) => (false, *at),
        schema::Profile::Named(named) => (named.required, at.key("name")),
    };
    let hint = "write it as the CA does, such as tlsserver or shortlived";
    if name.is_empty() || name.len() > 64 || !name.bytes().all(|octet| octet.is_ascii_graphic()) {
        let message = format!("{} is not the name of a profile", at.quoted());
        ctx.problems.error(&at, message, hint);
    } else if let Some(preset) = presets
        .iter()
        .find(|one| !one.profiles.is_empty() && !one.profiles.contains(&name))
    {
        // The CA may have added profiles since.
        let known = preset.profiles.join(", ");
        let message = format!(
            "'{}' is not known to have the profile {}, but {known}",
            preset.name,
            at.quoted(),
        );
        let near = nearest(name, preset.profiles.iter().copied());
        let hint = match near.filter(|_| !at.is_reference()) {
            Some(near) => format!("did you mean '{near}'?"),
            None => hint.to_owned(),
        };
        ctx.problems.warn(&at, message, hint);
    }
    Some(Profile {
        name: name.to_owned(),
        required,
    })
}

fn preferred_chain(
    ctx: &mut Context<'_>,
    raw: &schema::PreferredChain,
    at: &At<'_>,
) -> Option<PreferredChain> {
    let names = match raw {
        schema::PreferredChain::Shortest(_) => return Some(PreferredChain::Shortest),
        schema::PreferredChain::Names(names) => names,
    };
    let (key, name) = match (&names.root, &names.issuer) {
        (Some(root), None) => ("root", root),
        (None, Some(issuer)) => ("issuer", issuer),
        _ => {
            let message = "a chain is selected by one of 'root' and 'issuer'";
            let hint = "give the common name of the root, { root: \"ISRG Root X1\" }, or of an \
                        issuer below it";
            ctx.problems.error(at, message, hint);
            return None;
        }
    };
    if name.trim().is_empty() || name.chars().any(char::is_control) {
        let at = at.key(key);
        let message = "the common name of a CA is not empty and has no control characters";
        ctx.problems
            .error(&at, message, "copy it from the certificate of the CA");
    }
    Some(match key {
        "root" => PreferredChain::Root(name.clone()),
        _ => PreferredChain::Issuer(name.clone()),
    })
}

fn lifetime(
    ctx: &mut Context<'_>,
    raw: &schema::Acme,
    presets: &[&Preset],
    at: &At<'_>,
) -> Option<Duration> {
    let lifetime = ctx.duration(at, raw.lifetime.as_ref()?, HOUR, LONGEST);
    if let Some(preset) = presets.iter().find(|one| one.lifetime == Fact::No) {
        let message = format!(
            "'{}' does not let you choose how long a certificate is valid",
            preset.name
        );
        let hint = match preset.profiles.contains(&"shortlived") {
            true => "leave it out; 'profile: shortlived' is for certificates of a few days",
            false => "leave it out",
        };
        ctx.problems.error(at, message, hint);
    }
    Some(lifetime)
}

fn must_staple(ctx: &mut Context<'_>, raw: bool, presets: &[&Preset], at: &At<'_>) -> bool {
    if !raw {
        return false;
    }
    if let Some(preset) = presets.iter().find(|one| one.must_staple == Fact::No) {
        let message = format!(
            "'{}' issues no certificates with Must-Staple: it no longer supports OCSP",
            preset.name
        );
        ctx.problems.error(at, message, "leave it out");
    } else if !ctx.raw.revocation.ocsp {
        let message = "clients that honor Must-Staple would refuse the certificate: 'revocation.ocsp' \
                       is off, so it would come without an OCSP response";
        let hint = "leave it out, or remove 'ocsp: false'";
        ctx.problems.error(at, message, hint);
    }
    true
}
