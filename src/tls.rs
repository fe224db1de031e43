//! TLS termination: the certificate by SNI, sessions, protocols.
//!
//! [`GlobalCertificate`] answers every handshake from one immutable [`Snapshot`], which is
//! replaced as a whole, and validations by CAs from the [`Challenges`] that are pending. It never
//! loads, parses or issues a certificate itself. Any Pingora listener can use it ([`GlobalCertificate::tls_settings`]); Snigate's own accept loop, in
//! `edge`, uses [`GlobalCertificate::acceptor`].

mod alert;
mod context;
mod ffi;
mod handshake_trace;
mod info;
mod snapshot;
mod ticket;
mod validation;
mod wait;

use std::any::Any;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use openssl::error::ErrorStack;
use openssl::ex_data::Index;
use openssl::ssl::{ClientHelloResponse, Ssl, SslAcceptor, SslAlert, SslRef};
use pingora_core::listeners::TlsAccept;
use pingora_core::listeners::tls::TlsSettings;
use pingora_core::protocols::tls::TlsRef;

use crate::certificate::parsed_cache::{self, ParsedCache};
use crate::certificate::sni::{CertificateSet, SniMap};
use crate::challenge::Challenges;
use crate::config::model::{Tls, UnknownSni};
use crate::host::{HostName, Identifier, NameBuffer};
use crate::metrics::Metrics;
use crate::throttle::Throttle;

pub use self::alert::correct_alert;
pub use self::handshake_trace::{HandshakeTrace, Traced, traced, wait_until_overdue};
pub use self::info::TlsInfo;
pub use self::snapshot::Snapshot;

use self::context::Purpose;
use self::snapshot::{RequestedName, Selection};
use self::ticket::TicketKeys;
use self::wait::CertificateStep;

/// What the client-hello callback found out, kept with the connection.
struct Hello {
    /// Taken out when the handshake ends: a connection that lives long must not keep a state of
    /// the configuration that has long been replaced.
    snapshot: Mutex<Option<Arc<Snapshot>>>,
    server_name: Option<HostName>,
    /// Whether something else than a name was asked for.
    is_invalid: bool,
    certificates: Option<Arc<CertificateSet>>,
    purpose: Purpose,
}

impl Hello {
    fn requested_name(&self) -> RequestedName<'_> {
        match &self.server_name {
            Some(name) => RequestedName::Name(name.as_str()),
            None if self.is_invalid => RequestedName::Invalid,
            None => RequestedName::Nothing,
        }
    }
}

/// Presents certificates by SNI: of the exact name, else of the wildcard over its first label,
/// else the default one, else the alert `unrecognized_name` (RFC 6066, section 3). A client without
/// SNI gets the one of the address that it has come to, where the handshake is [`traced`] and so
/// that is known, else the default one.
///
/// Where a name was waited for, on demand or during a load, and gets nothing, OpenSSL sends another
/// alert unless the connection puts it right ([`correct_alert`]).
///
/// A handle; clones share the state.
#[derive(Clone)]
pub struct GlobalCertificate(Arc<Shared>);

struct Shared {
    live: ArcSwap<Snapshot>,
    hello: Index<Ssl, Hello>,
    tickets: context::Tickets,
    parsed_cache: ParsedCache,
    unready: Throttle,
    metrics: Metrics,
    challenges: Challenges,
}

impl GlobalCertificate {
    /// Begins with no certificate at all. CAs that validate a name by TLS are answered what
    /// `challenges` has pending.
    ///
    /// # Errors
    /// Where OpenSSL has no more room for data beside a connection.
    pub fn new(metrics: Metrics, challenges: Challenges) -> Result<Self, ErrorStack> {
        Ok(Self(Arc::new(Shared {
            live: ArcSwap::from_pointee(Snapshot {
                certificates: Arc::new(SniMap::default()),
                unknown_sni: UnknownSni::Default,
                attachment: None,
            }),
            hello: Ssl::new_ex_index()?,
            tickets: context::Tickets::default(),
            parsed_cache: ParsedCache::new(parsed_cache::CAPACITY, metrics.parsed_cache.clone()),
            unready: Throttle::default(),
            metrics,
            challenges,
        })))
    }

    /// What is answered to CAs that validate names.
    pub fn challenges(&self) -> &Challenges {
        &self.0.challenges
    }

    /// Whether a connection, whose ClientHello has been read, is a CA's that validates a name by
    /// TLS (RFC 8737). It ends with the handshake.
    pub fn is_validation(&self, ssl: &SslRef) -> bool {
        let hello = ssl.ex_data(self.0.hello);
        hello.is_some_and(|hello| hello.purpose == Purpose::Validate)
    }

    /// Replaces what handshakes work from. Handshakes under way finish with what they began with;
    /// none waits. The attachment of the snapshot before is held for the first requests of the
    /// connections that have it, some seconds, and let go then.
    pub fn publish(&self, snapshot: Snapshot) {
        let before = self.0.live.swap(Arc::new(snapshot));
        info::hold_for_first_requests(before.attachment.clone());
    }

    /// What handshakes work from now.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.0.live.load_full()
    }

    /// An acceptor for handshakes that `pingora_core` drives with this handle as its callbacks.
    ///
    /// # Errors
    /// Where OpenSSL refuses a setting, such as an unknown group.
    pub fn acceptor(&self, tls: &Tls) -> Result<SslAcceptor, ErrorStack> {
        let mut builder = context::builder()?;
        context::configure(self, &mut builder, tls)?;
        Ok(builder.build())
    }

    /// Settings for one of Pingora's own TLS listeners, callbacks included.
    ///
    /// Do not call `enable_h2` or `set_alpn` on the result: they would replace the choice of
    /// protocol made here.
    ///
    /// # Errors
    /// Where OpenSSL refuses a setting.
    pub fn tls_settings(&self, tls: &Tls) -> pingora_core::Result<TlsSettings> {
        use pingora_core::{ErrorType, OrErr};

        let mut settings = TlsSettings::with_callbacks(Box::new(self.clone()))?;
        context::configure(self, &mut settings, tls)
            .or_err(ErrorType::InternalError, "cannot configure TLS")?;
        Ok(settings)
    }

    /// The certificates that are kept parsed.
    pub fn parsed_cache(&self) -> &ParsedCache {
        &self.0.parsed_cache
    }

    /// Ticket keys that rotate at this interval; the same keys for all contexts that ask for it.
    fn tickets(&self) -> &context::Tickets {
        &self.0.tickets
    }

    /// Chooses the certificate, and the context in which a session may be resumed.
    ///
    /// It runs before OpenSSL looks at tickets and pre-shared keys. That makes it the place for
    /// all policy: the certificate callback is skipped where a session is resumed.
    fn client_hello(
        &self,
        policy: &[u8],
        ssl: &mut SslRef,
        alert: &mut SslAlert,
    ) -> Result<ClientHelloResponse, ErrorStack> {
        let shared = &*self.0;
        if ssl.ex_data(shared.hello).is_some() {
            // The second ClientHello, after a HelloRetryRequest: what was decided stands.
            return Ok(ClientHelloResponse::SUCCESS);
        }
        let mut buffer = NameBuffer::new();
        let raw = ffi::client_hello_server_name(ssl);
        let asked = RequestedName::parse(raw, &mut buffer);
        let server_name: Option<HostName> = match asked {
            RequestedName::Name(name) => name.parse().ok(),
            RequestedName::Invalid | RequestedName::Nothing => None,
        };
        handshake_trace::record_server_name(server_name.as_ref(), raw);
        let validates = ffi::client_hello_protocols(ssl).is_some_and(validation::is_only_offer);
        let snapshot = shared.live.load_full();
        // Asked for only where there is no name: it takes a call of the system.
        let local = matches!(asked, RequestedName::Nothing)
            .then(handshake_trace::local_address)
            .flatten();
        // An address with a certificate of its own is as good as a name.
        let address = match asked {
            RequestedName::Nothing => {
                local.filter(|local| snapshot.certificates.lookup_ip(*local).is_some())
            }
            RequestedName::Name(_) | RequestedName::Invalid => None,
        };
        let choice = if validates {
            // Before all policy: the first certificate of a name is not there yet.
            self.select_validation(asked)
        } else {
            snapshot.select(asked, local)
        };
        let (certificates, purpose) = match choice {
            Selection::Present { set, .. } if validates => (Some(set), Purpose::Validate),
            Selection::Present { set, fell_back } if fell_back => (Some(set), Purpose::FallBack),
            Selection::Present { set, .. } => (Some(set), Purpose::Serve),
            Selection::OnDemand | Selection::Later => (None, Purpose::Serve),
            Selection::Refuse => {
                if validates {
                    *alert = SslAlert::NO_APPLICATION_PROTOCOL;
                } else {
                    handshake_trace::record_unknown_name();
                    shared.metrics.unknown_names.inc();
                    *alert = SslAlert::UNRECOGNIZED_NAME;
                }
                return Err(ErrorStack::get());
            }
        };
        if purpose == Purpose::FallBack {
            handshake_trace::record_unknown_name();
            shared.metrics.unknown_names.inc();
        }
        let address = address.map(|address| Identifier::Ip(address).dns_name());
        let whose = server_name.as_ref().or(address.as_ref());
        let context = context::session_context(policy, whose, purpose);
        if !ffi::set_session_id_context(ssl, &context) {
            return Err(ErrorStack::get());
        }
        if validates {
            ffi::forbid_tickets(ssl)?;
        }
        ssl.set_ex_data(
            shared.hello,
            Hello {
                snapshot: Mutex::new(Some(snapshot)),
                server_name,
                is_invalid: matches!(asked, RequestedName::Invalid),
                certificates,
                purpose,
            },
        );
        Ok(ClientHelloResponse::SUCCESS)
    }

    /// What to present to a client that speaks nothing but the protocol of validations.
    fn select_validation(&self, asked: RequestedName<'_>) -> Selection {
        match asked {
            RequestedName::Name(name) => self.0.challenges.tls_alpn01(name),
            RequestedName::Nothing | RequestedName::Invalid => None,
        }
        .map_or(Selection::Refuse, |set| Selection::Present {
            set,
            fell_back: false,
        })
    }
}

impl GlobalCertificate {
    /// The certificate of a name that gets it on demand, else what names without one get.
    async fn obtain_on_demand(
        &self,
        ssl: &mut TlsRef,
        snapshot: &Snapshot,
        name: &HostName,
    ) -> Option<Arc<CertificateSet>> {
        if let Some(on_demand) = snapshot.certificates.on_demand() {
            let made = on_demand.certificate(name.as_str(), handshake_trace::client_address());
            let made = handshake_trace::without_deadline(made).await;
            if made.is_some() {
                return made;
            }
        }
        self.use_fallback(ssl, snapshot.fallback_set())
    }

    /// Presents `set`, which is not of the name that was asked for.
    fn use_fallback(
        &self,
        ssl: &mut TlsRef,
        set: Option<Arc<CertificateSet>>,
    ) -> Option<Arc<CertificateSet>> {
        handshake_trace::record_unknown_name();
        self.0.metrics.unknown_names.inc();
        if set.is_none() {
            handshake_trace::record_refusal();
        }
        // The session would be one of the name, which did not get its certificate.
        if let Err(error) = ffi::forbid_tickets(ssl) {
            tracing::error!(%error, "cannot disable sessions for a name without a certificate");
            return None;
        }
        if let Some(hello) = ssl.ex_data_mut(self.0.hello) {
            hello.purpose = Purpose::FallBack;
        }
        set
    }
}

#[async_trait]
impl TlsAccept for GlobalCertificate {
    async fn certificate_callback(&self, ssl: &mut TlsRef) {
        let set = match ssl.ex_data(self.0.hello).and_then(CertificateStep::of) {
            Some(CertificateStep::Present(set)) => Some(set),
            Some(CertificateStep::Demand(snapshot, name)) => {
                self.obtain_on_demand(ssl, &snapshot, &name).await
            }
            Some(CertificateStep::Wait) => self.await_certificate(ssl).await,
            None => None,
        };
        let Some(set) = set else {
            // Without a certificate the handshake ends, see `correct_alert`.
            return;
        };
        if let Err(error) = set.present(ssl, &self.0.parsed_cache).await
            && let Some(held_back) = self.0.unready.admit()
        {
            tracing::error!(%error, held_back, "cannot present a certificate");
        }
        if let Some(hello) = ssl.ex_data_mut(self.0.hello) {
            hello.certificates = Some(set);
        }
    }

    async fn handshake_complete_callback(
        &self,
        ssl: &TlsRef,
    ) -> Option<Arc<dyn Any + Send + Sync>> {
        let resumed = if ssl.session_reused() {
            "true"
        } else {
            "false"
        };
        let result = if self.is_validation(ssl) {
            "challenge"
        } else {
            "ok"
        };
        self.0
            .metrics
            .handshakes
            .with_label_values(&[result, ssl.version_str(), ffi::group_name(ssl), resumed])
            .inc();
        let hello = ssl.ex_data(self.0.hello)?;
        if ssl.session_reused()
            && let Some(set) = &hello.certificates
        {
            set.note_use();
        }
        let snapshot = lock(&hello.snapshot).take()?;
        Some(Arc::new(
            TlsInfo::new(
                hello.server_name.clone(),
                // None where a session is resumed for a name that got its certificate on demand.
                hello.certificates.clone(),
                hello.purpose == Purpose::FallBack,
            )
            .with_attachment(snapshot.attachment.as_ref()),
        ))
    }
}

/// What is guarded here is replaced as a whole, so a panic leaves nothing half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
