//! Which certificates the configuration asks issuers for.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use super::hosts::Hosts;
use crate::certificate::sni::{Candidates, Precedence};
use crate::clock::UnixTime;
use crate::config::model::{CertificateSource, Config, Issuer, Origin, Site, SiteTls};
use crate::host::Pattern;

/// A certificate that an issuer is to be asked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Need {
    pub(super) names: Vec<Pattern>,
    /// Tried in order.
    pub(super) issuers: Vec<Arc<str>>,
    /// The entry of `dns` over which to prove the names, where one is named.
    pub(super) dns: Option<Arc<str>>,
    pub(super) standing: Precedence,
}

impl Need {
    /// The first name, by which people know the certificate.
    pub(super) fn domain(&self) -> String {
        self.names
            .first()
            .map(ToString::to_string)
            .unwrap_or_default()
    }
}

/// A need with the entry of the configuration that has it.
pub(super) type Asked<'a> = (Need, &'a Origin);

/// What the entries of `certificates` ask for.
pub(super) fn managed(config: &Config) -> Vec<Asked<'_>> {
    let mut needs = Vec::new();
    for source in &*config.certificates {
        if let CertificateSource::Managed {
            names,
            issuers,
            dns,
            origin,
            ..
        } = source
        {
            let (names, issuers) = (names.clone(), issuers.clone());
            needs.push((
                Need {
                    names,
                    issuers,
                    dns: dns.clone(),
                    standing: Precedence::Configured,
                },
                origin,
            ));
        }
    }
    needs
}

/// What sites ask for: one certificate for each of these hosts, where none at hand is valid for it, and none
/// of `managed`, which are asked for anyway, will be. What the site `has` of its own already goes on
/// until then.
pub(super) fn of_sites<'a>(
    hosts: &'a Hosts,
    managed: &[Asked<'_>],
    candidates: &Candidates,
    has: impl Fn(&Need) -> bool,
    now: UnixTime,
) -> Vec<Asked<'a>> {
    let coming: HashSet<&Pattern> = managed.iter().flat_map(|(need, _)| &need.names).collect();
    let is_coming = |host: &Pattern| {
        let above = host.wildcard_over();
        coming.contains(host) || above.is_some_and(|above| coming.contains(&above))
    };
    let mut seen = BTreeSet::new();
    let mut needs = Vec::new();
    for (site, host) in hosts.open() {
        let (issuers, standing) = match &site.tls {
            SiteTls::Off => continue,
            SiteTls::Issuer(issuer) => (vec![Arc::clone(issuer)], Precedence::Demanded),
            SiteTls::Auto(issuers) if issuers.is_empty() => continue,
            SiteTls::Auto(_) if candidates.covers(host, now) => continue,
            SiteTls::Auto(issuers) => (issuers.clone(), Precedence::Fallback),
        };
        let need = Need {
            names: vec![host.clone()],
            issuers,
            dns: None,
            standing,
        };
        if standing == Precedence::Fallback && is_coming(host) && !has(&need) {
            continue;
        }
        if seen.insert((host, standing)) {
            needs.push((need, &site.origin));
        }
    }
    needs
}

/// Every host that is served over TLS and needs a certificate of its own.
pub(super) fn tls_hosts(config: &Config) -> impl Iterator<Item = (&Arc<Site>, &Pattern)> {
    config
        .sites
        .iter()
        .filter(|site| site.tls != SiteTls::Off)
        .flat_map(|site| site.hosts.iter().map(move |host| (site, host)))
        .filter(|(_, host)| **host != Pattern::Any)
}

/// Whether the first issuer is over the network. What the local CA makes is made at once.
pub(super) fn is_remote(need: &Need, config: &Config) -> bool {
    let first = need.issuers.first();
    first.is_some_and(|name| is_acme(name, config))
}

/// Whether an issuer is a CA with ACME.
pub(super) fn is_acme(issuer: &Arc<str>, config: &Config) -> bool {
    matches!(config.issuers.get(issuer), Some(Issuer::Acme(_)))
}
