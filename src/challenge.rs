//! Validations in progress: the responses for a CA that checks whether a name is ours.
//!
//! Solvers put responses into [`Challenges`], and listeners look them up. Listeners do this often
//! and almost never find anything: while no validation is in progress, a lookup is one load of a
//! flag. Responses also go through the storage, from which `sync` loads those of other instances:
//! a CA may come to any of them. Nothing here talks to a CA or a client.

mod certificate;
mod dns;
mod instance;
mod look_up;
mod name_lock;
mod record;
mod solver;
mod sync;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, RwLock, RwLockReadGuard};

use async_trait::async_trait;

use crate::certificate::sni::CertificateSet;
use crate::clock::{Clock, UnixTime};
use crate::host::{Host, Identifier};
use crate::lock::RwLockExt;
use crate::schedule::Failure;
use crate::storage::{Key, Storage, StorageError, keys};

/// A way to prove control of a name (RFC 8555, section 8; RFC 8737).
pub use crate::config::model::ChallengeType;

#[doc(hidden)]
pub use self::dns::{Dns01Solver, DnsPersist01Solver, DnsSolvers};
#[doc(hidden)]
pub use self::solver::{Http01Solver, TlsAlpn01Solver};
#[doc(hidden)]
pub use self::sync::{read_once, sync_with_storage};

use self::instance::Instance;
use self::look_up::LookUps;
use self::name_lock::NameLocks;
use self::record::ChallengeRecord;

/// A validation that a CA is about to perform.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge {
    /// Its type.
    pub kind: ChallengeType,
    /// The name or address to be proved; for a wildcard, the name without its first label.
    pub domain: Identifier,
    /// The token that the CA has chosen.
    pub token: String,
    /// Token and account thumbprint (RFC 8555, section 8.1): what `http-01` answers with.
    pub key_authorization: String,
    /// Only for the types over the DNS.
    pub dns: Option<DnsContext>,
}

/// What a DNS challenge needs besides its token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DnsContext {
    /// The URL of the account at the CA.
    pub account: String,
    /// Whether the certificate is for the wildcard over the domain.
    pub is_wildcard: bool,
    /// The names by which the CA may be named in a persistent record; empty if it does not say.
    pub issuers: Vec<String>,
}

/// Makes the proof visible that one type of challenge asks for, such as a file in the directory of
/// another web server for `http-01`.
///
/// Calls for different challenges come at the same time. A killed process leaves its proofs in place.
#[async_trait]
pub trait ChallengeSolver: Send + Sync {
    /// The type it solves.
    fn kind(&self) -> ChallengeType;

    /// Makes the proof visible. On return the CA may look for it.
    ///
    /// # Errors
    /// If it cannot be made visible.
    async fn present(&self, challenge: &Challenge) -> Result<(), Failure>;

    /// Removes the proof, as far as it can. Also called where [`Self::present`] failed.
    async fn clean_up(&self, challenge: &Challenge);

    /// Leaves the proof where it is until it expires: nothing calls [`Self::clean_up`] for it, and
    /// nothing should wait for that. The validation may be resumed after a restart.
    fn abandon(&self, _challenge: &Challenge) {}
}

/// The responses to validations in progress. A handle; clones share them.
#[derive(Clone, Default)]
pub struct Challenges(Arc<Shared>);

#[derive(Default)]
struct Shared {
    /// The number of responses.
    pending: AtomicUsize,
    answers: RwLock<Answers>,
    /// Held while the storage is read as a whole.
    looking: Mutex<()>,
    /// This process among those that share the storage.
    instance: Instance,
    /// Locks of names for validations over TLS.
    name_locks: NameLocks,
    /// Where to look up unknown tokens.
    look_ups: Option<LookUps>,
}

#[derive(Default)]
struct Answers {
    /// For validations that this process has requested.
    own: Table,
    /// For validations that other instances have requested.
    others: Table,
    /// While the storage is being read: the keys of responses that this process has stored since.
    meanwhile: Option<HashSet<Key>>,
}

/// Responses by question. One question may have several, if other instances have the same one or
/// two orders share a challenge; the last one is used.
#[derive(Default)]
struct Table(HashMap<Question, Vec<Answer>>);

/// What a CA asks with: the token over HTTP, the name over TLS.
type Question = (ChallengeType, String);

#[derive(Clone)]
struct Answer {
    domain: Identifier,
    key_authorization: Arc<str>,
    /// Only for validations over TLS.
    certificate: Option<Arc<CertificateSet>>,
    /// Its key in the storage, for other instances.
    key: Key,
    /// The last second in which it is useful.
    expires: UnixTime,
}

impl Challenges {
    /// Responses that [`Self::look_up_token`] may look up in `storage`.
    pub fn stored_in(storage: Arc<dyn Storage>, clock: Arc<dyn Clock>) -> Self {
        Self(Arc::new(Shared {
            look_ups: Some(LookUps::new(storage, clock)),
            ..Shared::default()
        }))
    }

    /// The response to `/.well-known/acme-challenge/TOKEN` on `host`.
    pub fn http01(&self, host: Host<'_>, token: &str) -> Option<Arc<str>> {
        if self.is_empty() || !keys::is_token(token) {
            return None;
        }
        let answer = self.look_up((ChallengeType::Http01, token.to_owned()))?;
        answer.domain.is(host).then_some(answer.key_authorization)
    }

    /// The certificate for a client that offers only `acme-tls/1` and asks for `host`, a normalized
    /// name. For an address this is [`Identifier::dns_name`].
    pub fn tls_alpn01(&self, host: &str) -> Option<Arc<CertificateSet>> {
        if self.is_empty() {
            return None;
        }
        let answer = self.look_up((ChallengeType::TlsAlpn01, host.to_owned()))?;
        answer.certificate
    }

    /// Returns true if no validation is in progress.
    pub fn is_empty(&self) -> bool {
        self.0.pending.load(Ordering::Acquire) == 0
    }

    fn look_up(&self, question: Question) -> Option<Answer> {
        let answers = self.read_answers();
        let find = |table: &Table| table.0.get(&question)?.last().cloned();
        find(&answers.own).or_else(|| find(&answers.others))
    }

    /// Adds the response to a validation that this process has requested.
    fn add_answer(&self, stored: &ChallengeRecord) -> Result<(), Failure> {
        let answer = Answer::new(stored)?;
        self.change_answers(|answers| {
            if let Some(meanwhile) = &mut answers.meanwhile {
                meanwhile.insert(answer.key.clone());
            }
            answers.own.add(&stored.challenge, answer);
        });
        Ok(())
    }

    /// Undoes one [`Self::add_answer`] of this challenge, and drops what other instances have for
    /// it. Returns true if this process no longer responds to it.
    fn remove_answer(&self, challenge: &Challenge) -> bool {
        self.change_answers(|answers| {
            answers.own.remove(challenge);
            let is_over = answers.own.find(challenge).is_none();
            while is_over && answers.others.remove(challenge) {}
            is_over
        })
    }

    /// The storage keys of this process's own responses, which need not be read. Call this before
    /// the storage is read for [`Self::set_others`].
    fn own_keys(&self) -> HashSet<Key> {
        self.change_answers(|answers| {
            answers.meanwhile = Some(HashSet::new());
            let own = answers.own.0.values().flatten();
            own.map(|answer| answer.key.clone()).collect()
        })
    }

    /// Replaces the responses of other instances with those read. Certificates that exist already
    /// are kept.
    fn set_others(&self, stored: &[ChallengeRecord]) {
        let mut others = Vec::with_capacity(stored.len());
        for stored in stored {
            let known = self.read_answers().others.find(&stored.challenge).cloned();
            match known.map_or_else(|| Answer::new(stored), Ok) {
                Ok(answer) => others.push((&stored.challenge, answer)),
                Err(error) => tracing::warn!(
                    domain = %stored.challenge.domain,
                    %error,
                    "cannot answer a validation that another instance requested"
                ),
            }
        }
        self.change_answers(|answers| {
            // What this process has stored since is its own, and may be over by now.
            let own = answers.meanwhile.take().unwrap_or_default();
            answers.others = Table::default();
            for (challenge, answer) in others {
                if !own.contains(&answer.key) {
                    answers.others.add(challenge, answer);
                }
            }
        });
    }

    /// Adds a response of another instance, until the storage is read the next time.
    fn add_other(&self, stored: &ChallengeRecord) {
        let Ok(answer) = Answer::new(stored) else {
            return;
        };
        self.change_answers(|answers| {
            let challenge = &stored.challenge;
            let tables = [&answers.own, &answers.others];
            if tables.iter().all(|table| table.find(challenge).is_none()) {
                answers.others.add(challenge, answer);
            }
        });
    }

    /// Drops this process's responses that have expired at `now`: those of abandoned orders.
    fn remove_expired(&self, now: UnixTime) {
        if !self.is_empty() {
            self.change_answers(|answers| answers.own.retain(|answer| answer.expires >= now));
        }
    }

    fn change_answers<T>(&self, change: impl FnOnce(&mut Answers) -> T) -> T {
        let mut answers = self.0.answers.write_unpoisoned();
        let result = change(&mut answers);
        let pending = answers.own.0.len() + answers.others.0.len();
        self.0.pending.store(pending, Ordering::Release);
        result
    }

    /// A panic leaves no response half made.
    fn read_answers(&self) -> RwLockReadGuard<'_, Answers> {
        self.0.answers.read_unpoisoned()
    }
}

impl Challenge {
    fn question(&self) -> Question {
        let asked = match self.kind {
            ChallengeType::TlsAlpn01 => self.domain.dns_name().to_string(),
            _ => self.token.clone(),
        };
        (self.kind, asked)
    }

    /// Its key in the storage, for other instances. DNS challenges have none.
    fn key(&self) -> Result<Key, StorageError> {
        match self.kind {
            ChallengeType::Http01 => keys::http01_challenge(&self.token),
            ChallengeType::TlsAlpn01 => keys::tls_alpn01_challenge(&self.domain.dns_name()),
            ChallengeType::Dns01 | ChallengeType::DnsAccount01 | ChallengeType::DnsPersist01 => {
                Err(StorageError::Key(self.kind.as_str().to_owned()))
            }
        }
    }
}

impl Answer {
    fn new(stored: &ChallengeRecord) -> Result<Self, Failure> {
        let challenge = &stored.challenge;
        let key = challenge.check()?;
        let certificate = match challenge.kind {
            ChallengeType::TlsAlpn01 => {
                let certificate =
                    certificate::make_certificate(&challenge.domain, &challenge.key_authorization)?;
                Some(Arc::new(CertificateSet::single(Arc::new(certificate))))
            }
            _ => None,
        };
        Ok(Self {
            domain: challenge.domain.clone(),
            key_authorization: challenge.key_authorization.as_str().into(),
            certificate,
            key,
            expires: stored.expires,
        })
    }

    fn is_of(&self, challenge: &Challenge) -> bool {
        self.domain == challenge.domain && *self.key_authorization == *challenge.key_authorization
    }
}

impl Table {
    fn add(&mut self, challenge: &Challenge, answer: Answer) {
        self.0.entry(challenge.question()).or_default().push(answer);
    }

    fn find(&self, challenge: &Challenge) -> Option<&Answer> {
        let answers = self.0.get(&challenge.question())?;
        answers.iter().find(|answer| answer.is_of(challenge))
    }

    /// Removes one response to this challenge. Returns true if there was one.
    fn remove(&mut self, challenge: &Challenge) -> bool {
        let question = challenge.question();
        let Some(answers) = self.0.get_mut(&question) else {
            return false;
        };
        let at = answers.iter().position(|answer| answer.is_of(challenge));
        if let Some(at) = at {
            answers.remove(at);
        }
        if answers.is_empty() {
            self.0.remove(&question);
        }
        at.is_some()
    }

    /// Keeps the responses for which `keep` returns true, and no question without one.
    fn retain(&mut self, keep: impl Fn(&Answer) -> bool) {
        self.0.retain(|_, answers| {
            answers.retain(&keep);
            !answers.is_empty()
        });
    }
}

#[cfg(test)]
mod tests;
