//! Certificates from CAs that speak ACME (RFC 8555), on instant-acme over OpenSSL.
//!
//! An [`AcmeIssuer`] obtains one certificate per call: account, order, validation, key, download.
//! What the process must not lose is in the storage before it matters, so that a later call goes on
//! with an order instead of making another. It serves nothing and stores no certificate; when to
//! call it is decided elsewhere.

/// Makes a call again as often as the CA did not take the nonce, beyond the few times that
/// instant-acme does so itself. A macro, since the calls lend what a closure cannot.
macro_rules! patiently {
    ($call:expr) => {{
        let mut left = 6_u32;
        loop {
            match $call {
                Err(error) if left > 0 && $crate::acme::classify::is_bad_nonce(&error) => left -= 1,
                result => break result,
            }
        }
    }};
}

mod account;
mod base64url;
mod ca;
mod caa;
mod chain;
mod class;
mod classify;
mod download;
mod flight;
mod job;
mod kept;
mod key;
mod lag;
mod lenient;
mod limited;
mod limits;
mod look;
mod order;
mod problem;
mod proofs;
mod record;
mod rehearsal;
mod renewal_info;
mod revoke;
mod scope;
mod session;
mod signed;
mod step;
mod trial;
mod validation;
mod ways;
mod zerossl;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;

use self::account::{Accounts, Want};
use self::ca::Ca;
use self::job::{Job, Stop};
use self::limits::{Limits, limited};
use self::rehearsal::is_rehearsed;
use self::ways::Ways;
use crate::certificate::TlsCertificate;
use crate::challenge::{ChallengeSolver, DnsSolvers};
use crate::clock::Clock;
use crate::config::model::Acme;
use crate::event::{Event, EventBus, EventKind, Severity};
use crate::host::Pattern;
use crate::issuer::{
    AccountFacts, AccountTask, Finding, Issued, Issuer, Request, Revocation, Trial,
};
use crate::printable::one_line;
use crate::schedule::{Failure, FailureClass, Intent, RenewalInfo, Wait};
use crate::storage::{Backlog, Key, Storage, blocking, keys};

/// What all ACME issuers of a process share, over reloads too: accounts, and the limits of CAs.
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

    /// Has accounts that cannot be stored wait there.
    pub fn with_backlog(mut self, backlog: Backlog) -> Self {
        self.accounts.wait_in(backlog);
        self
    }

    /// Lets names be proved over the DNS.
    pub fn with_dns(mut self, dns: DnsSolvers) -> Self {
        self.dns = Some(dns);
        self
    }
}

/// An issuer of the configuration with `acme`.
pub struct AcmeIssuer {
    name: Arc<str>,
    config: Arc<Acme>,
    solvers: Vec<Arc<dyn ChallengeSolver>>,
    shared: Arc<Shared>,
    ca: Ca,
    staging: Option<Ca>,
    /// See [`keys::account_of`].
    account_id: String,
    /// Whether the account is known to be there.
    has_account: AtomicBool,
}

impl AcmeIssuer {
    /// Reads and asks nothing yet: what is wrong with a CA, its roots or its account comes out when
    /// a certificate is wanted.
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

    /// Obtains a certificate from one CA, and lets others know of the limits that are met.
    async fn obtain(&self, ca: &Ca, request: &Request) -> Result<Issued, Failure> {
        let replaces = AtomicBool::new(false);
        match self.attempt(ca, request, &replaces).await {
            Ok(issued) => Ok(issued),
            Err(Stop::Failed(failure)) => {
                // What is learnt is shown too.
                let failure = in_a_line(failure);
                let intent = Intent {
                    names: &request.names,
                    replaces: replaces.into_inner(),
                };
                self.learn(ca, &intent, &failure).await;
                Err(failure)
            }
            // Known: it is what held it.
            Err(Stop::Held(failure)) => Err(failure),
            Err(Stop::AccountLost | Stop::Unproved(_)) => {
                let message = format!(
                    "{} does not know the account that it has just made; report it to the CA",
                    ca.host
                );
                Err(Failure::new(FailureClass::Network, message))
            }
        }
    }

    async fn attempt(
        &self,
        ca: &Ca,
        request: &Request,
        replaces: &AtomicBool,
    ) -> Result<Issued, Stop> {
        let session = ca.session().await?;
        let (accounts, config) = (&self.shared.accounts, &self.config);
        let want = Want {
            ca,
            config,
            session: &session,
        };
        let _in_use = accounts.in_use(want).await?;
        if let Some(wait) = self.shared.limits.registration_held(ca, config)
            && !accounts.has(ca, config).await
        {
            return Err(Stop::Held(limited(&ca.host, wait)));
        }
        let account = accounts.get(want).await?;
        if std::ptr::eq(ca, &raw const self.ca) {
            self.has_account.store(true, Ordering::Relaxed);
        }
        let job = Job::open(self, ca, request, &session, &account, replaces).await?;
        match job.run().await {
            Err(Stop::AccountLost) => {}
            result => return result,
        }
        self.progress(
            request,
            format!("{} has lost the account: making one", ca.host),
        );
        if let Some(wait) = self.shared.limits.registration_held(ca, config) {
            return Err(Stop::Held(limited(&ca.host, wait)));
        }
        let account = accounts.replace(&account, want).await?;
        let job = Job::open(self, ca, request, &session, &account, replaces).await?;
        job.run().await
    }

    /// Removes a kept order. One that stays is recognized by its certificate.
    async fn forget(&self, place: Key) {
        let removed = blocking(&self.shared.storage, move |storage| storage.delete(&place));
        if let Err(error) = removed.await {
            tracing::warn!(%error, "an order that is over is still kept");
        }
    }

    fn progress(&self, request: &Request, message: String) {
        let kind = EventKind::CertificateProgress;
        self.emit(request, kind, Severity::Info, message);
    }

    /// Tells what happens on the way to a certificate.
    fn emit(&self, request: &Request, kind: EventKind, severity: Severity, message: String) {
        let now = self.shared.clock.now();
        let mut event = Event::new(now, kind, severity, request.domain(), line(&message));
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

    async fn issue(&self, request: &Request) -> Result<Issued, Failure> {
        let attempt = async {
            Ways::of(self, request.dns.as_deref()).check(&request.names)?;
            if let Some(staging) = self.staging.as_ref().filter(|_| is_rehearsed(request)) {
                self.rehearse(staging, request).await?;
            }
            self.obtain(&self.ca, request).await
        };
        attempt.await.map_err(|mut failure| {
            failure.message = line(&format!("{}: {}", request.domain(), failure.message));
            failure
        })
    }

    async fn renewal_info(
        &self,
        certificate: &TlsCertificate,
    ) -> Result<Option<RenewalInfo>, Failure> {
        let info = renewal_info::ask(&self.ca, certificate, self.shared.clock.now()).await;
        info.map_err(in_a_line)
    }

    /// Where the answer is yes, a place at the configured pace is kept for the moment until
    /// [`Self::issue`] is called: of many jobs that start at once as many are let through as there
    /// are places.
    fn ready(&self, intent: &Intent<'_>) -> Result<(), Wait> {
        if let Some(wait) = self.registration_held() {
            return Err(wait);
        }
        let intent = self.as_taken(intent);
        self.shared.limits.ready(&self.ca, &self.config, &intent)
    }

    fn held(&self, intent: &Intent<'_>) -> Option<Wait> {
        let limits = &self.shared.limits;
        let held = limits.held(&self.ca, &self.config, &self.as_taken(intent));
        held.or_else(|| self.registration_held())
    }

    fn limits(&self) -> Vec<Wait> {
        self.shared.limits.all(&self.ca, &self.config)
    }

    async fn look_at_limits(&self) -> bool {
        self.take_over_limits().await
    }

    async fn try_out(&self, trial: &Trial) -> Vec<Finding> {
        let mut findings = self.findings(trial).await;
        for finding in &mut findings {
            finding.message = line(&finding.message);
        }
        findings
    }

    fn lift(&self, names: &[Pattern]) {
        self.shared.limits.lift(&self.ca, &self.config, names);
    }

    async fn settled(&self, request: &Request) {
        if let Ok(place) = keys::order(&self.ca.key, &request.subject) {
            self.forget(place).await;
        }
    }

    async fn refused(&self, request: &Request, refused: &Failure) {
        // By another time it may be good: the order stays, and no other is made for a while.
        match refused.class {
            FailureClass::Clock => {
                let intent = Intent::new(&request.names);
                self.learn(&self.ca, &intent, refused).await;
            }
            _ => self.settled(request).await,
        }
    }

    async fn revoke(&self, revocation: &Revocation) -> Result<(), Failure> {
        self.revoke_at_ca(revocation).await.map_err(in_a_line)
    }

    async fn account(&self, task: &AccountTask) -> Result<AccountFacts, Failure> {
        let (ca, config, accounts) = (&self.ca, &self.config, &self.shared.accounts);
        let cared = match ca.session().await {
            Ok(session) => {
                let want = Want {
                    ca,
                    config,
                    session: &session,
                };
                accounts.care(task, want).await
            }
            Err(failure) if *task == AccountTask::Show => {
                accounts.remember(ca, config, &failure).await
            }
            Err(failure) => Err(failure),
        };
        cared.map_err(in_a_line)
    }
}

fn in_a_line(mut failure: Failure) -> Failure {
    failure.message = line(&failure.message);
    failure
}

/// What may hold words of a CA, as one line of bearable length: they go into logs.
fn line(text: &str) -> String {
    const LONGEST: usize = 2000;
    one_line(text, LONGEST)
}
