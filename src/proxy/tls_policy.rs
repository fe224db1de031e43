//! Whether a request may use its connection: a site that demands something of its TLS connections is
//! served on connections that were made for these demands, and on no other.
//!
//! A client may request any host that the certificate covers, by `Host` or by reusing an HTTP/2
//! connection. Otherwise it could get around the client certificates of one site by a handshake with
//! another.

use super::authority::Channel;
use super::refusal::Refusal;
use super::request::Request;
use super::route::{Site, SiteTable};
use crate::config::model::{TlsPolicy, TlsVersion};
use crate::tls::TlsInfo;

/// Whether `request` may use its connection for `site`, which serves its host.
///
/// # Errors
/// If it may not: the refusal.
pub(super) fn check(sites: &SiteTable, site: &Site, request: &Request<'_>) -> Result<(), Refusal> {
    let wanted = site.tls_policy.as_deref();
    let info = match (request.channel(), wanted) {
        (Channel::Tls(Some(info)), _) => info,
        (_, None) => return Ok(()),
        // A proxy that the client speaks TLS with does not prove that it met these demands.
        (_, Some(_)) => return Err(Refusal::Misdirected),
    };
    if is_same(info.policy(), wanted) {
        return Ok(());
    }
    // A reload may have changed what the name of the connection demands. What the client showed then
    // may be enough, so that it notices nothing.
    let name = info.server_name.as_ref();
    let hosts = sites.hosts_for(request);
    let own = name.and_then(|name| hosts.lookup(name.as_str()));
    match own {
        Some(own) if is_same(own.tls_policy.as_deref(), wanted) => {
            match wanted.is_none_or(|wanted| meets(info, wanted, request)) {
                true => Ok(()),
                false => Err(Refusal::Outdated),
            }
        }
        _ => Err(Refusal::Misdirected),
    }
}

/// Whether `site` may be served without TLS as long as it has no certificate.
pub(super) fn may_be_plain(sites: &SiteTable, site: &Site) -> bool {
    sites.https_optional && site.tls_policy.is_none() && site.tunnel.is_none()
}

fn is_same(one: Option<&TlsPolicy>, other: Option<&TlsPolicy>) -> bool {
    match (one, other) {
        (None, None) => true,
        (Some(one), Some(other)) => one.digest() == other.digest(),
        _ => false,
    }
}

/// Whether a connection that was made under another policy meets this one.
fn meets(info: &TlsInfo, policy: &TlsPolicy, request: &Request<'_>) -> bool {
    let Some(tls) = request.tls else {
        return false;
    };
    let version = match &*tls.version {
        "TLSv1.3" => TlsVersion::Tls13,
        _ => TlsVersion::Tls12,
    };
    let versions = policy.versions.as_ref();
    let ciphers = policy.ciphers.as_ref().map(|ciphers| match version {
        TlsVersion::Tls12 => &ciphers.tls12,
        TlsVersion::Tls13 => &ciphers.tls13,
    });
    let protocol = if request.is_http2() { "h2" } else { "http/1.1" };
    let protocols = policy.protocols.as_deref();
    versions.is_none_or(|versions| versions.contains(&version))
        && ciphers.is_none_or(|ciphers| ciphers.contains(&&*tls.cipher))
        && protocols.is_none_or(|protocols| protocols.contains(&protocol))
        && info.satisfies(policy)
}
