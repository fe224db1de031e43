//! The account at a CA, for whoever looks after it by hand.

use serde::{Deserialize, Serialize};

/// What is done with the account at a CA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccountTask {
    /// Nothing: it is looked at.
    Show,
    /// It is made, where there is none that can be used.
    Create,
    /// It gets another key (RFC 8555, section 7.3.5).
    Rollover,
    /// It gets these e-mail addresses in the place of those it has (section 7.3.2).
    Contact(Vec<String>),
    /// It is ended for good (section 7.3.6).
    Deactivate,
}

/// What is known of an account at a CA.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountFacts {
    /// The URL of the CA's directory.
    pub directory: String,
    /// By which the CA knows it, and CAA records name it (RFC 8657).
    pub url: String,
    /// `valid` or `deactivated`, as the CA says; `None` where it could not be asked.
    pub status: Option<String>,
    /// E-mail addresses.
    pub contacts: Vec<String>,
    /// The key identifier of the external account that it is bound to.
    pub bound_to: Option<String>,
    /// The thumbprint of its key (RFC 7638).
    pub thumbprint: String,
    /// What a person should know.
    pub note: Option<String>,
}
