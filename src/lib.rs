//! Snigate, an edge gateway that hosts many TLS sites on one address.

pub mod access_log;
pub mod admin;
pub mod app;
pub mod certificate;
pub mod cli;
pub mod clock;
pub mod config;
pub mod edge;
pub mod host;
pub mod local_ca;
pub mod manager;
pub mod metrics;
pub mod proxy;
pub mod readiness;
pub mod secret;
pub mod service;
pub mod shutdown;
pub mod stamp;
pub mod storage;
pub mod tls;
