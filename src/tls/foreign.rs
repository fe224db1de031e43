//! Certificates for handshakes that are not set up or not driven by Snigate or Pingora.
//!
//! OpenSSL can wait for a certificate only if the program knows how to resume the handshake. Others
//! get the certificate while the ClientHello is read. What is in memory takes no waiting.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Mutex;

use futures::FutureExt as _;
use openssl::error::ErrorStack;
use openssl::ssl::{AlpnError, NameType, SslAcceptor, SslAlert, SslRef};
use pingora_core::listeners::TlsAccept as _;
use tokio::runtime::{Handle, RuntimeFlavor};

use super::select::RequestedName;
use super::session::session_policy;
use super::{GlobalCertificate, Handshake, alpn, context, ffi, policy};
use crate::config::model::Tls;
use crate::lock::MutexExt as _;

impl GlobalCertificate {
    /// An acceptor for handshakes that the program drives itself, on threads or with tokio-openssl.
    ///
    /// `protocols` are those that the program speaks, most preferred first: `h2`, `http/1.1`. Without
    /// any, what a client offers by ALPN is ignored.
    ///
    /// A handshake that has to wait for its certificate blocks its thread meanwhile: on `runtime` if
    /// the thread belongs to none, which has to be driven by another thread. On a runtime of one
    /// thread, and in a `LocalSet`, it is refused instead, and what was begun for it continues.
    ///
    /// # Errors
    /// If OpenSSL refuses a setting, such as an unknown group.
    pub fn blocking_acceptor(
        &self,
        tls: &Tls,
        protocols: &[&str],
        runtime: Handle,
    ) -> Result<SslAcceptor, ErrorStack> {
        let mut builder = context::builder(None)?;
        context::configure(&mut builder, tls, &self.0.tickets)?;
        let is_validation = self.0.is_validation;
        let (this, policy) = (self.clone(), session_policy(tls));
        builder.set_client_hello_callback(move |ssl, alert| {
            let response = this.client_hello(&policy, ssl, alert)?;
            let Some(handshake) = this.handshake(ssl) else {
                // The second ClientHello, after a HelloRetryRequest.
                return Ok(response);
            };
            wait_for(&runtime, this.certificate_callback(ssl));
            if ssl.certificate().is_none() {
                *alert = SslAlert::UNRECOGNIZED_NAME;
                return Err(ErrorStack::get());
            }
            ssl.set_ex_data(is_validation, handshake.is_validation());
            // A connection that lives long must not keep a replaced configuration alive.
            if let Some(slot) = ssl.ex_data(this.0.handshake) {
                slot.lock_unpoisoned().take();
            }
            Ok(response)
        });
        let protocols: Vec<String> = protocols.iter().copied().map(str::to_owned).collect();
        builder.set_alpn_select_callback(move |ssl, offered| {
            if ssl.ex_data(is_validation) == Some(&true) {
                return Ok(alpn::VALIDATION);
            }
            if protocols.is_empty() {
                return Err(AlpnError::NOACK);
            }
            let preferred = protocols.iter().map(String::as_str);
            alpn::select_from(preferred, offered).ok_or(AlpnError::ALERT_FATAL)
        });
        Ok(builder.build())
    }

    /// Selects a certificate for a listener whose settings are the program's own, and so without the
    /// callback for the ClientHello. Sessions of different names could not be told apart there, so
    /// there are none. `None` if OpenSSL has no memory.
    pub(super) fn select_without_client_hello(&self, ssl: &mut SslRef) -> Option<Handshake> {
        ffi::forbid_tickets(ssl).ok()?;
        let handshake = Handshake::current();
        let name = ssl.servername(NameType::HOST_NAME);
        let requested = RequestedName::parse(name.map(str::as_bytes));
        handshake.record_requested(requested.clone());
        let local = requested.is_nothing().then(|| handshake.local_address());
        let snapshot = self.snapshot();
        let (local, place) = (local.flatten(), handshake.place());
        let selection = snapshot.select(&requested, local, place);
        let purpose = selection.purpose();
        if let Some(policy) = snapshot.policy(&requested, local, place, purpose) {
            policy::impose_late(policy, ssl, &handshake).ok()?;
        }
        self.settle(&handshake, snapshot, selection);
        ssl.set_ex_data(self.0.handshake, Mutex::new(Some(handshake.clone())));
        Some(handshake)
    }
}

/// Runs `future` to its end on this thread, unless that keeps a runtime from its other work: then
/// only as far as it gets at once. No panic reaches OpenSSL, which could only abort the program.
fn wait_for(runtime: &Handle, future: impl Future<Output = ()>) {
    let mut future = pin!(future);
    let current = Handle::try_current();
    let waiting = || {
        // The first poll may need a runtime's timers and tasks.
        let entered = current.is_err().then(|| runtime.enter());
        if future.as_mut().now_or_never().is_some() {
            return;
        }
        drop(entered);
        match &current {
            Err(_) => runtime.block_on(future),
            Ok(current) if current.runtime_flavor() == RuntimeFlavor::MultiThread => {
                tokio::task::block_in_place(|| current.block_on(future));
            }
            // The only thread would wait for itself.
            Ok(_) => {}
        }
    };
    if catch_unwind(AssertUnwindSafe(waiting)).is_err() {
        tracing::error!(
            "cannot wait for the certificate of a handshake, which is refused: its thread must not \
             be in a LocalSet, and the engine's runtime must still run, with time and I/O enabled"
        );
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    use tokio::runtime::Builder;
    use tokio::task::LocalSet;

    use super::*;

    /// Whether a wait on the thread that calls this comes to its end.
    fn waits(runtime: &Handle) -> bool {
        let is_done = AtomicBool::new(false);
        wait_for(runtime, async {
            tokio::time::sleep(Duration::from_millis(1)).await;
            is_done.store(true, Ordering::Relaxed);
        });
        is_done.into_inner()
    }

    #[test]
    fn a_runtime_that_has_ended_refuses_the_handshake_alone() {
        let ended = Builder::new_multi_thread().enable_all().build();
        let handle = ended.expect("a runtime").handle().clone();
        assert!(!waits(&handle));
    }

    #[test]
    fn a_thread_waits_where_that_keeps_nobody_from_working() {
        let many = Builder::new_multi_thread().enable_all().build();
        let many = many.expect("a runtime");
        let one = Builder::new_current_thread().enable_all().build();
        let one = one.expect("a runtime");
        assert!(waits(many.handle()));
        assert!(many.block_on(async { waits(&Handle::current()) }));
        assert!(!one.block_on(async { waits(&Handle::current()) }));
        let local = LocalSet::new();
        assert!(!local.block_on(&many, async { waits(&Handle::current()) }));
    }
}
