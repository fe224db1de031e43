//! Finds out whether a CA would issue a certificate without requesting one: first it checks what
//! would make an order fail, then it presents each type of challenge with a token of its own and
//! validates it from this machine as the CA would.

pub(super) mod caa;
pub(super) mod rehearsal;
pub(super) mod self_check;

use std::net::SocketAddr;

use super::AcmeIssuer;
use super::account::AccountCtx;
use super::client::AcmeClient;
use super::solvers::Solvers;
use crate::challenge::{Challenge, ChallengeType, DnsContext};
use crate::dns::lookup::Lookups;
use crate::host::{Identifier, Pattern};
use crate::issuer::{Finding, Preflight, Verdict};
use crate::schedule::Intent;

/// How many addresses of a name are checked.
const ADDRESSES: usize = 8;

/// All findings, good and bad.
pub(super) async fn run_preflight(issuer: &AcmeIssuer, preflight: &Preflight) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut account = None;
    let client = match issuer.ca.client().await {
        Ok(client) => {
            account = find_account(issuer, &client).await;
            findings.push(check_directory(issuer, &client, account.as_deref()));
            Some(client)
        }
        Err(failure) => {
            findings.push(Finding::new("directory", Verdict::Bad, failure.message));
            None
        }
    };
    findings.push(check_limits(issuer, preflight).await);
    let lookups = caa::lookups(&issuer.config);
    let solvers = Solvers::of(issuer, preflight.dns.as_deref());
    if let Some(client) = &client {
        let account = account.as_deref();
        findings.push(check_caa(issuer, preflight, client, account, &solvers, &lookups).await);
    }
    findings.extend(check_challenges(preflight, &solvers, &lookups).await);
    findings
}

/// The URL of the account at the CA, if there is one. A preflight creates none.
async fn find_account(issuer: &AcmeIssuer, client: &AcmeClient) -> Option<String> {
    let ctx = AccountCtx {
        ca: &issuer.ca,
        config: &issuer.config,
        client,
    };
    let account = issuer.shared.accounts.find_existing(ctx).await.ok()??;
    account.url().map(str::to_owned)
}

fn check_directory(issuer: &AcmeIssuer, client: &AcmeClient, account: Option<&str>) -> Finding {
    let host = &issuer.ca.host;
    let config = &issuer.config;
    let is_bound = account.is_some() || config.eab.is_some() || config.zerossl.is_some();
    if client.directory().meta.external_account_required && !is_bound {
        let message =
            format!("{host} requires external account binding, but there is no 'eab': add it");
        return Finding::new("directory", Verdict::Bad, message);
    }
    Finding::new("directory", Verdict::Good, format!("{host} answers"))
}

async fn check_limits(issuer: &AcmeIssuer, preflight: &Preflight) -> Finding {
    let intent = Intent::new(std::slice::from_ref(&preflight.name));
    let limits = &issuer.shared.limits;
    match limits
        .load_stored(&issuer.ca, &issuer.config, &intent)
        .await
    {
        Ok(()) => {
            let message = "no known limit of the CA prevents it";
            Finding::new("limits", Verdict::Good, message)
        }
        Err(wait) => {
            let message = format!("no order now: {wait}");
            Finding::new("limits", Verdict::Bad, message)
        }
    }
}

async fn check_caa(
    issuer: &AcmeIssuer,
    preflight: &Preflight,
    client: &AcmeClient,
    account: Option<&str>,
    solvers: &Solvers,
    lookups: &Lookups,
) -> Finding {
    let identities = &client.directory().meta.caa_identities;
    let host = &issuer.ca.host;
    if identities.is_empty() {
        let message = format!("{host} does not say which CAA records apply to it");
        return Finding::new("caa", Verdict::Unknown, message);
    }
    match caa::find_caa_refusal(lookups, identities, &preflight.name, account, solvers).await {
        Ok(_) => Finding::new("caa", Verdict::Good, format!("no record forbids {host}")),
        Err(caa::CaaRefusal::Refused(why)) => Finding::new("caa", Verdict::Bad, why),
        Err(caa::CaaRefusal::Unknown(why)) => Finding::new("caa", Verdict::Unknown, why),
    }
}

async fn check_challenges(
    preflight: &Preflight,
    solvers: &Solvers,
    lookups: &Lookups,
) -> Vec<Finding> {
    let (domain, is_wildcard) = match &preflight.name {
        Pattern::Exact(name) => (Identifier::Dns(name.clone()), false),
        Pattern::Wildcard(of) => (Identifier::Dns(of.clone()), true),
        Pattern::Ip(address) => (Identifier::Ip(*address), false),
        Pattern::Any => return Vec::new(),
    };
    let mut findings = Vec::new();
    for solver in solvers.for_name(&preflight.name.to_string()) {
        let kind = solver.kind();
        let (verdict, message) = if kind == ChallengeType::DnsPersist01 {
            let message = "it needs a record that is set by hand: an order says which one";
            (Verdict::Unknown, message.to_owned())
        } else {
            let challenge = probe(kind, &domain, is_wildcard);
            let found = match solver.present(&challenge).await {
                Ok(()) => self_check_result(preflight, lookups, &challenge).await,
                Err(failure) => (Verdict::Bad, failure.message),
            };
            solver.clean_up(&challenge).await;
            found
        };
        findings.push(Finding::new(kind.as_str(), verdict, message));
    }
    if findings.is_empty() {
        let message = format!(
            "none of the issuer's 'challenges' can validate {}; a wildcard needs dns-01",
            preflight.name
        );
        findings.push(Finding::new("challenges", Verdict::Bad, message));
    }
    findings
}

/// Checks the challenge at each address of the name.
async fn self_check_result(
    preflight: &Preflight,
    lookups: &Lookups,
    challenge: &Challenge,
) -> (Verdict, String) {
    let is_http = challenge.kind == ChallengeType::Http01;
    let port = match challenge.kind {
        ChallengeType::Http01 => preflight.ports.http,
        ChallengeType::TlsAlpn01 => preflight.ports.https,
        ChallengeType::Dns01 | ChallengeType::DnsAccount01 | ChallengeType::DnsPersist01 => {
            let message = "a record was set, and the name servers of the zone have it";
            return (Verdict::Good, message.to_owned());
        }
    };
    let domain = &challenge.domain;
    let looked = match domain {
        Identifier::Dns(name) => lookups.addresses(name).await,
        Identifier::Ip(address) => Ok(vec![*address]),
    };
    let addresses = match looked {
        Ok(addresses) if addresses.is_empty() => {
            let message = format!(
                "{domain} has no address in the DNS: add an A or AAAA record with this gateway's \
                 address"
            );
            return (Verdict::Bad, message);
        }
        Ok(addresses) => addresses,
        Err(error) => return (Verdict::Bad, error.to_string()),
    };
    let mut good = Vec::new();
    for address in addresses.iter().take(ADDRESSES) {
        let at = SocketAddr::new(*address, port);
        let looked = match is_http {
            true => self_check::check_http(at, challenge).await,
            false => self_check::check_tls(at, challenge).await,
        };
        if let Err(why) = looked {
            return (
                Verdict::Bad,
                format!(
                    "{domain} points to {at}, which does not have the challenge response: {why}"
                ),
            );
        }
        good.push(at.to_string());
    }
    let message = format!("the challenge response was found at {}", good.join(" and "));
    (Verdict::Good, message)
}

/// A challenge of our own, without a CA or an account.
fn probe(kind: ChallengeType, domain: &Identifier, is_wildcard: bool) -> Challenge {
    let random = |length: usize| -> String {
        std::iter::repeat_with(fastrand::alphanumeric)
            .take(length)
            .collect()
    };
    let token = format!("trial-{}", random(32));
    Challenge {
        kind,
        domain: domain.clone(),
        key_authorization: format!("{token}.{}", random(43)),
        dns: kind.is_over_dns().then(|| DnsContext {
            account: token.clone(),
            is_wildcard,
            issuers: Vec::new(),
        }),
        token,
    }
}
