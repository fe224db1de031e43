//! `issuers: NAME: acme`: a CA with ACME, and how it is dealt with.
//!
//! Nothing is asked of the CA here: what can be seen without it is checked, down to whether a
//! listener is there that a challenge can be answered on.

use std::fs::{self, File};
use std::io::Read as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::Uri;
use openssl::x509::X509;

use super::Build;
use super::preset::{self, Preset};
use crate::config::model::{Acme, ChallengeType, ExternalAccount, KeyType, OrderLimit};
use crate::config::problem::{At, nearest};
use crate::config::schema;
use crate::host::HostName;
use crate::secret::Secret;

/// The largest file of roots, in octets. The system's own have a quarter of it.
const MAX_ROOTS: u64 = 1 << 20;

/// A CA: the URL of its directory, and what is known of it beside.
type Ca = (String, Option<&'static Preset>);

impl Build<'_> {
    pub(super) fn acme(
        &mut self,
        raw: &schema::Acme,
        server: &schema::Server,
        at: &At<'_>,
    ) -> Acme {
        let directory_at = at.key("directory");
        let (directory, preset) = self
            .directory(&directory_at, &raw.directory)
            .unwrap_or_default();
        let staging = self.staging(raw, &directory, preset, &at.key("staging"));
        let staging_preset = staging.as_deref().and_then(preset::find);
        if raw.eab.is_none()
            && let Some((name, source)) = [preset, staging_preset]
                .into_iter()
                .flatten()
                .find_map(|preset| Some((preset.name, preset.eab?)))
        {
            let message =
                format!("'{name}' asks for external account binding, and there is no 'eab'");
            let hint = format!("{source}; then add 'eab: {{ key_id: …, hmac_key: … }}'");
            self.problems.error(&at.key("eab"), message, hint);
        }
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
                "public CAs certify no Ed25519 keys: '{}' will refuse them",
                preset.name
            );
            let hint = "use p256, which every client understands";
            self.problems.warn(&at.key("key_type"), message, hint);
        }
        Acme {
            directory,
            staging,
            email: self.email(raw.email.as_deref(), &at.key("email")),
            challenges: self.challenges(raw, server, at),
            profile: self.profile(raw.profile.as_deref(), &at.key("profile")),
            key_type,
            reuse_key: raw.reuse_key,
            ca_file: raw
                .ca_file
                .as_deref()
                .map(|path| self.roots(&at.key("ca_file"), path)),
            eab: raw
                .eab
                .as_ref()
                .and_then(|eab| self.external_account(eab, &at.key("eab"))),
            proxy: raw
                .proxy
                .as_deref()
                .and_then(|proxy| self.proxy_of_ca(&at.key("proxy"), proxy)),
            order_limit: self.order_limit(&raw.limit, &at.key("limit")),
            check_caa: raw.check_caa,
            resolvers: self.resolvers(&raw.resolvers, &at.key("resolvers")),
        }
    }

    /// Name servers, each with its port.
    fn resolvers(&mut self, raw: &[String], at: &At<'_>) -> Vec<SocketAddr> {
        let mut resolvers = Vec::with_capacity(raw.len());
        for (index, text) in raw.iter().enumerate() {
            match text.parse::<SocketAddr>() {
                Ok(address) if address.port() != 0 => resolvers.push(address),
                _ => {
                    let at = at.index(index);
                    let message = format!("{} is not a name server with a port", at.quoted());
                    let hint = "write ADDRESS:PORT, such as 10.0.0.53:53";
                    self.problems.error(&at, message, hint);
                }
            }
        }
        resolvers
    }

    /// A CA by its name or by the URL of its directory.
    fn directory(&mut self, at: &At<'_>, raw: &str) -> Option<Ca> {
        let preset = preset::find(raw);
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
            self.problems.error(at, message, hint);
            return None;
        }
        if raw.contains('@') {
            self.no_user(at);
            return None;
        }
        let uri = raw.parse::<Uri>().ok().filter(|uri| uri.host().is_some());
        let scheme = uri.as_ref().and_then(Uri::scheme_str);
        let hint = match scheme {
            // `Uri` drops it without a word.
            Some("https") if raw.contains('#') => "leave out '#' and what follows",
            Some("https") => return Some((raw.to_owned(), preset)),
            Some("http") => "write https://: ACME is spoken over TLS alone (RFC 8555, section 6.1)",
            _ => "write the https:// URL that the CA gives for its ACME directory",
        };
        let message = format!("{} is not the URL of a directory", at.quoted());
        self.problems.error(at, message, hint);
        None
    }

    /// Where failed orders are rehearsed.
    fn staging(
        &mut self,
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
        let (url, _) = self.directory(at, staging)?;
        if url.trim_end_matches('/') == directory.trim_end_matches('/') {
            let message = "this is 'directory' itself: nothing can be rehearsed there";
            self.problems
                .error(at, message, "give another directory, or 'off'");
        }
        Some(url)
    }

    fn email(&mut self, raw: Option<&str>, at: &At<'_>) -> Option<String> {
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
        self.problems.error(at, message, hint);
        None
    }

    /// The challenges that can be answered, in order.
    fn challenges(
        &mut self,
        raw: &schema::Acme,
        server: &schema::Server,
        at: &At<'_>,
    ) -> Vec<ChallengeType> {
        let at = at.key("challenges");
        let mut known: Vec<(ChallengeType, bool, &str)> = Vec::with_capacity(raw.challenges.len());
        let mut later = false;
        for (index, challenge) in raw.challenges.iter().enumerate() {
            let at = at.index(index);
            let (kind, listeners, key) = match challenge {
                schema::Challenge::Http01 => (ChallengeType::Http01, &server.http, "server.http"),
                schema::Challenge::TlsAlpn01 => {
                    (ChallengeType::TlsAlpn01, &server.https, "server.https")
                }
                schema::Challenge::Dns01 => {
                    let message = "'dns-01' is not available in this build yet";
                    self.problems
                        .error(&at, message, "use tls-alpn-01 or http-01 for now");
                    later = true;
                    continue;
                }
            };
            if known.iter().any(|(before, ..)| *before == kind) {
                let message = format!("the challenge {} stands here twice", at.quoted());
                self.problems.error(&at, message, "remove one of the two");
            }
            known.push((kind, listeners.is_empty(), key));
        }
        let deaf = |key| format!("it needs a listener, and '{key}' is empty");
        // Errors already; what is left of the lists says nothing.
        if later || server.http.is_empty() && server.https.is_empty() {
            return Vec::new();
        }
        if known.iter().all(|(_, deaf, _)| *deaf) {
            let reasons: Vec<_> = known
                .iter()
                .map(|(kind, _, key)| format!("{}: {}", kind.as_str(), deaf(key)))
                .collect();
            let message = format!("no challenge can be answered ({})", reasons.join("; "));
            self.problems.error(&at, message, "give an address there");
        } else if at.is_written() {
            for (index, (kind, _, key)) in known.iter().enumerate().filter(|(_, one)| one.1) {
                let message = format!("{} cannot be used: {}", kind.as_str(), deaf(key));
                self.problems.warn(
                    &at.index(index),
                    message,
                    "remove it, or give an address there",
                );
            }
        }
        known.retain(|(_, deaf, _)| !deaf);
        known.into_iter().map(|(kind, ..)| kind).collect()
    }

    fn profile(&mut self, raw: Option<&str>, at: &At<'_>) -> Option<String> {
        let raw = raw?;
        if raw.is_empty() || raw.len() > 64 || !raw.bytes().all(|octet| octet.is_ascii_graphic()) {
            let message = format!("{} is not the name of a profile", at.quoted());
            let hint = "write it as the CA does, such as tlsserver or shortlived";
            self.problems.error(at, message, hint);
        }
        Some(raw.to_owned())
    }

    fn external_account(&mut self, raw: &schema::Eab, at: &At<'_>) -> Option<ExternalAccount> {
        if raw.key_id.is_empty() || !raw.key_id.bytes().all(|octet| octet.is_ascii_graphic()) {
            let at = at.key("key_id");
            let message = "a key's identifier is not empty and has no blanks in it";
            self.problems.error(&at, message, "copy it from the CA");
        }
        let key = raw.hmac_key.as_ref()?.0.expose().trim_end_matches('=');
        if let Some(message) = odd_key(key) {
            let hint = "give it as the CA does: letters, digits, '-' and '_' without blanks";
            self.problems.error(&at.key("hmac_key"), message, hint);
        }
        Some(ExternalAccount {
            key_id: raw.key_id.clone(),
            hmac_key: Secret::new(key.to_owned()),
        })
    }

    fn proxy_of_ca(&mut self, at: &At<'_>, raw: &str) -> Option<Uri> {
        if raw.contains('@') {
            self.no_user(at);
            return None;
        }
        let uri = raw.parse::<Uri>().ok().filter(|uri| {
            uri.scheme_str() == Some("http")
                && uri.host().is_some_and(|host| !host.is_empty())
                && uri.port_u16().is_some_and(|port| port != 0)
                && uri.path() == "/"
                && uri.query().is_none()
                && !raw.contains('#')
        });
        if uri.is_none() {
            let hint = if raw.starts_with("https:") {
                "write http://: what passes the proxy is encrypted all the same"
            } else {
                "write http://HOST:PORT, such as http://proxy.internal:3128"
            };
            let message = format!("{} is not a proxy", at.quoted());
            self.problems.error(at, message, hint);
        }
        uri
    }

    fn order_limit(&mut self, raw: &schema::OrderLimit, at: &At<'_>) -> OrderLimit {
        const SECOND: Duration = Duration::from_secs(1);
        const DAY: Duration = Duration::from_secs(24 * 3600);
        OrderLimit {
            orders: u32::try_from(raw.orders).unwrap_or(u32::MAX),
            per: self.duration(&at.key("per"), &raw.per, SECOND, DAY),
        }
    }

    /// A file of roots. The CA could not be asked without it, so that it is looked into at once.
    fn roots(&mut self, at: &At<'_>, raw: &str) -> PathBuf {
        let path = self.path(at, raw);
        if raw.is_empty() || raw.contains('\0') {
            return path;
        }
        self.sources.watch(&path);
        if let Err((why, hint)) = read_roots(&path) {
            let message = format!("the file {} {why}", at.quoted());
            self.problems.error(at, message, hint);
        }
        path
    }

    /// Reports a URL with a user in it, without showing it: there may be a password.
    fn no_user(&mut self, at: &At<'_>) {
        self.problems.hide(at.place());
        let message = "a URL with a user or a password in it cannot be used here";
        self.problems
            .error(at, message, "leave out '@' and what stands before it");
    }
}

/// Looks whether a file has roots in it. The error says what is wrong and what to do.
fn read_roots(path: &Path) -> Result<(), (String, &'static str)> {
    const PATH: &str = "check the path; a relative one is relative to the file it stands in";
    const CONTENT: &str = "give the root certificate of the CA's own HTTPS, in PEM";
    let failed = |error: std::io::Error| (format!("cannot be read: {error}"), PATH);
    // Others, such as pipes, could keep a reader waiting.
    if !fs::metadata(path).map_err(failed)?.is_file() {
        return Err(("is not a regular file".to_owned(), PATH));
    }
    let mut pem = Vec::new();
    let file = File::open(path).map_err(failed)?;
    file.take(MAX_ROOTS + 1)
        .read_to_end(&mut pem)
        .map_err(failed)?;
    if u64::try_from(pem.len()).is_ok_and(|length| length > MAX_ROOTS) {
        return Err((format!("is larger than {MAX_ROOTS} bytes"), CONTENT));
    }
    match X509::stack_from_pem(&pem) {
        Ok(roots) if !roots.is_empty() => Ok(()),
        Ok(_) | Err(_) => Err(("holds no certificate in PEM".to_owned(), CONTENT)),
    }
}

/// What is wrong with a MAC key that ought to be base64url without padding (RFC 4648, section 5).
fn odd_key(key: &str) -> Option<&'static str> {
    let good = |octet: u8| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_');
    if key.is_empty() {
        Some("the key is empty")
    } else if key.contains(char::is_whitespace) {
        Some("the key has blanks or line ends in it")
    } else if key.bytes().all(good) {
        // Six bits each: one alone at the end is less than an octet.
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
