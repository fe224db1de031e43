//! Why an issuer issued no certificate, in classes that need different patience.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Scope, Wait};
use crate::clock::UnixTime;

/// Why an issuer issued no certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What kind of failure it was.
    pub class: FailureClass,
    /// What failed, where and why, for people, with what to do next.
    pub message: String,
    /// The time before which the CA does not want to be asked again.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub retry_after: Option<UnixTime>,
    /// The scope of the CA's limit, if it is rate limited or asks to be left alone for a while;
    /// `None` if it does not say.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub scope: Option<Scope>,
    /// What prevented asking the CA, if it was not asked. That is not a failure of the certificate.
    #[serde(skip)]
    pub held: Option<Box<Wait>>,
    /// A page of the CA about it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub url: Option<String>,
    /// How many validations of one name failed at the CA, which allows a limited number per hour.
    #[serde(skip_serializing_if = "is_zero", default)]
    pub failed_validations: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// The kind of failure, which decides how soon to retry.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum FailureClass {
    /// The CA is unreachable, or has a fault of its own: soon at first.
    Network,
    /// The CA validated and found something else: the name may not point here yet.
    Validation,
    /// The CA refuses the name, by policy or CAA: a person has to act.
    Refused,
    /// Too many requests: not before the CA says so.
    RateLimited,
    /// The CA has paused the account or the name until somebody acts at its portal: no automatic
    /// retry.
    Paused,
    /// The account, its external binding or the request is rejected: the configuration has to
    /// change.
    Configuration,
    /// The storage cannot be used.
    Storage,
    /// The issued certificate is not valid by this machine's clock: a person has to set one of the
    /// two clocks.
    Clock,
    /// A hook objects, so that no CA was asked.
    Vetoed,
    /// The issued certificate is not what was requested, or something broke here. Also any class
    /// that another version has stored.
    #[default]
    #[serde(other)]
    Internal,
}

impl Failure {
    /// A failure with only these members.
    pub fn new(class: FailureClass, message: impl Into<String>) -> Self {
        Self {
            class,
            message: message.into(),
            retry_after: None,
            scope: None,
            held: None,
            url: None,
            failed_validations: 0,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}
