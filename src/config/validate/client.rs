//! How services are reached as a client: proxies, roots, name servers, URLs without a user.

use std::fs::{self, File};
use std::io::Read as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use http::Uri;
use openssl::x509::X509;
use zeroize::Zeroizing;

use super::context::Context;
use super::value::url;
use crate::config::model::{SecretUrl, UpstreamAddress};
use crate::config::problem::At;
use crate::config::schema;
use crate::host::HostName;

/// The maximum size of such a file, in octets. The system's roots take a quarter of it.
const MAX_SIZE: u64 = 1 << 20;

/// What to do about a path that leads to no file.
const CHECK_PATH: &str = "check the path; a relative one is relative to the file it stands in";

/// A proxy for HTTP clients.
pub(super) fn http_proxy(ctx: &mut Context<'_>, at: &At<'_>, raw: &str) -> Option<Uri> {
    if raw.contains('@') {
        report_user(ctx, at);
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
        ctx.problems.error(at, message, hint);
    }
    uri
}

/// The URL of a service. It is not shown: it may be all that is needed to use the service.
pub(super) fn secret_url(
    ctx: &mut Context<'_>,
    raw: &schema::SecretText,
    at: &At<'_>,
) -> Option<SecretUrl> {
    let Some(url) = url(raw.0.expose()) else {
        let message = "this is not a URL of http or https";
        let hint = "write it in full, such as https://host.example/path";
        ctx.problems.error(at, message, hint);
        return None;
    };
    let has_user = |part: &http::uri::Authority| part.as_str().contains('@');
    if url.authority().is_some_and(has_user) {
        report_user(ctx, at);
        return None;
    }
    Some(SecretUrl::new(&raw.0, url))
}

/// A file of roots. Nothing could be reached without it, so it is read at once.
pub(super) fn roots(ctx: &mut Context<'_>, at: &At<'_>, raw: &str) -> PathBuf {
    let path = ctx.path(at, raw);
    if raw.is_empty() || raw.contains('\0') {
        return path;
    }
    ctx.sources.watch(&path);
    if let Err((why, hint)) = check_roots(&path) {
        let message = format!("the file {} {why}", at.quoted());
        ctx.problems.fault(at, message, hint);
    }
    path
}

/// The file of roots for a server at `url`, and whether nothing is wrong with it. It has no meaning
/// without TLS.
pub(super) fn roots_for(
    ctx: &mut Context<'_>,
    url: &Uri,
    at: &At<'_>,
    raw: Option<&str>,
) -> (Option<PathBuf>, bool) {
    let is_plain = url.scheme_str() == Some("http");
    if is_plain && raw.is_some() {
        let message = "'ca_file' has no meaning for a URL of http";
        ctx.problems
            .error(&at.at_key(), message, "remove it, or write https");
    }
    let errors = ctx.problems.errors();
    let raw = raw.filter(|_| !is_plain);
    let file = raw.map(|file| roots(ctx, at, file));
    (file, ctx.problems.errors() == errors)
}

/// The content of a file that requests depend on. Nobody could be served without it, so it is read
/// at once, and watched; `None` if it cannot be read, which is reported.
pub(super) fn required_file(
    ctx: &mut Context<'_>,
    at: &At<'_>,
    raw: &str,
) -> Option<Zeroizing<Vec<u8>>> {
    let path = ctx.path(at, raw);
    if raw.is_empty() || raw.contains('\0') {
        return None;
    }
    ctx.sources.watch(&path);
    match read_file(&path) {
        Ok(octets) => Some(octets),
        Err((why, hint)) => {
            let message = format!("the file {} {why}", at.quoted());
            ctx.problems.fault(at, message, hint);
            None
        }
    }
}

/// Checks that a file has roots in it. The error says what is wrong and what to do.
fn check_roots(path: &Path) -> Result<(), (String, &'static str)> {
    let pem = read_file(path)?;
    match X509::stack_from_pem(&pem) {
        Ok(roots) if !roots.is_empty() => Ok(()),
        Ok(_) | Err(_) => {
            let hint = "give the root certificate of its HTTPS, in PEM";
            Err(("holds no certificate in PEM".to_owned(), hint))
        }
    }
}

/// Reads a small file of secrets, certificates or keys. The error says what is wrong and what to do.
pub(super) fn read_file(path: &Path) -> Result<Zeroizing<Vec<u8>>, (String, &'static str)> {
    read_file_within(path, MAX_SIZE)
}

/// Reads a file of at most `max` octets. The error says what is wrong and what to do.
pub(super) fn read_file_within(
    path: &Path,
    max: u64,
) -> Result<Zeroizing<Vec<u8>>, (String, &'static str)> {
    let failed = |error: std::io::Error| (format!("cannot be read: {error}"), CHECK_PATH);
    // Others, such as pipes, could keep a reader waiting.
    let metadata = fs::metadata(path).map_err(failed)?;
    if !metadata.is_file() {
        return Err(("is not a regular file".to_owned(), CHECK_PATH));
    }
    // The capacity suffices: nothing is moved, so no copy of a secret is left behind.
    let capacity = usize::try_from(metadata.len().min(max)).unwrap_or(0) + 1;
    let mut octets = Zeroizing::new(Vec::with_capacity(capacity));
    let file = File::open(path).map_err(failed)?;
    file.take(max + 1)
        .read_to_end(&mut octets)
        .map_err(failed)?;
    if u64::try_from(octets.len()).is_ok_and(|length| length > max) {
        let hint = "leave only what belongs there";
        return Err((format!("is larger than {max} bytes"), hint));
    }
    Ok(octets)
}

/// Reports a URL with a user in it, without showing it: there may be a password.
pub(super) fn report_user(ctx: &mut Context<'_>, at: &At<'_>) {
    ctx.problems.hide_place(at.place());
    let message = "a URL with a user or a password in it cannot be used here";
    ctx.problems
        .error(at, message, "leave out '@' and what precedes it");
}

/// Addresses of DNS servers.
pub(super) fn dns_servers(ctx: &mut Context<'_>, at: &At<'_>, raw: &[String]) -> Vec<SocketAddr> {
    let mut addresses = Vec::with_capacity(raw.len());
    for (index, text) in raw.iter().enumerate() {
        let at = at.index(index);
        let address = text.parse::<SocketAddr>();
        match address.ok().filter(|address| address.port() != 0) {
            Some(address) => addresses.push(address),
            None => {
                let message = format!("{} is not an address with a port", at.quoted());
                let hint = "write ADDRESS:PORT, such as 10.0.0.53:53 or [2001:db8::53]:53";
                ctx.problems.error(&at, message, hint);
            }
        }
    }
    addresses
}

/// `NAME:PORT`.
pub(super) fn named_address(raw: &str) -> Option<UpstreamAddress> {
    let (host, port) = raw.rsplit_once(':')?;
    let host = host.parse::<HostName>().ok()?;
    let port = port.parse::<u16>().ok().filter(|port| *port != 0)?;
    Some(UpstreamAddress::Name { host, port })
}
