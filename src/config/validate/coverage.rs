//! Whether what is to be served can have a certificate at all.
//!
//! Nothing is guessed that only a CA can know. Reported are names that no CA can validate or every
//! public one refuses by policy, and hosts of sites that no certificate can cover.

use std::collections::HashSet;
use std::sync::Arc;

use super::challenge::{unprovable, unprovable_address};
use super::context::Context;
use super::issuer::acme_of;
use super::preset::{self, Addresses};
use crate::config::model::{CertificateSource, Config, Server, SiteTls};
use crate::config::problem::{At, quote};
use crate::config::schema;
use crate::host::{HostName, Pattern};

/// Reports a wildcard or an address that these issuers cannot issue for.
pub(super) fn check_provable(
    ctx: &mut Context<'_>,
    at: &At<'_>,
    pattern: &Pattern,
    issuers: &[Arc<str>],
) {
    match pattern {
        Pattern::Wildcard(_) => {}
        Pattern::Ip(_) => return check_address(ctx, at, issuers),
        Pattern::Any | Pattern::Exact(_) => return,
    }
    let raw = ctx.raw;
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
        ctx.problems.error(at, message, hint);
    } else {
        let message = format!(
            "{} cannot issue for the wildcard {}: it needs a DNS challenge, but {why}",
            quote(first),
            at.quoted(),
        );
        ctx.problems.warn(at, message, hint);
    }
}

/// Reports an address that these issuers are known not to issue for.
fn check_address(ctx: &mut Context<'_>, at: &At<'_>, issuers: &[Arc<str>]) {
    let raw = ctx.raw;
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
        ctx.problems.error(at, message, *hint);
    } else {
        ctx.problems.warn(at, message, *hint);
    }
}

/// Reports a certificate with more names than these issuers are known to accept.
pub(super) fn check_name_count(
    ctx: &mut Context<'_>,
    at: &At<'_>,
    count: usize,
    issuers: &[Arc<str>],
) {
    if count <= preset::MOST_NAMES {
        return;
    }
    let raw = ctx.raw;
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
        ctx.problems.error(at, message, hint);
    } else {
        let message = format!(
            "the certificate has {count} names, but CAs usually accept at most {most}: {} may \
             refuse it",
            quote(first)
        );
        ctx.problems.warn(at, message, hint);
    }
}

/// Warns of a name that no CA certifies, public or not. Returns true if it is one.
fn warn_refused_by_all(
    ctx: &mut Context<'_>,
    at: &At<'_>,
    pattern: &Pattern,
    issuers: &[Arc<str>],
) -> bool {
    let why = match pattern {
        Pattern::Exact(host) | Pattern::Wildcard(host) => preset::never_valid(host.as_str()),
        Pattern::Any | Pattern::Ip(_) => None,
    };
    let raw = ctx.raw;
    let issuer = issuers.iter().find(|name| acme_of(raw, name).is_some());
    let Some((why, issuer)) = why.zip(issuer) else {
        return false;
    };
    let message = format!(
        "no CA certifies a name like {} because {why}: {} will refuse it",
        at.quoted(),
        quote(issuer),
    );
    ctx.problems.warn(at, message, "correct the name");
    true
}

/// Warns of a name that a public CA among these issuers will refuse.
pub(super) fn warn_refused_by_public(
    ctx: &mut Context<'_>,
    at: &At<'_>,
    pattern: &Pattern,
    issuers: &[Arc<str>],
) {
    if warn_refused_by_all(ctx, at, pattern, issuers) {
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
    let raw = ctx.raw;
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
        ctx.problems.warn(at, message, hint);
    }
}

/// Warns of sites that no client can reach, and of hosts that no certificate can cover.
pub(super) fn warn_uncovered_sites(ctx: &mut Context<'_>, config: &Config, root: &At<'_>) {
    // What files and directories hold is only seen when they are read.
    let is_open = config.on_demand.is_some()
        || config.certificates.iter().any(|source| match source {
            CertificateSource::Directory { .. } | CertificateSource::Files { .. } => true,
            CertificateSource::Managed { .. } => false,
        });
    let managed = Managed::new(config);
    let sites = root.key("sites");
    for (index, site) in config.sites.iter().enumerate() {
        let at = sites.index(index);
        let is_elsewhere = !site.listen.is_empty();
        let no_listener = no_listener(&config.server, &site.tls).filter(|_| !is_elsewhere);
        if let Some((message, hint)) = no_listener {
            ctx.problems.warn(&at, message, hint);
            continue;
        }
        let (issuer, auto) = match &site.tls {
            SiteTls::Off | SiteTls::PassThrough => continue,
            SiteTls::Auto(issuers) => (issuers.first(), true),
            SiteTls::Issuer(issuer) => (Some(issuer), false),
        };
        let hosts_at = at.key("hosts");
        if let Some(issuer) = issuer {
            for (index, host) in site.hosts.iter().enumerate() {
                if !(auto && (is_open || managed.covers(host))) {
                    let at = hosts_at.index(index);
                    warn_refused_by_public(ctx, &at, host, std::slice::from_ref(issuer));
                }
            }
        }
        if is_open {
            continue;
        }
        let coverage = Coverage {
            raw: ctx.raw,
            issuer,
            managed: &managed,
            has_default: config.tls.default_certificate.is_some(),
        };
        let mut hosts = site.hosts.iter().enumerate();
        if let Some((index, (why, hint))) =
            hosts.find_map(|(index, host)| Some((index, coverage.find_gap(host)?)))
        {
            let at = hosts_at.index(index);
            let message = format!("no certificate can cover {}{why}", at.quoted());
            ctx.problems.warn(&at, message, hint);
        }
    }
}

/// Why no listener serves a site, and what to do; `None` if one does.
fn no_listener(server: &Server, tls: &SiteTls) -> Option<(&'static str, &'static str)> {
    match tls {
        SiteTls::Off => server.http.is_empty().then_some((
            "no listener serves the site: it has 'tls: off', and 'server.http' is empty",
            "give an address in 'server.http'",
        )),
        SiteTls::PassThrough => server.https.is_empty().then_some((
            "no listener serves the site: 'server.https' is empty",
            "give an address there",
        )),
        SiteTls::Auto(_) | SiteTls::Issuer(_) => server.https.is_empty().then_some((
            "no listener serves the site: 'server.https' is empty",
            "give an address there, or 'tls: off' here",
        )),
    }
}

/// What can cover the hosts of a site, when all certificates come from issuers.
struct Coverage<'c> {
    raw: &'c schema::Root,
    issuer: Option<&'c Arc<str>>,
    managed: &'c Managed<'c>,
    has_default: bool,
}

impl Coverage<'_> {
    /// Why no certificate can cover a host (empty or `: reason`), and what to do; `None` if one can.
    fn find_gap(&self, host: &Pattern) -> Option<(String, &'static str)> {
        if self.managed.covers(host) {
            return None;
        }
        match (host, self.issuer) {
            (Pattern::Any, _) => (!self.has_default).then_some((
                String::new(),
                "give 'tls.default_certificate', 'certificates' or 'on_demand'",
            )),
            (Pattern::Exact(_) | Pattern::Ip(_) | Pattern::Wildcard(_), None) => Some((
                String::new(),
                "give 'certificates' or 'issuers', or 'tls: off' for plain HTTP",
            )),
            (Pattern::Exact(_), Some(_)) => None,
            (Pattern::Ip(_), Some(issuer)) => {
                let (why, hint) = no_addresses(&*acme_of(self.raw, issuer)?, self.raw)?;
                let issuer = quote(issuer);
                let why = format!(": {issuer} issues none for addresses because {why}");
                Some((why, hint))
            }
            (Pattern::Wildcard(_), Some(issuer)) => {
                let (why, hint) = unprovable(&*acme_of(self.raw, issuer)?, self.raw)?;
                let issuer = quote(issuer);
                let why = format!(": it needs a DNS challenge at {issuer}, but {why}");
                Some((why, hint))
            }
        }
    }
}

/// Why a CA issues no certificate for addresses, if that is known, and what to do.
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

/// Names in entries of `certificates` that issuers issue.
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

    /// Returns true if one of them covers a host.
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
