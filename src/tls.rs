//! TLS termination: the certificate by SNI, sessions, protocols.
//!
//! [`GlobalCertificate`] serves every handshake from one immutable [`Snapshot`], which is replaced
//! as a whole, and validations by CAs from the pending [`Challenges`]. It never loads, parses or
//! issues a certificate itself. Any Pingora listener can use it
//! ([`GlobalCertificate::tls_settings`]); Snigate's own accept loop, in `edge`, uses
//! [`GlobalCertificate::acceptor`].
//!
//! Three callbacks make up a handshake, all of them here: `client_hello` selects what to present
//! (`select`), `certificate_callback` presents it, after a wait if necessary, and
//! `handshake_complete_callback` leaves a [`TlsInfo`] for the requests. Between them a
//! [`Handshake`] keeps what is known.

mod accepted;
mod alpn;
mod client_certificate;
#[doc(hidden)]
pub mod client_hello;
mod context;
mod ffi;
mod foreign;
mod handshake;
mod info;
pub mod key_log;
mod policies;
mod policy;
mod select;
mod session;
mod stapling;
mod ticket;

use std::any::Any;
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use openssl::error::ErrorStack;
use openssl::ex_data::Index;
use openssl::ssl::{ClientHelloResponse, Ssl, SslAcceptor, SslAcceptorBuilder, SslAlert, SslRef};
use pingora_core::listeners::TlsAccept;
use pingora_core::listeners::tls::TlsSettings;
use pingora_core::protocols::tls::TlsRef;

use crate::certificate::parsed_cache::{self, ParsedCache};
use crate::certificate::sni::{CertificateSet, SniMap};
use crate::challenge::Challenges;
use crate::config::model::{Tls, UnknownSni};
use crate::lock::MutexExt as _;
use crate::metrics::Metrics;
use crate::throttle::Throttle;

pub use self::accepted::{accepted_at, accepted_place};
pub use self::client_certificate::{ClientCertificate, ClientRefusal};
pub use self::handshake::Handshake;
pub use self::info::TlsInfo;
pub use self::policies::Policies;
pub use self::select::Snapshot;

use self::key_log::KeyLog;
use self::select::{Purpose, RequestedName, Selection};
use self::session::{session_context, session_policy};
use self::ticket::Tickets;

/// Presents certificates by SNI: that of the exact name, else of the wildcard over its first label,
/// else the default one, else the alert `unrecognized_name` (RFC 6066, section 3). A client without
/// SNI gets the certificate of the address that it has connected to, if the handshake has a
/// [`Handshake`] record that knows it, else the default one.
///
/// If a name was waited for, on demand or during a load, and gets no certificate, OpenSSL sends
/// another alert unless the connection corrects it ([`Handshake::correct_alert`]).
///
/// A handle; clones share the state.
#[derive(Clone)]
pub struct GlobalCertificate(Arc<Shared>);

struct Shared {
    live: ArcSwap<Snapshot>,
    /// Where a connection keeps the record of its handshake, until that has ended.
    handshake: Index<Ssl, Mutex<Option<Handshake>>>,
    /// Where a connection that the program drives keeps whether it is a CA's, for the callback that
    /// chooses a protocol: the record is gone by then.
    is_validation: Index<Ssl, bool>,
    tickets: Tickets,
    parsed_cache: ParsedCache,
    unready: Throttle,
    metrics: Metrics,
    challenges: Challenges,
}

impl GlobalCertificate {
    /// Begins without any certificate. CAs that validate a name by TLS get what is pending in
    /// `challenges`.
    ///
    /// # Errors
    /// If OpenSSL has no more room for data beside a connection.
    pub fn new(metrics: Metrics, challenges: Challenges) -> Result<Self, ErrorStack> {
        Ok(Self(Arc::new(Shared {
            live: ArcSwap::from_pointee(Snapshot {
                certificates: Arc::new(SniMap::default()),
                unknown_sni: UnknownSni::Default,
                attachment: None,
                policies: Arc::default(),
            }),
            handshake: Ssl::new_ex_index()?,
            is_validation: Ssl::new_ex_index()?,
            tickets: Tickets::default(),
            parsed_cache: ParsedCache::new(parsed_cache::CAPACITY, metrics.parsed_cache.clone()),
            unready: Throttle::default(),
            metrics,
            challenges,
        })))
    }

    /// The pending validations.
    pub fn challenges(&self) -> &Challenges {
        &self.0.challenges
    }

    /// Replaces what handshakes use. Handshakes under way finish with what they began with; none
    /// waits. The attachment of the previous snapshot is kept some seconds for the first requests
    /// of the connections that have it.
    pub fn publish(&self, snapshot: Snapshot) {
        let before = self.0.live.swap(Arc::new(snapshot));
        info::hold_for_first_requests(before.attachment.clone());
    }

    /// What handshakes use now.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.0.live.load_full()
    }

    /// An acceptor for handshakes that Pingora drives with this handle. `log` gets their secrets.
    ///
    /// # Errors
    /// If OpenSSL refuses a setting, such as an unknown group.
    pub fn acceptor(&self, tls: &Tls, log: Option<KeyLog>) -> Result<SslAcceptor, ErrorStack> {
        let mut builder = context::builder(log)?;
        self.configure(&mut builder, tls)?;
        Ok(builder.build())
    }

    /// Settings for one of Pingora's own TLS listeners, callbacks included. With a program's own
    /// settings and this handle as their callbacks (`TlsSettings::with_callbacks`), certificates are
    /// presented as well, but no session is resumed and no validation by TLS is answered.
    ///
    /// Do not call `enable_h2` or `set_alpn` on the result: protocols are chosen here.
    ///
    /// # Errors
    /// If OpenSSL refuses a setting.
    pub fn tls_settings(&self, tls: &Tls) -> pingora_core::Result<TlsSettings> {
        use pingora_core::{ErrorType, OrErr};

        let mut settings = TlsSettings::with_callbacks(Box::new(self.clone()))?;
        self.configure(&mut settings, tls)
            .or_err(ErrorType::InternalError, "cannot configure TLS")?;
        Ok(settings)
    }

    /// The certificates that are kept parsed.
    pub fn parsed_cache(&self) -> &ParsedCache {
        &self.0.parsed_cache
    }

    fn configure(&self, builder: &mut SslAcceptorBuilder, tls: &Tls) -> Result<(), ErrorStack> {
        context::configure(builder, tls, &self.0.tickets)?;
        let policy = session_policy(tls);
        let this = self.clone();
        builder.set_client_hello_callback(move |ssl, alert| this.client_hello(&policy, ssl, alert));
        let this = self.clone();
        builder.set_status_callback(move |ssl| {
            let selected = this
                .handshake(ssl)
                .and_then(|handshake| handshake.selected());
            let set = selected.as_ref().and_then(|(_, selection)| selection.set());
            Ok(set.is_some_and(|set| stapling::staple(ssl, set)))
        })?;
        let (this, general) = (self.clone(), tls.protocols.clone());
        builder.set_alpn_select_callback(move |ssl, offered| {
            let handshake = this.handshake(ssl);
            let is_validation = handshake.as_ref().is_some_and(Handshake::is_validation);
            let policy = handshake.and_then(|handshake| handshake.policy());
            alpn::select_protocol(
                offered,
                is_validation,
                policy.as_deref(),
                general.as_deref(),
            )
        });
        Ok(())
    }

    /// Selects the certificate, and the context in which a session may be resumed.
    ///
    /// It runs before OpenSSL looks at tickets and pre-shared keys, so all policy belongs here: the
    /// certificate callback is skipped when a session is resumed.
    fn client_hello(
        &self,
        policy: &[u8],
        ssl: &mut SslRef,
        alert: &mut SslAlert,
    ) -> Result<ClientHelloResponse, ErrorStack> {
        if ssl.ex_data(self.0.handshake).is_some() {
            // The second ClientHello, after a HelloRetryRequest: the selection stands.
            return Ok(ClientHelloResponse::SUCCESS);
        }
        let handshake = Handshake::current();
        let requested = RequestedName::parse(ffi::client_hello_server_name(ssl));
        handshake.record_requested(requested.clone());
        let local = requested.is_nothing().then(|| handshake.local_address());
        let (local, place) = (local.flatten(), handshake.place());
        let snapshot = self.snapshot();
        let selection = if ffi::client_hello_protocols(ssl).is_some_and(alpn::is_validation) {
            // Before all policy: the name may not have a certificate yet.
            Selection::for_validation(&self.0.challenges, &requested)
        } else {
            snapshot.select(&requested, local, place)
        };
        let purpose = selection.purpose();
        let session_name = snapshot.session_name(&requested, local);
        let own_policy = snapshot.policy(&requested, local, place, purpose).cloned();
        let mark = snapshot.policies.mark(place);
        let is_refused = matches!(selection, Selection::Refuse(_));
        self.settle(&handshake, snapshot, selection);
        if is_refused {
            *alert = match purpose {
                Purpose::Validate => SslAlert::NO_APPLICATION_PROTOCOL,
                Purpose::Serve | Purpose::FallBack => SslAlert::UNRECOGNIZED_NAME,
            };
            return Err(ErrorStack::get());
        }
        let name = (session_name.as_ref(), mark.as_deref());
        let context = session_context(policy, own_policy.as_deref(), name, purpose);
        if !ffi::set_session_id_context(ssl, &context) {
            return Err(ErrorStack::get());
        }
        if purpose == Purpose::Validate {
            ffi::forbid_tickets(ssl)?;
        }
        if let Some(policy) = &own_policy {
            policy::impose(policy, ssl, &handshake)?;
        }
        ssl.set_ex_data(self.0.handshake, Mutex::new(Some(handshake)));
        Ok(ClientHelloResponse::SUCCESS)
    }

    /// Records what was selected, and counts a name that has no certificate.
    fn settle(&self, handshake: &Handshake, snapshot: Arc<Snapshot>, selection: Selection) {
        if selection.purpose() == Purpose::FallBack {
            self.0.metrics.unknown_names.inc();
        }
        handshake.record_selection(snapshot, selection);
    }

    /// The record of the handshake of a connection; `None` once that has ended.
    fn handshake(&self, ssl: &SslRef) -> Option<Handshake> {
        ssl.ex_data(self.0.handshake)?.lock_unpoisoned().clone()
    }

    /// The certificates to present, once they are known: they may have to be loaded or obtained.
    async fn wait_for_certificates(
        &self,
        ssl: &mut TlsRef,
        handshake: &Handshake,
    ) -> Option<Arc<CertificateSet>> {
        let (mut snapshot, mut selection) = handshake.selected()?;
        match &selection {
            Selection::Present(set, _) => return Some(Arc::clone(set)),
            Selection::Refuse(_) => return None,
            Selection::Later | Selection::OnDemand => {}
        }
        let requested = handshake.requested();
        if matches!(selection, Selection::Later) {
            (snapshot, selection) = self.select_when_loaded(&requested, handshake).await;
        }
        if matches!(selection, Selection::OnDemand) {
            selection = obtain_on_demand(&snapshot, &requested, handshake).await;
        }
        // The session would be one of the name, which did not get its certificate.
        if selection.purpose() == Purpose::FallBack
            && let Err(error) = ffi::forbid_tickets(ssl)
        {
            tracing::error!(%error, "cannot disable sessions for a name without a certificate");
            return None;
        }
        let set = selection.set().cloned();
        self.settle(handshake, snapshot, selection);
        set
    }

    /// Selects from what is loaded, as soon as that suffices. What may be for this client is loaded
    /// first; the handshake's deadline limits the wait.
    async fn select_when_loaded(
        &self,
        requested: &RequestedName,
        handshake: &Handshake,
    ) -> (Arc<Snapshot>, Selection) {
        let (local, place) = (handshake.local_address(), handshake.place());
        loop {
            // Watched before the snapshot is read, so that no change is missed in between.
            let before = self.snapshot();
            let mut progress = before.certificates.loading().map(|one| one.progress());
            let snapshot = self.snapshot();
            let selection = snapshot.select(requested, local, place);
            if !matches!(selection, Selection::Later) {
                return (snapshot, selection);
            }
            let loading = snapshot.certificates.loading();
            if let (Some(loading), Some(host)) = (loading, requested.host(local)) {
                loading.prioritize(host);
            }
            // An error means that loading has ended: the next snapshot shows it.
            if let Some(progress) = &mut progress {
                let _ = handshake.wait_for_load(progress.changed()).await;
            }
        }
    }
}

/// Obtains the certificate of a name on demand. If that fails, selects what names without a
/// certificate get.
async fn obtain_on_demand(
    snapshot: &Snapshot,
    requested: &RequestedName,
    handshake: &Handshake,
) -> Selection {
    let on_demand = snapshot.certificates.on_demand();
    if let (Some(on_demand), RequestedName::Name(name)) = (on_demand, requested) {
        let obtained = on_demand.certificate(name.as_str(), handshake.client());
        if let Some(set) = handshake.wait_for(obtained).await {
            return Selection::Present(set, Purpose::Serve);
        }
    }
    snapshot.select_fallback()
}

#[async_trait]
impl TlsAccept for GlobalCertificate {
    async fn certificate_callback(&self, ssl: &mut TlsRef) {
        let handshake = match ssl.ex_data(self.0.handshake) {
            Some(_) => self.handshake(ssl),
            None => self.select_without_client_hello(ssl),
        };
        let Some(handshake) = handshake else {
            return;
        };
        let Some(set) = self.wait_for_certificates(ssl, &handshake).await else {
            // Without a certificate the handshake ends, see `Handshake::correct_alert`.
            return;
        };
        if let Err(error) = set.present(ssl, &self.0.parsed_cache).await
            && let Some(held_back) = self.0.unready.admit()
        {
            tracing::error!(%error, held_back, "cannot present a certificate");
        }
    }

    async fn handshake_complete_callback(
        &self,
        ssl: &TlsRef,
    ) -> Option<Arc<dyn Any + Send + Sync>> {
        // Taken out: a connection that lives long must not keep a replaced configuration alive.
        let handshake = ssl.ex_data(self.0.handshake);
        let handshake = handshake.and_then(|slot| slot.lock_unpoisoned().take());
        let is_validation = handshake.as_ref().is_some_and(Handshake::is_validation);
        let result = if is_validation { "challenge" } else { "ok" };
        let is_resumed = ssl.session_reused();
        let resumed = if is_resumed { "true" } else { "false" };
        self.0
            .metrics
            .handshakes
            .with_label_values(&[result, ssl.version_str(), ffi::group_name(ssl), resumed])
            .inc();
        let info = handshake?.to_info()?.with_client_of(ssl);
        let info = info.with_agreement_of(ssl);
        if let (true, Some(set)) = (is_resumed, &info.certificates) {
            set.note_use();
        }
        Some(Arc::new(info))
    }
}

#[cfg(test)]
mod tests;
