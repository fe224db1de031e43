//! Tokens that say who sends a request.

use std::sync::Arc;

use http::HeaderName;

use crate::jwt::{Fault, KeyServer, KeySet, Rules};

/// Which tokens requests need, and where they have them.
#[derive(Debug)]
pub struct Jwt {
    pub place: TokenPlace,
    pub keys: TokenKeys,
    pub rules: Rules,
}

/// Where a request has its token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenPlace {
    /// After `Bearer` in `Authorization` (RFC 6750, section 2.1).
    Authorization,
    /// In another field, with or without `Bearer`.
    Field(HeaderName),
    Cookie(Box<str>),
}

/// The verification keys.
#[derive(Debug, PartialEq)]
pub enum TokenKeys {
    /// Those of a file; `None` if it could not be read.
    File(Option<Arc<KeySet>>),
    Server(Arc<KeyServer>),
}

impl TokenKeys {
    /// Those that are known.
    ///
    /// # Errors
    /// If there are none.
    pub fn known(&self) -> Result<Arc<KeySet>, Fault> {
        let keys = match self {
            Self::File(keys) => keys.clone(),
            Self::Server(server) => server.keys(),
        };
        keys.ok_or(Fault::NoKeys)
    }
}

/// Those that accept the same tokens are equal.
impl PartialEq for Jwt {
    fn eq(&self, other: &Self) -> bool {
        self.place == other.place && self.keys == other.keys && self.rules.are_alike(&other.rules)
    }
}
