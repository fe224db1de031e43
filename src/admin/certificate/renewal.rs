//! How the admin interface shows the renewal of a certificate.

use serde::{Deserialize, Serialize};

use super::super::view::rfc3339;
use super::LastFailure;
use crate::clock::UnixTime;
use crate::schedule::advice::Window;
use crate::schedule::{Failure, FailureClass};

/// The renewal of a certificate.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct RenewalView {
    /// Its identifier in the storage.
    pub subject: String,
    /// The names of the issuers, tried in order.
    pub issuers: Vec<String>,
    /// Whether one of them is being asked now.
    pub obtaining: bool,
    /// Whether it was requested by a client, not by the configuration.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub on_demand: bool,
    /// When it is renewed or, after a failure, retried.
    #[serde(with = "rfc3339::option")]
    pub next: Option<UnixTime>,
    /// The limit of a CA because of which no issuer is asked for it until that ends.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub held: Option<HeldView>,
    /// Why the storage cannot be read for this certificate, with the place: nothing is ordered
    /// before that works, unless the served one expires soon.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub unread: Option<String>,
    /// When the CA suggests to renew it; `None` if it does not.
    pub advice: Option<AdviceView>,
    /// How many times in a row no issuer issued a certificate.
    pub failures: u32,
    pub last_failure: Option<FailureView>,
}

/// A limit of a CA that a certificate waits for.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct HeldView {
    /// The name of the issuer.
    pub issuer: String,
    /// The scope of the limit: `set`, `domain`, `identifier`, `account`, `registrations`, `ca`; or
    /// `clock`, if the issued certificate was not valid by this machine's clock.
    pub scope: String,
    #[serde(with = "rfc3339")]
    pub until: UnixTime,
    /// What is limited until when, in the CA's words.
    pub message: String,
}

/// When a CA suggests to renew a certificate (RFC 9773).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct AdviceView {
    #[serde(with = "rfc3339")]
    pub start: UnixTime,
    #[serde(with = "rfc3339")]
    pub end: UnixTime,
    /// The time drawn from that window; [`RenewalView::next`] is no later, unless the CA's
    /// suggestions come too often.
    #[serde(with = "rfc3339")]
    pub drawn: UnixTime,
    /// A page of the CA that explains it.
    pub url: Option<String>,
}

/// Why no certificate was issued.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct FailureView {
    #[serde(with = "rfc3339")]
    pub at: UnixTime,
    /// The name of the issuer that was asked.
    pub issuer: Option<String>,
    pub class: FailureClass,
    /// What failed, where and why, in the CA's words.
    pub message: String,
    /// A page of the CA about it.
    pub url: Option<String>,
    /// The time before which the CA does not want to be asked again.
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
