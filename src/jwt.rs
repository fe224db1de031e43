//! Tokens that say who sends a request, signed by an issuer: JSON Web Tokens (RFC 7519).
//!
//! They are verified with public keys alone, by OpenSSL. The key decides which algorithms it may be
//! used with; what a token says of its own algorithm only has to be one of them. Nothing that a token
//! carries is ever used as a key, or fetched.

mod algorithm;
mod fault;
mod fetch;
mod jwk;
mod key;
mod key_server;
mod keys;
mod object;
mod pem;
mod token;

pub use self::algorithm::Algorithm;
pub use self::fault::Fault;
pub use self::key_server::KeyServer;
pub use self::keys::KeySet;
pub use self::token::{Audience, RequiredClaim, Rules, RulesId, Token};
