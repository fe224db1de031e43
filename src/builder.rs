//! The door for other programs: [`Engine::builder`] puts a certificate engine together, and
//! [`EngineHandle`] runs it.
//!
//! The builder collects what a configuration file would say and the program's own parts. It adds no
//! rule: the same defaults and checks apply as to a file, and the engine is the one that the gateway
//! runs.

mod bounds;
mod certificate;
mod dns;
mod error;
mod events;
mod handle;
mod http01;
mod issuer;
mod on_demand;
mod paths;
mod values;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::watch;

use self::events::Callback;
use crate::challenge::ChallengeSolver;
use crate::clock::{Clock, SystemClock};
use crate::config::model::Config;
use crate::config::{assemble, schema};
use crate::dns::DnsProvider;
use crate::engine::{Engine, EngineSetup};
use crate::event::Event;
use crate::issuer::Issuer;
use crate::on_demand::Decider;
use crate::storage::{FileStorage, Storage};

pub use self::certificate::ManagedCertificate;
pub use self::dns::DnsSettings;
pub use self::error::BuildError;
pub use self::events::EventStream;
pub use self::handle::EngineHandle;
pub use self::http01::Http01Responder;
pub use self::issuer::{
    AcmeIssuerBuilder, IssuerSource, LocalCaBuilder, ZeroSslIssuer, ZeroSslIssuerBuilder,
};
pub use self::on_demand::OnDemand;

/// The issuer of a program that names none.
const DEFAULT_ISSUER: &str = "letsencrypt";

/// Obtains and renews a certificate for each of `names` from Let's Encrypt, and keeps them in the
/// default place: `$XDG_DATA_HOME/snigate`, `~/.local/share/snigate`, or `/var/lib/snigate` for root.
///
/// Certificates are obtained in the background, as soon as the program answers on port 443 with
/// [`EngineHandle::acceptor`] or [`EngineHandle::tls_settings`], or on port 80 with
/// [`EngineHandle::http01`]. By calling this you agree to the terms of service of Let's Encrypt.
///
/// # Errors
/// What is wrong with the names, and what to do about it.
pub async fn manage<N: AsRef<str>>(
    names: impl IntoIterator<Item = N>,
) -> Result<EngineHandle, BuildError> {
    Engine::builder().manage(names).start().await
}

impl Engine {
    /// Begins an engine for a program of one's own.
    pub fn builder() -> EngineBuilder {
        EngineBuilder {
            raw: schema::Root {
                is_embedded: true,
                ..schema::Root::default()
            },
            storage: None,
            clock: Arc::new(SystemClock),
            own: Own::default(),
            callbacks: Vec::new(),
            mistakes: Vec::new(),
        }
    }
}

/// What an engine is to do, see [`Engine::builder`]. Nothing happens before [`Self::start`].
#[must_use = "nothing runs before `start`"]
pub struct EngineBuilder {
    raw: schema::Root,
    storage: Option<Arc<dyn Storage>>,
    clock: Arc<dyn Clock>,
    own: Own,
    callbacks: Vec<Callback>,
    /// What only shows while the program is put together.
    mistakes: Vec<String>,
}

/// The program's own parts.
#[derive(Default)]
struct Own {
    issuers: HashMap<Arc<str>, Arc<dyn Issuer>>,
    dns: HashMap<Arc<str>, Arc<dyn DnsProvider>>,
    solvers: Vec<Arc<dyn ChallengeSolver>>,
    decider: Option<Arc<dyn Decider>>,
}

impl EngineBuilder {
    /// Keeps certificates, keys and accounts in `storage`: a [`FileStorage`], a
    /// [`MemoryStorage`](crate::storage::MemoryStorage), or the program's own. By default in files, in
    /// the place that [`manage`] describes.
    pub fn storage(mut self, storage: impl Storage + 'static) -> Self {
        self.storage = Some(Arc::new(storage));
        self
    }

    /// Adds an issuer by a name of the program's choice: [`AcmeIssuer::builder`], [`ZeroSslIssuer`],
    /// [`LocalCa::builder`], or the program's own [`Issuer`], which has to call itself by this name.
    /// The first one is the default. Without any, Let's Encrypt is asked.
    ///
    /// [`AcmeIssuer::builder`]: crate::AcmeIssuer::builder
    /// [`LocalCa::builder`]: crate::LocalCa::builder
    pub fn issuer(mut self, name: &str, issuer: impl Into<IssuerSource>) -> Self {
        if self.raw.issuers.contains_key(name) {
            self.mistakes.push(format!(
                "issuers.{name}: there is an issuer of this name already; give it another one"
            ));
        }
        issuer.into().add_to(&mut self, name);
        self
    }

    /// Obtains and renews a certificate for each of `names`, from the default issuer. For several
    /// names in one certificate, or for another issuer, see [`Self::certificate`].
    pub fn manage<N: AsRef<str>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        for name in names {
            self = self.certificate(ManagedCertificate::new([name]));
        }
        self
    }

    /// Obtains and renews a certificate.
    pub fn certificate(mut self, certificate: ManagedCertificate) -> Self {
        self.raw.certificates.push(certificate.into_raw());
        self
    }

    /// Serves the certificate in two PEM files, which may be one: a chain and its key. They are
    /// loaded again when they change.
    pub fn certificate_files(mut self, cert: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        let (cert, key) = (self.path(cert), self.path(key));
        self.raw.certificates.push(schema::Certificate {
            files: Some(schema::CertificateFiles {
                cert,
                key: Some(key),
            }),
            ..schema::Certificate::default()
        });
        self
    }

    /// Serves every `NAME.pem` in a directory, with its key in `NAME.key` or in the same file. They
    /// are loaded again when they change.
    pub fn certificate_directory(mut self, path: impl Into<PathBuf>) -> Self {
        let directory = Some(self.path(path));
        self.raw.certificates.push(schema::Certificate {
            directory,
            ..schema::Certificate::default()
        });
        self
    }

    /// Serves the certificate of this name to clients that name no host, or one without a
    /// certificate. By default the latter get the alert `unrecognized_name`.
    pub fn default_certificate(mut self, name: &str) -> Self {
        self.raw.tls.default_certificate = Some(name.to_owned());
        self
    }

    /// Obtains certificates when a client first asks for a name.
    pub fn on_demand(mut self, on_demand: OnDemand) -> Self {
        on_demand.add_to(&mut self);
        self
    }

    /// Adds a place where DNS records are set, by a name of the program's choice: a service that is
    /// known here, or the program's own [`DnsProvider`], which has to call itself by this name.
    /// Issuers and certificates refer to it by `dns`; the only one need not be named.
    pub fn dns_provider(mut self, name: &str, provider: impl Into<DnsSettings>) -> Self {
        if self.raw.dns.contains_key(name) {
            self.mistakes.push(format!(
                "dns.{name}: there is a DNS provider of this name already; give it another one"
            ));
        }
        self.add_dns(name, provider.into());
        self
    }

    /// Proves names with this solver, which goes before the engine's own of the same type.
    pub fn challenge_solver(mut self, solver: impl ChallengeSolver + 'static) -> Self {
        self.own.solvers.push(Arc::new(solver));
        self
    }

    /// Calls `callback` for each event, one after the other, where it may block; but events are lost
    /// once 1024 of them wait. A panic ends only the one call. See [`EngineHandle::events`] for a stream.
    pub fn on_event(mut self, callback: impl Fn(&Event) + Send + 'static) -> Self {
        self.callbacks.push(Box::new(callback));
        self
    }

    /// Judges certificates by this clock instead of the system's, for tests. Pauses still take as long
    /// as they take.
    pub fn clock(mut self, clock: impl Clock + 'static) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// Renews certificates at the beginning of this last part of their lifetime, over 0 and under 1,
    /// unless the CA advises to do so sooner. By default in the last third.
    pub fn renewal_window(mut self, part: f64) -> Self {
        self.raw.renewal.window = part;
        self
    }

    /// Starts the engine on the current Tokio runtime: certificates that are stored or in files are
    /// served on return, the others are obtained in the background, from a second later on: by then
    /// the program should listen where the CA looks. The runtime has to live for as long as the engine.
    ///
    /// # Errors
    /// Everything that is wrong with what the builder was given, and what to do about it.
    pub async fn start(mut self) -> Result<EngineHandle, BuildError> {
        let runtime = Handle::try_current().map_err(|_| BuildError::NoRuntime)?;
        let config = self.assemble()?;
        let stop = watch::Sender::new(false);
        let engine = Engine::new(EngineSetup {
            clock: self.clock,
            stop: stop.clone(),
            in_memory: config.certificates_in_memory,
            own_issuers: self.own.issuers,
            own_dns: self.own.dns,
            own_solvers: self.own.solvers,
            decider: self.own.decider,
            ..EngineSetup::new(match self.storage {
                Some(storage) => storage,
                None => Arc::new(FileStorage::new(paths::default_storage()?)),
            })
        })?;
        EngineHandle::start(engine, config, stop, self.callbacks, runtime).await
    }

    /// The configuration that the builder stands for.
    fn assemble(&mut self) -> Result<Config, BuildError> {
        if self.raw.issuers.is_empty() && self.asks_issuers() {
            let default = schema::Issuer {
                acme: Some(schema::Acme::default()),
                ..schema::Issuer::default()
            };
            self.raw.issuers.insert(DEFAULT_ISSUER.to_owned(), default);
        }
        if self.raw.certificates.is_empty() && self.raw.on_demand.is_none() {
            self.mistakes.push(
                "there is nothing to serve; call 'manage', 'certificate', 'certificate_files', \
                 'certificate_directory' or 'on_demand'"
                    .to_owned(),
            );
        }
        self.mistakes.extend(bounds::mistakes(&self.raw));
        let loaded = assemble::assemble(&self.raw);
        let mut mistakes = std::mem::take(&mut self.mistakes);
        match loaded {
            Ok(loaded) if mistakes.is_empty() => {
                for warning in &loaded.warnings {
                    tracing::warn!("{}", warning.without_place());
                }
                Ok(loaded.config)
            }
            loaded => {
                let found = loaded.err();
                let found = found.iter().flat_map(|found| found.errors());
                mistakes.extend(found.map(|one| one.without_place()));
                Err(BuildError::Invalid { mistakes })
            }
        }
    }

    fn asks_issuers(&self) -> bool {
        let mut certificates = self.raw.certificates.iter();
        self.raw.on_demand.is_some() || certificates.any(|one| one.names.is_some())
    }

    /// A path as text, which configurations consist of.
    fn path(&mut self, path: impl Into<PathBuf>) -> String {
        values::path_text(path.into(), &mut self.mistakes)
    }
}

#[cfg(test)]
mod tests;
