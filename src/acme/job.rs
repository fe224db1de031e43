//! One certificate from one CA: from the order that a former attempt left, or a new one, to the
//! chain; and on to another order where a type of challenge failed and there is another type.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use instant_acme::{Account as AcmeAccount, Error, Order, OrderStatus};
use openssl::pkey::{PKey, Private};
use zeroize::Zeroizing;

use super::account::Account;
use super::ca::Ca;
use super::classify::{self, Step};
use super::lag::{is_unreadable, persistently};
use super::problem::Problem;
use super::session::Session;
use super::ways::Ways;
use super::{AcmeIssuer, key};
use crate::challenge::ChallengeType;
use crate::event::{EventKind, Severity};
use crate::issuer::{Issued, Request};
use crate::schedule::{FAILED_VALIDATIONS, Failure, FailureClass, Intent, Wait};
use crate::storage::{Key, keys};

/// How many orders one attempt makes at most.
const ORDERS: usize = 4;

/// A certificate on its way.
pub(super) struct Job<'a> {
    pub(super) issuer: &'a AcmeIssuer,
    pub(super) ca: &'a Ca,
    pub(super) request: &'a Request,
    pub(super) session: &'a Session,
    pub(super) account: AcmeAccount,
    /// The same as it is kept, with its key.
    pub(super) kept: Arc<Account>,
    /// By what its names may be proved.
    pub(super) ways: Ways,
    /// Where the order is kept.
    pub(super) place: Key,
    /// Whether the last order that was asked for was one that names what it replaces.
    pub(super) replaces: &'a AtomicBool,
}

/// Why an order goes no further.
pub(super) enum Stop {
    /// The CA knows nothing of the account.
    AccountLost,
    /// The CA did not find the proof of some names.
    Unproved(Vec<Unproved>),
    Failed(Failure),
    /// Our own limiter lets nothing through. The CA was not asked.
    Held(Failure),
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// A name that was not validated.
pub(super) struct Unproved {
    pub(super) name: String,
    /// By which type; `None` where the CA does not say.
    pub(super) kind: Option<ChallengeType>,
    pub(super) problem: Problem,
}

/// Types of challenge that have failed for a name.
pub(super) type Tried = HashSet<(String, ChallengeType)>;

impl<'a> Job<'a> {
    /// # Errors
    /// Where what is stored of the account cannot be used.
    pub(super) async fn open(
        issuer: &'a AcmeIssuer,
        ca: &'a Ca,
        request: &'a Request,
        session: &'a Session,
        account: &Arc<Account>,
        replaces: &'a AtomicBool,
    ) -> Result<Self, Failure> {
        let now = issuer.shared.clock.now();
        let opened = account.open(session).await.map_err(|error| {
            classify::failed(
                &ca.host,
                Step::Account,
                &error,
                session,
                &request.names,
                now,
            )
        })?;
        let place = keys::order(&ca.key, &request.subject)
            .map_err(|error| Failure::new(FailureClass::Internal, error.to_string()))?;
        let mut job = Self {
            issuer,
            ca,
            request,
            session,
            account: opened,
            kept: Arc::clone(account),
            ways: Ways::of(issuer, request.dns.as_deref()),
            place,
            replaces,
        };
        if job.is_rehearsal() {
            // Such a record names an account, and that at a staging environment is another.
            job.ways.leave_out(ChallengeType::DnsPersist01);
        }
        Ok(job)
    }

    /// Brings the certificate.
    pub(super) async fn run(&self) -> Result<Issued, Stop> {
        let mut spent = 0;
        let brought = self.bring(&mut spent).await;
        brought.map_err(|stop| match stop {
            Stop::Failed(failure) if !self.is_rehearsal() => Stop::Failed(Failure {
                failed_validations: spent,
                ..failure
            }),
            stop => stop,
        })
    }

    /// See [`Self::run`]. `spent` is how many validations have failed of any one name.
    async fn bring(&self, spent: &mut u32) -> Result<Issued, Stop> {
        let mut left = self.resume(spent).await?;
        let mut tried = match left {
            Some(_) => Tried::new(),
            None => self.check_caa().await?,
        };
        for _ in 0..ORDERS {
            let (mut order, key, created) = match left.take() {
                Some((order, key, created)) => (order, key, Some(created)),
                None => {
                    let (order, key) = self.begin().await?;
                    (order, key, None)
                }
            };
            let mut is_finalized = false;
            let finished = self
                .finish(&mut order, &key, &tried, &mut is_finalized)
                .await;
            let unproved = match finished {
                Ok(chain) => {
                    if let Some(created) = created
                        && !self.is_news(&chain, created).await
                    {
                        self.forget().await;
                        continue;
                    }
                    let key = key
                        .private_key_to_pem_pkcs8()
                        .map_err(|error| broken(&error))?;
                    return Ok(Issued {
                        chain: chain.into_bytes(),
                        key: Zeroizing::new(key),
                    });
                }
                Err(Stop::Unproved(unproved)) => unproved,
                Err(stop) => {
                    // What the CA is about to issue is fetched by the next attempt.
                    let is_over = order.state().status == OrderStatus::Invalid;
                    let is_coming = is_finalized && !is_over;
                    if !is_coming && !may_go_on(&stop) {
                        self.abandon(&mut order).await;
                    }
                    return Err(stop);
                }
            };
            self.abandon(&mut order).await;
            *spent += 1;
            self.fall_back(unproved, &mut tried, *spent)?;
        }
        let message = format!(
            "{} did not validate all names within {ORDERS} orders, by whatever type of challenge",
            self.ca.host
        );
        Err(Stop::Failed(Failure::new(
            FailureClass::Validation,
            message,
        )))
    }

    /// Makes an order, and keeps it with the key that its certificate will have.
    async fn begin(&self) -> Result<(Order, PKey<Private>), Stop> {
        let (config, shared) = (&self.issuer.config, &self.issuer.shared);
        let profile = self.profile()?;
        let waiting = |wait: &Wait| {
            self.progress(format!("an order at {} {wait}", self.ca.host));
        };
        let names = &self.request.names;
        // Before its turn: an RSA key takes so long that the order would come too late.
        let key = self.key().await?;
        let intent = Intent {
            names,
            replaces: self.replaced().is_some(),
        };
        let turn = shared.limits.turn(self.ca, config, &intent, waiting);
        turn.await.map_err(Stop::Held)?;
        let made = self.place_order(profile).await?;
        let order = self.keep(made, &key).await?;
        self.progress(format!("order made at {}", self.ca.host));
        Ok((order, key))
    }

    async fn key(&self) -> Result<PKey<Private>, Stop> {
        let config = &self.issuer.config;
        let previous = self.request.previous_key.as_deref();
        if config.reuse_key
            && let Some(key) = previous.and_then(|pem| key::reuse(pem, config.key_type))
        {
            return Ok(key);
        }
        let kind = config.key_type;
        match tokio::task::spawn_blocking(move || key::generate(kind)).await {
            Ok(key) => key.map_err(|error| broken(&error)),
            Err(error) => Err(broken(&error)),
        }
    }

    /// Brings an order to its end, whatever its state.
    async fn finish(
        &self,
        order: &mut Order,
        key: &PKey<Private>,
        tried: &Tried,
        is_finalized: &mut bool,
    ) -> Result<String, Stop> {
        loop {
            match order.state().status {
                OrderStatus::Pending => self.prove(order, tried).await?,
                OrderStatus::Ready if !*is_finalized => {
                    self.progress(format!("validated; asking {} for it", self.ca.host));
                    self.finalize(order, key).await?;
                    *is_finalized = true;
                }
                OrderStatus::Ready | OrderStatus::Processing => self.await_issue(order).await?,
                OrderStatus::Valid => break,
                OrderStatus::Invalid => return Err(self.diagnose(order).await),
            }
        }
        *is_finalized = true;
        let chain = self.download(order).await?;
        let chain = self.prefer(chain).await;
        self.progress(format!("downloaded from {}", self.ca.host));
        self.note_lifetime(&chain);
        Ok(chain)
    }

    async fn finalize(&self, order: &mut Order, key: &PKey<Private>) -> Result<(), Stop> {
        let terms = &self.issuer.config.order;
        let request = key::request(key, &self.request.names, terms);
        let request = request.map_err(|error| broken(&error))?;
        let finalized = persistently!(self, Step::Finalize, order.finalize_csr(&request).await);
        match finalized {
            // It has taken the request, and says how the order stands when it is asked.
            Err(error) if is_unreadable(&error) => Ok(()),
            finalized => finalized.map_err(|error| self.stop(Step::Finalize, &error)),
        }
    }

    /// Notes which types have failed.
    ///
    /// # Errors
    /// Where there is no other for one of the names, or the CA bears no more failures for now.
    fn fall_back(
        &self,
        unproved: Vec<Unproved>,
        tried: &mut Tried,
        spent: u32,
    ) -> Result<(), Stop> {
        let before = self.request.failed_validations;
        let is_borne = self.is_rehearsal() || before.saturating_add(spent) < FAILED_VALIDATIONS;
        for unproved in &unproved {
            tried.extend(unproved.kind.map(|kind| (unproved.name.clone(), kind)));
        }
        let others = unproved.len().saturating_sub(1);
        for Unproved {
            name,
            kind,
            problem,
        } in unproved
        {
            let kind_or_any = kind.unwrap_or(ChallengeType::Http01);
            let failure = classify::not_validated(&self.ca.host, &name, kind_or_any, &problem);
            let mut failure = self.as_rehearsed(problem.kind(), failure);
            let ways = self.ways.for_name(&name);
            let next = ways
                .map(|solver| solver.kind())
                .find(|kind| !tried.contains(&(name.clone(), *kind)));
            match next {
                Some(next) if is_borne && kind.is_some() && classify::may_fall_back(&problem) => {
                    let next = next.as_str();
                    self.progress(format!("{}; trying {next} instead", failure.message));
                }
                _ => {
                    if others > 0 {
                        failure
                            .message
                            .push_str(&format!(" (and {others} more of its names)"));
                    }
                    return Err(Stop::Failed(failure));
                }
            }
        }
        Ok(())
    }

    /// Whether this is at the staging environment.
    pub(super) fn is_rehearsal(&self) -> bool {
        !std::ptr::eq(self.ca, &raw const self.issuer.ca)
    }

    pub(super) fn now(&self) -> i64 {
        self.issuer.shared.clock.now()
    }

    /// What an error of instant-acme's means.
    pub(super) fn stop(&self, step: Step, error: &Error) -> Stop {
        if classify::is_account_lost(error, self.session) {
            return Stop::AccountLost;
        }
        let (host, names) = (&self.ca.host, &self.request.names);
        let failure = classify::failed(host, step, error, self.session, names, self.now());
        let problem = self.session.refusal().and_then(|refusal| refusal.problem);
        let kind = problem.as_ref().map_or("", Problem::kind);
        Stop::Failed(self.as_rehearsed(kind, failure))
    }

    /// A failure as it counts where this is a rehearsal: CAA records may name an account, and that
    /// at a staging environment is another. It says nothing of the names.
    pub(super) fn as_rehearsed(&self, kind: &str, failure: Failure) -> Failure {
        if kind == "caa" && self.is_rehearsal() {
            return Failure {
                class: FailureClass::Configuration,
                ..failure
            };
        }
        failure
    }

    /// Tells a step on the way.
    pub(super) fn progress(&self, message: String) {
        self.emit(EventKind::CertificateProgress, Severity::Info, message);
    }

    pub(super) fn emit(&self, kind: EventKind, severity: Severity, message: String) {
        self.issuer.emit(self.request, kind, severity, message);
    }
}

/// Whether a later attempt may go on with the order.
pub(super) fn may_go_on(stop: &Stop) -> bool {
    match stop {
        Stop::Failed(failure) => matches!(
            failure.class,
            FailureClass::Network | FailureClass::RateLimited | FailureClass::Storage
        ),
        // Nobody can do anything with it, and nobody is there to be asked.
        Stop::AccountLost | Stop::Held(_) => true,
        Stop::Unproved(_) => false,
    }
}

/// What should not be possible.
pub(super) fn broken(error: &dyn std::error::Error) -> Stop {
    let message = format!("a key or a request cannot be made: {error}; please report this");
    Stop::Failed(Failure::new(FailureClass::Internal, message))
}
