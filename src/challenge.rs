//! Validations under way: what is answered to a CA that looks whether a name is ours.
//!
//! Solvers put answers into [`Challenges`], listeners look them up. Listeners look often and find
//! hardly ever something: while no validation is under way a look-up is one load of a flag.
//! Answers go through the storage as well, from where [`follow`] takes those of other instances:
//! a CA may come to any of them. Nothing here speaks to a CA or to a client.

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
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};

use async_trait::async_trait;

use crate::certificate::sni::CertificateSet;
use crate::clock::{Clock, UnixTime};
use crate::host::{Host, Identifier};
use crate::schedule::Failure;
use crate::storage::{Key, Storage, StorageError, keys};

/// A way to prove control of a name (RFC 8555, section 8; RFC 8737).
pub use crate::config::model::ChallengeType;

pub use self::dns::{Dns01Solver, DnsPersist01Solver, DnsSolvers};
pub use self::solver::{Http01Solver, TlsAlpn01Solver};
pub use self::sync::{read_once, sync_with_storage};

use self::instance::Instance;
use self::look_up::LookUps;
use self::name_lock::NameLocks;
use self::record::ChallengeRecord;

/// One validation that a CA is about to carry out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge {
    pub kind: ChallengeType,
    /// The name or address to be proved; of a wildcard the name without its first label.
    pub domain: Identifier,
    pub token: String,
    /// Token and account thumbprint (RFC 8555, section 8.1).
    pub key_authorization: String,
    /// For types over the DNS alone.
    pub dns: Option<DnsContext>,
}

/// What a challenge in the DNS needs beside its token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DnsContext {
    /// The URL of the account at the CA.
    pub account: String,
    pub is_wildcard: bool,
    /// The names by which the CA may be named in a lasting record; empty where it does not say.
    pub issuers: Vec<String>,
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

    /// Leaves the proof where it is, until it expires: nobody comes to clean it up, and nobody is
    /// to wait for that.
    fn abandon(&self, _challenge: &Challenge) {}
}

/// The answers to validations under way. A handle; clones share the answers.
#[derive(Clone, Default)]
pub struct Challenges(Arc<Shared>);

#[derive(Default)]
struct Shared {
    /// How many answers there are.
    pending: AtomicUsize,
    answers: RwLock<Answers>,
    /// Held by whoever looks at the storage as a whole.
    looking: Mutex<()>,
    /// This process among those with the same storage.
    instance: Instance,
    /// Locks of names over TLS.
    name_locks: NameLocks,
    /// Where to look for what is not known.
    look_ups: Option<LookUps>,
}

#[derive(Default)]
struct Answers {
    /// To validations that this process has asked for.
    own: Table,
    /// To validations that other instances have asked for.
    others: Table,
    /// While the storage is read: where answers of this process have been stored meanwhile.
    meanwhile: Option<HashSet<Key>>,
}

/// Answers by what is asked. There may be several to one question, where other instances have asked
/// as well or the same challenge is of two orders; the last one answers.
#[derive(Default)]
struct Table(HashMap<Question, Vec<Answer>>);

/// What a CA asks by: the token over HTTP, the name over TLS.
type Question = (ChallengeType, String);

#[derive(Clone)]
struct Answer {
    domain: Identifier,
    key_authorization: Arc<str>,
    /// For validations by TLS alone.
    certificate: Option<Arc<CertificateSet>>,
    /// Where it is stored for other instances.
    key: Key,
    /// The last second in which it is of use to anybody.
    expires: UnixTime,
}

impl Challenges {
    /// Answers that [`Self::look_up_token`] looks for in `storage`; without one nothing is looked
    /// for.
    pub fn stored_in(storage: Arc<dyn Storage>, clock: Arc<dyn Clock>) -> Self {
        Self(Arc::new(Shared {
            look_ups: Some(LookUps::new(storage, clock)),
            ..Shared::default()
        }))
    }

    /// What `/.well-known/acme-challenge/TOKEN` answers on `host`.
    pub fn http01(&self, host: Host<'_>, token: &str) -> Option<Arc<str>> {
        if self.is_empty() || !keys::is_token(token) {
            return None;
        }
        let answer = self.look_up((ChallengeType::Http01, token.to_owned()))?;
        answer.domain.is(host).then_some(answer.key_authorization)
    }

    /// The certificate for a client that speaks nothing but `acme-tls/1` and asks for `host`, a
    /// name in normal form. For an address it asks by [`Identifier::dns_name`].
    pub fn tls_alpn01(&self, host: &str) -> Option<Arc<CertificateSet>> {
        if self.is_empty() {
            return None;
        }
        let answer = self.look_up((ChallengeType::TlsAlpn01, host.to_owned()))?;
        answer.certificate
    }

    /// Whether no validation is under way.
    pub fn is_empty(&self) -> bool {
        self.0.pending.load(Ordering::Acquire) == 0
    }

    fn look_up(&self, question: Question) -> Option<Answer> {
        let answers = self.read_answers();
        let find = |table: &Table| table.0.get(&question)?.last().cloned();
        find(&answers.own).or_else(|| find(&answers.others))
    }

    /// Answers a validation of this process from now on.
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

    /// Ends one [`Self::add_answer`] of this challenge, and what others are known to answer to it.
    /// Whether this process answers to it no longer.
    fn remove_answer(&self, challenge: &Challenge) -> bool {
        self.change_answers(|answers| {
            answers.own.remove(challenge);
            let is_over = answers.own.find(challenge).is_none();
            while is_over && answers.others.remove(challenge) {}
            is_over
        })
    }

    /// To be called before the storage is read for [`Self::set_others`]. Where the answers of this
    /// process are stored: they need not be read.
    fn own_keys(&self) -> HashSet<Key> {
        self.change_answers(|answers| {
            answers.meanwhile = Some(HashSet::new());
            let own = answers.own.0.values().flatten();
            own.map(|answer| answer.key.clone()).collect()
        })
    }

    /// Replaces what other instances answer by what was read. Certificates that are there already
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
            // What this process has stored since is its own; it may be over by now.
            let own = answers.meanwhile.take().unwrap_or_default();
            answers.others = Table::default();
            for (challenge, answer) in others {
                if !own.contains(&answer.key) {
                    answers.others.add(challenge, answer);
                }
            }
        });
    }

    /// Answers what was found of another instance, until the storage is read the next time.
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

    /// Drops answers of this process that are of use to nobody at `now`: of orders that were
    /// given up in the middle.
    fn remove_expired(&self, now: UnixTime) {
        if !self.is_empty() {
            self.change_answers(|answers| answers.own.retain(|answer| answer.expires >= now));
        }
    }

    fn change_answers<T>(&self, change: impl FnOnce(&mut Answers) -> T) -> T {
        let mut answers = self
            .0
            .answers
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let result = change(&mut answers);
        let pending = answers.own.0.len() + answers.others.0.len();
        self.0.pending.store(pending, Ordering::Release);
        result
    }

    /// A panic in between leaves no answer half made.
    fn read_answers(&self) -> RwLockReadGuard<'_, Answers> {
        self.0
            .answers
            .read()
            .unwrap_or_else(PoisonError::into_inner)
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

    /// Where it is stored for other instances. What is answered by the DNS is not for them.
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

    /// Removes one answer to this challenge; whether there was one.
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

    /// Keeps the answers that `keep` says, and no question without one.
    fn retain(&mut self, keep: impl Fn(&Answer) -> bool) {
        self.0.retain(|_, answers| {
            answers.retain(&keep);
            !answers.is_empty()
        });
    }
}

#[cfg(test)]
mod tests;
