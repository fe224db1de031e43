//! Which hosts of sites a pass has to check.
//!
//! A configured certificate covers most hosts, and nothing has to be done for them. That changes
//! only with the candidates for the host. So a pass checks only the hosts whose candidates changed
//! and those without such a certificate, however many hosts there are.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use ahash::RandomState;
use hashbrown::HashTable;

use crate::certificate::sni::Candidates;
use crate::clock::UnixTime;
use crate::config::model::{Config, Site, SiteTls};
use crate::host::Pattern;

/// The hosts that are served over TLS and want a certificate.
#[derive(Default)]
pub(super) struct DesiredHosts {
    sites: Vec<Arc<Site>>,
    /// Each host: its site, and its place among the site's hosts.
    all: Vec<(u32, u32)>,
    /// The same by the host.
    by_pattern: HashTable<u32>,
    hasher: RandomState,
    /// Those that are not known to have a configured certificate, in the order of the
    /// configuration.
    open: BTreeSet<u32>,
    /// Whether none has been checked yet.
    is_new: bool,
}

impl DesiredHosts {
    /// The hosts of a configuration.
    pub(super) fn from_config(config: &Config) -> Self {
        let mut hosts = Self {
            sites: config.sites.clone(),
            is_new: true,
            ..Self::default()
        };
        for (number, site) in (0..).zip(&config.sites) {
            if !site.tls.is_terminated() {
                continue;
            }
            for (place, host) in (0..).zip(&site.hosts) {
                if *host == Pattern::Any {
                    continue;
                }
                let index = u32::try_from(hosts.all.len()).unwrap_or(u32::MAX);
                hosts.all.push((number, place));
                hosts.index_host(host, index);
            }
        }
        hosts
    }

    fn index_host(&mut self, host: &Pattern, index: u32) {
        let Self {
            sites,
            all,
            by_pattern,
            hasher,
            ..
        } = self;
        let rehash = |index: &u32| {
            let known = get(sites, all, *index);
            known.map_or(0, |(_, host)| hasher.hash_one(host))
        };
        by_pattern.insert_unique(hasher.hash_one(host), index, rehash);
    }

    /// Checks the hosts whose `candidates` have changed since the last call.
    pub(super) fn update_uncovered(&mut self, candidates: &mut Candidates, now: UnixTime) {
        let touched = candidates.take_touched();
        let touched = touched.filter(|_| !std::mem::take(&mut self.is_new));
        let Some(touched) = touched else {
            self.is_new = false;
            for index in (0..).take(self.all.len()) {
                self.classify_host(index, candidates, now);
            }
            return;
        };
        let above = touched.iter().filter_map(|one| match one {
            Pattern::Wildcard(of) => Some(of.as_str()),
            _ => None,
        });
        let above: HashSet<&str> = above.collect();
        if !above.is_empty() {
            let is_below = |index: &u32| match get(&self.sites, &self.all, *index) {
                Some((_, Pattern::Exact(name))) => {
                    name.parent().is_some_and(|parent| above.contains(parent))
                }
                _ => false,
            };
            let below: Vec<_> = (0..).take(self.all.len()).filter(is_below).collect();
            for index in below {
                self.classify_host(index, candidates, now);
            }
        }
        for pattern in &touched {
            if let Some(index) = self.find_host(pattern) {
                self.classify_host(index, candidates, now);
            }
        }
    }

    /// Those that have to be checked, each with its site.
    pub(super) fn uncovered(&self) -> impl Iterator<Item = (&Arc<Site>, &Pattern)> {
        let open = self.open.iter();
        open.filter_map(|index| get(&self.sites, &self.all, *index))
    }

    /// Those that one of `patterns` covers.
    pub(super) fn covered_by<'h>(&'h self, patterns: &ahash::HashSet<Pattern>) -> Vec<&'h Pattern> {
        if patterns.is_empty() {
            return Vec::new();
        }
        let all = self.all.iter();
        let hosts = all.filter_map(|(site, place)| {
            let site = self.sites.get(usize::try_from(*site).ok()?)?;
            site.hosts.get(usize::try_from(*place).ok()?)
        });
        let is_covered = |host: &&Pattern| {
            let wildcard = || host.wildcard_over();
            patterns.contains(*host) || wildcard().is_some_and(|one| patterns.contains(&one))
        };
        hosts.filter(is_covered).collect()
    }

    fn classify_host(&mut self, index: u32, candidates: &Candidates, now: UnixTime) {
        let Some((site, host)) = get(&self.sites, &self.all, index) else {
            return;
        };
        let is_settled = matches!(site.tls, SiteTls::Auto(_)) && candidates.covers(host, now);
        if !is_settled {
            self.open.insert(index);
        } else if !self.open.is_empty() {
            self.open.remove(&index);
        }
    }

    fn find_host(&self, host: &Pattern) -> Option<u32> {
        let is_it = |index: &u32| {
            let known = get(&self.sites, &self.all, *index);
            known.is_some_and(|(_, known)| known == host)
        };
        let hash = self.hasher.hash_one(host);
        self.by_pattern.find(hash, is_it).copied()
    }
}

fn get<'h>(
    sites: &'h [Arc<Site>],
    all: &[(u32, u32)],
    index: u32,
) -> Option<(&'h Arc<Site>, &'h Pattern)> {
    let (site, place) = *all.get(usize::try_from(index).ok()?)?;
    let site = sites.get(usize::try_from(site).ok()?)?;
    Some((site, site.hosts.get(usize::try_from(place).ok()?)?))
}
