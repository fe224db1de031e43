//! Maps server names to certificates.
//!
//! An [`SniMap`] never changes; a change makes a new one that shares all but a few shards with the
//! old, so readers, who load it from an `ArcSwap`, never wait. [`Candidates`] decides which of
//! several certificates for a name is served. Neither reads files nor asks issuers.

mod candidates;
mod table;

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ahash::RandomState;
use async_trait::async_trait;
use openssl::ssl::SslRef;
use tokio::sync::watch;

pub use self::candidates::{Candidates, Precedence};
use self::table::Table;
use crate::certificate::TlsCertificate;
use crate::certificate::material::MaterialError;
use crate::certificate::parsed_cache::ParsedCache;
use crate::clock::UnixTime;
use crate::host::{Host, HostName, Identifier, Pattern, parent};

/// The certificates of one name, at most one for each kind of key.
#[derive(Debug)]
pub struct CertificateSet {
    pub by_kind: Vec<Arc<TlsCertificate>>,
    used: Use,
}

/// Whether a handshake has presented the set since the last check.
#[derive(Debug, Default)]
struct Use(AtomicBool);

impl Use {
    /// Only the first call writes: a cache line that all cores read stays where it is.
    fn mark_used(&self) {
        if !self.0.load(Ordering::Relaxed) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    fn take_mark(&self) -> bool {
        self.0.load(Ordering::Relaxed) && self.0.swap(false, Ordering::Relaxed)
    }
}

impl CertificateSet {
    /// A set of one certificate.
    pub fn single(certificate: Arc<TlsCertificate>) -> Self {
        Self::of(vec![certificate])
    }

    /// A set of these certificates, at most one for each kind of key.
    pub fn of(by_kind: Vec<Arc<TlsCertificate>>) -> Self {
        Self {
            by_kind,
            used: Use::default(),
        }
    }

    /// Returns true if each certificate of this set is valid for `host`, a normalized name.
    pub fn covers(&self, host: &str) -> bool {
        self.by_kind
            .iter()
            .all(|certificate| certificate.covers(host))
    }

    /// Returns true if each certificate of this set is valid for `address`.
    pub fn covers_ip(&self, address: IpAddr) -> bool {
        self.by_kind
            .iter()
            .all(|certificate| certificate.covers_ip(address))
    }

    /// Hands every certificate to one handshake; OpenSSL picks the one that the client can use. A
    /// certificate that cannot be fetched is left out if there is another.
    ///
    /// # Errors
    /// If there is none, or OpenSSL is out of memory.
    pub async fn present(
        &self,
        ssl: &mut SslRef,
        cache: &ParsedCache,
    ) -> Result<(), MaterialError> {
        self.used.mark_used();
        let mut failed = None;
        let mut presented = false;
        for certificate in &self.by_kind {
            match cache.get_or_parse(certificate).await {
                Ok(material) => {
                    material.apply(ssl)?;
                    presented = true;
                }
                Err(error) => failed = Some(error),
            }
        }
        match failed {
            Some(error) if !presented => Err(error),
            _ => Ok(()),
        }
    }

    /// Marks the set as used by a handshake that resumed a session, and so presented nothing.
    pub fn note_use(&self) {
        self.used.mark_used();
    }

    /// Returns true if this set serves exactly these certificates.
    fn is_same_as(&self, certificates: &[Arc<TlsCertificate>]) -> bool {
        self.by_kind.len() == certificates.len()
            && self
                .by_kind
                .iter()
                .zip(certificates)
                .all(|(one, other)| Arc::ptr_eq(one, other))
    }
}

/// Gets certificates for names that no loaded certificate covers.
#[async_trait]
pub trait OnDemand: Send + Sync {
    /// Returns true if `host`, a normalized name, may have a certificate, as far as is known
    /// immediately.
    fn allows(&self, host: &str) -> bool;

    /// The certificate for `host`, a normalized name that `client` asks for. Waits within limits;
    /// `None` if it is refused, fails, or takes too long. Called in a handshake: never blocks the
    /// thread.
    async fn certificate(&self, host: &str, client: Option<IpAddr>) -> Option<Arc<CertificateSet>>;
}

/// Loads certificates that are not in the map yet. It exists only while that takes place.
pub trait Loading: Send + Sync {
    /// Returns true if no unloaded certificate takes precedence over `found` for a client that asks
    /// for `host`, or for nothing that can be looked up.
    fn is_settled(&self, host: Option<Host<'_>>, found: Option<&CertificateSet>) -> bool;

    /// Has certificates that may be for `host` loaded before the rest. Never blocks.
    fn prioritize(&self, host: Host<'_>);

    /// Notifies whenever more is in the map, from the call on.
    fn progress(&self) -> watch::Receiver<u64>;
}

/// An immutable map from server names to certificates.
///
/// Clones share their content.
#[derive(Clone, Default)]
pub struct SniMap {
    exact: Table,
    /// By the name without its first label.
    wildcard: Table,
    /// There are few: they are for clients that name no host.
    addresses: Arc<HashMap<IpAddr, Arc<CertificateSet>>>,
    default: Option<Arc<CertificateSet>>,
    on_demand: Option<Arc<dyn OnDemand>>,
    loading: Option<Arc<dyn Loading>>,
    /// Keys that nobody can know, so no choice of host names makes a shard slow.
    hasher: RandomState,
}

impl SniMap {
    /// The map that serves `certificates` at `now`, without a default.
    pub fn of<'a>(
        certificates: impl IntoIterator<Item = &'a Arc<TlsCertificate>>,
        now: UnixTime,
    ) -> Self {
        let mut candidates = Candidates::default();
        for certificate in certificates {
            candidates.add(certificate, Precedence::Configured);
        }
        candidates.update(&Self::default(), now)
    }

    /// The certificates for `host`, a normalized name: its own, or those of the wildcard over its
    /// first label.
    pub fn lookup(&self, host: &str) -> Option<&Arc<CertificateSet>> {
        self.exact.get(self.hash(host), host).or_else(|| {
            let parent = parent(host)?;
            if self.wildcard.len() == 0 {
                return None;
            }
            self.wildcard.get(self.hash(parent), parent)
        })
    }

    /// The certificates for clients that connect to `address`, which they cannot name: an address
    /// is not a server name (RFC 6066, section 3).
    pub fn lookup_ip(&self, address: IpAddr) -> Option<&Arc<CertificateSet>> {
        if self.addresses.is_empty() {
            return None;
        }
        self.addresses.get(&address.to_canonical())
    }

    /// The certificates of `identifier`: see [`Self::lookup`] and [`Self::lookup_ip`].
    pub fn find(&self, identifier: &Identifier) -> Option<&Arc<CertificateSet>> {
        match identifier {
            Identifier::Dns(name) => self.lookup(name.as_str()),
            Identifier::Ip(address) => self.lookup_ip(*address),
        }
    }

    /// The certificates for clients that name no host, or an unknown one.
    pub fn default_set(&self) -> Option<&Arc<CertificateSet>> {
        self.default.as_ref()
    }

    /// The source of certificates for names that are not in the map.
    pub fn on_demand(&self) -> Option<&Arc<dyn OnDemand>> {
        self.on_demand.as_ref()
    }

    /// The loader of what is not in the map yet; `None` if everything is.
    pub fn loading(&self) -> Option<&Arc<dyn Loading>> {
        self.loading.as_ref()
    }

    /// How many names and wildcards have a certificate.
    pub fn len(&self) -> usize {
        self.exact.len() + self.wildcard.len() + self.addresses.len()
    }

    /// Returns true if no name has a certificate.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Every name and wildcard with its certificates, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (Pattern, &Arc<CertificateSet>)> {
        let exact = self
            .exact
            .iter()
            .map(|(name, set)| (Pattern::Exact(name.clone()), set));
        let wildcard = self
            .wildcard
            .iter()
            .map(|(of, set)| (Pattern::Wildcard(of.clone()), set));
        let addresses = self
            .addresses
            .iter()
            .map(|(address, set)| (Pattern::Ip(*address), set));
        exact.chain(wildcard).chain(addresses)
    }

    /// Into how many slices [`Self::slice`] divides the map.
    pub fn slices(&self) -> usize {
        self.exact.shards() + self.wildcard.shards() + 1
    }

    /// The certificates of one slice of all names: some hundreds, so that going through a map can
    /// be spread over time. A set that serves several names comes several times.
    pub fn slice(&self, at: usize) -> impl Iterator<Item = &Arc<CertificateSet>> {
        let wildcard = at.checked_sub(self.exact.shards());
        let last = wildcard.filter(|at| *at >= self.wildcard.shards());
        let addresses = last.map(|_| self.addresses.values());
        self.exact
            .shard(at)
            .chain(self.wildcard.shard(wildcard.unwrap_or(usize::MAX)))
            .chain(addresses.into_iter().flatten())
            .chain(last.and(self.default.as_ref()))
    }

    /// The host names whose own certificates a handshake has presented since the last call. Checks
    /// all of them.
    pub fn take_used(&self) -> Vec<HostName> {
        let used = self.exact.iter().filter(|(_, set)| set.used.take_mark());
        used.map(|(name, _)| name.clone()).collect()
    }

    /// Returns true if there are certificates for all hosts of this pattern.
    pub fn covers(&self, pattern: &Pattern) -> bool {
        match pattern {
            Pattern::Exact(name) => self.lookup(name.as_str()).is_some(),
            other => self.get(other).is_some(),
        }
    }

    /// The certificates of exactly this pattern.
    pub fn get(&self, pattern: &Pattern) -> Option<&Arc<CertificateSet>> {
        match pattern {
            Pattern::Any => None,
            Pattern::Exact(name) => self.exact.get(self.hash(name.as_str()), name.as_str()),
            Pattern::Ip(address) => self.lookup_ip(*address),
            Pattern::Wildcard(of) => self.wildcard.get(self.hash(of.as_str()), of.as_str()),
        }
    }

    /// This map with some entries replaced, or removed by `None`.
    ///
    /// The cost of each change is about the square root of the map's size. [`Pattern::Any`] is
    /// ignored: no certificate covers every name.
    #[must_use]
    pub fn with_changes(
        &self,
        changes: impl IntoIterator<Item = (Pattern, Option<Arc<CertificateSet>>)>,
    ) -> Self {
        let (mut exact, mut wildcard) = (Vec::new(), Vec::new());
        let mut addresses = Arc::clone(&self.addresses);
        for (pattern, set) in changes {
            let (table, name) = match pattern {
                Pattern::Any => continue,
                Pattern::Ip(address) => {
                    let addresses = Arc::make_mut(&mut addresses);
                    match set {
                        Some(set) => drop(addresses.insert(address, set)),
                        None => drop(addresses.remove(&address)),
                    }
                    continue;
                }
                Pattern::Exact(name) => (&mut exact, name),
                Pattern::Wildcard(of) => (&mut wildcard, of),
            };
            table.push((name, set));
        }
        Self {
            exact: self.exact.with_changes(exact, &self.hasher),
            wildcard: self.wildcard.with_changes(wildcard, &self.hasher),
            addresses,
            ..self.clone()
        }
    }

    /// This map with another default.
    #[must_use]
    pub fn with_default(&self, default: Option<Arc<CertificateSet>>) -> Self {
        Self {
            default,
            ..self.clone()
        }
    }

    /// This map with another source of certificates on demand.
    #[must_use]
    pub fn with_on_demand(&self, on_demand: Option<Arc<dyn OnDemand>>) -> Self {
        Self {
            on_demand,
            ..self.clone()
        }
    }

    /// This map while `loading` adds to it; with `None`, once that is over.
    #[must_use]
    pub fn with_loading(&self, loading: Option<Arc<dyn Loading>>) -> Self {
        Self {
            loading,
            ..self.clone()
        }
    }

    /// Returns true if `other` is this map: the same entries, not just equal ones.
    pub fn is_same_as(&self, other: &Self) -> bool {
        fn same<T: ?Sized>(one: Option<&Arc<T>>, other: Option<&Arc<T>>) -> bool {
            match (one, other) {
                (Some(one), Some(other)) => Arc::ptr_eq(one, other),
                (None, None) => true,
                _ => false,
            }
        }
        self.exact.is_same_as(&other.exact)
            && self.wildcard.is_same_as(&other.wildcard)
            && Arc::ptr_eq(&self.addresses, &other.addresses)
            && same(self.default.as_ref(), other.default.as_ref())
            && same(self.on_demand.as_ref(), other.on_demand.as_ref())
            && same(self.loading.as_ref(), other.loading.as_ref())
    }

    fn hash(&self, name: &str) -> u64 {
        self.hasher.hash_one(name)
    }
}

impl fmt::Debug for SniMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SniMap")
            .field("names", &self.exact.len())
            .field("wildcards", &self.wildcard.len())
            .field("addresses", &self.addresses.len())
            .field("default", &self.default)
            .field("on_demand", &self.on_demand.is_some())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
