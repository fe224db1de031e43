//! What an order asks for.

use std::time::Duration;

/// What is asked of a CA in an order, beside its names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OrderTerms {
    pub profile: Option<Profile>,
    /// The chain to take where the CA has several.
    pub preferred_chain: Option<PreferredChain>,
    /// How long the certificate is to be valid.
    pub lifetime: Option<Duration>,
    /// Whether the first name is the common name too.
    pub common_name: bool,
    /// Whether the certificate has the TLS feature `status_request` (RFC 7633).
    pub must_staple: bool,
}

/// A profile of a CA (draft-ietf-acme-profiles).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    pub name: String,
    /// Whether nothing is asked of a CA that does not have it.
    pub required: bool,
}

/// Which of several chains of one certificate is taken (RFC 8555, section 7.4.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PreferredChain {
    /// One in which a certificate was issued by an authority of this common name.
    Issuer(String),
    /// One that leads to a root of this common name.
    Root(String),
    /// The one of the fewest certificates.
    Shortest,
}
