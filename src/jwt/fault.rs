//! What is wrong with a token.

/// Why a request is not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The request has no token.
    Missing,
    /// It has several, and servers may read another one.
    Several,
    /// It is no token in the compact form of a signed one.
    Malformed,
    TooLong,
    /// It is not signed in a way that is allowed here.
    Algorithm,
    /// It has extensions that have to be understood (`crit`).
    Critical,
    /// No key is known by which it could be signed.
    UnknownKey,
    Signature,
    /// It does not say when it expires.
    NoExpiry,
    Expired,
    NotYetValid,
    Issuer,
    Audience,
    /// It is valid, and does not say what is demanded here.
    Claims,
    /// No keys are known at all.
    NoKeys,
}

impl Fault {
    /// What to tell the client about its token, if anything is wrong with it.
    pub fn description(self) -> Option<&'static str> {
        Some(match self {
            Self::Missing | Self::NoKeys => return None,
            Self::Several => "The request has more than one token.",
            Self::Malformed => "The token is malformed.",
            Self::TooLong => "The token is too long.",
            Self::Algorithm => "The token is signed in a way that is not accepted here.",
            Self::Critical => "The token has extensions that are not known here.",
            Self::UnknownKey => "The token is signed by an unknown key.",
            Self::Signature => "The signature of the token is wrong.",
            Self::NoExpiry => "The token does not say when it expires.",
            Self::Expired => "The token has expired.",
            Self::NotYetValid => "The token is not valid yet.",
            Self::Issuer => "The token is by another issuer.",
            Self::Audience => "The token is for another audience.",
            Self::Claims => "The token does not allow this.",
        })
    }
}
