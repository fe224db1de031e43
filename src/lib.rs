//! Snigate, an edge gateway that hosts many TLS sites on one address.

pub mod certificate;
pub mod clock;
pub mod config;
pub mod host;
pub mod local_ca;
pub mod manager;
pub mod metrics;
pub mod readiness;
pub mod secret;
pub mod storage;
pub mod tls;
