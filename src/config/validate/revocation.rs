//! `revocation`.

use super::client::http_proxy;
use super::context::Context;
use crate::config::model::Revocation;
use crate::config::problem::At;
use crate::config::schema;

pub(super) fn revocation(
    ctx: &mut Context<'_>,
    raw: &schema::Revocation,
    at: &At<'_>,
) -> Revocation {
    let proxy_at = at.key("proxy");
    let proxy = raw.proxy.as_deref();
    let proxy = proxy.and_then(|proxy| http_proxy(ctx, &proxy_at, proxy));
    if raw.proxy.is_some() && !raw.ocsp && !raw.crl {
        let message = "it has no effect: 'ocsp' and 'crl' are both off";
        ctx.problems.warn(&proxy_at, message, "remove it");
    }
    Revocation {
        ocsp: raw.ocsp,
        crl: raw.crl,
        proxy,
    }
}
