//! The library without the program: the proxy between raw sockets, the storage in files among several
//! processes, and the order of the sources.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test may fail loudly"
)]

mod journeys;
mod layers;
mod proxy;
mod storage;
