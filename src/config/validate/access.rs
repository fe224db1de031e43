//! `allow`, `deny`, `basic_auth`, `jwt` and `forward_auth` of sites and routes.

use std::collections::HashMap;
use std::sync::Arc;

use http::HeaderValue;

use super::client::required_file;
use super::context::Context;
use super::forward_auth::forward_auth;
use super::jwt::jwt;
use super::network::networks;
use crate::config::model::{Access, BasicAuth, Network, PasswordHash};
use crate::config::problem::{At, quote};
use crate::config::schema;
use crate::secret::Secret;

/// The keys of a site or a route that say who may have what it serves.
#[derive(Clone, Copy)]
pub(super) struct AccessKeys<'a> {
    pub(super) allow: Option<&'a [String]>,
    pub(super) deny: Option<&'a [String]>,
    pub(super) basic_auth: Option<&'a schema::BasicAuth>,
    pub(super) jwt: Option<&'a schema::Jwt>,
    pub(super) forward_auth: Option<&'a schema::ForwardAuth>,
}

/// Who may have what is served, with `inherited` for each key that is not given; `None` if everybody
/// may.
pub(super) fn access(
    ctx: &mut Context<'_>,
    keys: AccessKeys<'_>,
    inherited: Option<&Arc<Access>>,
    at: &At<'_>,
) -> Option<Arc<Access>> {
    let AccessKeys {
        allow,
        deny,
        basic_auth,
        jwt,
        forward_auth,
    } = keys;
    let has_lists = allow.is_some() || deny.is_some();
    let has_users = basic_auth.is_some() || jwt.is_some() || forward_auth.is_some();
    if !has_lists && !has_users {
        return inherited.cloned();
    }
    let inherited = inherited.map(|access| (**access).clone());
    let mut access = inherited.unwrap_or_default();
    let mut list = |key, raw: Option<&[String]>, inherited: &mut Arc<[Network]>| {
        if let Some(raw) = raw {
            *inherited = networks(ctx, &at.key(key), raw).into();
        }
    };
    list("allow", allow, &mut access.allow);
    list("deny", deny, &mut access.deny);
    match basic_auth {
        Some(schema::BasicAuth::On(raw)) => {
            access.basic_auth = Some(self::basic_auth(ctx, raw, &at.key("basic_auth")));
        }
        Some(schema::BasicAuth::Off(_)) => access.basic_auth = None,
        None => {}
    }
    match jwt {
        Some(schema::Jwt::On(raw)) => access.jwt = self::jwt(ctx, raw, &at.key("jwt")),
        Some(schema::Jwt::Off(_)) => access.jwt = None,
        None => {}
    }
    if access.basic_auth.is_some() && access.jwt.is_some() {
        let key = if jwt.is_some() { "jwt" } else { "basic_auth" };
        let message = "'basic_auth' and 'jwt' exclude each other: a request has one user";
        let hint = "keep one of them; if the site has the other, write 'off' for it here";
        ctx.problems.error(&at.key(key).at_key(), message, hint);
    }
    match forward_auth {
        Some(schema::ForwardAuth::On(raw)) => {
            let at = at.key("forward_auth");
            access.forward_auth = self::forward_auth(ctx, raw, &at);
        }
        Some(schema::ForwardAuth::Off(_)) => access.forward_auth = None,
        None => {}
    }
    (access != Access::default()).then(|| Arc::new(access))
}

fn basic_auth(
    ctx: &mut Context<'_>,
    raw: &schema::BasicAuthOptions,
    at: &At<'_>,
) -> Arc<BasicAuth> {
    let challenge = challenge(&raw.realm);
    if challenge.is_none() {
        let at = at.key("realm");
        let message = format!("{} cannot be sent in a field", at.quoted());
        ctx.problems
            .error(&at, message, "write a line of printable ASCII characters");
    }
    Arc::new(BasicAuth {
        challenge: challenge.unwrap_or_else(|| HeaderValue::from_static("Basic")),
        users: users(ctx, &at.key("users_file"), &raw.users_file),
    })
}

/// `WWW-Authenticate` (RFC 7617, section 2). Passwords are in UTF-8.
fn challenge(realm: &str) -> Option<HeaderValue> {
    let is_printable = |char: char| char == ' ' || char.is_ascii_graphic();
    if !realm.chars().all(is_printable) {
        return None;
    }
    let realm = realm.replace('\\', "\\\\").replace('"', "\\\"");
    HeaderValue::try_from(format!("Basic realm=\"{realm}\", charset=\"UTF-8\"")).ok()
}

/// The users of a file.
fn users(ctx: &mut Context<'_>, at: &At<'_>, raw: &str) -> HashMap<Box<str>, PasswordHash> {
    let mut users = HashMap::new();
    let Some(octets) = required_file(ctx, at, raw) else {
        return users;
    };
    for (number, line) in octets.split(|octet| *octet == b'\n').enumerate() {
        let line = line.trim_ascii();
        if line.is_empty() || line.starts_with(b"#") {
            continue;
        }
        let fault = match user(line) {
            Ok((name, hash)) => match users.insert(Box::from(name), hash) {
                None => continue,
                Some(_) => (
                    format!("names the user {} twice", quote(name)),
                    "keep one of the lines",
                ),
            },
            Err((why, hint)) => (why.to_owned(), hint),
        };
        let (why, hint) = fault;
        let message = format!("line {} of the file {} {why}", number + 1, at.quoted());
        ctx.problems.fault(at, message, hint);
    }
    if users.is_empty() {
        let message = format!("the file {} has no users, so nobody is served", at.quoted());
        let hint = "add one: htpasswd -B FILE NAME";
        ctx.problems.warn(at, message, hint);
    }
    users
}

/// The user of a line. The error says what is wrong with it and what to do, and shows nothing of it.
fn user(line: &[u8]) -> Result<(&str, PasswordHash), (&'static str, &'static str)> {
    let line = str::from_utf8(line).map_err(|_| ("is not UTF-8", "write it as UTF-8"))?;
    let hint = "write NAME:HASH, as htpasswd -B does";
    let (name, hash) = line.split_once(':').ok_or(("has no ':'", hint))?;
    if name.is_empty() {
        return Err(("has no name", hint));
    }
    // Others may have added fields.
    let hash = hash.split(':').next().unwrap_or_default();
    let secret = || Secret::new(hash.to_owned());
    if is_bcrypt(hash) {
        return Ok((name, PasswordHash::Bcrypt(secret())));
    }
    if is_sha_crypt(hash) {
        return Ok((name, PasswordHash::ShaCrypt(secret())));
    }
    let hint = "make it again with htpasswd -B (bcrypt) or openssl passwd -6 (SHA-512-crypt)";
    Err(("has no hash of bcrypt or SHA-crypt", hint))
}

/// `$2b$COST$`, and 22 characters of salt with 31 of the hash.
fn is_bcrypt(hash: &str) -> bool {
    let mut parts = hash.split('$');
    let (begin, kind, cost) = (parts.next(), parts.next(), parts.next());
    let cost = cost.and_then(|cost| cost.parse::<u32>().ok());
    let is_base64 = |octet: u8| octet.is_ascii_alphanumeric() || matches!(octet, b'.' | b'/');
    let rest = parts.next().unwrap_or_default();
    begin == Some("")
        && matches!(kind, Some("2a" | "2b" | "2x" | "2y"))
        && cost.is_some_and(|cost| (4..=16).contains(&cost))
        && rest.len() == 53
        && rest.bytes().all(is_base64)
        && parts.next().is_none()
}

/// `$6$[rounds=N$]SALT$HASH`, or with 5.
fn is_sha_crypt(hash: &str) -> bool {
    let length = match hash.get(..3) {
        Some("$5$") => 43,
        Some("$6$") => 86,
        Some(_) | None => return false,
    };
    let rest = hash.get(3..).unwrap_or_default();
    let rest = match rest.strip_prefix("rounds=") {
        Some(rounds) => match rounds.split_once('$') {
            Some((count, rest)) => {
                let count = count.parse::<u32>().ok();
                if !count.is_some_and(|count| (1000..=1_000_000).contains(&count)) {
                    return false;
                }
                rest
            }
            None => return false,
        },
        None => rest,
    };
    let is_base64 = |octet: u8| octet.is_ascii_alphanumeric() || matches!(octet, b'.' | b'/');
    rest.split_once('$').is_some_and(|(salt, hash)| {
        salt.len() <= 16 && hash.len() == length && hash.bytes().all(is_base64)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_told_by_their_form() {
        let bcrypt = "$2y$05$c4WoMPo3SXsafkva.HHa6uXQZWr7oboPiC2bT/r7q1BB8I2s0BRqC";
        let sha512 = format!("$6$saltstring${}", "a".repeat(86));
        let rounds = format!("$6$rounds=10000$saltstring${}", "a".repeat(86));
        let sha256 = format!("$5$saltstring${}", "a".repeat(43));
        assert!(is_bcrypt(bcrypt) && !is_sha_crypt(bcrypt));
        for hash in [&sha512, &rounds, &sha256] {
            assert!(is_sha_crypt(hash) && !is_bcrypt(hash), "{hash}");
        }
        for (line, why) in [
            ("a:$apr1$x$y", "no hash"),
            ("a:{SHA}x", "no hash"),
            ("a:plain", "no hash"),
            (
                "a:$2y$31$c4WoMPo3SXsafkva.HHa6uXQZWr7oboPiC2bT/r7q1BB8I2s0BRqC",
                "no hash",
            ),
            ("a:$6$rounds=999999999$s$x", "no hash"),
            (":x", "no name"),
            ("a", "no ':'"),
        ] {
            let (found, _) = user(line.as_bytes()).expect_err("refused");
            assert!(found.contains(why), "{line}: {found}");
        }
        let line = format!("ann:{bcrypt}:more");
        let (name, hash) = user(line.as_bytes()).expect("a user");
        assert_eq!((name, hash.expose()), ("ann", bcrypt));
    }

    #[test]
    fn a_realm_is_quoted() {
        let challenge = challenge("the \"back\\yard\"").expect("valid");
        assert_eq!(
            challenge,
            "Basic realm=\"the \\\"back\\\\yard\\\"\", charset=\"UTF-8\""
        );
        assert_eq!(super::challenge("a\nb"), None);
    }
}
