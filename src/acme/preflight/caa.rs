//! Whether CAA records let a CA issue (RFC 8659, RFC 8657), looked up before it is asked: a refusal
//! is explained, and costs nothing of the CA's limits.
//!
//! The CA looks for itself, and its word counts: where nothing can be looked up, it is asked.

use std::time::Duration;

use futures::{StreamExt, stream};

use crate::acme::authorization::solvers::Solvers;
use crate::acme::order::{OrderError, OrderJob, TriedChallenges};
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
pub(in crate::acme) enum CaaRefusal {
    /// A record forbids it.
    Refused(String),
    /// The records cannot be looked up.
    Unknown(String),
}

impl OrderJob<'_> {
    /// Looks up the records of all names. Returns the types of challenge that they let nobody use,
    /// where there are others.
    ///
    /// # Errors
    /// Where one forbids the order.
    pub(in crate::acme) async fn check_caa(&self) -> Result<TriedChallenges, OrderError> {
        let config = &self.issuer.config;
        let identities = &self.client.directory().meta.caa_identities;
        // Records may name an account, and that at a staging environment is another.
        if identities.is_empty() || !config.check_caa || self.is_rehearsal() {
            return Ok(TriedChallenges::new());
        }
        let (lookups, account, solvers) = (&lookups(config), self.account.id(), &self.solvers);
        let mut looks = stream::iter(self.request.names.clone())
            .map(|name| async move {
                let looked =
                    find_caa_refusal(lookups, identities, &name, Some(account), solvers).await;
                (name, looked)
            })
            .buffer_unordered(AT_A_TIME);
        let all = async {
            let (mut tried, mut unknown) = (TriedChallenges::new(), None);
            while let Some((name, looked)) = looks.next().await {
                match looked {
                    Ok(barred) => {
                        let name = name.to_string();
                        tried.extend(barred.into_iter().map(|kind| (name.clone(), kind)));
                    }
                    Err(CaaRefusal::Refused(why)) => return Err(why),
                    Err(CaaRefusal::Unknown(why)) => unknown = Some(why),
                }
            }
            Ok((tried, unknown))
        };
        match tokio::time::timeout(PATIENCE, all).await {
            Ok(Ok((tried, unknown))) => {
                if let Some(why) = unknown {
                    self.report_lookup_failure(&why);
                }
                Ok(tried)
            }
            Ok(Err(why)) => {
                let message = format!("{} was not asked: {why}", self.ca.host);
                let failure = Failure::new(FailureClass::Refused, message);
                Err(OrderError::Failed(failure))
            }
            Err(_) => {
                self.report_lookup_failure("the name servers did not respond in time");
                Ok(TriedChallenges::new())
            }
        }
    }

    fn report_lookup_failure(&self, why: &str) {
        self.emit_progress(format!("leaving the CAA check to {}: {why}", self.ca.host));
    }
}

/// Look-ups by the resolvers that are configured.
pub(in crate::acme) fn lookups(config: &Acme) -> Lookups {
    Lookups::new(LookupOptions {
        resolvers: config.resolvers.clone(),
        ..LookupOptions::default()
    })
}

/// Whether a CA with these identities may issue for a name. Returns the types of challenge that the
/// records let it not validate by, where there are others.
pub(in crate::acme) async fn find_caa_refusal(
    lookups: &Lookups,
    identities: &[String],
    name: &Pattern,
    account: Option<&str>,
    solvers: &Solvers,
) -> Result<Vec<ChallengeType>, CaaRefusal> {
    let (domain, is_wildcard) = match name {
        Pattern::Exact(domain) => (domain, false),
        Pattern::Wildcard(of) => (of, true),
        // CAA is of names alone.
        Pattern::Any | Pattern::Ip(_) => return Ok(Vec::new()),
    };
    let caa = lookups.caa(domain).await;
    let caa = caa.map_err(|error| CaaRefusal::Unknown(error.to_string()))?;
    let identities: Vec<&str> = identities.iter().map(String::as_str).collect();
    let (mut barred, mut refusal, mut has_way) = (Vec::new(), None, false);
    for solver in solvers.for_name(&name.to_string()) {
        let kind = solver.kind();
        match caa.allows(&identities, is_wildcard, account, kind.as_str()) {
            Ok(()) => has_way = true,
            Err(why) => {
                barred.push(kind);
                refusal = refusal.or(Some(why));
            }
        }
    }
    match refusal {
        Some(why) if !has_way => Err(CaaRefusal::Refused(why)),
        _ => Ok(barred),
    }
}
