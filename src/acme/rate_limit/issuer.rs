//! How an issuer records, reports and obeys the limits of its CA.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::acme::ca::Ca;
use crate::acme::{AcmeIssuer, single_line};
use crate::event::{Event, EventKind, Severity};
use crate::schedule::{Failure, Intent, Scope, Wait, WaitReason};

impl AcmeIssuer {
    /// Records the limit that made an order fail, and reports it if it is new.
    pub(in crate::acme) async fn record_limits(
        &self,
        ca: &Ca,
        intent: &Intent<'_>,
        failure: &Failure,
    ) {
        let limits = &self.shared.limits;
        let Some(limit) = limits.record_limit(ca, &self.config, intent, failure).await else {
            return;
        };
        let WaitReason::Limit(scope, _) = &limit.reason else {
            return;
        };
        let first = || intent.names.first().map(ToString::to_string);
        let (domain, rest) = match scope {
            Scope::Set => (first(), "other names are still ordered"),
            Scope::Domain(name) | Scope::Identifier(name) => {
                (Some(name.clone()), "other names are still ordered")
            }
            Scope::Account => (None, "no new certificate is ordered with it until then"),
            Scope::Registrations => (None, "an existing account can still order"),
            Scope::Ca => (None, "nothing is requested from it until then"),
        };
        let message = single_line(&format!("{}: {limit}; {rest}", ca.host));
        let (kind, severity) = (EventKind::CaLimited, Severity::Warning);
        let now = self.shared.clock.now();
        let mut event = Event::new(now, kind, severity, domain.unwrap_or_default(), message);
        event.issuer = Some(Arc::clone(&self.name));
        event.next = Some(limit.until);
        self.shared.events.emit(event);
    }

    /// An order as the CA counts it: it considers what an order replaces only if it offers renewal
    /// information.
    pub(in crate::acme) fn as_taken<'a>(&self, intent: &Intent<'a>) -> Intent<'a> {
        Intent {
            replaces: intent.replaces && self.ca.gives_advice() != Some(false),
            ..*intent
        }
    }

    /// The limit that prevents creating the account, if there is none yet.
    pub(in crate::acme) fn registration_held(&self) -> Option<Wait> {
        if self.has_account.load(Ordering::Relaxed) {
            return None;
        }
        let limits = &self.shared.limits;
        limits.registration_held(&self.ca, &self.config)
    }

    /// See [`crate::issuer::Issuer::refresh_limits`].
    pub(in crate::acme) async fn take_over_limits(&self) -> bool {
        let is_news = self
            .shared
            .limits
            .reload_stored(&self.ca, &self.config)
            .await;
        // Another instance may have created it.
        if self.registration_held().is_some()
            && self.shared.accounts.has(&self.ca, &self.config).await
        {
            self.has_account.store(true, Ordering::Relaxed);
        }
        is_news
    }
}
