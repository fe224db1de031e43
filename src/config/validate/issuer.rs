//! `issuers`: the sources of certificates. ACME CAs are in `acme`, the account at ZeroSSL's own API
//! in `zerossl`.

use std::borrow::Cow;
use std::sync::Arc;

use indexmap::IndexMap;

use super::acme::{acme, check_binding};
use super::context::Context;
use super::zerossl::zerossl;
use crate::config::model::Issuer;
use crate::config::problem::{At, quote};
use crate::config::schema;

pub(super) fn issuers(ctx: &mut Context<'_>, at: &At<'_>) -> IndexMap<Arc<str>, Issuer> {
    let raw = ctx.raw;
    let mut issuers = IndexMap::with_capacity(raw.issuers.len());
    for (name, issuer) in &raw.issuers {
        let at = at.key(name);
        ctx.check_name(&at, name);
        if matches!(&**name, "auto" | "off") {
            ctx.problems.error(
                &at.at_key(),
                format!("an issuer cannot be named {}", quote(name)),
                "choose another: a site's 'tls' has a meaning for this word",
            );
        }
        let name = Arc::from(name.as_str());
        if let Some(raw) = &issuer.acme {
            let at = at.key("acme");
            check_binding(ctx, raw, &at);
            let acme = acme(ctx, raw, &at);
            issuers.insert(name, Issuer::Acme(Arc::new(acme)));
        } else if let Some(raw) = &issuer.zerossl {
            let acme = zerossl(ctx, raw, &at.key("zerossl"));
            issuers.insert(name, Issuer::Acme(Arc::new(acme)));
        } else if let Some(ca) = &issuer.local_ca {
            let ca = local_ca(ctx, ca, &at.key("local_ca"));
            issuers.insert(name, ca);
        } else if issuer.is_own {
            issuers.insert(name, Issuer::Own);
        }
    }
    issuers
}

fn local_ca(ctx: &mut Context<'_>, raw: &schema::LocalCa, at: &At<'_>) -> Issuer {
    let length = raw.name.chars().count();
    // RFC 5280, appendix A.1: ub-common-name.
    if !(1..=64).contains(&length) || raw.name.chars().any(char::is_control) {
        let message = "the name of a root certificate has 1 to 64 characters";
        ctx.problems
            .error(&at.key("name"), message, "choose another name");
    }
    Issuer::LocalCa {
        name: raw.name.clone(),
    }
}

/// The ACME configuration of an issuer; `None` if it is of another kind.
pub(super) fn acme_of<'r>(raw: &'r schema::Root, issuer: &str) -> Option<Cow<'r, schema::Acme>> {
    let issuer = raw.issuers.get(issuer)?;
    let zerossl = || Some(Cow::Owned(issuer.zerossl.as_ref()?.as_acme()));
    issuer.acme.as_ref().map(Cow::Borrowed).or_else(zerossl)
}
