//! `jwt` of sites and routes.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::header::{AUTHORIZATION, COOKIE};
use http::{HeaderName, Uri};

use super::client::{report_user, required_file, roots_for};
use super::context::{Context, TokenSettings};
use super::sticky::check_cookie_name;
use super::value::url;
use crate::config::model::{Jwt, TokenKeys, TokenPlace};
use crate::config::problem::{At, quote};
use crate::config::schema;
use crate::jwt::{Algorithm, Audience, KeyServer, KeySet, Rules, RulesId};

/// How often keys are fetched, at most and at least.
const OFTENEST: Duration = Duration::from_secs(1);
const RAREST: Duration = Duration::from_secs(24 * 3600);

/// How far clocks may be apart.
const MOST_SKEW: Duration = Duration::from_secs(300);

/// The tokens that requests need. Alike ones share their keys.
pub(super) fn jwt(
    ctx: &mut Context<'_>,
    raw: &schema::JwtOptions,
    at: &At<'_>,
) -> Option<Arc<Jwt>> {
    let text = serde_json::to_string(raw).unwrap_or_default();
    let paths = [&raw.keys_file, &raw.ca_file].map(|path| {
        let path = path.as_deref().filter(|path| !path.is_empty());
        path.map(|path| ctx.sources.resolve(at.place().file, path.as_ref()))
    });
    let settings: TokenSettings = (text, paths);
    if let Some(known) = ctx.jwts.get(&settings) {
        return Some(Arc::clone(known));
    }
    let errors = ctx.problems.errors();
    let jwt = Arc::new(Jwt {
        place: place(ctx, raw, at),
        keys: keys(ctx, raw, at)?,
        rules: rules(ctx, raw, at),
    });
    // So that each place of a mistake is reported.
    if ctx.problems.errors() == errors {
        ctx.jwts.insert(settings, Arc::clone(&jwt));
    }
    Some(jwt)
}

fn place(ctx: &mut Context<'_>, raw: &schema::JwtOptions, at: &At<'_>) -> TokenPlace {
    match (&raw.header, &raw.cookie) {
        (None, None) => TokenPlace::Authorization,
        (Some(name), None) => {
            let at = at.key("header");
            match name.parse::<HeaderName>() {
                Ok(name) if name == AUTHORIZATION => TokenPlace::Authorization,
                Ok(name) if name != COOKIE => TokenPlace::Field(name),
                Ok(_) => {
                    let message = "the field 'Cookie' has more than a token";
                    ctx.problems.error(&at, message, "write 'cookie: NAME'");
                    TokenPlace::Authorization
                }
                Err(_) => {
                    let message = format!("{} is not the name of a header field", at.quoted());
                    let hint = "use letters, digits and '-', such as X-Token";
                    ctx.problems.error(&at, message, hint);
                    TokenPlace::Authorization
                }
            }
        }
        (None, Some(name)) => {
            check_cookie_name(ctx, name, &at.key("cookie"));
            TokenPlace::Cookie(name.as_str().into())
        }
        (Some(_), Some(_)) => {
            let message = "'header' and 'cookie' exclude each other";
            let hint = "keep the one that clients send the token in";
            ctx.problems
                .error(&at.key("cookie").at_key(), message, hint);
            TokenPlace::Authorization
        }
    }
}

fn keys(ctx: &mut Context<'_>, raw: &schema::JwtOptions, at: &At<'_>) -> Option<TokenKeys> {
    let refresh_at = at.key("refresh");
    let refresh = ctx.duration(&refresh_at, &raw.refresh, OFTENEST, RAREST);
    match (&raw.keys_file, &raw.jwks_url) {
        (Some(path), None) => {
            for key in ["ca_file", "refresh"] {
                let at = at.key(key);
                if at.is_written() {
                    let message = format!("{} is for keys at a 'jwks_url'", quote(key));
                    ctx.problems
                        .error(&at.at_key(), message, "remove it: a file is watched");
                }
            }
            let keys = file_keys(ctx, &at.key("keys_file"), path);
            Some(TokenKeys::File(keys))
        }
        (None, Some(text)) => {
            let url_at = at.key("jwks_url");
            let url = key_url(ctx, text, &url_at)?;
            let ca_at = at.key("ca_file");
            let (ca_file, has_roots) = roots_for(ctx, &url, &ca_at, raw.ca_file.as_deref());
            let server = key_server(ctx, (url, ca_file, refresh), has_roots, &url_at);
            Some(TokenKeys::Server(server))
        }
        (None, None) => {
            if !at.key("keys_file").is_written() && !at.key("jwks_url").is_written() {
                let message = "nothing says which keys verify tokens";
                ctx.problems
                    .error(at, message, "add 'keys_file: PATH' or 'jwks_url: URL'");
            }
            None
        }
        (Some(_), Some(_)) => {
            let message = "'keys_file' and 'jwks_url' exclude each other";
            ctx.problems
                .error(&at.key("jwks_url").at_key(), message, "keep one of them");
            None
        }
    }
}

/// The keys of a file.
fn file_keys(ctx: &mut Context<'_>, at: &At<'_>, raw: &str) -> Option<Arc<KeySet>> {
    let octets = required_file(ctx, at, raw)?;
    match KeySet::parse(&octets) {
        Ok(keys) => {
            if keys.skipped() > 0 {
                let message = format!(
                    "{} of the keys in the file {} cannot be used to verify tokens",
                    keys.skipped(),
                    at.quoted()
                );
                let hint = "only RSA keys of 2048 bits or more, P-256, P-384, P-521 and Ed25519 \
                            are used, for signatures";
                ctx.problems.warn(at, message, hint);
            }
            warn_of_certificates(ctx, at, &keys);
            Some(Arc::new(keys))
        }
        Err(error) => {
            let message = format!("the file {} {error}", at.quoted());
            let hint = "give the issuer's JSON Web Key Set, or its public keys in PEM";
            ctx.problems.fault(at, message, hint);
            None
        }
    }
}

/// Warns of certificates whose keys are probably not meant to verify tokens.
fn warn_of_certificates(ctx: &mut Context<'_>, at: &At<'_>, keys: &KeySet) {
    if keys.expired() > 0 {
        let message = format!(
            "expired certificates in the file {}: {}",
            at.quoted(),
            keys.expired()
        );
        let hint = "remove them if the issuer has new ones: their keys still verify tokens";
        ctx.problems.warn(at, message, hint);
    }
    if keys.issuing() > 0 {
        let message = format!(
            "certificates of CAs in the file {}, which have issued others in it: {}",
            at.quoted(),
            keys.issuing()
        );
        let hint = "remove them: whoever has their keys can sign tokens";
        ctx.problems.warn(at, message, hint);
    }
}

fn key_url(ctx: &mut Context<'_>, raw: &str, at: &At<'_>) -> Option<Uri> {
    let Some(url) = url(raw) else {
        let message = format!("{} is not a URL of http or https", at.quoted());
        let hint = "write it in full, such as https://login.example/.well-known/jwks.json";
        ctx.problems.error(at, message, hint);
        return None;
    };
    let authority = url.authority().map_or("", |authority| authority.as_str());
    if authority.contains('@') {
        report_user(ctx, at);
        return None;
    }
    let host = url.host().unwrap_or_default().trim_matches(['[', ']']);
    let is_local = || {
        let address = host.parse::<std::net::IpAddr>();
        host == "localhost" || address.is_ok_and(|address| address.is_loopback())
    };
    if url.scheme_str() == Some("http") && !is_local() {
        let message = "whoever can change what is sent in the clear can replace these keys";
        ctx.problems.warn(at, message, "write https://");
    }
    Some(url)
}

/// The server of these settings, which all that name it share.
fn key_server(
    ctx: &mut Context<'_>,
    settings: (Uri, Option<PathBuf>, Duration),
    has_roots: bool,
    at: &At<'_>,
) -> Arc<KeyServer> {
    if let Some(known) = ctx.key_servers.get(&settings) {
        return Arc::clone(known);
    }
    let (url, ca_file, refresh) = settings.clone();
    let (server, error) = KeyServer::new(url, ca_file.as_deref(), refresh);
    if let Some(error) = error.filter(|_| has_roots) {
        let message = format!("the keys cannot be fetched: {error}");
        let hint = "install the system's roots (ca-certificates), or give a 'ca_file'";
        ctx.problems.fault(at, message, hint);
    }
    let server = Arc::new(server);
    ctx.key_servers.insert(settings, Arc::clone(&server));
    server
}

fn rules(ctx: &mut Context<'_>, raw: &schema::JwtOptions, at: &At<'_>) -> Rules {
    let texts = |raw: Option<&schema::OneOrMore>| -> Box<[Box<str>]> {
        let all = raw.into_iter().flat_map(schema::OneOrMore::as_slice);
        all.map(|text| Box::from(&**text)).collect()
    };
    let skew_at = at.key("clock_skew");
    let skew = ctx.duration(&skew_at, &raw.clock_skew, Duration::ZERO, MOST_SKEW);
    for key in ["issuer", "audience"] {
        let raw = if key == "issuer" {
            &raw.issuer
        } else {
            &raw.audience
        };
        if raw.as_ref().is_some_and(|raw| raw.as_slice().is_empty()) {
            let message = format!("{} is an empty list", quote(key));
            ctx.problems
                .error(&at.key(key), message, "name one, or remove the key");
        }
    }
    Rules {
        algorithms: match &raw.algorithms {
            Some(names) => names.iter().copied().map(algorithm).collect(),
            None => Algorithm::ALL.into(),
        },
        issuers: texts(raw.issuer.as_ref()),
        audience: match &raw.audience {
            Some(schema::OneOrMore::One(word)) if word == "off" => Audience::Any,
            audience => Audience::Of(texts(audience.as_ref())),
        },
        claims: raw
            .claims
            .iter()
            .map(|(name, values)| (Box::from(&**name), claim_values(values)))
            .collect(),
        clock_skew: i64::try_from(skew.as_secs()).unwrap_or(0),
        id: RulesId::default(),
    }
}

fn claim_values(raw: &schema::ClaimValues) -> Box<[Box<str>]> {
    use schema::{ClaimValue, ClaimValues};
    match raw {
        ClaimValues::Text(text) => [Box::from(&**text)].into(),
        ClaimValues::Number(number) => [number.to_string().into()].into(),
        ClaimValues::Truth(truth) => [truth.to_string().into()].into(),
        ClaimValues::Several(all) => all
            .iter()
            .map(|one| match one {
                ClaimValue::Text(text) => Box::from(&**text),
                ClaimValue::Number(number) => number.to_string().into(),
                ClaimValue::Truth(truth) => truth.to_string().into(),
            })
            .collect(),
    }
}

fn algorithm(name: schema::AlgorithmName) -> Algorithm {
    use schema::AlgorithmName as Name;
    match name {
        Name::Rs256 => Algorithm::Rs256,
        Name::Rs384 => Algorithm::Rs384,
        Name::Rs512 => Algorithm::Rs512,
        Name::Ps256 => Algorithm::Ps256,
        Name::Ps384 => Algorithm::Ps384,
        Name::Ps512 => Algorithm::Ps512,
        Name::Es256 => Algorithm::Es256,
        Name::Es384 => Algorithm::Es384,
        Name::Es512 => Algorithm::Es512,
        Name::EdDsa => Algorithm::EdDsa,
    }
}
