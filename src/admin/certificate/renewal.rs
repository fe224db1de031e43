//! How a certificate is kept up, as the admin interface shows it.

use serde::{Deserialize, Serialize};

use super::super::view::rfc3339;
use super::LastFailure;
use crate::clock::UnixTime;
use crate::schedule::advice::Window;
use crate::schedule::{Failure, FailureClass};

/// How a certificate is kept up.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct RenewalView {
    /// By which it is known in the storage.
    pub subject: String,
    /// The names of the issuers, tried in order.
    pub issuers: Vec<String>,
    /// Whether one of them is being asked now.
    pub obtaining: bool,
    /// Whether a client has asked for it, and not the configuration.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub on_demand: bool,
    /// When it is renewed or, after a failure, tried again.
    #[serde(with = "rfc3339::option")]
    pub next: Option<UnixTime>,
    /// The limit of a CA for which nobody is asked for it until that ends.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub held: Option<HeldView>,
    /// Why the storage does not say what it has of this certificate, with the place: nothing is
    /// ordered before it does, unless what is served ends soon.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub unread: Option<String>,
    /// When the CA advises to renew it; `None` where it does not.
    pub advice: Option<AdviceView>,
    /// How often in a row no issuer gave a certificate.
    pub failures: u32,
    pub last_failure: Option<FailureView>,
}

/// A limit of a CA that a certificate waits for.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct HeldView {
    /// The name of the issuer.
    pub issuer: String,
    /// What the limit holds: `set`, `domain`, `identifier`, `account`, `registrations`, `ca`; or
    /// `clock`, where what came was not valid by the clock of this machine.
    pub scope: String,
    #[serde(with = "rfc3339")]
    pub until: UnixTime,
    /// What is limited until when, with the CA's words.
    pub message: String,
}

/// When a CA advises to renew a certificate (RFC 9773).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct AdviceView {
    #[serde(with = "rfc3339")]
    pub start: UnixTime,
    #[serde(with = "rfc3339")]
    pub end: UnixTime,
    /// The time in between that was drawn; [`RenewalView::next`] is no later, unless the CA's
    /// advice is followed too often.
    #[serde(with = "rfc3339")]
    pub drawn: UnixTime,
    /// A page of the CA that says why.
    pub url: Option<String>,
}

/// Why no certificate was given.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct FailureView {
    #[serde(with = "rfc3339")]
    pub at: UnixTime,
    /// The name of the issuer that was asked.
    pub issuer: Option<String>,
    pub class: FailureClass,
    /// What failed, where and why, with the CA's words.
    pub message: String,
    /// A page of the CA about it.
    pub url: Option<String>,
    /// Before when the CA does not want to be asked again.
    #[serde(with = "rfc3339::option")]
    pub retry_after: Option<UnixTime>,
}

impl From<&Window> for AdviceView {
    fn from(window: &Window) -> Self {
        Self {
            start: window.start,
            end: window.end,
            drawn: window.at,
            url: window.url.clone(),
        }
    }
}

impl From<&LastFailure> for FailureView {
    fn from(last: &LastFailure) -> Self {
        let Failure {
            class,
            message,
            retry_after,
            scope: _,
            held: _,
            url,
            failed_validations: _,
        } = &last.failure;
        Self {
            at: last.at,
            issuer: last.issuer.as_deref().map(str::to_owned),
            class: *class,
            message: message.clone(),
            url: url.clone(),
            retry_after: *retry_after,
        }
    }
}
