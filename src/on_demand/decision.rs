//! Who decides whether a name that the configuration covers may have a certificate.

use std::net::IpAddr;
use std::sync::Arc;

use async_trait::async_trait;

use super::ask::{Answer, Asker};
use crate::host::HostName;

/// A decision of the program's own, in place of a service that is asked over HTTP.
#[async_trait]
pub trait Decision: Send + Sync {
    /// Whether `name` may have a certificate. `client` has asked for it; `None` for a renewal. Called
    /// in a task of its own while handshakes wait, and not twice at a time for a name.
    ///
    /// # Errors
    /// Why it cannot be told now: a new name gets no certificate then, and one that has a certificate
    /// keeps it.
    async fn decide(&self, name: &HostName, client: Option<IpAddr>) -> Result<bool, String>;
}

/// Who is asked about a name.
pub(super) enum Decider {
    /// The service of `on_demand.ask`.
    Service(Arc<Asker>),
    Program(Arc<dyn Decision>),
}

impl Decider {
    /// What is known of `host` without asking.
    pub(super) fn cached_answer(&self, host: &str) -> Option<bool> {
        match self {
            Self::Service(asker) => asker.cached_answer(host),
            Self::Program(_) => None,
        }
    }

    /// Asks whether `name`, which `client` wants, may have a certificate.
    pub(super) async fn ask(&self, name: &HostName, client: Option<IpAddr>) -> Answer {
        match self {
            Self::Service(asker) => asker.ask_service(name, client).await,
            Self::Program(decision) => match decision.decide(name, client).await {
                Ok(true) => Answer::Yes,
                Ok(false) => Answer::No,
                Err(why) => Answer::Nothing(why),
            },
        }
    }

    /// Who refuses a name, for people.
    pub(super) fn refusal(&self) -> &'static str {
        match self {
            Self::Service(_) => "the service of 'on_demand.ask' does",
            Self::Program(_) => "the program does",
        }
    }
}
