//! Which certificates the configuration wants from issuers.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use super::desired_hosts::DesiredHosts;
use crate::certificate::sni::{Candidates, Precedence};
use crate::clock::UnixTime;
use crate::config::model::{CertificateSource, Config, Origin, Site, SiteTls};
use crate::host::Pattern;
use crate::issuer::spec::CertSpec;

/// A specification with the entry of the configuration that has it.
pub(super) type ConfiguredSpec<'a> = (CertSpec, &'a Origin);

/// The specifications of the entries of `certificates`.
pub(super) fn from_certificates(config: &Config) -> Vec<ConfiguredSpec<'_>> {
    let mut specs = Vec::new();
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
            specs.push((
                CertSpec {
                    names,
                    issuers,
                    dns: dns.clone(),
                    precedence: Precedence::Configured,
                },
                origin,
            ));
        }
    }
    specs
}

/// What sites ask for: one certificate for each of these hosts, unless a configured one is valid
/// for it, or one of `managed`, which are requested anyway, will be. What the site already `has` of
/// its own is served until then.
pub(super) fn from_sites<'a>(
    hosts: &'a DesiredHosts,
    managed: &[ConfiguredSpec<'_>],
    candidates: &Candidates,
    has: impl Fn(&CertSpec) -> bool,
    now: UnixTime,
) -> Vec<ConfiguredSpec<'a>> {
    let coming: HashSet<&Pattern> = managed.iter().flat_map(|(spec, _)| &spec.names).collect();
    let is_coming = |host: &Pattern| {
        let above = host.wildcard_over();
        coming.contains(host) || above.is_some_and(|above| coming.contains(&above))
    };
    let mut seen = BTreeSet::new();
    let mut specs = Vec::new();
    for (site, host) in hosts.uncovered() {
        let (issuers, precedence) = match &site.tls {
            SiteTls::Off | SiteTls::PassThrough => continue,
            SiteTls::Issuer(issuer) => (vec![Arc::clone(issuer)], Precedence::Required),
            SiteTls::Auto(issuers) if issuers.is_empty() => continue,
            SiteTls::Auto(_) if candidates.covers(host, now) => continue,
            SiteTls::Auto(issuers) => (issuers.clone(), Precedence::Fallback),
        };
        let spec = CertSpec {
            names: vec![host.clone()],
            issuers,
            dns: None,
            precedence,
        };
        if precedence == Precedence::Fallback && is_coming(host) && !has(&spec) {
            continue;
        }
        if seen.insert((host, precedence)) {
            specs.push((spec, &site.origin));
        }
    }
    specs
}

/// Every host that is served over TLS and needs a certificate of its own.
pub(super) fn tls_hosts(config: &Config) -> impl Iterator<Item = (&Arc<Site>, &Pattern)> {
    config
        .sites
        .iter()
        .filter(|site| site.tls.is_terminated())
        .flat_map(|site| site.hosts.iter().map(move |host| (site, host)))
        .filter(|(_, host)| **host != Pattern::Any)
}
