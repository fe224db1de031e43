//! Checks whether CAA records let a CA issue (RFC 8659, RFC 8657) before it is asked: this explains
//! a refusal, and costs none of the CA's limits.
//!
//! The CA's own check is what counts: if the records cannot be looked up, it is asked.

use std::time::Duration;

use futures::{StreamExt, stream};

use crate::acme::order_ctx::{OrderCtx, OrderError, TriedChallenges};
use crate::acme::solvers::Solvers;
use crate::challenge::ChallengeType;
use crate::config::model::Acme;
use crate::dns::lookup::{LookupOptions, Lookups};
use crate::host::Pattern;
use crate::schedule::{Failure, FailureClass};

/// How long the names of an order may take altogether: a silent resolver is no reason to wait.
const PATIENCE: Duration = Duration::from_secs(10);

/// How many names are looked up at once.
const AT_A_TIME: usize = 8;

/// Why a CA is not known to be allowed to issue.
#[derive(Debug)]
pub(in crate::acme) enum CaaRefusal {
    /// A record forbids it.
    Refused(String),
    /// The records cannot be looked up.
    Unknown(String),
}

/// Looks up the records of all names. Returns the types of challenge that they rule out, if others
/// remain.
///
/// # Errors
/// If a record forbids the order.
pub(in crate::acme) async fn check_caa(ctx: &OrderCtx<'_>) -> Result<TriedChallenges, OrderError> {
    let config = &ctx.issuer.config;
    let identities = &ctx.client.directory().meta.caa_identities;
    // Records may name an account, and the one at a staging environment is another.
    if identities.is_empty() || !config.check_caa || ctx.is_rehearsal() {
        return Ok(TriedChallenges::new());
    }
    let (lookups, account, solvers) = (&lookups(config), ctx.account.id(), &ctx.solvers);
    let mut looks = stream::iter(ctx.request.names.clone())
        .map(|name| async move {
            let looked = find_caa_refusal(lookups, identities, &name, Some(account), solvers).await;
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
                report_lookup_failure(ctx, &why);
            }
            Ok(tried)
        }
        Ok(Err(why)) => {
            let message = format!("{} was not asked: {why}", ctx.ca.host);
            let failure = Failure::new(FailureClass::Refused, message);
            Err(OrderError::Failed(failure))
        }
        Err(_) => {
            report_lookup_failure(ctx, "the name servers did not respond in time");
            Ok(TriedChallenges::new())
        }
    }
}

fn report_lookup_failure(ctx: &OrderCtx<'_>, why: &str) {
    ctx.emit_progress(format!("leaving the CAA check to {}: {why}", ctx.ca.host));
}

/// Lookups with the configured resolvers.
pub(in crate::acme) fn lookups(config: &Acme) -> Lookups {
    Lookups::new(LookupOptions {
        resolvers: config.resolvers.clone(),
        ..LookupOptions::default()
    })
}

/// Finds out whether a CA with these identities may issue for a name. Returns the types of
/// challenge that the records rule out, if others remain.
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
        // CAA records apply to names only.
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
