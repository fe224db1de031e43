//! Finds out whether a CA would give a certificate, without asking it for one: what an order would
//! come to grief on is looked at first, then each type of challenge is solved for a token of our
//! own, and the proof is looked for from this machine as the CA would look for it.

use std::net::SocketAddr;

use super::account::Want;
use super::session::Session;
use super::ways::Ways;
use super::{AcmeIssuer, caa, look};
use crate::challenge::{Challenge, ChallengeType, OverDns};
use crate::dns::lookup::Lookups;
use crate::host::{Identifier, Pattern};
use crate::issuer::{Finding, Trial, Verdict};
use crate::schedule::Intent;

/// How many addresses of a name are looked at.
const ADDRESSES: usize = 8;

impl AcmeIssuer {
    /// All that speaks for and against a certificate.
    pub(super) async fn findings(&self, trial: &Trial) -> Vec<Finding> {
        let mut findings = Vec::new();
        let mut account = None;
        let session = match self.ca.session().await {
            Ok(session) => {
                account = self.account(&session).await;
                findings.push(self.directory(&session, account.as_deref()));
                Some(session)
            }
            Err(failure) => {
                findings.push(Finding::new("directory", Verdict::Bad, failure.message));
                None
            }
        };
        findings.push(self.limits(trial).await);
        let lookups = caa::lookups(&self.config);
        let ways = Ways::of(self, trial.dns.as_deref());
        if let Some(session) = &session {
            let account = account.as_deref();
            findings.push(self.caa(trial, session, account, &ways, &lookups).await);
        }
        findings.extend(self.challenges(trial, &ways, &lookups).await);
        findings
    }

    /// The URL of the account at the CA, where there is one. None is made for a trial.
    async fn account(&self, session: &Session) -> Option<String> {
        let want = Want {
            ca: &self.ca,
            config: &self.config,
            session,
        };
        let account = self.shared.accounts.existing(want).await.ok()??;
        account.url().map(str::to_owned)
    }

    fn directory(&self, session: &Session, account: Option<&str>) -> Finding {
        let host = &self.ca.host;
        let config = &self.config;
        let is_bound = account.is_some() || config.eab.is_some() || config.zerossl.is_some();
        if session.directory().meta.external_account_required && !is_bound {
            let message =
                format!("{host} asks for external account binding, and there is no 'eab': add it");
            return Finding::new("directory", Verdict::Bad, message);
        }
        Finding::new("directory", Verdict::Good, format!("{host} answers"))
    }

    async fn limits(&self, trial: &Trial) -> Finding {
        let intent = Intent::new(std::slice::from_ref(&trial.name));
        let limits = &self.shared.limits;
        match limits.look(&self.ca, &self.config, &intent).await {
            Ok(()) => {
                let message = "no limit of the CA is known that stands against it";
                Finding::new("limits", Verdict::Good, message)
            }
            Err(wait) => {
                let message = format!("an order {wait}");
                Finding::new("limits", Verdict::Bad, message)
            }
        }
    }

    async fn caa(
        &self,
        trial: &Trial,
        session: &Session,
        account: Option<&str>,
        ways: &Ways,
        lookups: &Lookups,
    ) -> Finding {
        let identities = &session.directory().meta.caa_identities;
        let host = &self.ca.host;
        if identities.is_empty() {
            let message = format!("{host} does not say which CAA records it goes by");
            return Finding::new("caa", Verdict::Unknown, message);
        }
        match caa::look(lookups, identities, &trial.name, account, ways).await {
            Ok(_) => Finding::new("caa", Verdict::Good, format!("no record forbids {host}")),
            Err(caa::Against::Refused(why)) => Finding::new("caa", Verdict::Bad, why),
            Err(caa::Against::Unknown(why)) => Finding::new("caa", Verdict::Unknown, why),
        }
    }

    async fn challenges(&self, trial: &Trial, ways: &Ways, lookups: &Lookups) -> Vec<Finding> {
        let (domain, is_wildcard) = match &trial.name {
            Pattern::Exact(name) => (Identifier::Dns(name.clone()), false),
            Pattern::Wildcard(of) => (Identifier::Dns(of.clone()), true),
            Pattern::Ip(address) => (Identifier::Ip(*address), false),
            Pattern::Any => return Vec::new(),
        };
        let mut findings = Vec::new();
        for solver in ways.for_name(&trial.name.to_string()) {
            let kind = solver.kind();
            let (verdict, message) = if kind == ChallengeType::DnsPersist01 {
                let message = "it takes a record that is set by hand: an order tells which one";
                (Verdict::Unknown, message.to_owned())
            } else {
                let challenge = probe(kind, &domain, is_wildcard);
                let found = match solver.present(&challenge).await {
                    Ok(()) => found(trial, lookups, &challenge).await,
                    Err(failure) => (Verdict::Bad, failure.message),
                };
                solver.clean_up(&challenge).await;
                found
            };
            findings.push(Finding::new(kind.as_str(), verdict, message));
        }
        if findings.is_empty() {
            let message = format!(
                "none of the issuer's 'challenges' proves {}; a wildcard takes dns-01",
                trial.name
            );
            findings.push(Finding::new("challenges", Verdict::Bad, message));
        }
        findings
    }
}

/// Looks for the proof at each address of the name.
async fn found(trial: &Trial, lookups: &Lookups, challenge: &Challenge) -> (Verdict, String) {
    let is_http = challenge.kind == ChallengeType::Http01;
    let port = match challenge.kind {
        ChallengeType::Http01 => trial.ports.http,
        ChallengeType::TlsAlpn01 => trial.ports.https,
        ChallengeType::Dns01 | ChallengeType::DnsAccount01 | ChallengeType::DnsPersist01 => {
            let message = "a record was set, and is seen at the name servers of the zone";
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
                "{domain} has no address in the DNS: add an A or AAAA record with that of this \
                 gateway"
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
            true => look::by_http(at, challenge).await,
            false => look::by_tls(at, challenge).await,
        };
        if let Err(why) = looked {
            return (
                Verdict::Bad,
                format!("{domain} points to {at}, where the proof is not found: {why}"),
            );
        }
        good.push(at.to_string());
    }
    let message = format!("the proof is found at {}", good.join(" and "));
    (Verdict::Good, message)
}

/// A challenge of our own: no CA has given it, and no account is behind it.
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
        dns: kind.is_over_dns().then(|| OverDns {
            account: token.clone(),
            is_wildcard,
            issuers: Vec::new(),
        }),
        token,
    }
}
