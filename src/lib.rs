//! Snigate: an edge gateway that hosts many TLS sites on one address, and its certificate engine for
//! other programs.
//!
//! # Certificates for another program
//!
//! [`manage`] obtains certificates from Let's Encrypt, renews them, and keeps them in the default place:
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let engine = snigate::manage(["example.com", "www.example.com"]).await?;
//! let acceptor = engine.acceptor()?; // OpenSSL's SslAcceptor, for any TLS server
//! # Ok(()) }
//! ```
//!
//! [`Engine::builder`] says everything else: which issuers, which storage, certificates in files or on
//! demand, and the program's own parts for all of it.
//!
//! ```no_run
//! use snigate::storage::FileStorage;
//! use snigate::{AcmeIssuer, Engine, LocalCa, ManagedCertificate, OnDemand};
//!
//! # async fn is_customer(_: &str) -> bool { true }
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let engine = Engine::builder()
//!     .storage(FileStorage::new("certs"))
//!     .issuer("ca", AcmeIssuer::builder().email("ops@example.com"))
//!     .issuer("internal", LocalCa::builder())
//!     .manage(["example.com", "www.example.com"])
//!     .certificate(ManagedCertificate::new(["db.internal"]).issuers(["internal"]))
//!     .certificate_files("cert.pem", "key.pem")
//!     .on_demand(OnDemand::decide(|name| async move { is_customer(name.as_str()).await }))
//!     .on_event(|event| println!("{}: {}", event.domain, event.message))
//!     .start()
//!     .await?;
//! let settings = engine.tls_settings()?; // for a listener of Pingora
//! let http01 = engine.http01(); // answers http-01 in any HTTP server
//! engine.stop().await;
//! # Ok(()) }
//! ```
//!
//! [`EngineHandle`] has what servers need. [`storage`], [`dns`], [`issuer`], [`challenge`] and
//! [`on_demand`] have the traits that a program can implement. `docs/library.md` explains all of this,
//! with a runnable program for each in `examples/`.
//!
//! # The gateway
//!
//! The program `snigate` is built on the same engine. Its modules are public for its tests and
//! benches, but hidden here: they change without notice. They stand in five layers; each uses only
//! those below it, which `tests/library/layers.rs` checks.
//!
//! | layer | modules | what they are |
//! |---|---|---|
//! | 5 | `cli`, `app`, `builder` | the command line; the gateway put together; the door for other programs |
//! | 4 | `reload`, `service`, `admin`, `edge`, `proxy`, `engine`, `tls` | what runs: reloads, the process, the admin interface, connections, requests, certificates, handshakes |
//! | 3 | `notify`, `manager`, `on_demand`, `renewal`, `cert_files`, `cert_status`, `cert_store`, `local_ca`, `acme`, `challenge`, `dns`, `issuer` | which certificates are served, and where they come from |
//! | 2 | `storage`, `certificate`, `schedule`, `access_log`, `line_queue`, `problem`, `config` | what is kept, parsed, decided, written, configured |
//! | 1 | `jwt`, `http_client`, `base64url`, `throttle`, `token_bucket`, `event`, `stamp`, `shutdown`, `readiness`, `pulse`, `metrics`, `secret`, `host`, `clock`, `machine`, `memory`, `printable`, `parallel`, `program`, `unix_socket` | the words that all others speak |

#![warn(missing_docs)]

#[doc(hidden)]
pub mod access_log;
#[doc(hidden)]
pub mod acme;
#[doc(hidden)]
pub mod admin;
#[doc(hidden)]
pub mod app;
mod base64url;
mod builder;
#[doc(hidden)]
pub mod cert_files;
mod cert_status;
mod cert_store;
#[doc(hidden)]
pub mod certificate;
pub mod challenge;
#[doc(hidden)]
pub mod cli;
pub mod clock;
#[doc(hidden)]
pub mod config;
pub mod dns;
#[doc(hidden)]
pub mod edge;
#[doc(hidden)]
pub mod engine;
pub mod event;
mod field;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
pub mod host;
#[doc(hidden)]
pub mod http_client;
pub mod issuer;
#[doc(hidden)]
pub mod jwt;
#[doc(hidden)]
pub mod line_queue;
#[doc(hidden)]
pub mod local_ca;
mod lock;
mod machine;
#[doc(hidden)]
pub mod manager;
#[doc(hidden)]
pub mod memory;
#[doc(hidden)]
pub mod metrics;
#[doc(hidden)]
pub mod notify;
pub mod on_demand;
mod parallel;
#[doc(hidden)]
pub mod printable;
#[doc(hidden)]
pub mod problem;
mod program;
#[doc(hidden)]
pub mod proxy;
#[doc(hidden)]
pub mod pulse;
#[doc(hidden)]
pub mod readiness;
#[doc(hidden)]
pub mod reload;
#[doc(hidden)]
pub mod renewal;
#[doc(hidden)]
pub mod schedule;
#[doc(hidden)]
pub mod secret;
#[doc(hidden)]
pub mod service;
#[doc(hidden)]
pub mod shutdown;
#[doc(hidden)]
pub mod stamp;
pub mod storage;
#[doc(hidden)]
pub mod throttle;
pub mod tls;
mod token_bucket;
#[doc(hidden)]
pub mod trace;
mod unix_socket;

pub use self::acme::AcmeIssuer;
pub use self::builder::{
    AcmeIssuerBuilder, BuildError, DnsSettings, EngineBuilder, EngineHandle, EventStream,
    Http01Responder, IssuerSource, LocalCaBuilder, ManagedCertificate, OnDemand, ZeroSslIssuer,
    ZeroSslIssuerBuilder, manage,
};
pub use self::challenge::ChallengeType;
pub use self::config::model::KeyType;
pub use self::engine::{Engine, EngineError};
pub use self::local_ca::LocalCa;
