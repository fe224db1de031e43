//! The sites of a listener by host.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::hashing::RandomState;
use super::{Admission, Site};
use crate::config::model::{Config, ListenAddress};
use crate::host::{self, Host, HostName, Pattern};
use crate::proxy::authority::Channel;

/// Sites by host.
#[derive(Default)]
pub(crate) struct Hosts {
    exact: HashMap<HostName, Arc<Site>, RandomState>,
    /// By the name without the wildcard's label.
    wildcard: HashMap<HostName, Arc<Site>, RandomState>,
    addresses: HashMap<IpAddr, Arc<Site>, RandomState>,
    any: Option<Arc<Site>>,
    /// Sites whose connections are passed on, by name.
    tunnels: HashMap<Arc<str>, Arc<Site>, RandomState>,
}

impl Hosts {
    /// Adds a site for those of its hosts that have none yet.
    fn add(&mut self, hosts: &[Pattern], site: &Arc<Site>) {
        if site.tunnel.is_some() {
            let name = Arc::clone(&site.name);
            self.tunnels.entry(name).or_insert_with(|| Arc::clone(site));
        }
        for host in hosts {
            let site = Arc::clone(site);
            match host {
                Pattern::Any => _ = self.any.get_or_insert(site),
                Pattern::Exact(name) => _ = self.exact.entry(name.clone()).or_insert(site),
                Pattern::Ip(address) => _ = self.addresses.entry(*address).or_insert(site),
                Pattern::Wildcard(of) => _ = self.wildcard.entry(of.clone()).or_insert(site),
            }
        }
    }

    /// The site for `host`, a name in normal form: that of the exact name, else of the wildcard over
    /// its first label, else the catch-all.
    pub(crate) fn lookup(&self, host: &str) -> Option<&Arc<Site>> {
        self.exact
            .get(host)
            .or_else(|| host::parent(host).and_then(|parent| self.wildcard.get(parent)))
            .or(self.any.as_ref())
    }

    /// The site for `host`.
    pub(crate) fn find_site(&self, host: Host<'_>) -> Option<&Arc<Site>> {
        match host {
            Host::Name(name) => self.lookup(name),
            Host::Ip(address) => {
                let own = self.addresses.get(&address.to_canonical());
                own.or(self.any.as_ref())
            }
        }
    }

    /// The site of this name, if its connections are passed on.
    pub(crate) fn tunnel_site(&self, name: &str) -> Option<&Arc<Site>> {
        self.tunnels.get(name)
    }

    /// Whether a request for `host` that arrived through `channel` is served. `https_port` is the port
    /// that sites are served at by TLS which do not say where they are.
    pub(crate) fn admit_host(
        &self,
        host: Host<'_>,
        channel: Channel<'_>,
        https_port: Option<u16>,
    ) -> Admission<'_> {
        let Some(site) = self.find_site(host) else {
            return match channel {
                Channel::Plain => Admission::Unknown,
                Channel::Tls(_) => Admission::Misdirected,
            };
        };
        match (channel, site.https_port.or(https_port)) {
            (Channel::Plain, _) if !site.tls => Admission::Serve(site),
            _ if !site.may_have(channel) => Admission::Misdirected,
            (Channel::Plain, Some(port)) => Admission::ToTls(site, port),
            (Channel::Tls(_), _) if site.tls && channel.covers(host) => Admission::Serve(site),
            _ => Admission::Misdirected,
        }
    }
}

/// The sites of all listeners.
#[derive(Default)]
pub(super) struct AllHosts {
    /// Of the sites that do not say where they are served.
    general: Hosts,
    /// By address, if some sites say where they are served; `None` for the general ones.
    listeners: HashMap<ListenAddress, Option<Hosts>, RandomState>,
    /// The addresses of general sites that other sites name as theirs.
    shared: Vec<ListenAddress>,
    /// What is served at an address that is no longer listened on.
    nothing: Hosts,
}

impl AllHosts {
    /// Tables for the listeners of `config`, without any site.
    pub(super) fn of(config: &Config) -> Self {
        let mut all = Self::default();
        let named = config.sites.iter().flat_map(|site| &site.listen);
        for address in named {
            all.listeners
                .entry(address.place())
                .or_insert_with(|| Some(Hosts::default()));
        }
        if !all.listeners.is_empty() {
            for address in config.server.https.iter().chain(&config.server.http) {
                let place = address.place();
                if all.listeners.entry(place.clone()).or_insert(None).is_some() {
                    all.shared.push(place);
                }
            }
        }
        all
    }

    /// Adds a site with these hosts, which is served at these addresses; if there are none, at the
    /// general ones.
    pub(super) fn add(&mut self, site: &Arc<Site>, hosts: &[Pattern], listen: &[ListenAddress]) {
        let mut places: Vec<_> = listen.iter().map(ListenAddress::place).collect();
        if places.is_empty() {
            self.general.add(hosts, site);
            places.clone_from(&self.shared);
        }
        for place in places {
            if let Some(Some(here)) = self.listeners.get_mut(&place) {
                here.add(hosts, site);
            }
        }
    }

    /// The sites that do not say where they are served.
    pub(super) fn general(&self) -> &Hosts {
        &self.general
    }

    /// The sites that are served to connections accepted at an address, which `accepted_at` gives if
    /// it is known.
    pub(super) fn at<'a>(&self, accepted_at: impl FnOnce() -> Option<&'a ListenAddress>) -> &Hosts {
        if self.listeners.is_empty() {
            return &self.general;
        }
        match accepted_at().map(|address| self.listeners.get(address)) {
            None | Some(Some(None)) => &self.general,
            Some(Some(Some(here))) => here,
            Some(None) => &self.nothing,
        }
    }
}
