//! What sites demand of the TLS connections that are made for them, by the name that a client
//! requests: the demands of the site that serves it.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use ahash::RandomState;

use crate::config::model::{Config, ListenAddress, Site, SiteTls, TlsPolicy};
use crate::host::{HostName, Identifier, Pattern, parent};

/// A policy, or none.
type Policy = Option<Arc<TlsPolicy>>;

/// What the sites of a configuration demand.
#[derive(Debug, Default)]
pub struct Policies {
    /// Of the sites that do not say where they are served.
    general: NamePolicies,
    /// If some sites say where they are served.
    listeners: Option<Box<ListenerPolicies>>,
}

/// What the sites of each listener demand.
#[derive(Debug, Default)]
struct ListenerPolicies {
    /// By address; `None` for one of the general sites alone.
    by_place: HashMap<ListenAddress, Option<ListenerSites>, RandomState>,
    /// The names of the sites that do not say where they are served.
    general: Names,
    /// Those of all sites.
    all: Names,
}

/// The sites of a listener.
#[derive(Debug, Default)]
struct ListenerSites {
    policies: NamePolicies,
    names: Names,
    /// What its sessions are marked with.
    mark: Arc<str>,
}

/// The hosts of some sites that are served over TLS.
#[derive(Debug, Default)]
struct Names(HashSet<Pattern, RandomState>);

impl Names {
    /// Whether one of the sites is for `name`.
    fn contain(&self, name: &HostName) -> bool {
        let names = &self.0;
        let wildcard = || name.parent()?.parse().ok().map(Pattern::Wildcard);
        names.contains(&Pattern::Exact(name.clone()))
            || wildcard().is_some_and(|wildcard| names.contains(&wildcard))
            || names.contains(&Pattern::Any)
    }
}

/// The policies of some sites by the names that clients request. Names that have that of the wildcard
/// over them, or of all others, are not in it.
#[derive(Debug, Default)]
struct NamePolicies {
    exact: HashMap<HostName, Policy, RandomState>,
    /// By the name without the wildcard's label.
    wildcard: HashMap<HostName, Policy, RandomState>,
    addresses: HashMap<IpAddr, Policy, RandomState>,
    /// Of all other names.
    any: Policy,
    /// Of clients that request no name, and have connected to no address of a site.
    nameless: Policy,
}

impl Policies {
    /// The policies of the sites of `config`, and its general one for names without a site.
    pub fn of(config: &Config) -> Self {
        let sites = config.sites.iter().map(|site| &**site);
        let general = || sites.clone().filter(|site| site.listen.is_empty());
        Self {
            general: NamePolicies::of(config, general()),
            listeners: ListenerPolicies::of(config).map(Box::new),
        }
    }

    fn at(&self, place: Option<&ListenAddress>) -> &NamePolicies {
        let sites = self.sites_at(place);
        sites.map_or(&self.general, |sites| &sites.policies)
    }

    /// The sites of a listener that has its own.
    fn sites_at(&self, place: Option<&ListenAddress>) -> Option<&ListenerSites> {
        let listeners = self.listeners.as_ref()?;
        listeners.by_place.get(place?)?.as_ref()
    }

    /// Whether `name` is that of sites of other listeners, and of none of the one at `place`.
    pub(super) fn is_elsewhere(&self, name: &HostName, place: Option<&ListenAddress>) -> bool {
        let Some(listeners) = &self.listeners else {
            return false;
        };
        let sites = self.sites_at(place);
        let here = sites.map_or(&listeners.general, |sites| &sites.names);
        !here.contain(name) && listeners.all.contain(name)
    }

    /// What sessions of the listener at `place` are marked with, so that no other resumes them.
    pub(super) fn mark(&self, place: Option<&ListenAddress>) -> Option<Arc<str>> {
        Some(Arc::clone(&self.sites_at(place)?.mark))
    }

    /// The policy for clients of the listener at `place` that request `name`, in normal form.
    pub(super) fn of_name(
        &self,
        name: &str,
        place: Option<&ListenAddress>,
    ) -> Option<&Arc<TlsPolicy>> {
        self.at(place).of_name(name)
    }

    /// The policy for clients of the listener at `place` that request no name and have connected to
    /// `local`.
    pub(super) fn of_nameless(
        &self,
        local: Option<IpAddr>,
        place: Option<&ListenAddress>,
    ) -> Option<&Arc<TlsPolicy>> {
        self.at(place).of_nameless(local)
    }
}

impl ListenerPolicies {
    /// `None` if no site says where it is served.
    fn of(config: &Config) -> Option<Self> {
        let sites = config.sites.iter().map(|site| &**site);
        let general = || sites.clone().filter(|site| site.listen.is_empty());
        let server = config.server.https.iter();
        let server: Vec<_> = server.map(ListenAddress::place).collect();
        let mut by_place: HashMap<_, _, RandomState> = HashMap::default();
        for address in sites.clone().flat_map(|site| &site.listen) {
            let place = address.place();
            if by_place.contains_key(&place) {
                continue;
            }
            let own = |site: &&Site| match site.listen.is_empty() {
                true => server.contains(&place),
                false => site.listen.iter().any(|other| other.place() == place),
            };
            let here = ListenerSites {
                policies: NamePolicies::of(config, sites.clone().filter(own)),
                names: names(sites.clone().filter(own)),
                mark: place.to_string().into(),
            };
            by_place.insert(place, Some(here));
        }
        if by_place.is_empty() {
            return None;
        }
        for place in server {
            by_place.entry(place).or_insert(None);
        }
        Some(Self {
            by_place,
            general: names(general()),
            all: names(sites.clone()),
        })
    }
}

/// The hosts of the sites that are served over TLS.
fn names<'a>(sites: impl Iterator<Item = &'a Site>) -> Names {
    let sites = sites.filter(|site| site.tls != SiteTls::Off);
    Names(sites.flat_map(|site| site.hosts.iter().cloned()).collect())
}

impl NamePolicies {
    /// The policies of these sites, and the general one for names without a site.
    fn of<'a>(config: &'a Config, sites: impl Iterator<Item = &'a Site> + Clone) -> Self {
        let general = &config.tls.policy;
        let all = || hosts(config, sites.clone());
        let any = all().find(|(host, _)| **host == Pattern::Any);
        let mut policies = Self {
            any: any.map_or(general, |(_, policy)| policy).clone(),
            ..Self::default()
        };
        for (host, policy) in all() {
            if let Pattern::Wildcard(of) = host
                && *policy != policies.any
            {
                policies
                    .wildcard
                    .entry(of.clone())
                    .or_insert_with(|| policy.clone());
            }
        }
        for (host, policy) in all() {
            match host {
                Pattern::Exact(name) if *policy != policies.of_name(name.as_str()).cloned() => {
                    policies
                        .exact
                        .entry(name.clone())
                        .or_insert_with(|| policy.clone());
                }
                Pattern::Ip(address) => {
                    let address = address.to_canonical();
                    policies
                        .addresses
                        .entry(address)
                        .or_insert_with(|| policy.clone());
                }
                _ => {}
            }
        }
        policies.nameless = match &config.tls.default_certificate {
            Some(Identifier::Dns(name)) => policies.of_name(name.as_str()).cloned(),
            Some(Identifier::Ip(address)) => {
                let own = policies.addresses.get(&address.to_canonical());
                own.unwrap_or(&policies.any).clone()
            }
            None => general.clone(),
        };
        policies
    }

    /// The policy for clients that request `name`, in normal form.
    fn of_name(&self, name: &str) -> Option<&Arc<TlsPolicy>> {
        let wildcard = || self.wildcard.get(parent(name)?);
        let found = self.exact.get(name).or_else(wildcard);
        found.unwrap_or(&self.any).as_ref()
    }

    /// The policy for clients that request no name and have connected to `local`.
    fn of_nameless(&self, local: Option<IpAddr>) -> Option<&Arc<TlsPolicy>> {
        let own = local.and_then(|local| self.addresses.get(&local));
        own.unwrap_or(&self.nameless).as_ref()
    }
}

/// Every host of these sites with its policy.
fn hosts<'a>(
    config: &'a Config,
    sites: impl Iterator<Item = &'a Site>,
) -> impl Iterator<Item = (&'a Pattern, &'a Policy)> {
    let general = &config.tls.policy;
    sites.flat_map(move |site| {
        let policy = match site.tls {
            // A name that the gateway terminates no TLS for is like one without a site.
            SiteTls::Off | SiteTls::PassThrough => general,
            SiteTls::Auto(_) | SiteTls::Issuer(_) => &site.tls_policy,
        };
        site.hosts.iter().map(move |host| (host, policy))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::model::TlsVersion;

    /// A policy of this version alone.
    fn policy(version: TlsVersion) -> Policy {
        TlsPolicy::new(None, Some(version..=version), None, None).map(Arc::new)
    }

    #[test]
    fn the_policy_of_a_name_is_that_of_its_site() {
        let text = "\
tls: { default_certificate: x.wild.example }
issuers: { local: { local_ca: { } } }
sites:
  - { hosts: [a.example, 192.0.2.1], routes: [{ respond: { } }], tls: { profile: modern } }
  - { hosts: [\"*.wild.example\"], routes: [{ respond: { } }], tls: { profile: modern } }
  - { hosts: [x.wild.example], routes: [{ respond: { } }], tls: { versions: { max: \"1.2\" } } }
  - { hosts: [y.wild.example], routes: [{ respond: { } }], tls: { profile: intermediate } }
  - { hosts: [z.wild.example], routes: [{ respond: { } }], tls: { profile: modern } }
";
        let loaded = crate::config::load_str(text, std::path::Path::new("/"));
        let policies = Policies::of(&loaded.expect("valid").config);
        let (modern, old) = (policy(TlsVersion::Tls13), policy(TlsVersion::Tls12));
        for (name, expected) in [
            ("a.example", &modern),
            ("b.example", &None),
            ("w.wild.example", &modern),
            ("x.wild.example", &old),
            ("y.wild.example", &None),
            ("z.wild.example", &modern),
            ("w.w.wild.example", &None),
        ] {
            assert_eq!(policies.of_name(name, None), expected.as_ref(), "{name}");
        }
        let nameless = |local: &str| policies.of_nameless(local.parse().ok(), None).cloned();
        assert_eq!(nameless("192.0.2.1"), modern);
        assert_eq!(nameless("192.0.2.2"), old, "of the default certificate");
        assert_eq!(policies.general.exact.len(), 3, "no more than is needed");
    }
}
