//! What a limit of a CA covers, and what it does not.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::host::Pattern;

/// What a limit of a CA covers. Everything else at that CA continues.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Certificates with exactly the requested names, in any order.
    Set,
    /// All names at or below a domain.
    Domain(String),
    /// One name, and none below it.
    Identifier(String),
    /// All orders of the account.
    Account,
    /// The creation of accounts. Existing accounts can still order.
    Registrations,
    /// All requests to the CA.
    Ca,
}

impl Scope {
    /// Its name in JSON and in metrics.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Set => "set",
            Self::Domain(_) => "domain",
            Self::Identifier(_) => "identifier",
            Self::Account => "account",
            Self::Registrations => "registrations",
            Self::Ca => "ca",
        }
    }

    /// Returns true if it is a limit of the whole CA, whatever account is used there.
    pub fn is_of_ca(&self) -> bool {
        matches!(self, Self::Registrations | Self::Ca)
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Set => f.write_str("certificates for this exact set of names"),
            Self::Domain(domain) => write!(f, "names of {domain}"),
            Self::Identifier(name) => write!(f, "certificates for {name}"),
            Self::Account => f.write_str("this account"),
            Self::Registrations => f.write_str("new accounts"),
            Self::Ca => f.write_str("all requests"),
        }
    }
}

/// An intended order, as far as limits consider it.
#[derive(Clone, Copy, Debug)]
pub struct Intent<'a> {
    /// The names of the certificate.
    pub names: &'a [Pattern],
    /// Whether the order says which certificate it replaces (RFC 9773, section 5). CAs exempt such
    /// renewals from limits on new orders.
    pub replaces: bool,
}

impl<'a> Intent<'a> {
    /// An order for a certificate that replaces none.
    pub fn new(names: &'a [Pattern]) -> Self {
        Self {
            names,
            replaces: false,
        }
    }
}

/// The names as a set, whatever their order.
pub(super) fn set_of(names: &[Pattern]) -> String {
    let mut names: Vec<String> = names.iter().map(ToString::to_string).collect();
    names.sort_unstable();
    names.dedup();
    names.join(" ")
}

/// Returns true if a name of one set and a name of another belong to the same registered domain.
pub(super) fn are_related(one: &str, other: &str) -> bool {
    let registered = |name: &str| {
        let name = name.strip_prefix("*.").unwrap_or(name);
        let domain = match name.parse::<IpAddr>() {
            Ok(_) => None,
            Err(_) => psl::domain_str(name),
        };
        domain.unwrap_or(name).to_owned()
    };
    let others: Vec<String> = other.split(' ').map(registered).collect();
    one.split(' ')
        .any(|name| others.contains(&registered(name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_has_no_order() {
        let set = |names: &[&str]| {
            let names: Vec<Pattern> = names
                .iter()
                .map(|name| name.parse().expect("a name"))
                .collect();
            set_of(&names)
        };
        assert_eq!(set(&["b.test", "a.test"]), set(&["a.test", "b.test"]));
        assert_eq!(set(&["b.test", "b.test"]), set(&["b.test"]));
        assert_ne!(set(&["b.test", "a.test"]), set(&["a.test"]));
        assert_ne!(set(&["*.a.test"]), set(&["a.test"]));
    }

    #[test]
    fn names_of_one_registered_domain_are_related() {
        for (one, other, is) in [
            ("a.example.com", "b.example.com", true),
            ("*.example.com", "example.com", true),
            ("a.test other.org", "b.example.com www.other.org", true),
            ("a.example.com", "a.example.org", false),
            ("a.co.uk", "b.co.uk", false),
            ("192.0.2.1", "198.51.2.1", false),
            ("192.0.2.1", "192.0.2.1", true),
        ] {
            assert_eq!(are_related(one, other), is, "{one} {other}");
        }
    }
}
