//! Certificates on demand: which names may have one when a client first asks for it, and when.
//!
//! A [`Gate`] stands before a [`Maker`]. It decides, lets one maker work for all who wait for a
//! name, and bounds what strangers can cause. How a certificate is come by is the maker's affair.

mod ask;
mod bucket;
mod failures;
mod flight;
mod gate;
mod policy;
mod quota;
mod recent;
mod told;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

pub use self::gate::{Gate, Setup};
pub use self::policy::{allows, covers};

use crate::certificate::sni::CertificateSet;
use crate::host::HostName;

/// Makes the certificate of a name that the gate lets through.
#[async_trait]
pub trait Maker: Send + Sync {
    /// What is at hand for `name`, if anything valid is. Cheap: called in handshakes, no I/O.
    fn at_hand(&self, name: &HostName) -> Option<Arc<CertificateSet>>;

    /// Obtains it. May take minutes; runs in a task of its own, so that no client's leaving ends
    /// it.
    ///
    /// # Errors
    /// Where there is none to be had now.
    async fn obtain(&self, name: &HostName) -> Result<Arc<CertificateSet>, NotMade>;

    /// Whether `name` has a certificate that is at hand no more than by [`Self::obtain`]: it is no
    /// new one, so that no quota stands against it, and who cannot be asked neither.
    async fn knows(&self, _name: &HostName) -> bool {
        false
    }

    /// Whether `set`, which is at hand, is to be obtained anew behind the handshake that it is
    /// presented in. Never, where the maker renews by itself.
    fn is_due(&self, _set: &CertificateSet) -> bool {
        false
    }
}

/// Why a name has no certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotMade {
    /// For people.
    pub why: String,
    /// When it is worth another try, where that is known.
    pub retry_after: Option<Duration>,
    /// Whether any work was begun for it. Else it counts for no quota.
    pub is_begun: bool,
}

/// Asked before a renewal whether a name is still wanted.
#[async_trait]
pub trait Wanted: Send + Sync {
    /// Whether `name` may still have a certificate; `None` where it cannot be told now.
    async fn is_wanted(&self, name: &HostName) -> Option<bool>;
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
                url: Secret::new(url.to_owned()),
                timeout: Duration::from_secs(5),
                cache_allowed: Duration::from_secs(3600),
                cache_refused: Duration::from_secs(300),
                ca_file: None,
            }),
            ..config(allow)
        }
    }
}
