//! Which site a connection belongs to that is passed on octet by octet.

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
        let name = &info.policy()?.tunnel.as_ref()?.site;
        let at_handshake = Channel::Tls(Some(info)).attachment::<SiteTable>();
        let sites = at_handshake.unwrap_or_else(|| self.sites.load_full());
        let site = sites.hosts_at(place).tunnel_site(name)?;
        let kind = site.tunnel.as_ref().map(|tunnel| tunnel.kind);
        (kind == Some(TunnelKind::Tcp)).then(|| Arc::clone(site))
    }
}
