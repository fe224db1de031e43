//! The library without the program: the proxy between raw sockets, the storage in files among several
//! processes, the order of the sources, and what the documents say of them.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test may fail loudly"
)]

mod documentation;
mod journeys;
mod layers;
mod logging;
mod metrics;
mod proxy;
mod storage;
