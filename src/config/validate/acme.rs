//! `issuers: NAME: acme`: a CA with ACME, and how it is dealt with.
//!
//! Nothing is asked of the CA here: what can be seen without it is checked, down to whether a
//! listener is there that a challenge can be answered on.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::Uri;
use openssl::x509::X509;

use super::Validator;
use super::preset::{self, Preset};
use crate::config::model::{Acme, ExternalAccount, KeyType, OrderLimit};
use crate::config::problem::{At, nearest};
use crate::config::schema;
use crate::host::HostName;
use crate::secret::Secret;

/// The largest file of roots, in octets. The system's own have a quarter of it.
const MAX_ROOTS: u64 = 1 << 20;

/// A CA: the URL of its directory, and what is known of it beside.
type Ca = (String, Option<&'static Preset>);

impl Validator<'_> {
    pub(super) fn acme(&mut self, raw: &schema::Acme, root: &schema::Root, at: &At<'_>) -> Acme {
        let directory_at = at.key("directory");
        let (directory, preset) = self
            .directory(&directory_at, &raw.directory)
            .unwrap_or_default();
        let staging = self.staging(raw, &directory, preset, &at.key("staging"));
        let staging_preset = staging.as_deref().and_then(preset::find_preset);
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
                "public CAs do not certify Ed25519 keys: '{}' will refuse them",
                preset.name
            );
            let hint = "use p256, which every client understands";
            self.problems.warn(&at.key("key_type"), message, hint);
        }
        Acme {
            directory,
            staging,
            email: self.email(raw.email.as_deref(), &at.key("email")),
            challenges: self.challenges(raw, root, at),
            dns: raw
                .dns
                .as_deref()
                .and_then(|dns| self.dns_name(&at.key("dns"), dns, root)),
            order: self.order_terms(raw, [preset, staging_preset], at),
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
            zerossl: None,
            proxy: raw
                .proxy
                .as_deref()
                .and_then(|proxy| self.http_proxy(&at.key("proxy"), proxy)),
            order_limit: self.order_limit(&raw.limit, &at.key("limit")),
            check_caa: raw.check_caa,
            resolvers: self.dns_addresses(&raw.resolvers, &at.key("resolvers")),
        }
    }

    /// Reports that a known CA asks for external account binding, and there is none.
    pub(super) fn binding_is_given(&mut self, raw: &schema::Acme, at: &At<'_>) {
        if raw.eab.is_some() {
            return;
        }
        let preset = preset::find_preset(&raw.directory);
        let own = preset.and_then(|preset| preset.staging);
        let staging = raw.staging.as_deref().or(own).and_then(preset::find_preset);
        if let Some((name, source)) = [preset, staging]
            .into_iter()
            .flatten()
            .find_map(|preset| Some((preset.name, preset.eab?)))
        {
            let message =
                format!("'{name}' requires external account binding, but there is no 'eab'");
            let hint = format!("{source}; then add 'eab: {{ key_id: …, hmac_key: … }}'");
            self.problems.error(&at.key("eab"), message, hint);
        }
    }

    /// A CA by its name or by the URL of its directory.
    fn directory(&mut self, at: &At<'_>, raw: &str) -> Option<Ca> {
        let preset = preset::find_preset(raw);
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
            Some("http") => "write https://: ACME is only used over HTTPS (RFC 8555, section 6.1)",
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

    fn external_account(&mut self, raw: &schema::Eab, at: &At<'_>) -> Option<ExternalAccount> {
        if raw.key_id.is_empty() || !raw.key_id.bytes().all(|octet| octet.is_ascii_graphic()) {
            let at = at.key("key_id");
            let message = "a key identifier must not be empty or contain blanks";
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

    pub(super) fn http_proxy(&mut self, at: &At<'_>, raw: &str) -> Option<Uri> {
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
                "write http://: what passes through the proxy is encrypted anyway"
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

    /// A file of roots. Nobody could be asked without it, so that it is looked into at once.
    pub(super) fn roots(&mut self, at: &At<'_>, raw: &str) -> PathBuf {
        let path = self.path(at, raw);
        if raw.is_empty() || raw.contains('\0') {
            return path;
        }
        self.sources.watch(&path);
        if let Err((why, hint)) = read_roots(&path) {
            let message = format!("the file {} {why}", at.quoted());
            self.problems.fault(at, message, hint);
        }
        path
    }

    /// Reports a URL with a user in it, without showing it: there may be a password.
    pub(super) fn no_user(&mut self, at: &At<'_>) {
        self.problems.hide_place(at.place());
        let message = "a URL with a user or a password in it cannot be used here";
        self.problems
            .error(at, message, "leave out '@' and what precedes it");
    }
}

/// Looks whether a file has roots in it. The error says what is wrong and what to do.
fn read_roots(path: &Path) -> Result<(), (String, &'static str)> {
    const PATH: &str = "check the path; a relative one is relative to the file it stands in";
    const CONTENT: &str = "give the root certificate of its HTTPS, in PEM";
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
