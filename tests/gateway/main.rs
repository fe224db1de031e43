//! The built program against real clients, origins, CAs and name servers, and those parts of the
//! library that talk to such peers themselves: the ACME issuer, the DNS and the challenges.
//!
//! One binary, so that [`support`] is compiled and everything is linked once. A part of it runs by
//! its path: `cargo test --test gateway proxy::log`.

#![allow(
    unreachable_pub,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "a test may fail loudly"
)]

mod acme;
mod acme_issuer;
mod addresses;
mod admin;
mod attacks;
mod cert_status;
mod certificates;
mod challenge;
mod check;
mod cli;
mod demo;
mod dns;
mod embedding;
mod examples;
mod files;
mod hot_reload;
mod lifecycle;
mod limits;
mod local_ca;
mod logs;
mod metrics;
mod notify;
mod on_demand;
mod proxy;
mod site_listeners;
mod smuggling;
mod support;
mod tls;
mod traces;
mod tunnels;
mod validity;
