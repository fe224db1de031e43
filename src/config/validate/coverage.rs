//! Whether what is to be served can have a certificate at all.
//!
//! What only the CA can tell is not guessed at: here are names that cannot be proved to any, or
//! that every public one refuses by its policy, and sites that no certificate can be for.

use std::collections::HashSet;
use std::sync::Arc;

use super::Validator;
use super::challenge::{unprovable, unprovable_address};
use super::issuer::acme_of;
use super::preset::{self, Addresses};
use crate::config::model::{CertificateSource, Config, SiteTls};
use crate::config::problem::{At, quote};
use crate::config::schema;
use crate::host::{HostName, Pattern};

impl Validator<'_> {
    /// Reports a wildcard that these issuers cannot issue for.
    pub(super) fn provable(
        &mut self,
        at: &At<'_>,
        pattern: &Pattern,
        issuers: &[Arc<str>],
        raw: &schema::Root,
    ) {
        match pattern {
            Pattern::Wildcard(_) => {}
            Pattern::Ip(_) => return self.provable_address(at, issuers, raw),
            Pattern::Any | Pattern::Exact(_) => return,
        }
        let cannot = |name: &Arc<str>| unprovable(&*acme_of(raw, name)?, raw);
        let mut unable = issuers
            .iter()
            .filter_map(|name| Some((name, cannot(name)?)));
        let Some((first, (why, hint))) = unable.next() else {
            return;
        };
        if issuers.iter().all(|name| cannot(name).is_some()) {
            let message = format!(
                "the wildcard {} needs a DNS challenge at {}, but {why}",
                at.quoted(),
                quote(first),
            );
            self.problems.error(at, message, hint);
        } else {
            let message = format!(
                "{} cannot issue for the wildcard {}: it needs a DNS challenge, but {why}",
                quote(first),
                at.quoted(),
            );
            self.problems.warn(at, message, hint);
        }
    }

    /// Reports an address that these issuers are known not to issue for.
    fn provable_address(&mut self, at: &At<'_>, issuers: &[Arc<str>], raw: &schema::Root) {
        let refusals: Vec<_> = issuers
            .iter()
            .filter_map(|name| Some((name, no_addresses(&*acme_of(raw, name)?, raw)?)))
            .collect();
        let Some((issuer, (why, hint))) = refusals.first() else {
            return;
        };
        let message = format!(
            "{} issues no certificate for the address {}: {why}",
            quote(issuer),
            at.quoted(),
        );
        if refusals.len() == issuers.len() {
            self.problems.error(at, message, *hint);
        } else {
            self.problems.warn(at, message, *hint);
        }
    }

    /// Reports a certificate with more names than these issuers are known to take.
    pub(super) fn countable(
        &mut self,
        at: &At<'_>,
        count: usize,
        issuers: &[Arc<str>],
        raw: &schema::Root,
    ) {
        if count <= preset::MOST_NAMES {
            return;
        }
        let is_limited = |name: &Arc<str>| acme_of(raw, name).is_some();
        let Some(first) = issuers.iter().find(|name| is_limited(name)) else {
            return;
        };
        let is_public = |name: &Arc<str>| {
            acme_of(raw, name).is_some_and(|acme| preset::find_preset(&acme.directory).is_some())
        };
        let most = preset::MOST_NAMES;
        let hint = "split them into several certificates, or leave the hosts to 'sites', where \
                    each has its own";
        if issuers.iter().all(is_public) {
            let message = format!(
                "the certificate has {count} names, but {} accepts at most {most}",
                quote(first)
            );
            self.problems.error(at, message, hint);
        } else {
            let message = format!(
                "the certificate has {count} names, but CAs usually accept at most {most}: {} may \
                 refuse it",
                quote(first)
            );
            self.problems.warn(at, message, hint);
        }
    }

    /// Warns of a name that no CA certifies, whichever it is.
    fn refused_by_all(
        &mut self,
        at: &At<'_>,
        pattern: &Pattern,
        issuers: &[Arc<str>],
        raw: &schema::Root,
    ) -> bool {
        let why = match pattern {
            Pattern::Exact(host) | Pattern::Wildcard(host) => preset::never_valid(host.as_str()),
            Pattern::Any | Pattern::Ip(_) => None,
        };
        let issuer = issuers.iter().find(|name| acme_of(raw, name).is_some());
        let Some((why, issuer)) = why.zip(issuer) else {
            return false;
        };
        let message = format!(
            "no CA certifies a name like {} because {why}: {} will refuse it",
            at.quoted(),
            quote(issuer),
        );
        self.problems.warn(at, message, "correct the name");
        true
    }

    /// Warns of a name that a public CA among these issuers will refuse.
    pub(super) fn refused_by_public(
        &mut self,
        at: &At<'_>,
        pattern: &Pattern,
        issuers: &[Arc<str>],
        raw: &schema::Root,
    ) {
        if self.refused_by_all(at, pattern, issuers, raw) {
            return;
        }
        let why = match pattern {
            Pattern::Exact(host) => preset::never_certified(host.as_str()),
            Pattern::Ip(address) => preset::never_routed(*address),
            Pattern::Wildcard(parent) if !parent.as_str().contains('.') => {
                Some("it stands for every name below a single label".to_owned())
            }
            Pattern::Wildcard(parent) => preset::never_certified(parent.as_str()),
            Pattern::Any => None,
        };
        let public = |issuer: &&Arc<str>| {
            let acme = acme_of(raw, issuer);
            acme.is_some_and(|acme| preset::find_preset(&acme.directory).is_some())
        };
        if let Some(issuer) = issuers.iter().find(public)
            && let Some(why) = why
        {
            let message = format!(
                "no public CA certifies {} because {why}: {} will refuse it",
                at.quoted(),
                quote(issuer),
            );
            let hint = "use an issuer with a 'local_ca' for it, or a certificate in files";
            self.problems.warn(at, message, hint);
        }
    }

    /// Warns of sites that clients will hardly see.
    pub(super) fn warn_uncovered_sites(
        &mut self,
        config: &Config,
        raw: &schema::Root,
        root: &At<'_>,
    ) {
        // What files and directories hold is seen when they are read.
        let open = config.on_demand.is_some()
            || config.certificates.iter().any(|source| match source {
                CertificateSource::Directory { .. } | CertificateSource::Files { .. } => true,
                CertificateSource::Managed { .. } => false,
            });
        let managed = Managed::new(config);
        let sites = root.key("sites");
        for (index, site) in config.sites.iter().enumerate() {
            let at = sites.index(index);
            let (issuer, auto) = match &site.tls {
                SiteTls::Off => {
                    if config.server.http.is_empty() {
                        let message = "no listener serves the site: it has 'tls: off', and \
                                       'server.http' is empty";
                        self.problems
                            .warn(&at, message, "give an address in 'server.http'");
                    }
                    continue;
                }
                SiteTls::Auto(issuers) => (issuers.first(), true),
                SiteTls::Issuer(issuer) => (Some(issuer), false),
            };
            if config.server.https.is_empty() {
                let message = "no listener serves the site: 'server.https' is empty";
                self.problems
                    .warn(&at, message, "give an address there, or 'tls: off' here");
                continue;
            }
            let hosts_at = at.key("hosts");
            let at_hand = |host: &Pattern| auto && (open || managed.covers(host));
            if let Some(issuer) = issuer {
                for (index, host) in site.hosts.iter().enumerate() {
                    if !at_hand(host) {
                        let at = hosts_at.index(index);
                        self.refused_by_public(&at, host, std::slice::from_ref(issuer), raw);
                    }
                }
            }
            if open {
                continue;
            }
            let why = issuer.and_then(|issuer| unprovable(&*acme_of(raw, issuer)?, raw));
            let can_wildcard = issuer.is_some() && why.is_none();
            let no_address = issuer.and_then(|issuer| no_addresses(&*acme_of(raw, issuer)?, raw));
            let can_address = issuer.is_some() && no_address.is_none();
            let covered = |host: &Pattern| match host {
                Pattern::Any => config.tls.default_certificate.is_some(),
                Pattern::Exact(_) => issuer.is_some(),
                Pattern::Ip(_) => can_address || managed.covers(host),
                Pattern::Wildcard(_) => can_wildcard || managed.covers(host),
            };
            let mut hosts = site.hosts.iter().enumerate();
            let bare = hosts.find(|(_, host)| !covered(host));
            let Some((index, host)) = bare else {
                continue;
            };
            let at = hosts_at.index(index);
            let mut message = format!("no certificate can cover {}", at.quoted());
            let hint = match (host, issuer.zip(why), issuer.zip(no_address)) {
                (Pattern::Any, ..) => {
                    "give 'tls.default_certificate', 'certificates' or 'on_demand'"
                }
                (Pattern::Ip(_), _, Some((issuer, (why, hint)))) => {
                    message.push_str(": ");
                    message.push_str(&quote(issuer));
                    message.push_str(" issues none for addresses because ");
                    message.push_str(&why);
                    hint
                }
                (Pattern::Wildcard(_), Some((issuer, (why, hint))), _) => {
                    message.push_str(": it needs a DNS challenge at ");
                    message.push_str(&quote(issuer));
                    message.push_str(", but ");
                    message.push_str(why);
                    hint
                }
                (Pattern::Exact(_) | Pattern::Ip(_) | Pattern::Wildcard(_), ..) => {
                    "give 'certificates' or 'issuers', or 'tls: off' for plain HTTP"
                }
            };
            self.problems.warn(&at, message, hint);
        }
    }
}

/// Why a CA issues for no address, where that is known, and what to do.
fn no_addresses(acme: &schema::Acme, raw: &schema::Root) -> Option<(String, &'static str)> {
    let unable = unprovable_address(acme, raw);
    if unable.is_some() {
        return unable;
    }
    let preset = preset::find_preset(&acme.directory)?;
    let profile = acme.profile.as_ref().map(schema::Profile::name);
    match preset.addresses {
        Addresses::No => Some((
            format!("'{}' does not support that over ACME", preset.name),
            "choose another CA, such as letsencrypt with 'profile: shortlived', or a 'local_ca'",
        )),
        Addresses::Profile(needed) if profile != Some(needed) => Some((
            format!(
                "'{}' only supports that with its profile {needed}",
                preset.name
            ),
            "set 'profile: shortlived' of an issuer, and name that issuer here",
        )),
        Addresses::Profile(_) | Addresses::Yes => None,
    }
}

/// Names that issuers are asked for by entries of `certificates`.
struct Managed<'c>(HashSet<&'c Pattern>);

impl<'c> Managed<'c> {
    fn new(config: &'c Config) -> Self {
        let names = config
            .certificates
            .iter()
            .filter_map(|source| match source {
                CertificateSource::Managed { names, .. } => Some(names),
                CertificateSource::Directory { .. } | CertificateSource::Files { .. } => None,
            });
        Self(names.flatten().collect())
    }

    /// Whether one of them covers a host.
    fn covers(&self, host: &Pattern) -> bool {
        if self.0.is_empty() {
            return false;
        }
        if self.0.contains(host) {
            return true;
        }
        let Pattern::Exact(name) = host else {
            return false;
        };
        let parent = name
            .parent()
            .and_then(|parent| parent.parse::<HostName>().ok());
        parent.is_some_and(|parent| self.0.contains(&Pattern::Wildcard(parent)))
    }
}
