//! `certificates` and `on_demand`.

use super::Build;
use super::issuer::acme_of;
use crate::config::model::{CertificateSource, OnDemand};
use crate::config::problem::{At, quote};
use crate::config::schema;
use crate::host::Pattern;

impl Build<'_> {
    pub(super) fn certificates(
        &mut self,
        raw: &schema::Root,
        root: &At<'_>,
    ) -> Vec<CertificateSource> {
        let at = root.key("certificates");
        let mut sources = Vec::with_capacity(raw.certificates.len());
        for (index, certificate) in raw.certificates.iter().enumerate() {
            let at = at.index(index);
            sources.extend(self.certificate(certificate, raw, &at));
        }
        sources
    }

    fn certificate(
        &mut self,
        raw: &schema::Certificate,
        root: &schema::Root,
        at: &At<'_>,
    ) -> Option<CertificateSource> {
        if raw.names.is_none() {
            for (key, given) in [("issuer", raw.issuer.is_some()), ("dns", raw.dns.is_some())] {
                if given {
                    let message = format!("'{key}' has no meaning without 'names'");
                    self.problems
                        .error(&at.key(key).at_key(), message, "remove it");
                }
            }
        }
        let origin = self.origin(at);
        match (&raw.files, &raw.directory, &raw.names) {
            (Some(files), None, None) => {
                let at = at.key("files");
                let cert = self.path(&at.key("cert"), &files.cert);
                let key = match &files.key {
                    Some(key) => self.path(&at.key("key"), key),
                    None => cert.clone(),
                };
                Some(CertificateSource::Files { cert, key, origin })
            }
            (None, Some(directory), None) => {
                let path = self.path(&at.key("directory"), directory);
                Some(CertificateSource::Directory { path, origin })
            }
            (None, None, Some(names)) => {
                let names_at = at.key("names");
                let mut named: Vec<(At<'_>, Pattern)> = Vec::with_capacity(names.len());
                for (index, name) in names.iter().enumerate() {
                    let at = names_at.index(index);
                    let Some(pattern) = self.issuable(&at, name) else {
                        continue;
                    };
                    if named.iter().any(|(_, before)| *before == pattern) {
                        let message = format!("the name {} stands here twice", at.quoted());
                        self.problems.error(&at, message, "remove one of the two");
                    }
                    named.push((at, pattern));
                }
                let dns = raw
                    .dns
                    .as_deref()
                    .and_then(|dns| self.dns_name(&at.key("dns"), dns, root));
                let issuers = self.issuer_names(&at.key("issuer"), raw.issuer.as_ref(), root);
                for (name_at, pattern) in &named {
                    // One that names an entry is proved over it, whatever the issuers do else;
                    // addresses never are.
                    if raw.dns.is_none() || matches!(pattern, Pattern::Ip(_)) {
                        self.provable(name_at, pattern, &issuers, root);
                    }
                    self.refused_by_public(name_at, pattern, &issuers, root);
                }
                let patterns = named.into_iter().map(|(_, pattern)| pattern).collect();
                Some(CertificateSource::Managed {
                    names: patterns,
                    issuers,
                    dns,
                    origin,
                })
            }
            (None, None, None) => {
                let message = "the entry names no certificate";
                let hint = "give exactly one of 'files', 'directory', 'names'";
                self.problems.error(at, message, hint);
                None
            }
            _ => {
                let message = "'files', 'directory' and 'names' exclude each other";
                self.problems
                    .error(at, message, "make an entry of its own for each");
                None
            }
        }
    }

    pub(super) fn on_demand(&mut self, raw: &schema::Root, root: &At<'_>) -> Option<OnDemand> {
        let on_demand = raw.on_demand.as_ref()?;
        let at = root.key("on_demand");
        self.on_demand_later(on_demand, &at);
        let allow_at = at.key("allow");
        if on_demand.allow.is_none() && on_demand.ask.is_none() && !allow_at.is_written() {
            self.problems.error(
                &at,
                "everyone could have certificates made for any name: there is neither 'allow' \
                 nor 'ask'",
                "list the names below 'allow:', such as \"*.customers.example.com\"",
            );
        }
        let mut allow = Vec::new();
        for (index, name) in on_demand.allow.iter().flatten().enumerate() {
            let at = allow_at.index(index);
            let pattern = self.pattern(&at, name);
            if let Some(Pattern::Ip(_)) = pattern {
                let message = "clients name no address when they ask for a certificate";
                let hint = "list it below 'certificates' or as a host of a site";
                self.problems.error(&at, message, hint);
            }
            if pattern == Some(Pattern::Any) {
                let message = "everyone can have certificates made for any name";
                self.problems
                    .warn(&at, message, "list the names that are yours");
            }
            allow.extend(pattern);
        }
        let issuer_at = at.key("issuer");
        let issuers = self.issuer_names(&issuer_at, on_demand.issuer.as_ref(), raw);
        match &on_demand.issuer {
            None => {
                if let Some(first) = issuers.first() {
                    self.ready_on_demand(&issuer_at, first, raw);
                }
            }
            Some(names) => {
                for (index, name) in names.as_slice().iter().enumerate() {
                    self.ready_on_demand(&issuer_at.index(index), name, raw);
                }
            }
        }
        Some(OnDemand { issuers, allow })
    }

    /// Reports an issuer that cannot issue within a handshake.
    fn ready_on_demand(&mut self, at: &At<'_>, issuer: &str, raw: &schema::Root) {
        if acme_of(raw, issuer).is_some() {
            let message = format!(
                "certificates on demand from a CA with ACME ({}) are not available in this build yet",
                quote(issuer),
            );
            let hint = "name an issuer with a 'local_ca' in 'issuer'";
            self.problems.error(at, message, hint);
        }
    }
}
