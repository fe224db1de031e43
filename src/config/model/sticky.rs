//! How clients stay at their server.

use std::time::Duration;

/// A cookie that keeps a client at its server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sticky {
    /// The cookie's name, a token.
    pub cookie: Box<str>,
    /// How long browsers keep it; `None` until they are closed.
    pub max_age: Option<Duration>,
}
