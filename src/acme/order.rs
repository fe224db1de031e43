//! One certificate from one CA: from the order that an earlier attempt left, or a new one, to the
//! chain; and on to another order where a type of challenge failed and there is another type.

pub(super) mod chain;
pub(super) mod download;
pub(super) mod new_order;
pub(super) mod record;
pub(super) mod resume;
pub(super) mod retry;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use instant_acme::{Account as AcmeAccount, Error, Order, OrderStatus};
use openssl::pkey::{PKey, Private};
use zeroize::Zeroizing;

use super::account::Account;
use super::client::AcmeClient;
use super::directory::Ca;
use super::error::{self, Step};
use super::{AcmeIssuer, key};
use crate::acme::authorization::solvers::Solvers;
use crate::acme::error::problem::Problem;
use crate::acme::order::retry::{is_unreadable, retry_transient};
use crate::challenge::ChallengeType;
use crate::event::{EventKind, Severity};
use crate::issuer::{Issued, Request};
use crate::schedule::{FAILED_VALIDATIONS, Failure, FailureClass, Intent, Wait};
use crate::storage::{Key, keys};

/// How many orders one attempt makes at most.
const ORDERS: usize = 4;

/// A certificate on its way.
pub(super) struct OrderJob<'a> {
    pub(super) issuer: &'a AcmeIssuer,
    pub(super) ca: &'a Ca,
    pub(super) request: &'a Request,
    pub(super) client: &'a AcmeClient,
    pub(super) account: AcmeAccount,
    /// The same as it is stored, with its key.
    pub(super) stored_account: Arc<Account>,
    /// The solvers that its names may be validated with.
    pub(super) solvers: Solvers,
    /// Where the order is stored.
    pub(super) order_key: Key,
    /// Whether the last order that was asked for was one that names what it replaces.
    pub(super) replaces: &'a AtomicBool,
}

/// Why an order cannot be completed.
pub(super) enum OrderError {
    /// The CA knows nothing of the account.
    AccountLost,
    /// The CA did not validate some names.
    ChallengesFailed(Vec<FailedChallenge>),
    Failed(Failure),
    /// Our own limiter lets nothing through. The CA was not asked.
    Held(Failure),
}

impl From<Failure> for OrderError {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// A name that was not validated.
pub(super) struct FailedChallenge {
    pub(super) name: String,
    /// By which type; `None` where the CA does not say.
    pub(super) kind: Option<ChallengeType>,
    pub(super) problem: Problem,
}

/// Types of challenge that have failed for a name.
pub(super) type TriedChallenges = HashSet<(String, ChallengeType)>;

impl<'a> OrderJob<'a> {
    /// # Errors
    /// Where what is stored of the account cannot be used.
    pub(super) async fn prepare(
        issuer: &'a AcmeIssuer,
        ca: &'a Ca,
        request: &'a Request,
        client: &'a AcmeClient,
        account: &Arc<Account>,
        replaces: &'a AtomicBool,
    ) -> Result<Self, Failure> {
        let now = issuer.shared.clock.now();
        let opened = account.open(client).await.map_err(|error| {
            error::failure_of(&ca.host, Step::Account, &error, client, &request.names, now)
        })?;
        let place = keys::order(&ca.key, &request.subject)
            .map_err(|error| Failure::new(FailureClass::Internal, error.to_string()))?;
        let mut job = Self {
            issuer,
            ca,
            request,
            client,
            account: opened,
            stored_account: Arc::clone(account),
            solvers: Solvers::of(issuer, request.dns.as_deref()),
            order_key: place,
            replaces,
        };
        if job.is_rehearsal() {
            // Such a record names an account, and that at a staging environment is another.
            job.solvers.exclude(ChallengeType::DnsPersist01);
        }
        Ok(job)
    }

    /// Obtains the certificate.
    pub(super) async fn obtain_certificate(&self) -> Result<Issued, OrderError> {
        let mut spent = 0;
        let brought = self.complete_order(&mut spent).await;
        brought.map_err(|stop| match stop {
            OrderError::Failed(failure) if !self.is_rehearsal() => OrderError::Failed(Failure {
                failed_validations: spent,
                ..failure
            }),
            stop => stop,
        })
    }

    /// See [`Self::obtain_certificate`]. `spent` is how many validations have failed of any one
    /// name.
    async fn complete_order(&self, spent: &mut u32) -> Result<Issued, OrderError> {
        let mut left = self.resume_order(spent).await?;
        let mut tried = match left {
            Some(_) => TriedChallenges::new(),
            None => self.check_caa().await?,
        };
        for _ in 0..ORDERS {
            let (mut order, key, created) = match left.take() {
                Some((order, key, created)) => (order, key, Some(created)),
                None => {
                    let (order, key) = self.begin_order().await?;
                    (order, key, None)
                }
            };
            let mut is_finalized = false;
            let finished = self
                .finish_order(&mut order, &key, &tried, &mut is_finalized)
                .await;
            let unproved = match finished {
                Ok(chain) => {
                    if let Some(created) = created
                        && !self.is_new_certificate(&chain, created).await
                    {
                        self.delete_order().await;
                        continue;
                    }
                    let key = key
                        .private_key_to_pem_pkcs8()
                        .map_err(|error| internal_error(&error))?;
                    return Ok(Issued {
                        chain: chain.into_bytes(),
                        key: Zeroizing::new(key),
                    });
                }
                Err(OrderError::ChallengesFailed(unproved)) => unproved,
                Err(stop) => {
                    // What the CA is about to issue is fetched by the next attempt.
                    let is_over = order.state().status == OrderStatus::Invalid;
                    let is_coming = is_finalized && !is_over;
                    if !is_coming && !can_resume(&stop) {
                        self.abandon_order(&mut order).await;
                    }
                    return Err(stop);
                }
            };
            self.abandon_order(&mut order).await;
            *spent += 1;
            self.try_other_challenges(unproved, &mut tried, *spent)?;
        }
        let message = format!(
            "{} did not validate all names within {ORDERS} orders, by any type of challenge",
            self.ca.host
        );
        Err(OrderError::Failed(Failure::new(
            FailureClass::Validation,
            message,
        )))
    }

    /// Makes an order, and stores it with the key that its certificate will have.
    async fn begin_order(&self) -> Result<(Order, PKey<Private>), OrderError> {
        let (config, shared) = (&self.issuer.config, &self.issuer.shared);
        let profile = self.profile()?;
        let waiting = |wait: &Wait| {
            self.emit_progress(format!("an order at {}: {wait}", self.ca.host));
        };
        let names = &self.request.names;
        // Before its turn: an RSA key takes so long that the order would come too late.
        let key = self.new_or_reused_key().await?;
        let intent = Intent {
            names,
            replaces: self.replaced().is_some(),
        };
        let turn = shared.limits.wait_turn(self.ca, config, &intent, waiting);
        turn.await.map_err(OrderError::Held)?;
        let made = self.place_order(profile).await?;
        let order = self.store_order(made, &key).await?;
        self.emit_progress(format!("order created at {}", self.ca.host));
        Ok((order, key))
    }

    async fn new_or_reused_key(&self) -> Result<PKey<Private>, OrderError> {
        let config = &self.issuer.config;
        let previous = self.request.previous_key.as_deref();
        if config.reuse_key
            && let Some(key) = previous.and_then(|pem| key::reuse(pem, config.key_type))
        {
            return Ok(key);
        }
        let kind = config.key_type;
        match tokio::task::spawn_blocking(move || key::generate(kind)).await {
            Ok(key) => key.map_err(|error| internal_error(&error)),
            Err(error) => Err(internal_error(&error)),
        }
    }

    /// Brings an order to its end, whatever its state.
    async fn finish_order(
        &self,
        order: &mut Order,
        key: &PKey<Private>,
        tried: &TriedChallenges,
        is_finalized: &mut bool,
    ) -> Result<String, OrderError> {
        loop {
            match order.state().status {
                OrderStatus::Pending => self.authorize_names(order, tried).await?,
                OrderStatus::Ready if !*is_finalized => {
                    self.emit_progress(format!(
                        "validated; asking {} for the certificate",
                        self.ca.host
                    ));
                    self.finalize_order(order, key).await?;
                    *is_finalized = true;
                }
                OrderStatus::Ready | OrderStatus::Processing => self.await_issue(order).await?,
                OrderStatus::Valid => break,
                OrderStatus::Invalid => return Err(self.diagnose_order(order).await),
            }
        }
        *is_finalized = true;
        let chain = self.download_chain(order).await?;
        let chain = self.choose_chain(chain).await;
        self.emit_progress(format!("downloaded from {}", self.ca.host));
        self.note_lifetime(&chain);
        Ok(chain)
    }

    async fn finalize_order(
        &self,
        order: &mut Order,
        key: &PKey<Private>,
    ) -> Result<(), OrderError> {
        let terms = &self.issuer.config.order;
        let request = key::request(key, &self.request.names, terms);
        let request = request.map_err(|error| internal_error(&error))?;
        let finalized = retry_transient!(self, Step::Finalize, order.finalize_csr(&request).await);
        match finalized {
            // It has taken the request, and says how the order stands when it is asked.
            Err(error) if is_unreadable(&error) => Ok(()),
            finalized => finalized.map_err(|error| self.to_error(Step::Finalize, &error)),
        }
    }

    /// Notes which types have failed.
    ///
    /// # Errors
    /// Where there is no other for one of the names, or the CA allows no more failures for now.
    fn try_other_challenges(
        &self,
        unproved: Vec<FailedChallenge>,
        tried: &mut TriedChallenges,
        spent: u32,
    ) -> Result<(), OrderError> {
        let before = self.request.failed_validations;
        let is_borne = self.is_rehearsal() || before.saturating_add(spent) < FAILED_VALIDATIONS;
        for unproved in &unproved {
            tried.extend(unproved.kind.map(|kind| (unproved.name.clone(), kind)));
        }
        let others = unproved.len().saturating_sub(1);
        for FailedChallenge {
            name,
            kind,
            problem,
        } in unproved
        {
            let kind_or_any = kind.unwrap_or(ChallengeType::Http01);
            let failure = error::validation_failure(&self.ca.host, &name, kind_or_any, &problem);
            let mut failure = self.mark_rehearsed(problem.kind(), failure);
            let solvers = self.solvers.for_name(&name);
            let next = solvers
                .map(|solver| solver.kind())
                .find(|kind| !tried.contains(&(name.clone(), *kind)));
            match next {
                Some(next) if is_borne && kind.is_some() && error::may_fall_back(&problem) => {
                    let next = next.as_str();
                    self.emit_progress(format!("{}; trying {next} instead", failure.message));
                }
                _ => {
                    if others > 0 {
                        failure
                            .message
                            .push_str(&format!(" (and {others} more of its names)"));
                    }
                    return Err(OrderError::Failed(failure));
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
    pub(super) fn to_error(&self, step: Step, error: &Error) -> OrderError {
        if error::is_account_lost(error, self.client) {
            return OrderError::AccountLost;
        }
        let (host, names) = (&self.ca.host, &self.request.names);
        let failure = error::failure_of(host, step, error, self.client, names, self.now());
        let problem = self.client.refusal().and_then(|refusal| refusal.problem);
        let kind = problem.as_ref().map_or("", Problem::kind);
        OrderError::Failed(self.mark_rehearsed(kind, failure))
    }

    /// A failure as it counts where this is a rehearsal: CAA records may name an account, and that
    /// at a staging environment is another. It says nothing of the names.
    pub(super) fn mark_rehearsed(&self, kind: &str, failure: Failure) -> Failure {
        if kind == "caa" && self.is_rehearsal() {
            return Failure {
                class: FailureClass::Configuration,
                ..failure
            };
        }
        failure
    }

    /// Emits a step on the way.
    pub(super) fn emit_progress(&self, message: String) {
        self.emit_event(EventKind::CertificateProgress, Severity::Info, message);
    }

    pub(super) fn emit_event(&self, kind: EventKind, severity: Severity, message: String) {
        self.issuer
            .emit_event(self.request, kind, severity, message);
    }
}

/// Whether a later attempt may resume the order.
pub(super) fn can_resume(stop: &OrderError) -> bool {
    match stop {
        OrderError::Failed(failure) => matches!(
            failure.class,
            FailureClass::Network | FailureClass::RateLimited | FailureClass::Storage
        ),
        // Nobody can do anything with it, and nobody is there to be asked.
        OrderError::AccountLost | OrderError::Held(_) => true,
        OrderError::ChallengesFailed(_) => false,
    }
}

/// What should not be possible.
pub(super) fn internal_error(error: &dyn std::error::Error) -> OrderError {
    let message =
        format!("cannot create a key or a certificate request: {error}; please report this");
    OrderError::Failed(Failure::new(FailureClass::Internal, message))
}
