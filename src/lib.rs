//! Snigate, an edge gateway that hosts many TLS sites on one address.

pub mod admin;
pub mod certificate;
pub mod cli;
pub mod clock;
pub mod config;
pub mod host;
pub mod metrics;
pub mod readiness;
pub mod secret;
pub mod tls;
