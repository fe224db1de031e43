//! Validates names by persistent records (draft-ietf-acme-dns-persist): somebody sets one by hand,
//! naming the CA and the account, and the gateway checks that it is there.

use std::sync::Arc;

use async_trait::async_trait;

use super::super::{Challenge, ChallengeSolver, ChallengeType, DnsContext};
use super::entry::{Entry, failure};
use super::persist_expiry::PersistExpiry;
use super::persist_record::{judge_records, text};
use super::proof;
use crate::schedule::{Failure, FailureClass};

/// Validates names by persistent records.
pub struct DnsPersist01Solver {
    entry: Arc<Entry>,
    persist_expiry: Arc<PersistExpiry>,
}

impl DnsPersist01Solver {
    pub(super) fn new(entry: Arc<Entry>, persist_expiry: Arc<PersistExpiry>) -> Self {
        Self {
            entry,
            persist_expiry,
        }
    }
}

#[async_trait]
impl ChallengeSolver for DnsPersist01Solver {
    fn kind(&self) -> ChallengeType {
        ChallengeType::DnsPersist01
    }

    async fn present(&self, challenge: &Challenge) -> Result<(), Failure> {
        let domain = &challenge.domain;
        let name = proof::record_name(challenge)?;
        let none = DnsContext::default();
        let dns = challenge.dns.as_ref().unwrap_or(&none);
        if dns.issuers.is_empty() {
            let message = format!(
                "{domain} cannot be validated by dns-persist-01: the CA does not say which name \
                 records use for it; use another of 'challenges'"
            );
            return Err(Failure::new(FailureClass::Network, message));
        }
        let looked = async { self.entry.get_or_open().await?.lookups.txt(&name).await };
        let values = looked.await.map_err(|error| {
            let message = format!(
                "{domain} cannot be validated by dns-persist-01: {name} cannot be looked up: \
                 {error}"
            );
            failure(&error, message)
        })?;
        match judge_records(&values, dns, self.persist_expiry.now()) {
            Ok(until) => {
                self.persist_expiry
                    .record_expiry(&self.entry, &domain.dns_name(), &name, dns, until)
                    .await;
                Ok(())
            }
            Err(why) => {
                let message = format!(
                    "{domain} cannot be validated by dns-persist-01: {why}; set this record and \
                     leave it there: {name}. IN TXT \"{}\"",
                    text(dns)
                );
                Err(Failure::new(FailureClass::Validation, message))
            }
        }
    }

    /// The record was not set here, and stays.
    async fn clean_up(&self, _: &Challenge) {}
}
