//! Certificates for handshakes that are not set up or not driven by Snigate or Pingora.
//!
//! OpenSSL can wait for a certificate only if the program knows how to resume the handshake. Others
//! get the certificate while the ClientHello is read. What is in memory takes no waiting.

use std::pin::pin;
use std::sync::Mutex;

use futures::FutureExt as _;
use openssl::error::ErrorStack;
use openssl::ssl::{AlpnError, NameType, Ssl, SslAcceptor, SslAlert, SslRef};
use pingora_core::listeners::TlsAccept as _;
use tokio::runtime::{Handle, RuntimeFlavor};

use super::select::RequestedName;
use super::{GlobalCertificate, Handshake, alpn, context, ffi, session_policy};
use crate::config::model::Tls;
use crate::lock::MutexExt as _;

impl GlobalCertificate {
    /// An acceptor for handshakes that the program drives itself, on threads or with tokio-openssl.
    ///
    /// `protocols` are those that the program speaks, most preferred first: `h2`, `http/1.1`. Without
    /// any, what a client offers by ALPN is ignored.
    ///
    /// A handshake that has to wait for its certificate blocks its thread meanwhile: on `runtime` if
    /// the thread belongs to none. On a runtime of one thread it is refused instead, and what was
    /// begun for it continues.
    ///
    /// # Errors
    /// If OpenSSL refuses a setting, such as an unknown group.
    pub fn blocking_acceptor(
        &self,
        tls: &Tls,
        protocols: &[&str],
        runtime: Handle,
    ) -> Result<SslAcceptor, ErrorStack> {
        let mut builder = context::builder()?;
        context::configure(&mut builder, tls, &self.0.tickets)?;
        // The record of the handshake is gone by the time that a protocol is chosen.
        let is_validation = Ssl::new_ex_index::<bool>()?;
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
            let mut preferred = protocols.iter().map(String::as_bytes);
            let chosen = preferred.find_map(|own| offers(offered).find(|offer| *offer == own));
            chosen.ok_or(AlpnError::ALERT_FATAL)
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
        let selection = snapshot.select(&requested, local.flatten());
        self.settle(&handshake, snapshot, selection);
        ssl.set_ex_data(self.0.handshake, Mutex::new(Some(handshake.clone())));
        Some(handshake)
    }
}

/// The protocols in what a client offers (RFC 7301, section 3.1).
fn offers(mut list: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (length, rest) = list.split_first()?;
        let (offer, rest) = rest.split_at_checked(usize::from(*length))?;
        list = rest;
        Some(offer)
    })
}

/// Runs `future` to its end on this thread, where that keeps no runtime from its other work.
fn wait_for(runtime: &Handle, future: impl Future<Output = ()>) {
    let mut future = pin!(future);
    if future.as_mut().now_or_never().is_some() {
        return;
    }
    match Handle::try_current() {
        Err(_) => runtime.block_on(future),
        Ok(current) if current.runtime_flavor() == RuntimeFlavor::MultiThread => {
            tokio::task::block_in_place(|| current.block_on(future));
        }
        // The only thread would wait for itself.
        Ok(_) => {}
    }
}
