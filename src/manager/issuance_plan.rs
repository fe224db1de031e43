//! Which issuers would be asked for a certificate, and why, before any is asked.

use std::sync::Arc;

use crate::config::model::{CertificateSource, Config, Issuer as Configured, SiteTls};
use crate::host::Pattern;
use crate::issuer::Issuer;
use crate::on_demand;

/// Which issuers would be asked for the certificate of a name.
pub struct IssuancePlan {
    pub why: Reason,
    /// The entry of `dns` in the configuration that the certificate names.
    pub dns: Option<Arc<str>>,
    /// In the order in which they are asked.
    pub issuers: Vec<PlannedIssuer>,
}

/// An issuer that would be asked.
pub enum PlannedIssuer {
    /// One over the network.
    Remote(Arc<dyn Issuer>),
    /// The local CA with this name, which asks nobody.
    Local(Arc<str>),
}

/// Why they would be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// An entry of `certificates` has the name, or the wildcard over it.
    Certificates,
    /// A site has the name.
    Site,
    /// A site has the name, and is not to be served over TLS.
    NoTls,
    /// A client may have it on demand.
    OnDemand,
    /// Nothing has it yet; the first issuer is the one that a new site would get.
    Nothing,
}

impl IssuancePlan {
    /// The plan of `config` for `name`, with the issuers that `open` opens.
    pub(super) fn new(
        config: &Config,
        name: &Pattern,
        mut open: impl FnMut(&Arc<str>) -> Option<Arc<dyn Issuer>>,
    ) -> Self {
        let (why, names, dns) = plan(config, name);
        let issuers = names.iter().filter_map(|name| {
            Some(match config.issuers.get(name)? {
                Configured::Acme(_) | Configured::Own => PlannedIssuer::Remote(open(name)?),
                Configured::LocalCa { .. } => PlannedIssuer::Local(Arc::clone(name)),
            })
        });
        Self {
            why,
            dns,
            issuers: issuers.collect(),
        }
    }

    /// The plan without a configuration.
    pub(super) fn empty() -> Self {
        Self {
            why: Reason::Nothing,
            dns: None,
            issuers: Vec::new(),
        }
    }
}

/// The names of the issuers with the reason why they are asked, and the entry of `dns`.
fn plan(config: &Config, name: &Pattern) -> (Reason, Vec<Arc<str>>, Option<Arc<str>>) {
    let above = name.wildcard_over();
    let has = |pattern: &Pattern| pattern == name || Some(pattern) == above.as_ref();
    for source in &*config.certificates {
        if let CertificateSource::Managed {
            names,
            issuers,
            dns,
            ..
        } = source
            && names.iter().any(has)
        {
            return (Reason::Certificates, issuers.clone(), dns.clone());
        }
    }
    let sites = || config.sites.iter();
    // The very name goes before the wildcard over it, as it does when requests are routed.
    let exact = sites().find(|site| site.hosts.contains(name));
    let site = exact.or_else(|| sites().find(|site| site.hosts.iter().any(has)));
    let is_off = site.is_some_and(|site| !site.tls.is_terminated());
    if exact.is_none()
        && !is_off
        && let (Some(on_demand), Pattern::Exact(host)) = (&config.on_demand, name)
        && on_demand::allows(on_demand, host.as_str())
    {
        return (Reason::OnDemand, on_demand.issuers.clone(), None);
    }
    let (why, issuers) = match site.map(|site| &site.tls) {
        Some(SiteTls::Auto(issuers)) => (Reason::Site, issuers.clone()),
        Some(SiteTls::Issuer(issuer)) => (Reason::Site, vec![Arc::clone(issuer)]),
        Some(SiteTls::Off | SiteTls::PassThrough) => (Reason::NoTls, Vec::new()),
        None => (
            Reason::Nothing,
            config.issuers.keys().take(1).cloned().collect(),
        ),
    };
    (why, issuers, None)
}
