//! How the servers of an upstream are chosen, watched and left out.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use http::{HeaderName, StatusCode};

/// The protocol that the servers of an upstream speak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    #[default]
    Http1,
    /// Without TLS by prior knowledge (RFC 9113, section 3.3).
    Http2,
    /// Each server chooses in its TLS handshake.
    Negotiated,
}

/// How a server of an upstream is chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Balance {
    /// In turn, by weight.
    RoundRobin,
    /// The one with the fewest requests in flight compared with its weight.
    LeastRequests,
    /// The same one for the same key.
    Hash(HashKey),
}

/// What a server is chosen by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashKey {
    ClientIp,
    Header(HeaderName),
    Cookie(Box<str>),
}

/// The files of a certificate that the gateway presents as a client, in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The certificate and its intermediates.
    pub cert: PathBuf,
    pub key: PathBuf,
}

/// How connections to servers are kept for the next request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeepAlive {
    /// The most idle connections to each address.
    pub connections: usize,
    /// How long an idle connection is kept.
    pub idle: Duration,
}

impl Default for KeepAlive {
    fn default() -> Self {
        Self {
            connections: 1000,
            idle: Duration::from_secs(60),
        }
    }
}

/// A version of the PROXY protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyProtocolVersion {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

/// When an address that fails requests is left out, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Eject {
    /// Never 0.
    pub failures: usize,
    pub within: Duration,
    /// Which responses are failures.
    pub status: StatusSet,
    /// The first time; it doubles each time that the address fails again.
    pub time: Duration,
}

/// Statuses of responses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StatusSet([u64; 10]);

impl StatusSet {
    /// Every status from `first` to `last`.
    pub const fn range(first: u16, last: u16) -> Self {
        Self([
            word(0, first, last),
            word(64, first, last),
            word(128, first, last),
            word(192, first, last),
            word(256, first, last),
            word(320, first, last),
            word(384, first, last),
            word(448, first, last),
            word(512, first, last),
            word(576, first, last),
        ])
    }

    /// These and those of another set.
    #[must_use]
    pub fn with(mut self, other: Self) -> Self {
        for (own, other) in self.0.iter_mut().zip(other.0) {
            *own |= other;
        }
        self
    }

    pub fn contains(&self, status: StatusCode) -> bool {
        let index = status.as_u16();
        let bits = self.0.get(usize::from(index / 64));
        bits.is_some_and(|bits| bits & 1 << (index % 64) != 0)
    }
}

/// The bits of the statuses from `first` to `last` among the 64 from `base` on.
const fn word(base: u16, first: u16, last: u16) -> u64 {
    let mut bits = 0;
    let mut place = 0;
    while place < 64 {
        if first <= base + place && base + place <= last {
            bits |= 1 << place;
        }
        place += 1;
    }
    bits
}

/// How addresses are checked, whether or not there are requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    pub probe: Probe,
    pub every: Duration,
    pub timeout: Duration,
    /// How many good checks in a row make an address healthy.
    pub healthy: u32,
    /// How many failed checks in a row make an address unhealthy.
    pub unhealthy: u32,
}

impl HealthCheck {
    /// How long it takes at most until an address that fails from the start is known to be unhealthy.
    pub fn time_to_find_down(&self) -> Duration {
        // Each check may begin a tenth later than planned, and the first one is put off, too.
        let one = self.every.mul_f64(1.1).saturating_add(self.timeout);
        one.saturating_mul(self.unhealthy.saturating_add(1))
    }
}

/// What a check does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// Opens a connection, with TLS if the upstream has it.
    Tcp,
    /// Asks for the health of a service over gRPC.
    Grpc {
        /// Empty for the whole server.
        service: String,
        /// `None` for that of the server's address.
        host: Option<String>,
    },
    /// Sends a GET request.
    Http {
        path: String,
        /// `None` for that of the server's address.
        host: Option<String>,
        /// The statuses of a good response.
        status: Vec<RangeInclusive<u16>>,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_has_what_was_put_into_it() {
        let set = StatusSet::range(500, 500).with(StatusSet::range(502, 599));
        let found: Vec<u16> = (100..=999)
            .filter(|code| set.contains(StatusCode::from_u16(*code).expect("a status")))
            .collect();
        let expected: Vec<u16> = (500..=599).filter(|code| *code != 501).collect();
        assert_eq!(found, expected);
    }
}
