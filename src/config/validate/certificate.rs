//! `certificates`.

use super::Validator;
use crate::config::model::CertificateSource;
use crate::config::problem::At;
use crate::config::schema;
use crate::host::Pattern;

impl Validator<'_> {
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
                        let message = format!("the name {} is listed twice", at.quoted());
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
                self.countable(&names_at, named.len(), &issuers, root);
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
                    .error(at, message, "make a separate entry for each");
                None
            }
        }
    }
}
