//! Which site a connection belongs to that is passed on octet by octet.

use std::net::IpAddr;
use std::sync::Arc;

use super::Router;
use crate::config::model::{ListenAddress, TunnelKind};
use crate::host::NameBuffer;
use crate::proxy::authority::Channel;
use crate::proxy::route::{Site, SiteTable};
use crate::tls::TlsInfo;

impl Router {
    /// The site whose connections are passed through, by the name that a ClientHello requests and the
    /// address that its connection was accepted at.
    pub(in crate::proxy) fn passed_through(
        &self,
        name: &[u8],
        place: Option<&ListenAddress>,
    ) -> Option<Arc<Site>> {
        let mut buffer = NameBuffer::new();
        let name = buffer.normalize(name)?;
        let sites = self.sites.load();
        let site = sites.hosts_at(place).lookup(name)?;
        let kind = site.tunnel.as_ref().map(|tunnel| tunnel.kind);
        (kind == Some(TunnelKind::PassThrough)).then(|| Arc::clone(site))
    }

    /// The site that gets the octets within a TLS connection, if it was made for one that does. Like
    /// the first request of a connection, it is one of the state at the handshake.
    pub(in crate::proxy) fn terminated_for(
        &self,
        info: &TlsInfo,
        place: Option<&ListenAddress>,
    ) -> Option<Arc<Site>> {
        // Its certificate is another site's.
        if info.fell_back {
            return None;
        }
        let name = &info.policy()?.tunnel.as_ref()?.site;
        let at_handshake = Channel::Tls(Some(info)).attachment::<SiteTable>();
        let sites = at_handshake.unwrap_or_else(|| self.sites.load_full());
        let site = sites.hosts_at(place).tunnel_site(name)?;
        let kind = site.tunnel.as_ref().map(|tunnel| tunnel.kind);
        (kind == Some(TunnelKind::Tcp)).then(|| Arc::clone(site))
    }

    /// Whether a client at `address` that has been accepted at `place` and has requested `name` may
    /// still have the tunnel that was opened for `site`. If nothing is passed on for its name any more,
    /// the tunnel lives on.
    pub(in crate::proxy) fn still_admits(
        &self,
        site: &Site,
        name: &[u8],
        (address, place): (Option<IpAddr>, Option<&ListenAddress>),
        info: Option<&TlsInfo>,
    ) -> bool {
        let sites = self.sites.load();
        let hosts = sites.hosts_at(place);
        let kind = site.tunnel.as_ref().map(|tunnel| tunnel.kind);
        let mut buffer = NameBuffer::new();
        let own = match kind {
            Some(TunnelKind::PassThrough) => {
                buffer.normalize(name).and_then(|name| hosts.lookup(name))
            }
            _ => hosts.tunnel_site(&site.name),
        };
        let own = own.filter(|own| own.tunnel.as_ref().map(|tunnel| tunnel.kind) == kind);
        let Some(own) = own else {
            return true;
        };
        let meets = |info: &TlsInfo| {
            own.tls_policy.as_ref().is_none_or(|wanted| {
                let known = info.policy();
                known.is_some_and(|known| known.digest() == wanted.digest())
                    || info.satisfies(wanted)
            })
        };
        let access = own.access(None);
        access.is_none_or(|access| access.admits(address)) && info.is_none_or(meets)
    }

    /// Whether a CA is about to validate this name over TLS for the gateway.
    pub(in crate::proxy) fn awaits_validation(&self, name: &[u8]) -> bool {
        let challenges = self.certificates.challenges();
        if challenges.is_empty() {
            return false;
        }
        let mut buffer = NameBuffer::new();
        let name = buffer.normalize(name);
        name.is_some_and(|name| challenges.tls_alpn01(name).is_some())
    }
}
