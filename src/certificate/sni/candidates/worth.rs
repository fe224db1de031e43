//! How useful a certificate is to clients.

use crate::certificate::{TlsCertificate, Validity};
use crate::clock::UnixTime;

/// How useful a certificate is to clients at a moment, lowest first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Worth {
    Invalid,
    /// It is valid, but one above it in its chain has expired. Clients that have another path to a
    /// root accept it.
    ChainEnded,
    Valid,
}

pub(super) fn worth(certificate: &TlsCertificate, now: UnixTime) -> Worth {
    match certificate.validity(now) {
        Validity::Expired | Validity::NotYet => Worth::Invalid,
        Validity::Valid if certificate.served_until() < now => Worth::ChainEnded,
        Validity::Valid => Worth::Valid,
    }
}
