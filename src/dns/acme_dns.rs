//! acme-dns: a small name server for validations alone. Each account may set the TXT records of one
//! subdomain, to which `_acme-challenge` names are delegated by CNAME.

mod accounts;

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde_json::json;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::api::Api;
use super::{DnsError, DnsProvider, TxtRecord};
use crate::config::model::{self, AcmeDnsAccounts, Dns};
use crate::host::HostName;
use crate::lock::MutexExt;
use crate::secret::Secret;
use accounts::{Account, Accounts};

/// A subdomain keeps its last two values: one for a name and one for its wildcard.
const VALUES: usize = 2;

/// How long a value counts that is not removed. It cannot be removed from the server.
const HELD: Duration = Duration::from_secs(600);

/// How long a third value waits for one of the two before it.
const WAIT: Duration = Duration::from_secs(120);

/// Sets records at an acme-dns server.
pub struct AcmeDnsProvider {
    api: Api,
    accounts: Accounts,
    /// The values set for each name, and when.
    set: Mutex<HashMap<HostName, Vec<(String, Instant)>>>,
    /// Notified when a value is removed.
    room: Notify,
    wait: Duration,
}

impl AcmeDnsProvider {
    /// The provider of the entry `name`.
    ///
    /// # Errors
    /// If its HTTPS cannot be set up.
    pub fn new(name: &str, config: &model::AcmeDns, dns: &Dns) -> Result<Self, DnsError> {
        let (accounts, secrets) = match &config.accounts {
            AcmeDnsAccounts::File(path) => (Accounts::in_file(path.clone()), Vec::new()),
            AcmeDnsAccounts::One {
                username,
                password,
                subdomain,
            } => {
                let account = Account {
                    username: username.clone(),
                    password: password.clone(),
                    subdomain: subdomain.clone(),
                    full_domain: None,
                };
                (Accounts::One(account), vec![password.clone()])
            }
        };
        let words = ("acme-dns", "the account's user name and password");
        Ok(Self {
            api: Api::new(name, dns, words, &config.endpoint, secrets)?,
            accounts,
            set: Mutex::default(),
            room: Notify::new(),
            wait: WAIT,
        })
    }

    /// Waits at most this long for a free slot.
    #[cfg(test)]
    pub(super) fn with_wait(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }

    /// The account that sets the records of a name. If there is none, registers one, which helps
    /// once the name is delegated.
    async fn account(&self, name: &HostName) -> Result<Account, DnsError> {
        let file = match &self.accounts {
            Accounts::One(account) if account.is_for(name) => return Ok(account.clone()),
            Accounts::One(account) => {
                return Err(self.api.refused(&format!(
                    "{name} is not the subdomain of the account: set a CNAME record at {name} that \
                     points to {}.DOMAIN, the 'fulldomain' that the registration returned",
                    account.subdomain
                )));
            }
            Accounts::File(file) => file,
        };
        let failed = |what: String| self.api.refused(&what);
        let accounts = file.open().await.map_err(failed)?;
        if let Some(account) = accounts.find(name) {
            return Ok(account);
        }
        let domain = name
            .as_str()
            .strip_prefix("_acme-challenge.")
            .unwrap_or(name.as_str());
        let target = match accounts.of_domain(domain) {
            Some(full_domain) => full_domain,
            None => {
                let answer = self
                    .api
                    .send_request(Method::POST, "/register", HeaderMap::new(), Bytes::new())
                    .await?;
                let registered = self.api.decode("register an account", &answer)?;
                let endpoint = self.api.endpoint();
                accounts
                    .save(domain, registered, endpoint)
                    .await
                    .map_err(|what| self.api.refused(&what))?
            }
        };
        Err(self.api.refused(&format!(
            "{name} is not delegated to acme-dns yet: set a CNAME record at {name} that points to \
             {target}"
        )))
    }

    /// Claims one of the two slots for values of a subdomain. Returns false if the value has one
    /// already.
    async fn claim_slot(&self, record: &TxtRecord) -> Result<bool, DnsError> {
        let deadline = Instant::now() + self.wait;
        loop {
            let room = self.room.notified();
            tokio::pin!(room);
            // From here on, no removal is missed.
            room.as_mut().enable();
            if let Some(taken) = self.try_claim_slot(record) {
                return Ok(taken);
            }
            if tokio::time::timeout_at(deadline, room).await.is_err() {
                return Err(self.api.unreachable(&format!(
                    "acme-dns keeps two values per subdomain, and two others of {} are in use; \
                     delegate names that are validated at the same time to separate accounts",
                    record.name
                )));
            }
        }
    }

    fn try_claim_slot(&self, record: &TxtRecord) -> Option<bool> {
        let mut set = self.set.lock_unpoisoned();
        let values = set.entry(record.name.clone()).or_default();
        values.retain(|(_, since)| since.elapsed() < HELD);
        if values.iter().any(|(one, _)| *one == record.value) {
            return Some(false);
        }
        if values.len() >= VALUES {
            return None;
        }
        values.push((record.value.clone(), Instant::now()));
        Some(true)
    }

    fn release_slot(&self, record: &TxtRecord) {
        let mut set = self.set.lock_unpoisoned();
        if let Some(values) = set.get_mut(&record.name) {
            values.retain(|(one, _)| *one != record.value);
        }
        self.room.notify_waiters();
    }

    async fn update_record(&self, account: &Account, record: &TxtRecord) -> Result<(), DnsError> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(
            HeaderName::from_static("x-api-user"),
            self.api.sensitive(&account.username)?,
        );
        headers.insert(
            HeaderName::from_static("x-api-key"),
            self.api.sensitive(account.password.expose())?,
        );
        let body = json!({ "subdomain": account.subdomain, "txt": record.value }).to_string();
        let answer = self
            .api
            .send_request(Method::POST, "/update", headers, Bytes::from(body))
            .await?;
        self.api
            .check_success(&format!("set {}", record.name), &answer)
    }
}

#[async_trait]
impl DnsProvider for AcmeDnsProvider {
    fn name(&self) -> &str {
        self.api.name()
    }

    fn needs_zone(&self) -> bool {
        false
    }

    async fn add(&self, _: &HostName, record: &TxtRecord) -> Result<(), DnsError> {
        let account = self.account(&record.name).await?;
        // Setting it again would push out the other value.
        if !self.claim_slot(record).await? {
            return Ok(());
        }
        let updated = self.update_record(&account, record).await;
        if updated.is_err() {
            self.release_slot(record);
        }
        updated
    }

    /// Nothing is removed there: the next two values replace the last two.
    async fn remove(&self, _: &HostName, record: &TxtRecord) -> Result<(), DnsError> {
        self.release_slot(record);
        Ok(())
    }

    /// Its API cannot list records.
    async fn list(&self, _: &HostName, _: &HostName) -> Result<Option<Vec<String>>, DnsError> {
        Ok(None)
    }
}

/// The response to a registration.
#[derive(serde::Deserialize)]
struct Registered {
    username: String,
    password: String,
    #[serde(rename = "fulldomain")]
    full_domain: String,
    subdomain: String,
}

impl Registered {
    /// The account, if it is usable.
    fn account(self) -> Option<Account> {
        let full_domain: HostName = self.full_domain.parse().ok()?;
        Some(Account {
            username: self.username,
            password: Secret::new(self.password),
            subdomain: self.subdomain,
            full_domain: Some(full_domain),
        })
    }
}
