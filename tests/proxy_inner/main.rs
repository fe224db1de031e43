//! The proxy between a raw client and a raw origin, over TCP, without the edge before it.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test may fail in the middle of its helpers"
)]

mod failures;
mod http1;
mod http2;
mod support;
mod upstreams;
