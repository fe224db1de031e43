//! Certificates that are known without their files having been read again.

use std::collections::HashSet;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use openssl::error::ErrorStack;

use super::chain::ChainRef;
use super::material::{Away, Der, Keeper, Rest};
use super::{Fingerprint, KeyKind, Loader, Source, TlsCertificate};
use crate::clock::UnixTime;
use crate::host::Pattern;

/// All that is known of a certificate but the certificate, its key and its chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) names: Box<[Pattern]>,
    pub(crate) kind: KeyKind,
    pub(crate) not_before: UnixTime,
    pub(crate) not_after: UnixTime,
    pub(crate) fingerprint: Fingerprint,
    /// Whether the issuer of the leaf was unknown.
    pub(crate) incomplete: bool,
}

/// A chain that certificates share.
#[derive(Clone)]
pub(crate) struct SharedChain(ChainRef);

impl SharedChain {
    /// What tells it from other chains for as long as it is held.
    pub(crate) fn address(&self) -> usize {
        Arc::as_ptr(&self.0).cast::<()>().addr()
    }

    /// Each of its certificates, DER.
    pub(crate) fn ders(&self) -> Result<Vec<Vec<u8>>, ErrorStack> {
        self.0.iter().map(|one| one.to_der()).collect()
    }
}

impl TlsCertificate {
    pub(crate) fn facts(&self) -> Facts {
        Facts {
            names: self.names.clone(),
            kind: self.kind,
            not_before: self.not_before,
            not_after: self.not_after,
            fingerprint: self.fingerprint,
            incomplete: self.incomplete,
        }
    }

    pub(crate) fn shared_chain(&self) -> SharedChain {
        SharedChain(ChainRef::clone(&self.chain))
    }

    /// A certificate that was loaded before, and that `keeper` has.
    pub(crate) fn recalled(
        facts: Facts,
        chain: &SharedChain,
        source: Source,
        keeper: Arc<dyn Keeper>,
    ) -> Self {
        Self {
            rest: Rest::Kept(Away::new(keeper)),
            hot: ArcSwapOption::empty(),
            chain: ChainRef::clone(&chain.0),
            incomplete: facts.incomplete,
            names: facts.names,
            kind: facts.kind,
            not_before: facts.not_before,
            not_after: facts.not_after,
            fingerprint: facts.fingerprint,
            source,
        }
    }

    /// Certificate and key, where they are in memory.
    pub(crate) fn into_der(self) -> Option<Der> {
        self.rest.at_hand().cloned()
    }

    /// Holds `der`, what is kept of it, in memory from now on, where its keeper wants that.
    pub(crate) fn hold(&self, der: Der) {
        if let Rest::Kept(away) = &self.rest
            && openssl::sha::sha256(der.leaf()) == self.fingerprint.0
        {
            away.hold(der);
        }
    }

    /// Whether certificate and key are in memory.
    pub(crate) fn is_at_hand(&self) -> bool {
        self.rest.at_hand().is_some()
    }
}

/// The names of CAs whose certificates are known.
pub(crate) struct Authorities(HashSet<String>);

impl Authorities {
    /// Whether there is one for the CA that is called `name`.
    pub(crate) fn know(&self, name: &str) -> bool {
        self.0.contains(&plain(name))
    }
}

/// A distinguished name without what makes no difference.
fn plain(name: &str) -> String {
    let letters = name.chars().filter(|letter| !letter.is_whitespace());
    letters.flat_map(char::to_lowercase).collect()
}

impl Loader {
    /// Whose certificates can complete a chain.
    pub(crate) fn authorities(&self) -> Authorities {
        let names = self.intermediates.subjects();
        Authorities(names.iter().map(|name| plain(name)).collect())
    }

    /// The chain of these certificates, which are known from now on as if they had been loaded.
    pub(crate) fn recall_chain(&self, ders: &[&[u8]]) -> Result<SharedChain, ErrorStack> {
        let parsed = ders.iter().map(|der| self.intermediates.parse(der));
        let chain = self
            .intermediates
            .recall(parsed.collect::<Result<_, _>>()?)?;
        Ok(SharedChain(chain))
    }
}
