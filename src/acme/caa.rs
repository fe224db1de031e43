//! Whether CAA records let a CA issue (RFC 8659, RFC 8657), looked up before it is asked: a refusal
//! is explained, and costs nothing of the CA's limits.
//!
//! The CA looks for itself, and its word counts: where nothing can be looked up, it is asked.

use std::time::Duration;

use futures::{StreamExt, stream};

use super::job::{Job, Stop};
use crate::challenge::ChallengeType;
use crate::config::model::Acme;
use crate::dns::lookup::{LookupOptions, Lookups};
use crate::host::Pattern;
use crate::schedule::{Failure, FailureClass};

/// How long all names of an order may take: a resolver that is silent is no reason to wait.
const PATIENCE: Duration = Duration::from_secs(10);

/// How many names are looked up at a time.
const AT_A_TIME: usize = 8;

/// Why it is not known that a CA may issue.
#[derive(Debug)]
pub(super) enum Against {
    /// A record forbids it.
    Refused(String),
    /// The records cannot be looked up.
    Unknown(String),
}

impl Job<'_> {
    /// Looks up the records of all names.
    ///
    /// # Errors
    /// Where one forbids the order.
    pub(super) async fn check_caa(&self) -> Result<(), Stop> {
        let config = &self.issuer.config;
        let identities = &self.session.directory().meta.caa_identities;
        if identities.is_empty() || !config.check_caa {
            return Ok(());
        }
        let kinds: Vec<_> = self.ways.kinds().collect();
        let account = self.account.id();
        let (lookups, kinds) = (&lookups(config), &kinds);
        let mut looks = stream::iter(self.request.names.clone())
            .map(|name| async move { look(lookups, identities, &name, Some(account), kinds).await })
            .buffer_unordered(AT_A_TIME);
        let all = async {
            let mut unknown = None;
            while let Some(looked) = looks.next().await {
                match looked {
                    Ok(()) => {}
                    Err(Against::Refused(why)) => return Err(why),
                    Err(Against::Unknown(why)) => unknown = Some(why),
                }
            }
            Ok(unknown)
        };
        match tokio::time::timeout(PATIENCE, all).await {
            Ok(Ok(None)) => {}
            Ok(Ok(Some(why))) => self.not_known(&why),
            Ok(Err(why)) => {
                let message = format!("{} was not asked: {why}", self.ca.host);
                let failure = Failure::new(FailureClass::Refused, message);
                return Err(Stop::Failed(failure));
            }
            Err(_) => self.not_known("the name servers do not answer in time"),
        }
        Ok(())
    }

    fn not_known(&self, why: &str) {
        self.progress(format!(
            "CAA records are left to {} to look at: {why}",
            self.ca.host
        ));
    }
}

/// Look-ups by the resolvers that are configured.
pub(super) fn lookups(config: &Acme) -> Lookups {
    Lookups::new(LookupOptions {
        resolvers: config.resolvers.clone(),
        ..LookupOptions::default()
    })
}

/// Whether a CA with these identities may issue for a name, by one of these types of challenge.
pub(super) async fn look(
    lookups: &Lookups,
    identities: &[String],
    name: &Pattern,
    account: Option<&str>,
    kinds: &[ChallengeType],
) -> Result<(), Against> {
    let (domain, is_wildcard) = match name {
        Pattern::Exact(domain) => (domain, false),
        Pattern::Wildcard(of) => (of, true),
        // CAA is of names alone.
        Pattern::Any | Pattern::Ip(_) => return Ok(()),
    };
    let caa = lookups.caa(domain).await;
    let caa = caa.map_err(|error| Against::Unknown(error.to_string()))?;
    let identities: Vec<&str> = identities.iter().map(String::as_str).collect();
    let mut refusal = None;
    for kind in kinds {
        match caa.allows(&identities, is_wildcard, account, kind.as_str()) {
            Ok(()) => return Ok(()),
            Err(why) => refusal = refusal.or(Some(why)),
        }
    }
    refusal.map_or(Ok(()), |why| Err(Against::Refused(why)))
}
