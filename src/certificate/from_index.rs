//! Certificates that are known without reading their files again.

use std::collections::HashSet;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use openssl::error::ErrorStack;

use super::chain::ChainRef;
use super::der::Der;
use super::material::{AtRest, CertSource, OnDisk};
use super::status::{CertStatus, StatusSources};
use super::{Fingerprint, Flaws, KeyKind, Loader, Source, TlsCertificate};
use crate::clock::UnixTime;
use crate::host::Pattern;

/// Everything known of a certificate except the certificate itself, its key and its chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CertificateFacts {
    pub(crate) names: Box<[Pattern]>,
    pub(crate) kind: KeyKind,
    pub(crate) not_before: UnixTime,
    pub(crate) not_after: UnixTime,
    pub(crate) fingerprint: Fingerprint,
    pub(crate) flaws: Flaws,
    /// What it says of its status.
    pub(crate) status: Option<Arc<StatusSources>>,
}

/// A chain that certificates share.
#[derive(Clone)]
pub(crate) struct SharedChain(ChainRef);

impl SharedChain {
    /// Identifies it among other chains for as long as it is held.
    pub(crate) fn address(&self) -> usize {
        Arc::as_ptr(&self.0).cast::<()>().addr()
    }

    /// Each of its certificates in DER; of a leaf that a root has issued itself, the root.
    pub(crate) fn ders(&self) -> Result<Vec<Vec<u8>>, ErrorStack> {
        let all = self.0.iter().chain(self.0.root());
        all.map(|one| one.to_der()).collect()
    }
}

impl TlsCertificate {
    pub(crate) fn facts(&self) -> CertificateFacts {
        CertificateFacts {
            names: self.names.clone(),
            kind: self.kind,
            not_before: self.not_before,
            not_after: self.not_after,
            fingerprint: self.fingerprint,
            flaws: self.flaws,
            status: self.status.as_ref().map(|one| Arc::clone(one.sources())),
        }
    }

    pub(crate) fn shared_chain(&self) -> SharedChain {
        SharedChain(ChainRef::clone(&self.chain))
    }

    /// A certificate that was loaded before, and that `cert_source` can fetch.
    pub(crate) fn from_index(
        facts: CertificateFacts,
        chain: &SharedChain,
        source: Source,
        cert_source: Arc<dyn CertSource>,
    ) -> Self {
        Self {
            at_rest: AtRest::OnDisk(OnDisk::new(cert_source)),
            parsed: ArcSwapOption::empty(),
            chain: ChainRef::clone(&chain.0),
            flaws: facts.flaws,
            names: facts.names,
            kind: facts.kind,
            not_before: facts.not_before,
            not_after: facts.not_after,
            fingerprint: facts.fingerprint,
            source,
            status: facts.status.map(CertStatus::new),
        }
    }

    /// Certificate and key, if they are in memory.
    pub(crate) fn into_der(self) -> Option<Der> {
        self.at_rest.der_in_memory().cloned()
    }

    /// Holds `der`, which was fetched, in memory from now on, if its source wants that.
    pub(crate) fn hold_der(&self, der: Der) {
        if let AtRest::OnDisk(away) = &self.at_rest
            && openssl::sha::sha256(der.leaf()) == self.fingerprint.0
        {
            away.hold_der(der);
        }
    }

    /// Returns true if certificate and key are in memory.
    pub(crate) fn is_in_memory(&self) -> bool {
        self.at_rest.der_in_memory().is_some()
    }
}

/// The names of CAs whose certificates are known.
pub(crate) struct IssuerNames(HashSet<String>);

impl IssuerNames {
    /// Returns true if the CA called `name` has one.
    pub(crate) fn contain(&self, name: &str) -> bool {
        self.0.contains(&normalize_name(name))
    }
}

/// A distinguished name without differences that do not matter.
fn normalize_name(name: &str) -> String {
    let letters = name.chars().filter(|letter| !letter.is_whitespace());
    letters.flat_map(char::to_lowercase).collect()
}

impl Loader {
    /// The subjects of the certificates that can complete a chain.
    pub(crate) fn issuer_names(&self) -> IssuerNames {
        let names = self.intermediates.subjects();
        IssuerNames(names.iter().map(|name| normalize_name(name)).collect())
    }

    /// What a certificate says of its status, shared with others that say the same.
    pub(crate) fn share_status(&self, sources: &Arc<StatusSources>) -> Arc<StatusSources> {
        self.sources.share(StatusSources::clone(sources))
    }

    /// The chain of these certificates, which are known from now on as if they had been loaded.
    pub(crate) fn share_chain(&self, ders: &[&[u8]]) -> Result<SharedChain, ErrorStack> {
        let parsed = ders.iter().map(|der| self.intermediates.parse(der));
        let chain = self
            .intermediates
            .share_known(parsed.collect::<Result<_, _>>()?)?;
        Ok(SharedChain(chain))
    }
}
