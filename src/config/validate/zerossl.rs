//! `issuers: NAME: zerossl`: an ACME CA with an account at its own API.

use super::acme::acme;
use super::context::Context;
use crate::config::model::{Acme, ZeroSsl, ZeroSslLogin};
use crate::config::problem::At;
use crate::config::schema;
use crate::secret::Secret;

pub(super) fn zerossl(ctx: &mut Context<'_>, raw: &schema::ZeroSsl, at: &At<'_>) -> Acme {
    let mut acme = acme(ctx, &raw.as_acme(), at);
    check_endpoint(ctx, &at.key("endpoint"), &raw.endpoint);
    let login = match (&raw.api_key, &acme.email) {
        (Some(key), _) => Some(ZeroSslLogin::ApiKey(api_key(
            ctx,
            &at.key("api_key"),
            key.0.expose(),
        ))),
        (None, Some(email)) => Some(ZeroSslLogin::Email(email.clone())),
        (None, None) => {
            // A malformed key has been reported.
            if !at.key("api_key").is_written() && raw.email.is_none() {
                let message = "ZeroSSL needs to know whose account it is";
                let hint = "add 'api_key' from https://app.zerossl.com/developer, or 'email'";
                ctx.problems.error(at, message, hint);
            }
            None
        }
    };
    acme.zerossl = login.map(|login| ZeroSsl {
        endpoint: raw.endpoint.clone(),
        login,
    });
    acme
}

fn api_key(ctx: &mut Context<'_>, at: &At<'_>, raw: &str) -> Secret {
    let key = raw.trim_end_matches(['\r', '\n']);
    if key.is_empty() || !key.bytes().all(|octet| octet.is_ascii_graphic()) {
        let message = "an API key must not be empty or contain blanks";
        let hint = "copy it from https://app.zerossl.com/developer";
        ctx.problems.error(at, message, hint);
    }
    Secret::new(key.to_owned())
}

/// Reports a malformed base URL of the API.
fn check_endpoint(ctx: &mut Context<'_>, at: &At<'_>, raw: &str) {
    let uri = raw.parse::<http::Uri>().ok().filter(|uri| {
        uri.scheme_str() == Some("https")
            && uri.host().is_some_and(|host| !host.is_empty())
            && uri.query().is_none()
            && !raw.contains(['#', '@'])
    });
    if uri.is_none() {
        let message = format!("{} is not the URL of an API", at.quoted());
        let hint = "write https://HOST, such as https://api.zerossl.com, or leave it out";
        ctx.problems.error(at, message, hint);
    }
}
