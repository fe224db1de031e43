//! Snigate, an edge gateway that hosts many TLS sites on one address.

pub mod access_log;
pub mod certificate;
pub mod clock;
pub mod config;
pub mod host;
pub mod metrics;
pub mod proxy;
pub mod readiness;
pub mod secret;
pub mod tls;
