//! Snigate, an edge gateway that hosts many TLS sites on one address.
//!
//! The modules stand in five layers; each uses those below it and none above, which
//! `tests/library/layers.rs` watches over.
//!
//! | layer | modules | what they are |
//! |---|---|---|
//! | 5 | [`cli`], [`app`] | the command line; the gateway put together |
//! | 4 | [`reload`], [`service`], [`admin`], [`edge`], [`proxy`], [`engine`], [`tls`] | what runs: reloads, the process, the admin interface, connections, requests, certificates, handshakes |
//! | 3 | [`manager`], [`on_demand`], [`renewal`], [`cert_files`], `cert_store`, [`local_ca`], [`acme`], [`challenge`], [`dns`], [`issuer`] | which certificates are served, and where they come from |
//! | 2 | [`storage`], [`certificate`], [`schedule`], [`access_log`], [`line_queue`], [`problem`], [`config`] | what is kept, parsed, decided, written, configured |
//! | 1 | [`http_client`], [`throttle`], [`event`], [`stamp`], [`shutdown`], [`readiness`], [`pulse`], [`metrics`], [`secret`], [`host`], [`clock`], [`memory`], [`printable`], `parallel` | the words that all others speak |
//!
//! Another program can use [`engine::Engine`], which obtains, renews and presents certificates, and
//! leave the rest.

pub mod access_log;
pub mod acme;
pub mod admin;
pub mod app;
pub mod cert_files;
mod cert_store;
pub mod certificate;
pub mod challenge;
pub mod cli;
pub mod clock;
pub mod config;
pub mod dns;
pub mod edge;
pub mod engine;
pub mod event;
pub mod host;
pub mod http_client;
pub mod issuer;
pub mod line_queue;
pub mod local_ca;
mod lock;
pub mod manager;
pub mod memory;
pub mod metrics;
pub mod on_demand;
mod parallel;
pub mod printable;
pub mod problem;
pub mod proxy;
pub mod pulse;
pub mod readiness;
pub mod reload;
pub mod renewal;
pub mod schedule;
pub mod secret;
pub mod service;
pub mod shutdown;
pub mod stamp;
pub mod storage;
pub mod throttle;
pub mod tls;
