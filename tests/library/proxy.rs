//! The proxy between a raw client and a raw origin, over TCP, without the edge before it.

mod failures;
mod fixture;
mod http1;
mod http2;
mod upstreams;
