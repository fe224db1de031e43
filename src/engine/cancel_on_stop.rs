//! Cancels jobs when the engine stops: while an issuer is asked, and nowhere else.
//!
//! The program's listeners close at the same moment, so a CA that validates then reaches nobody, and
//! its failure would mean nothing. A cancelled order is resumed at the next start. All other steps are
//! short and run to their end.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::watch;

use crate::certificate::TlsCertificate;
use crate::host::Pattern;
use crate::issuer::{
    AccountFacts, AccountTask, Finding, Issued, Issuer, Preflight, Request, Revocation,
};
use crate::schedule::{Failure, Intent, RenewalInfo, Wait};
use crate::shutdown::{ShutdownWatch, requested};

/// Cancels jobs. A handle; clones share the state.
#[derive(Clone)]
pub(super) struct CancelOnStop {
    stopping: ShutdownWatch,
    /// How many jobs were cancelled.
    cancelled: Arc<watch::Sender<usize>>,
}

impl CancelOnStop {
    /// Cancels jobs once `stopping` turns true.
    pub(super) fn new(stopping: ShutdownWatch) -> Self {
        Self {
            stopping,
            cancelled: Arc::default(),
        }
    }

    /// An issuer that asks `issuer`, and no longer answers once the engine stops.
    pub(super) fn wrap_issuer(&self, issuer: Arc<dyn Issuer>) -> Arc<dyn Issuer> {
        Arc::new(CancellableIssuer {
            issuer,
            cancel: self.clone(),
        })
    }

    /// Waits until this many jobs are cancelled.
    pub(super) async fn wait_until_cancelled(&self, jobs: usize) {
        // The sender is there for as long as `self`: no error.
        let mut cancelled = self.cancelled.subscribe();
        let _ = cancelled.wait_for(|count| *count >= jobs).await;
    }
}

struct CancellableIssuer {
    issuer: Arc<dyn Issuer>,
    cancel: CancelOnStop,
}

#[async_trait]
impl Issuer for CancellableIssuer {
    fn name(&self) -> &Arc<str> {
        self.issuer.name()
    }

    fn ca(&self) -> &str {
        self.issuer.ca()
    }

    fn account_id(&self) -> &str {
        self.issuer.account_id()
    }

    fn asks_for_must_staple(&self) -> bool {
        self.issuer.asks_for_must_staple()
    }

    async fn issue(&self, request: &Request) -> Result<Issued, Failure> {
        let mut stopping = self.cancel.stopping.clone();
        tokio::select! {
            // The stop goes first: a failure that comes with it may come from it.
            biased;
            () = requested(&mut stopping) => {}
            issued = self.issuer.issue(request) => return issued,
        }
        self.cancel.cancelled.send_modify(|count| *count += 1);
        std::future::pending().await
    }

    async fn renewal_info(
        &self,
        certificate: &TlsCertificate,
    ) -> Result<Option<RenewalInfo>, Failure> {
        self.issuer.renewal_info(certificate).await
    }

    fn ready(&self, intent: &Intent<'_>) -> Result<(), Wait> {
        self.issuer.ready(intent)
    }

    fn held(&self, intent: &Intent<'_>) -> Option<Wait> {
        self.issuer.held(intent)
    }

    fn limits(&self) -> Vec<Wait> {
        self.issuer.limits()
    }

    async fn refresh_limits(&self) -> bool {
        self.issuer.refresh_limits().await
    }

    fn clear_limits(&self, names: &[Pattern]) {
        self.issuer.clear_limits(names);
    }

    async fn preflight(&self, preflight: &Preflight) -> Vec<Finding> {
        self.issuer.preflight(preflight).await
    }

    async fn on_stored(&self, request: &Request) {
        self.issuer.on_stored(request).await;
    }

    async fn on_rejected(&self, request: &Request, refused: &Failure) {
        self.issuer.on_rejected(request, refused).await;
    }

    async fn revoke(&self, revocation: &Revocation) -> Result<(), Failure> {
        self.issuer.revoke(revocation).await
    }

    async fn account(&self, task: &AccountTask) -> Result<AccountFacts, Failure> {
        self.issuer.account(task).await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    use super::*;
    use crate::schedule::FailureClass;
    use crate::storage::Lease;

    /// Waits for a CA that reaches nobody once the engine stops.
    struct Validating {
        name: Arc<str>,
        stopping: ShutdownWatch,
        dropped: Arc<AtomicBool>,
    }

    struct SetOnDrop(Arc<AtomicBool>);

    impl Drop for SetOnDrop {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    #[async_trait]
    impl Issuer for Validating {
        fn name(&self) -> &Arc<str> {
            &self.name
        }

        fn ca(&self) -> &str {
            "ca"
        }

        async fn issue(&self, _: &Request) -> Result<Issued, Failure> {
            let _dropped = SetOnDrop(Arc::clone(&self.dropped));
            requested(&mut self.stopping.clone()).await;
            Err(Failure::new(FailureClass::Validation, "nobody is there"))
        }

        async fn on_stored(&self, _: &Request) {}
    }

    #[tokio::test]
    async fn an_order_under_way_is_left_alone_and_is_no_failure() {
        let (stop, stopping) = watch::channel(false);
        let cancel = CancelOnStop::new(stopping.clone());
        let dropped = Arc::new(AtomicBool::new(false));
        let issuer = cancel.wrap_issuer(Arc::new(Validating {
            name: "ca".into(),
            stopping,
            dropped: Arc::clone(&dropped),
        }));
        let job = tokio::spawn(async move {
            let request = Request {
                names: Vec::new(),
                subject: String::new(),
                failures: 0,
                failed_validations: 0,
                is_asked: false,
                previous_key: None,
                replaces: None,
                dns: None,
                lease: Arc::new(Lease::unstored()),
            };
            issuer.issue(&request).await.is_ok()
        });
        cancel.wait_until_cancelled(0).await;
        tokio::task::yield_now().await;
        stop.send(true).expect("somebody listens");
        let patience = Duration::from_secs(10);
        let stands = tokio::time::timeout(patience, cancel.wait_until_cancelled(1)).await;
        assert!(stands.is_ok(), "it stands still");
        assert!(dropped.load(Ordering::Relaxed), "the CA is left alone");
        assert!(!job.is_finished(), "nothing reports it");
        job.abort();
    }
}
