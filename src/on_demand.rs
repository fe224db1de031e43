//! Certificates on demand: which names may have one when a client first asks for it, and when.
//!
//! A [`Gate`] stands before an [`OnDemandIssuer`]. It decides, obtains once for all that wait for a
//! name, and bounds what strangers can cause. The issuer is the local CA, or [`Requests`], by which
//! names get certificates from CAs: `certs` keeps those names.

mod ask;
mod bucket;
mod certs;
mod clock_guard;
mod decision;
mod gate;
mod issuance;
mod local_issuer;
mod lookup;
mod lru;
mod name_table;
mod negative_cache;
mod policy;
mod quota;
mod record;
mod removal;
mod report;
mod request_table;
mod requests;
mod wait_limit;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

pub(crate) use self::certs::OnDemandCerts;
pub use self::decision::{Decider, Decision, IntoDecision, Undecided, decide_with};
#[doc(hidden)]
pub use self::gate::{Gate, GateSettings};
pub(crate) use self::issuance::OnDemandIssuance;
#[doc(hidden)]
pub use self::local_issuer::LocalOnDemandIssuer;
pub use self::lookup::{Lookup, LookupResults};
#[doc(hidden)]
pub use self::policy::{allows, covers};
pub use self::record::{UseRecord, list_records, write_uses};
pub use self::removal::{Removal, Removed, Retention};
pub use self::request_table::RequestTable;
pub use self::requests::Requests;

use crate::certificate::sni::CertificateSet;
use crate::host::HostName;

/// Obtains the certificate of a name that the gate lets through.
#[doc(hidden)]
#[async_trait]
pub trait OnDemandIssuer: Send + Sync {
    /// The valid certificate of `name` in memory, if there is one. Cheap: called in handshakes, no
    /// I/O.
    fn cached(&self, name: &HostName) -> Option<Arc<CertificateSet>>;

    /// Whether it obtains nothing any more. What is cached is presented all the same.
    fn is_stopped(&self) -> bool {
        false
    }

    /// Obtains it. May take minutes; runs in a task of its own, so that no client's leaving ends
    /// it.
    ///
    /// # Errors
    /// If there is none to be had now.
    async fn obtain(&self, name: &HostName) -> Result<Arc<CertificateSet>, ObtainError>;

    /// Whether a certificate of `name` is stored, so that [`Self::obtain`] needs no order. Quotas
    /// and an unreachable `ask` do not apply.
    async fn has_stored(&self, _name: &HostName) -> bool {
        false
    }

    /// Whether `set`, which [`Self::cached`] gave, is to be obtained anew behind the handshake that
    /// it is presented in. Never, where the issuer renews by itself.
    fn is_due(&self, _set: &CertificateSet) -> bool {
        false
    }
}

/// Why a name has no certificate.
#[doc(hidden)]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObtainError {
    /// For people.
    pub why: String,
    /// When it is worth another try, where that is known.
    pub retry_after: Option<Duration>,
    /// Whether any work was begun for it. Else it counts for no quota.
    pub is_begun: bool,
}

impl ObtainError {
    /// Nobody obtains it any more.
    fn stopped() -> Self {
        Self {
            why: "the engine has stopped".to_owned(),
            retry_after: None,
            is_begun: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::model::{Ask, OnDemand, OnDemandLimits};
    use crate::secret::Secret;

    /// What lets these patterns in, without a limit.
    pub(super) fn config(allow: &[&str]) -> OnDemand {
        OnDemand {
            issuers: vec!["local".into()],
            public: false,
            allow: allow
                .iter()
                .map(|text| text.parse().expect("a pattern"))
                .collect(),
            ask: None,
            limits: OnDemandLimits {
                max_wait: Duration::from_secs(10),
                max_waiting: 1024,
                per_minute: 100_000,
                per_domain: None,
                per_client: None,
            },
            unused: Duration::from_secs(30 * 86_400),
        }
    }

    /// The same where a service is asked as well.
    pub(super) fn with_ask(allow: &[&str], url: &str) -> OnDemand {
        OnDemand {
            ask: Some(Ask {
                url: Some(Secret::new(url.to_owned())),
                timeout: Duration::from_secs(5),
                cache_allowed: Duration::from_secs(3600),
                cache_refused: Duration::from_secs(300),
                ca_file: None,
            }),
            ..config(allow)
        }
    }
}
