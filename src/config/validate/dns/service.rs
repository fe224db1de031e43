//! The providers of `dns` with their keys.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::{HOUR, SECOND};
use crate::config::model::{
    AcmeDns, AcmeDnsAccounts, Cloudflare, DigitalOcean, DnsExec, DnsService, Hetzner, HttpReq,
    NameServer, Rfc2136, Route53, Tsig, TsigAlgorithm, UpstreamAddress,
};
use crate::config::problem::At;
use crate::config::schema;
use crate::config::validate::client::{named_address, report_user};
use crate::config::validate::context::Context;
use crate::config::validate::program::{check_command, check_env};
use crate::config::validate::value::url;
use crate::secret::Secret;

pub(super) fn rfc2136(
    ctx: &mut Context<'_>,
    raw: &schema::Rfc2136,
    at: &At<'_>,
) -> Option<DnsService> {
    let server_at = at.key("server");
    let server = match raw.server.parse::<SocketAddr>() {
        Ok(address) if address.port() != 0 => Some(NameServer::Ip(address)),
        Ok(_) => None,
        Err(_) => match named_address(&raw.server) {
            Some(UpstreamAddress::Name { host, port }) => Some(NameServer::Name { host, port }),
            Some(
                UpstreamAddress::Ip(_) | UpstreamAddress::Service(_) | UpstreamAddress::Unix(_),
            )
            | None => None,
        },
    };
    if server.is_none() {
        let message = format!("{} is not a name server with a port", server_at.quoted());
        let hint = "write ADDRESS:PORT, such as 10.0.0.53:53";
        ctx.problems.error(&server_at, message, hint);
    }
    let name = raw
        .tsig_name
        .as_deref()
        .and_then(|name| ctx.host(&at.key("tsig_name"), name));
    if let Some(secret) = &raw.tsig_secret {
        let secret = secret.0.expose();
        if secret.is_empty() || openssl::base64::decode_block(secret).is_err() {
            let message = "the key is not base64";
            let hint = "take the 'secret' of the key as tsig-keygen prints it";
            ctx.problems.error(&at.key("tsig_secret"), message, hint);
        }
    }
    let given = [raw.tsig_name.is_some(), raw.tsig_secret.is_some()];
    ctx.both(at, ["tsig_name", "tsig_secret"], given);
    let algorithm = match raw.tsig_algorithm {
        schema::TsigAlgorithm::HmacSha256 => TsigAlgorithm::HmacSha256,
        schema::TsigAlgorithm::HmacSha384 => TsigAlgorithm::HmacSha384,
        schema::TsigAlgorithm::HmacSha512 => TsigAlgorithm::HmacSha512,
    };
    let tsig = name
        .zip(raw.tsig_secret.as_ref())
        .map(|(name, secret)| Tsig {
            name,
            algorithm,
            secret: secret.0.clone(),
        });
    Some(DnsService::Rfc2136(Rfc2136 {
        server: server?,
        tsig,
    }))
}

pub(super) fn cloudflare(
    ctx: &mut Context<'_>,
    raw: &schema::Cloudflare,
    at: &At<'_>,
) -> Option<DnsService> {
    let endpoint = endpoint(ctx, &at.key("endpoint"), &raw.endpoint, true);
    let api_token = token(ctx, &at.key("api_token"), raw.api_token.as_ref());
    Some(DnsService::Cloudflare(Cloudflare {
        endpoint: endpoint?,
        api_token: api_token?,
    }))
}

pub(super) fn route53(
    ctx: &mut Context<'_>,
    raw: &schema::Route53,
    at: &At<'_>,
) -> Option<DnsService> {
    let endpoint = endpoint(ctx, &at.key("endpoint"), &raw.endpoint, true);
    for (key, text) in [
        ("access_key_id", Some(&raw.access_key_id)),
        ("region", Some(&raw.region)),
        ("hosted_zone_id", raw.hosted_zone_id.as_ref()),
    ] {
        let good = |text: &String| {
            !text.is_empty()
                && text
                    .bytes()
                    .all(|one| b"-_".contains(&one) || one.is_ascii_alphanumeric())
        };
        if text.is_some_and(|text| !good(text)) {
            let at = at.key(key);
            let message = format!(
                "{} has characters other than letters, digits and '-'",
                at.quoted()
            );
            ctx.problems
                .error(&at, message, "write it as the AWS console shows it");
        }
    }
    let secret = token(
        ctx,
        &at.key("secret_access_key"),
        raw.secret_access_key.as_ref(),
    );
    let session_token = token(ctx, &at.key("session_token"), raw.session_token.as_ref());
    Some(DnsService::Route53(Route53 {
        endpoint: endpoint?,
        region: raw.region.clone(),
        access_key_id: raw.access_key_id.clone(),
        secret_access_key: secret?,
        session_token,
        hosted_zone_id: raw.hosted_zone_id.clone(),
    }))
}

pub(super) fn digitalocean(
    ctx: &mut Context<'_>,
    raw: &schema::DigitalOcean,
    at: &At<'_>,
) -> Option<DnsService> {
    let endpoint = endpoint(ctx, &at.key("endpoint"), &raw.endpoint, true);
    let api_token = token(ctx, &at.key("api_token"), raw.api_token.as_ref());
    Some(DnsService::DigitalOcean(DigitalOcean {
        endpoint: endpoint?,
        api_token: api_token?,
    }))
}

pub(super) fn hetzner(
    ctx: &mut Context<'_>,
    raw: &schema::Hetzner,
    at: &At<'_>,
) -> Option<DnsService> {
    let endpoint = endpoint(ctx, &at.key("endpoint"), &raw.endpoint, true);
    let api_token = token(ctx, &at.key("api_token"), raw.api_token.as_ref());
    Some(DnsService::Hetzner(Hetzner {
        endpoint: endpoint?,
        api_token: api_token?,
    }))
}

pub(super) fn acme_dns(
    ctx: &mut Context<'_>,
    raw: &schema::AcmeDns,
    at: &At<'_>,
) -> Option<DnsService> {
    let endpoint = endpoint(ctx, &at.key("endpoint"), &raw.endpoint, true);
    let password = token(ctx, &at.key("password"), raw.password.as_ref());
    let subdomain_at = at.key("subdomain");
    if let Some(subdomain) = &raw.subdomain {
        let label = ctx.host(&subdomain_at, subdomain);
        if label.is_some_and(|label| label.parent().is_some()) {
            let message = format!("{} is more than one label", subdomain_at.quoted());
            let hint = "give the 'subdomain' that the registration returned, not 'fulldomain'";
            ctx.problems.error(&subdomain_at, message, hint);
        }
    }
    let file = raw
        .accounts
        .as_deref()
        .map(|path| ctx.path(&at.key("accounts"), path));
    let given = [
        raw.username.is_some(),
        raw.password.is_some(),
        raw.subdomain.is_some(),
    ];
    let accounts = match (&raw.username, password, &raw.subdomain, file) {
        (Some(username), Some(password), Some(subdomain), None) => Some(AcmeDnsAccounts::One {
            username: username.clone(),
            password,
            subdomain: subdomain.to_ascii_lowercase(),
        }),
        (None, None, None, Some(file)) => Some(AcmeDnsAccounts::File(file)),
        _ => None,
    };
    // A malformed password has been reported.
    if accounts.is_none() && given != [true; 3] || raw.accounts.is_some() && given == [true; 3] {
        let message = "it takes one account, or a file of accounts";
        let hint = "give 'username', 'password' and 'subdomain', or 'accounts' alone";
        ctx.problems.error(at, message, hint);
    }
    Some(DnsService::AcmeDns(AcmeDns {
        endpoint: endpoint?,
        accounts: accounts?,
    }))
}

pub(super) fn httpreq(
    ctx: &mut Context<'_>,
    raw: &schema::HttpReq,
    at: &At<'_>,
) -> Option<DnsService> {
    let has_login = raw.username.is_some();
    let endpoint = endpoint(ctx, &at.key("endpoint"), &raw.endpoint, has_login);
    ctx.both(
        at,
        ["username", "password"],
        [raw.username.is_some(), raw.password.is_some()],
    );
    if raw.username.as_ref().is_some_and(|user| user.contains(':')) {
        let message = "an HTTP user name must not contain ':'";
        ctx.problems
            .error(&at.key("username"), message, "give another one");
    }
    let password = raw.password.as_ref().map(|password| password.0.clone());
    Some(DnsService::HttpReq(HttpReq {
        endpoint: endpoint?,
        login: raw.username.clone().zip(password),
    }))
}

pub(super) fn exec(
    ctx: &mut Context<'_>,
    raw: &schema::DnsExec,
    at: &At<'_>,
) -> Option<DnsService> {
    let command_at = at.key("command");
    check_command(ctx, &raw.command, &command_at, "/usr/local/bin/set-record");
    check_env(ctx, &raw.env, &at.key("env"));
    let program = raw.command.first()?;
    let env = raw.env.iter();
    Some(DnsService::Exec(DnsExec {
        program: PathBuf::from(program),
        arguments: raw.command.iter().skip(1).cloned().collect(),
        timeout: ctx.duration(&at.key("timeout"), &raw.timeout, SECOND, HOUR),
        env: env
            .map(|(name, value)| (name.clone(), value.0.clone()))
            .collect(),
    }))
}

/// The URL of an API, without a trailing slash.
fn endpoint(ctx: &mut Context<'_>, at: &At<'_>, raw: &str, with_secret: bool) -> Option<String> {
    if raw.contains('@') {
        report_user(ctx, at);
        return None;
    }
    let Some(url) = url(raw).filter(|url| url.query().is_none() && !raw.contains('#')) else {
        let message = format!("{} is not the URL of an API", at.quoted());
        let hint = "write https://HOST/PATH, without '?' and '#'";
        ctx.problems.error(at, message, hint);
        return None;
    };
    let host = url.host().unwrap_or_default();
    let is_near = host == "localhost" || host == "[::1]" || host.starts_with("127.");
    if with_secret && url.scheme_str() == Some("http") && !is_near {
        let message = "secrets are sent there without encryption";
        ctx.problems.warn(at, message, "use https");
    }
    Some(raw.trim_end_matches('/').to_owned())
}

/// A secret for a header field. `None` if it is missing or malformed; the latter is reported.
fn token(ctx: &mut Context<'_>, at: &At<'_>, raw: Option<&schema::SecretText>) -> Option<Secret> {
    let secret = &raw?.0;
    let text = secret.expose();
    if text.is_empty() || !text.bytes().all(|octet| octet.is_ascii_graphic()) {
        let message = "the secret is empty, or has blanks or line ends in it";
        ctx.problems
            .error(at, message, "copy it again from where it was shown");
        return None;
    }
    Some(secret.clone())
}
