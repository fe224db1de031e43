//! Who may have what is served.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use http::HeaderValue;

use super::{ForwardAuth, Jwt, Network};
use crate::secret::Secret;

/// Who may have what a site or a route serves.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Access {
    /// Only clients of these networks, if there are any.
    pub allow: Arc<[Network]>,
    /// No client of these networks.
    pub deny: Arc<[Network]>,
    pub basic_auth: Option<Arc<BasicAuth>>,
    pub jwt: Option<Arc<Jwt>>,
    pub forward_auth: Option<Arc<ForwardAuth>>,
}

/// Users and their passwords.
#[derive(Debug, PartialEq, Eq)]
pub struct BasicAuth {
    /// `WWW-Authenticate` of a response to a client that is not one of them (RFC 7617, section 2).
    pub challenge: HeaderValue,
    pub users: HashMap<Box<str>, PasswordHash>,
}

/// What a password is compared with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PasswordHash {
    /// `$2b$` or the like.
    Bcrypt(Secret),
    /// `$5$` or `$6$`.
    ShaCrypt(Secret),
}

impl Access {
    /// Whether it takes time to find out whether a request is served.
    pub fn authenticates(&self) -> bool {
        self.basic_auth.is_some() || self.jwt.is_some() || self.forward_auth.is_some()
    }

    /// Whether a client may be served for its address. One without an address, on a Unix socket, may
    /// be where there are no lists: nobody knows whether it is on them.
    pub fn admits(&self, client: Option<IpAddr>) -> bool {
        let is_in = |networks: &[Network]| {
            client.is_some_and(|client| networks.iter().any(|network| network.contains(client)))
        };
        let is_denied = !self.deny.is_empty() && (client.is_none() || is_in(&self.deny));
        !is_denied && (self.allow.is_empty() || is_in(&self.allow))
    }
}

impl PasswordHash {
    /// The hash as it is stored.
    pub(crate) fn expose(&self) -> &str {
        match self {
            Self::Bcrypt(hash) | Self::ShaCrypt(hash) => hash.expose(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_denied_is_not_allowed() {
        let networks = |text: &str| -> Arc<[Network]> {
            let parsed = text.split_whitespace().map(str::parse);
            parsed.map(|network| network.expect("a network")).collect()
        };
        for (allow, deny, client, admitted) in [
            ("", "", Some("192.0.2.1"), true),
            ("", "", None, true),
            ("10.0.0.0/8", "", Some("10.1.2.3"), true),
            ("10.0.0.0/8", "", Some("::ffff:10.1.2.3"), true),
            ("10.0.0.0/8", "", Some("192.0.2.1"), false),
            ("10.0.0.0/8", "", None, false),
            ("", "192.0.2.0/24", Some("192.0.2.1"), false),
            ("", "192.0.2.0/24", Some("192.0.3.1"), true),
            ("", "192.0.2.0/24", None, false),
            ("10.0.0.0/8", "10.1.0.0/16", Some("10.1.2.3"), false),
            ("10.0.0.0/8", "10.1.0.0/16", Some("10.2.2.3"), true),
        ] {
            let access = Access {
                allow: networks(allow),
                deny: networks(deny),
                ..Access::default()
            };
            let address = client.map(|client| client.parse().expect("an address"));
            assert_eq!(
                access.admits(address),
                admitted,
                "{allow} {deny} {client:?}"
            );
        }
    }
}
