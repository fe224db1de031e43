//! Decoded types into the checked model.
//!
//! Everything the schema cannot say is found here: references to nothing, values without meaning,
//! parts that contradict each other, features that are not there yet. Each function reports what
//! is wrong and continues with a stand-in, which is never used: a model with errors is thrown away.

mod acme;
mod certificate;
mod challenge;
mod coverage;
mod dns;
mod issuer;
mod on_demand;
mod order;
mod preset;
mod server;
mod site;
mod unavailable;
mod upstream;
mod value;
mod zerossl;

use std::collections::HashSet;
use std::sync::Arc;

pub use self::preset::never_certified;
use self::site::SharedRoutes;

use super::model::{Config, InMemory, Origin, Places, Storage};
use super::problem::{At, Problems, quote, suggest};
use super::schema;
use super::source::Sources;
use super::yaml_tree::Node;

/// Builds the model. It is right only if no error was reported.
pub(super) fn validate(
    raw: &schema::Root,
    root: &Node,
    sources: &mut Sources,
    problems: &mut Problems,
) -> Config {
    let root = At::root(root);
    let mut build = Validator {
        sources,
        problems,
        used_dns: HashSet::new(),
        used_issuers: HashSet::new(),
        used_upstreams: HashSet::new(),
        routes: SharedRoutes::default(),
    };
    build.config(raw, &root)
}

/// What the building functions share.
struct Validator<'b> {
    sources: &'b mut Sources,
    problems: &'b mut Problems,
    /// Names that something refers to.
    used_dns: HashSet<Arc<str>>,
    used_issuers: HashSet<Arc<str>>,
    used_upstreams: HashSet<Arc<str>>,
    routes: SharedRoutes,
}

impl Validator<'_> {
    fn config(&mut self, raw: &schema::Root, root: &At<'_>) -> Config {
        let server = self.server(&raw.server, &root.key("server"));
        let tls = self.tls(&raw.tls, &root.key("tls"));
        let storage = self.storage(&raw.storage, &root.key("storage"));
        let issuers = self.issuers(raw, &root.key("issuers"));
        let dns = self.dns(raw, root);
        self.events(raw, root);
        let certificates = self.certificates(raw, root);
        let renewal = self.renewal(&raw.renewal, &root.key("renewal"));
        let on_demand = self.on_demand(raw, root);
        let upstreams = self.upstreams(&raw.upstreams, &root.key("upstreams"));
        let sites = self.sites(raw, &upstreams, root);
        let log = self.log(&raw.log, &root.key("log"));
        if raw.sites.is_empty() && raw.certificates.is_empty() {
            self.problems.error(
                root,
                "there is nothing to serve: neither 'sites' nor 'certificates' is given",
                "add 'sites:' with at least one entry",
            );
        }
        let config = Config {
            server,
            tls,
            storage,
            issuers,
            dns,
            certificates: certificates.into(),
            certificates_in_memory: match raw.certificates_in_memory {
                schema::InMemory::All => InMemory::All,
                schema::InMemory::Cache => InMemory::Cache,
            },
            certificate_cache: self.size(
                &root.key("certificate_cache"),
                &raw.certificate_cache.0,
                1 << 20,
                1 << 40,
            ),
            renewal,
            on_demand,
            upstreams,
            sites,
            log,
            places: Places {
                default_certificate: self.origin(&root.key("tls").key("default_certificate")),
                on_demand: self.origin(&root.key("on_demand")),
            },
        };
        // With errors, much looks unused that is only misspelt.
        if self.problems.errors() == 0 {
            self.warn_odd(&config, raw, root);
        }
        config
    }

    fn storage(&mut self, raw: &schema::Storage, at: &At<'_>) -> Storage {
        if let Some(etcd) = &raw.etcd {
            self.etcd(etcd, &at.key("etcd"));
        }
        let default = schema::FileStorage::default();
        let path = &raw.file.as_ref().unwrap_or(&default).path;
        let at = at.key("file");
        let path = self.path(&at.key("path"), path);
        Storage::File { path }
    }

    /// Warns of what is accepted and hardly meant.
    fn warn_odd(&mut self, config: &Config, raw: &schema::Root, root: &At<'_>) {
        let upstreams = root.key("upstreams");
        for name in config.upstreams.keys() {
            if !self.used_upstreams.contains(name) {
                let at = upstreams.key(name);
                let message = format!("no route uses the upstream {}", quote(name));
                self.problems
                    .warn(&at.at_key(), message, "remove it, or name it in a route");
            }
        }
        let issuers = root.key("issuers");
        for name in raw.issuers.keys() {
            if !self.used_issuers.contains(&**name) {
                let at = issuers.key(name);
                let message = format!("nothing uses the issuer {}", quote(name));
                let hint = "remove it, or name it in a site's 'tls' or a certificate's 'issuer'";
                self.problems.warn(&at.at_key(), message, hint);
            }
        }
        self.odd_dns(config, root);
        self.warn_uncovered_sites(config, raw, root);
    }

    /// Reports a feature that is part of the schema and not there yet.
    fn unavailable(&mut self, at: &At<'_>) {
        let path = at.path();
        let key = path.rsplit('.').next().unwrap_or_default();
        let message = format!("{} is not available in this build yet", quote(key));
        self.problems
            .refuse(&at.at_key(), message, "remove it for now");
    }

    /// Reports a name that people cannot refer to everywhere.
    fn name(&mut self, at: &At<'_>, name: &str) {
        let good = |char: char| char.is_ascii_alphanumeric() || matches!(char, '-' | '_' | '.');
        if name.is_empty() || name.len() > 64 || !name.chars().all(good) {
            self.problems.error(
                &at.at_key(),
                format!("{} is not a valid name", quote(name)),
                "use 1 to 64 letters, digits, '-', '_' and '.'",
            );
        }
    }

    /// Reports a reference to nothing.
    fn report_dangling<'n>(
        &mut self,
        at: &At<'_>,
        kind: &str,
        section: &str,
        known: impl Iterator<Item = &'n str> + Clone,
        name: &str,
    ) {
        if self.problems.is_lost(section) {
            return;
        }
        let hint = match known.clone().next() {
            None => format!("define it below '{section}:'"),
            Some(_) if self.problems.is_full() => String::new(),
            Some(_) => suggest(name, known),
        };
        let message = format!("there is no {kind} {}", at.quoted());
        self.problems.error(at, message, hint);
    }

    /// The issuers that something names; the first one where it names none.
    fn issuer_names(
        &mut self,
        at: &At<'_>,
        names: Option<&schema::Names>,
        raw: &schema::Root,
    ) -> Vec<Arc<str>> {
        let Some(names) = names else {
            let Some(first) = raw.issuers.keys().next() else {
                if !self.problems.is_lost("issuers") {
                    let message = "no issuer is named, and none is defined";
                    let hint = "define one below 'issuers:'";
                    self.problems.error(at, message, hint);
                }
                return Vec::new();
            };
            return vec![self.use_issuer(first)];
        };
        let names = names.as_slice();
        if names.is_empty() {
            let message = "the list is empty";
            self.problems
                .error(at, message, "name an issuer, or remove the key");
        }
        let mut found = Vec::with_capacity(names.len());
        for (index, name) in names.iter().enumerate() {
            if raw.issuers.contains_key(name) {
                found.push(self.use_issuer(name));
            } else {
                let at = at.index(index);
                let known = raw.issuers.keys().map(String::as_str);
                self.report_dangling(&at, "issuer", "issuers", known, name);
            }
        }
        found
    }

    /// Notes that an issuer is of use.
    fn use_issuer(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.used_issuers.get(name) {
            return Arc::clone(known);
        }
        let name: Arc<str> = Arc::from(name);
        self.used_issuers.insert(Arc::clone(&name));
        name
    }

    fn origin(&self, at: &At<'_>) -> Origin {
        let place = at.place();
        Origin {
            file: self.sources.shown(place.file),
            line: usize::try_from(place.line).unwrap_or(usize::MAX),
            column: usize::try_from(place.column).unwrap_or(usize::MAX),
            path: at.path(),
        }
    }
}
