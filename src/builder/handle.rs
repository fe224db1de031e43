//! A running engine.

use std::sync::Arc;
use std::time::Duration;

use openssl::error::ErrorStack;
use openssl::ssl::SslAcceptor;
use pingora_core::listeners::tls::TlsSettings;
use tokio::runtime::Handle;
use tokio::sync::{Mutex, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::events::{self, Callback};
use super::{BuildError, EventStream, Http01Responder};
use crate::certificate::{TlsCertificate, Validity};
use crate::config::model::{CertificateSource, Config, Tls};
use crate::engine::{Engine, Loops, wait_for_all};
use crate::event::Event;
use crate::host::Pattern;
use crate::shutdown::requested;
use crate::tls::GlobalCertificate;

/// How long orders are held back, so that the program listens by the time that a CA looks: a failed
/// validation counts at the CA, and the next attempt comes minutes later.
const LISTEN_FIRST: Duration = Duration::from_secs(1);

/// How often it is checked whether certificates are there, besides at each event.
const RECHECK: Duration = Duration::from_millis(200);

/// How long the loops may take to end: 2 s for what is being stored, 2 s for what waits for the
/// storage, and a little more.
const LOOPS_END: Duration = Duration::from_secs(5);

/// How long callbacks may take then for the events that are left.
const CALLBACKS_END: Duration = Duration::from_secs(2);

/// A running engine. Its background tasks end with [`Self::stop`]; dropping it stops them too, but
/// waits for none. Work on a name that a client asks for on demand runs on the runtime of the
/// handshake.
#[must_use = "the engine stops when this is dropped"]
pub struct EngineHandle {
    engine: Arc<Engine>,
    tls: Tls,
    /// What is to be obtained.
    names: Vec<Pattern>,
    runtime: Handle,
    stop: watch::Sender<bool>,
    /// Turns true once the loops have ended.
    stopped: watch::Sender<bool>,
    loops: Mutex<JoinSet<()>>,
    callbacks: Mutex<JoinSet<()>>,
}

impl EngineHandle {
    /// Starts `engine` with `config`.
    pub(super) async fn start(
        engine: Arc<Engine>,
        config: Config,
        stop: watch::Sender<bool>,
        callbacks: Vec<Callback>,
        runtime: Handle,
    ) -> Result<Self, BuildError> {
        let stopped = watch::Sender::new(false);
        // Before the start, which has events of its own.
        let events = EventStream::new(engine.events().subscribe(), stopped.subscribe());
        let tls = config.tls.clone();
        let names = managed_names(&config);
        let begun = Arc::clone(&engine);
        tokio::task::spawn_blocking(move || begun.start(&config, None))
            .await
            .map_err(|_| BuildError::Interrupted)?;
        let mut loops = JoinSet::new();
        let orders_after = Some(Instant::now() + LISTEN_FIRST);
        let added = Loops {
            orders_after,
            ..Loops::default()
        };
        loops.spawn_on(run(Arc::clone(&engine), added, stopped.clone()), &runtime);
        let mut calling = JoinSet::new();
        if !callbacks.is_empty() {
            calling.spawn_on(events::call_back(events, callbacks), &runtime);
        }
        Ok(Self {
            engine,
            tls,
            names,
            runtime,
            stop,
            stopped,
            loops: Mutex::new(loops),
            callbacks: Mutex::new(calling),
        })
    }

    /// What handshakes are answered from, for settings of the program's own
    /// (`TlsSettings::with_callbacks`). They present certificates, but resume no sessions and answer no
    /// `tls-alpn-01`: [`Self::tls_settings`] does all of it.
    pub fn certificates(&self) -> GlobalCertificate {
        self.engine.certificates().clone()
    }

    /// Settings for a TLS listener of Pingora: certificates, `tls-alpn-01` validations, Mozilla's
    /// intermediate profile, HTTP/2 and HTTP/1.1. Do not call `enable_h2` or `set_alpn` on them.
    ///
    /// # Errors
    /// If OpenSSL refuses a setting.
    pub fn tls_settings(&self) -> pingora_core::Result<TlsSettings> {
        self.certificates().tls_settings(&self.tls)
    }

    /// An acceptor for programs without Pingora, with the same settings: for tokio-openssl, or for
    /// threads. It chooses no protocol by ALPN; see [`Self::acceptor_for`].
    ///
    /// A handshake that has to wait for a certificate, on demand or because it is read from a file,
    /// blocks its thread meanwhile; on a Tokio runtime of several threads, other tasks continue. On a
    /// runtime of one thread it is refused instead, and the certificate is there for the next one.
    /// In a `LocalSet` too, a handshake that would have to wait is refused.
    ///
    /// # Errors
    /// If OpenSSL refuses a setting.
    pub fn acceptor(&self) -> Result<SslAcceptor, ErrorStack> {
        self.acceptor_for(&[])
    }

    /// As [`Self::acceptor`], for a program that speaks these protocols, most preferred first: `h2`,
    /// `http/1.1`. A client that offers none of them is refused.
    ///
    /// # Errors
    /// If OpenSSL refuses a setting.
    pub fn acceptor_for(&self, protocols: &[&str]) -> Result<SslAcceptor, ErrorStack> {
        let runtime = self.runtime.clone();
        let certificates = self.engine.certificates();
        certificates.blocking_acceptor(&self.tls, protocols, runtime)
    }

    /// Answers validations by `http-01` in the program's own HTTP server.
    pub fn http01(&self) -> Http01Responder {
        Http01Responder::new(self.engine.challenges().clone())
    }

    /// Everything that happens from now on. Ends once the engine has stopped.
    pub fn events(&self) -> EventStream {
        EventStream::new(self.engine.events().subscribe(), self.stopped.subscribe())
    }

    /// The last events, the oldest first: up to 1000.
    pub fn recent_events(&self) -> Vec<Arc<Event>> {
        self.engine.events().recent()
    }

    /// Whether there is a valid certificate for `host`: a name, an address, or the wildcard itself.
    pub fn covers(&self, host: &str) -> bool {
        host.parse().is_ok_and(|pattern| self.has(&pattern))
    }

    /// The root of a local CA, by its name in the builder, for clients to trust: PEM. Blocks on the
    /// storage.
    ///
    /// # Errors
    /// If there is no such CA, or it cannot be opened.
    pub fn local_root(&self, issuer: &str) -> Result<String, String> {
        let ca = self.engine.lock().local_ca(&Arc::from(issuer))?;
        let ca = ca.ok_or_else(|| format!("{issuer} is not open"))?;
        Ok(ca.root_pem())
    }

    /// Waits until every name that the builder was told to manage has a certificate. To be bounded by
    /// a timeout: a CA may refuse one for good.
    pub async fn wait_until_covered(&self) {
        let mut events = self.events();
        while !self.names.iter().all(|name| self.has(name)) {
            // An event may come before its certificate is served.
            if let Ok(None) = tokio::time::timeout(RECHECK, events.next()).await {
                return;
            }
        }
    }

    /// Stops every background task and waits until they have ended, the callbacks last. No order is
    /// begun any more; one under way is resumed at the next start. What is being stored gets 2 s, and
    /// what waits for the storage 2 s more; callbacks then get 2 s for the events that are left. A
    /// storage or a callback that hangs is waited for no longer than that. Handshakes are answered
    /// with the certificates that are there; no CA is asked on demand any more.
    pub async fn stop(&self) {
        self.stop.send_replace(true);
        let mut loops = self.loops.lock().await;
        wait_for_all(&mut loops).await;
        self.stopped.send_replace(true);
        let mut callbacks = self.callbacks.lock().await;
        let ended = tokio::time::timeout(CALLBACKS_END, wait_for_all(&mut callbacks)).await;
        if ended.is_err() {
            tracing::warn!("a callback for events does not return, and is left alone");
            *callbacks = JoinSet::new();
        }
    }

    fn has(&self, name: &Pattern) -> bool {
        let snapshot = self.engine.certificates().snapshot();
        let certificates = &snapshot.certificates;
        let set = match name {
            Pattern::Exact(name) => certificates.lookup(name.as_str()),
            Pattern::Ip(address) => certificates.lookup_ip(*address),
            Pattern::Any | Pattern::Wildcard(_) => certificates.get(name),
        };
        let now = self.engine.clock().now();
        let is_valid = |one: &Arc<TlsCertificate>| one.validity(now) == Validity::Valid;
        set.is_some_and(|set| set.by_kind.iter().any(is_valid))
    }
}

impl Drop for EngineHandle {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        // They end in order, and store what is left to be stored.
        self.loops.get_mut().detach_all();
        self.callbacks.get_mut().detach_all();
    }
}

/// Runs the loops of `engine` until they have ended after a stop, or have taken too long to. Then sends
/// `stopped`.
async fn run(engine: Arc<Engine>, added: Loops, stopped: watch::Sender<bool>) {
    let mut stopping = engine.stopping();
    let too_late = async {
        requested(&mut stopping).await;
        tokio::time::sleep(LOOPS_END).await;
    };
    tokio::select! {
        () = engine.run(added) => {}
        () = too_late => tracing::warn!(
            "the engine stops without waiting any longer: the storage does not respond"
        ),
    }
    stopped.send_replace(true);
}

/// The names that issuers are asked for.
fn managed_names(config: &Config) -> Vec<Pattern> {
    let managed = config
        .certificates
        .iter()
        .filter_map(|source| match source {
            CertificateSource::Managed { names, .. } => Some(names),
            CertificateSource::Directory { .. } | CertificateSource::Files { .. } => None,
        });
    managed.flatten().cloned().collect()
}
