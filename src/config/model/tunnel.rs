//! Connections of a site that are passed on octet by octet.

use std::time::Duration;

use super::Proxy;

/// How connections of a site are passed on, instead of requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tunnel {
    pub kind: TunnelKind,
    /// Where to, how patiently and for how long at most. What concerns requests has no meaning.
    pub proxy: Proxy,
    /// How long no octet may pass in either direction.
    pub idle: Duration,
}

/// What is passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TunnelKind {
    /// All that the client sends: the server terminates TLS.
    PassThrough,
    /// What is within TLS.
    Tcp,
}

impl TunnelKind {
    /// Its key in the configuration.
    pub fn key(self) -> &'static str {
        match self {
            Self::PassThrough => "pass_through",
            Self::Tcp => "tcp",
        }
    }
}
