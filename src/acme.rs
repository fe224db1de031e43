//! Certificates from CAs that speak ACME (RFC 8555), on instant-acme over OpenSSL.
//!
//! An [`AcmeIssuer`] obtains one certificate per call: account, order, validation, key, download.
//! Anything the process must not lose is stored before it matters, so that a later call resumes an
//! order instead of creating another. It serves nothing and stores no certificate; when to call it
//! is decided elsewhere.

/// Repeats a call while the CA rejects the nonce, beyond the few times that instant-acme does so
/// itself. A macro, because the calls borrow in ways that a closure cannot.
macro_rules! retry_bad_nonce {
    ($call:expr) => {{
        let mut left = 6_u32;
        loop {
            match $call {
                Err(error) if left > 0 && $crate::acme::error::is_bad_nonce(&error) => left -= 1,
                result => break result,
            }
        }
    }};
}

mod account;
mod authorization;
mod ca;
mod client;
mod directory;
mod error;
mod json;
mod jws;
mod key;
mod lenient;
mod order;
mod order_ctx;
mod preflight;
mod problem;
mod rate_limit;
mod refusal;
mod renewal_info;
mod retry;
mod revoke;
mod single_flight;
mod solvers;
mod zerossl;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;

use self::account::{AccountCtx, Accounts};
use self::ca::Ca;
use self::order::obtain_certificate;
use self::order_ctx::{OrderCtx, OrderError};
use self::preflight::rehearsal::{is_rehearsed, rehearse_order};
use self::preflight::run_preflight;
use self::rate_limit::{Limits, limited_failure};
use self::renewal_info::fetch_renewal_info;
use self::solvers::Solvers;
use crate::certificate::TlsCertificate;
use crate::challenge::{ChallengeSolver, DnsSolvers};
use crate::clock::Clock;
use crate::config::model::Acme;
use crate::event::{Event, EventBus, EventKind, Severity};
use crate::host::Pattern;
use crate::issuer::{
    AccountFacts, AccountTask, Finding, Issued, Issuer, Preflight, Request, Revocation,
};
use crate::printable::one_line;
use crate::schedule::{Failure, FailureClass, Intent, RenewalInfo, Wait};
use crate::storage::{Key, PendingWrites, Storage, blocking, keys};

/// What all ACME issuers of a process share, across reloads too: accounts, and the limits of CAs.
pub struct Shared {
    storage: Arc<dyn Storage>,
    clock: Arc<dyn Clock>,
    events: EventBus,
    accounts: Accounts,
    limits: Limits,
    dns: Option<DnsSolvers>,
}

impl Shared {
    /// Reads nothing yet.
    pub fn new(storage: Arc<dyn Storage>, clock: Arc<dyn Clock>, events: EventBus) -> Self {
        Self {
            accounts: Accounts::new(Arc::clone(&storage), Arc::clone(&clock), events.clone()),
            limits: Limits::new(Arc::clone(&storage), Arc::clone(&clock)),
            storage,
            clock,
            events,
            dns: None,
        }
    }

    /// Queues accounts that cannot be stored in `pending_writes`.
    pub fn with_backlog(mut self, pending_writes: PendingWrites) -> Self {
        self.accounts.use_backlog(pending_writes);
        self
    }

    /// Lets names be validated by DNS records.
    pub fn with_dns(mut self, dns: DnsSolvers) -> Self {
        self.dns = Some(dns);
        self
    }
}

/// A CA with ACME (RFC 8555). Programs begin with [`Self::builder`].
pub struct AcmeIssuer {
    name: Arc<str>,
    config: Arc<Acme>,
    solvers: Vec<Arc<dyn ChallengeSolver>>,
    shared: Arc<Shared>,
    ca: Ca,
    staging: Option<Ca>,
    /// See [`keys::account_of`].
    account_id: String,
    /// Whether the account is known to exist.
    has_account: AtomicBool,
}

#[doc(hidden)]
impl AcmeIssuer {
    /// Reads nothing and contacts nobody yet: problems with a CA, its roots or its account surface
    /// when a certificate is requested.
    pub fn new(
        name: Arc<str>,
        config: Arc<Acme>,
        solvers: Vec<Arc<dyn ChallengeSolver>>,
        shared: Arc<Shared>,
    ) -> Self {
        let ca = |url: &String| Ca::new(url, Arc::clone(&config), Arc::clone(&shared.clock));
        let main = ca(&config.directory);
        let key_id = config.eab.as_ref().map(|eab| eab.key_id.as_str());
        Self {
            account_id: keys::account_of(&main.key, config.email.as_deref(), key_id),
            has_account: AtomicBool::new(false),
            ca: main,
            staging: config.staging.as_ref().map(ca),
            name,
            solvers,
            shared,
            config,
        }
    }

    /// Obtains a certificate from one CA, and records any limit that is met.
    async fn obtain_from(&self, ca: &Ca, request: &Request) -> Result<Issued, Failure> {
        let replaces = AtomicBool::new(false);
        match self.run_order(ca, request, &replaces).await {
            Ok(issued) => Ok(issued),
            Err(OrderError::Failed(failure)) => {
                // The record of a limit is shown to people too.
                let failure = with_single_lines(failure);
                let intent = Intent {
                    names: &request.names,
                    replaces: replaces.into_inner(),
                };
                self.record_limits(ca, &intent, &failure).await;
                Err(failure)
            }
            // This limit is known already.
            Err(OrderError::Held(failure)) => Err(failure),
            Err(OrderError::AccountLost | OrderError::ChallengesFailed(_)) => {
                let message = format!(
                    "{} does not recognize the account that it has just created; report this to \
                     the CA",
                    ca.host
                );
                Err(Failure::new(FailureClass::Network, message))
            }
        }
    }

    async fn run_order(
        &self,
        ca: &Ca,
        request: &Request,
        replaces: &AtomicBool,
    ) -> Result<Issued, OrderError> {
        let client = ca.client().await?;
        let (accounts, config) = (&self.shared.accounts, &self.config);
        let ctx = AccountCtx {
            ca,
            config,
            client: &client,
        };
        let _in_use = accounts.lock_shared(ctx).await?;
        if let Some(wait) = self.shared.limits.registration_held(ca, config)
            && !accounts.has(ca, config).await
        {
            return Err(OrderError::Held(limited_failure(&ca.host, wait)));
        }
        let account = accounts.get_or_register(ctx).await?;
        if std::ptr::eq(ca, &raw const self.ca) {
            self.has_account.store(true, Ordering::Relaxed);
        }
        let order = OrderCtx::prepare(self, ca, request, &client, &account, replaces).await?;
        match obtain_certificate(&order).await {
            Err(OrderError::AccountLost) => {}
            result => return result,
        }
        self.emit_progress(
            request,
            format!("{} has lost the account: creating a new one", ca.host),
        );
        if let Some(wait) = self.shared.limits.registration_held(ca, config) {
            return Err(OrderError::Held(limited_failure(&ca.host, wait)));
        }
        let account = accounts.replace_lost(&account, ctx).await?;
        let order = OrderCtx::prepare(self, ca, request, &client, &account, replaces).await?;
        obtain_certificate(&order).await
    }

    /// Deletes a stored order. If that fails, the order is recognized later by its certificate.
    async fn delete_order(&self, place: Key) {
        let removed = blocking(&self.shared.storage, move |storage| storage.delete(&place));
        if let Err(error) = removed.await {
            tracing::warn!(%error, "cannot delete a finished order from the storage");
        }
    }

    fn emit_progress(&self, request: &Request, message: String) {
        let kind = EventKind::CertificateProgress;
        self.emit_event(request, kind, Severity::Info, message);
    }

    /// Emits an event on the way to a certificate.
    fn emit_event(&self, request: &Request, kind: EventKind, severity: Severity, message: String) {
        let now = self.shared.clock.now();
        let mut event = Event::new(now, kind, severity, request.domain(), single_line(&message));
        event.issuer = Some(Arc::clone(&self.name));
        event.attempt = Some(request.failures.saturating_add(1));
        self.shared.events.emit(event);
    }
}

#[async_trait]
impl Issuer for AcmeIssuer {
    fn name(&self) -> &Arc<str> {
        &self.name
    }

    fn ca(&self) -> &str {
        &self.ca.key
    }

    fn account_id(&self) -> &str {
        &self.account_id
    }

    fn asks_for_must_staple(&self) -> bool {
        self.config.order.must_staple
    }

    async fn issue(&self, request: &Request) -> Result<Issued, Failure> {
        let attempt = async {
            Solvers::of(self, request.dns.as_deref()).check_names(&request.names)?;
            if let Some(staging) = self.staging.as_ref().filter(|_| is_rehearsed(request)) {
                rehearse_order(self, staging, request).await?;
            }
            self.obtain_from(&self.ca, request).await
        };
        attempt.await.map_err(|mut failure| {
            failure.message = single_line(&format!("{}: {}", request.domain(), failure.message));
            failure
        })
    }

    async fn renewal_info(
        &self,
        certificate: &TlsCertificate,
    ) -> Result<Option<RenewalInfo>, Failure> {
        let info = fetch_renewal_info(&self.ca, certificate, self.shared.clock.now()).await;
        info.map_err(with_single_lines)
    }

    /// If the result is `Ok`, a place at the configured pace is reserved for the short time until
    /// [`Self::issue`] is called: of many jobs that start at once, only as many pass as there are
    /// places.
    fn ready(&self, intent: &Intent<'_>) -> Result<(), Wait> {
        if let Some(wait) = self.registration_held() {
            return Err(wait);
        }
        let intent = self.as_taken(intent);
        self.shared
            .limits
            .check_ready(&self.ca, &self.config, &intent)
    }

    fn held(&self, intent: &Intent<'_>) -> Option<Wait> {
        let limits = &self.shared.limits;
        let held = limits.current_wait(&self.ca, &self.config, &self.as_taken(intent));
        held.or_else(|| self.registration_held())
    }

    fn limits(&self) -> Vec<Wait> {
        self.shared.limits.all_waits(&self.ca, &self.config)
    }

    async fn refresh_limits(&self) -> bool {
        self.take_over_limits().await
    }

    async fn preflight(&self, preflight: &Preflight) -> Vec<Finding> {
        let mut findings = run_preflight(self, preflight).await;
        for finding in &mut findings {
            finding.message = single_line(&finding.message);
        }
        findings
    }

    fn clear_limits(&self, names: &[Pattern]) {
        self.shared
            .limits
            .clear_limits(&self.ca, &self.config, names);
    }

    async fn on_stored(&self, request: &Request) {
        if let Ok(place) = keys::order(&self.ca.key, &request.subject) {
            self.delete_order(place).await;
        }
    }

    async fn on_rejected(&self, request: &Request, refused: &Failure) {
        // The certificate may be valid at another time: the order stays, and no other is created
        // for now.
        match refused.class {
            FailureClass::Clock => {
                let intent = Intent::new(&request.names);
                self.record_limits(&self.ca, &intent, refused).await;
            }
            _ => self.on_stored(request).await,
        }
    }

    async fn revoke(&self, revocation: &Revocation) -> Result<(), Failure> {
        revoke::revoke(self, revocation)
            .await
            .map_err(with_single_lines)
    }

    async fn account(&self, task: &AccountTask) -> Result<AccountFacts, Failure> {
        let (ca, config, accounts) = (&self.ca, &self.config, &self.shared.accounts);
        let cared = match ca.client().await {
            Ok(client) => {
                let ctx = AccountCtx {
                    ca,
                    config,
                    client: &client,
                };
                accounts.care(task, ctx).await
            }
            Err(failure) if *task == AccountTask::Show => {
                accounts.remember(ca, config, &failure).await
            }
            Err(failure) => Err(failure),
        };
        cared.map_err(with_single_lines)
    }
}

fn with_single_lines(mut failure: Failure) -> Failure {
    failure.message = single_line(&failure.message);
    failure
}

/// Text that may come from a CA, as one line of bounded length: it goes into logs.
fn single_line(text: &str) -> String {
    const LONGEST: usize = 2000;
    one_line(text, LONGEST)
}
