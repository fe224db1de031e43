//! Validations under way: what is answered to a CA that looks whether a name is ours.
//!
//! Solvers put answers into [`Challenges`], listeners look them up. Listeners look often and find
//! hardly ever something: while no validation is under way a look-up is one load of a flag.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use async_trait::async_trait;

use crate::certificate::sni::CertificateSet;
use crate::host::HostName;
use crate::schedule::Failure;

/// A way to prove control of a name (RFC 8555, section 8; RFC 8737).
pub use crate::config::model::ChallengeType;

/// One validation that a CA is about to carry out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge {
    pub kind: ChallengeType,
    /// The name to be proved; of a wildcard the name without its first label.
    pub domain: HostName,
    pub token: String,
    /// Token and account thumbprint (RFC 8555, section 8.1).
    pub key_authorization: String,
}

/// Makes the proof visible that one type of challenge asks for.
#[async_trait]
pub trait ChallengeSolver: Send + Sync {
    /// The type it solves.
    fn kind(&self) -> ChallengeType;

    /// Makes the proof visible; on return a CA may look.
    ///
    /// # Errors
    /// Where it cannot be made visible.
    async fn present(&self, challenge: &Challenge) -> Result<(), Failure>;

    /// Takes the proof back, as well as it can.
    async fn clean_up(&self, challenge: &Challenge);
}

/// The answers to validations under way. A handle; clones share the answers.
#[derive(Clone, Default)]
pub struct Challenges(Arc<Shared>);

#[derive(Default)]
struct Shared {
    /// How many answers there are.
    pending: AtomicUsize,
    answers: RwLock<Answers>,
}

#[derive(Default)]
struct Answers {
    /// Key authorizations with their domain, by token.
    http01: HashMap<String, (HostName, Arc<str>)>,
    /// Certificates by domain.
    tls_alpn01: HashMap<HostName, Arc<CertificateSet>>,
}

impl Challenges {
    /// What `/.well-known/acme-challenge/TOKEN` answers on `host`, a name in normal form.
    pub fn http01(&self, host: &str, token: &str) -> Option<Arc<str>> {
        if self.0.pending.load(Ordering::Acquire) == 0 {
            return None;
        }
        let answers = self
            .0
            .answers
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        let (domain, answer) = answers.http01.get(token)?;
        (domain.as_str() == host).then(|| Arc::clone(answer))
    }

    /// The certificate for a client that speaks nothing but `acme-tls/1` and asks for `host`, a
    /// name in normal form.
    pub fn tls_alpn01(&self, host: &str) -> Option<Arc<CertificateSet>> {
        if self.0.pending.load(Ordering::Acquire) == 0 {
            return None;
        }
        let answers = self
            .0
            .answers
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        answers.tls_alpn01.get(host).cloned()
    }
}
