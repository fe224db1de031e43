//! The issuer that speaks ACME, against the real pebble.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    unreachable_pub,
    reason = "a test may fail loudly"
)]

#[path = "../support/mod.rs"]
mod support;

mod account;
mod authorizations;
mod bench;
mod limits;
mod not_yet;
mod odd;
mod order;
mod rehearsal;
mod validations;
