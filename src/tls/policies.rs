//! What sites demand of the TLS connections that are made for them, by the name that a client
//! requests: the demands of the site that serves it.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use ahash::RandomState;

use crate::config::model::{Config, SiteTls, TlsPolicy};
use crate::host::{HostName, Identifier, Pattern, parent};

/// A policy, or none.
type Policy = Option<Arc<TlsPolicy>>;

/// The policies of a configuration by the names that clients request. Names that have that of the
/// wildcard over them, or of all others, are not in it.
#[derive(Debug, Default)]
pub struct Policies {
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
        let general = &config.tls.policy;
        let any = hosts(config).find(|(host, _)| **host == Pattern::Any);
        let mut policies = Self {
            any: any.map_or(general, |(_, policy)| policy).clone(),
            ..Self::default()
        };
        for (host, policy) in hosts(config) {
            if let Pattern::Wildcard(of) = host
                && *policy != policies.any
            {
                policies
                    .wildcard
                    .entry(of.clone())
                    .or_insert_with(|| policy.clone());
            }
        }
        for (host, policy) in hosts(config) {
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
    pub(super) fn of_name(&self, name: &str) -> Option<&Arc<TlsPolicy>> {
        let wildcard = || self.wildcard.get(parent(name)?);
        let found = self.exact.get(name).or_else(wildcard);
        found.unwrap_or(&self.any).as_ref()
    }

    /// The policy for clients that request no name and have connected to `local`.
    pub(super) fn of_nameless(&self, local: Option<IpAddr>) -> Option<&Arc<TlsPolicy>> {
        let own = local.and_then(|local| self.addresses.get(&local));
        own.unwrap_or(&self.nameless).as_ref()
    }
}

/// Every host of a configuration with its policy.
fn hosts(config: &Config) -> impl Iterator<Item = (&Pattern, &Policy)> {
    let general = &config.tls.policy;
    config.sites.iter().flat_map(move |site| {
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
            assert_eq!(policies.of_name(name), expected.as_ref(), "{name}");
        }
        let nameless = |local: &str| policies.of_nameless(local.parse().ok()).cloned();
        assert_eq!(nameless("192.0.2.1"), modern);
        assert_eq!(nameless("192.0.2.2"), old, "of the default certificate");
        assert_eq!(policies.exact.len(), 3, "no more than is needed");
    }
}
