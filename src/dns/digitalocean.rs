//! DigitalOcean: its API, version 2.

use async_trait::async_trait;
use http::Method;
use serde::Deserialize;
use serde_json::json;

use super::api::{Api, MAX_PAGES};
use super::zone_file::{relative, unquote};
use super::{DnsError, DnsProvider, TxtRecord};
use crate::config::model::{self, Dns};
use crate::host::HostName;

/// The minimum, in seconds.
const LEAST_TTL: u32 = 30;

/// Sets records at DigitalOcean.
pub struct DigitalOceanProvider {
    api: Api,
    ttl: u32,
}

#[derive(Deserialize)]
struct Page {
    domain_records: Vec<Record>,
    #[serde(default)]
    links: Links,
}

#[derive(Default, Deserialize)]
struct Links {
    #[serde(default)]
    pages: Pages,
}

#[derive(Default, Deserialize)]
struct Pages {
    next: Option<String>,
}

#[derive(Deserialize)]
struct Record {
    id: u64,
    #[serde(rename = "type")]
    kind: String,
    name: String,
    data: String,
}

impl DigitalOceanProvider {
    /// The provider of the entry `name`.
    ///
    /// # Errors
    /// If its HTTPS cannot be set up.
    pub fn new(name: &str, config: &model::DigitalOcean, dns: &Dns) -> Result<Self, DnsError> {
        let words = (
            "DigitalOcean",
            "'api_token': it needs the scopes domain:read, domain:create and domain:delete",
        );
        let token = &config.api_token;
        let api = Api::with_bearer(name, dns, words, &config.endpoint, token)?;
        Ok(Self {
            api,
            ttl: dns.ttl.max(LEAST_TTL),
        })
    }

    /// The name relative to the zone.
    fn label<'n>(&self, zone: &HostName, name: &'n HostName) -> Result<&'n str, DnsError> {
        relative(zone, name).ok_or_else(|| {
            self.api
                .refused(&format!("{name} is not in the zone {zone}"))
        })
    }

    /// The TXT records of a name.
    async fn records(&self, zone: &HostName, name: &HostName) -> Result<Vec<Record>, DnsError> {
        let label = self.label(zone, name)?;
        let doing = format!("list the records of {name}");
        let mut records = Vec::new();
        for page in 1..=MAX_PAGES {
            let path =
                format!("/v2/domains/{zone}/records?type=TXT&name={name}&per_page=200&page={page}");
            let answer = self.api.json(Method::GET, &path, None).await?;
            if answer.status == 404 {
                return Err(self.api.refused(&format!(
                    "DigitalOcean has no domain {zone} in the account of 'api_token'; add it \
                     there, or use the account that has it"
                )));
            }
            let found = self.api.decode::<Page>(&doing, &answer)?;
            records.extend(found.domain_records);
            if found.links.pages.next.is_none() {
                break;
            }
        }
        records.retain(|record| record.kind == "TXT" && record.name.eq_ignore_ascii_case(label));
        Ok(records)
    }
}

#[async_trait]
impl DnsProvider for DigitalOceanProvider {
    fn name(&self) -> &str {
        self.api.name()
    }

    async fn add(&self, zone: &HostName, record: &TxtRecord) -> Result<(), DnsError> {
        // It would accept the same record twice.
        let there = self.records(zone, &record.name).await?;
        if there.iter().any(|one| unquote(&one.data) == record.value) {
            return Ok(());
        }
        let body = json!({
            "type": "TXT",
            "name": self.label(zone, &record.name)?,
            "data": record.value,
            "ttl": self.ttl,
        });
        let path = format!("/v2/domains/{zone}/records");
        let answer = self.api.json(Method::POST, &path, Some(&body)).await?;
        self.api
            .check_success(&format!("set {}", record.name), &answer)
    }

    async fn remove(&self, zone: &HostName, record: &TxtRecord) -> Result<(), DnsError> {
        for found in self.records(zone, &record.name).await? {
            if unquote(&found.data) != record.value {
                continue;
            }
            let path = format!("/v2/domains/{zone}/records/{}", found.id);
            let answer = self.api.json(Method::DELETE, &path, None).await?;
            // Somebody else was faster.
            if answer.status != 404 {
                self.api
                    .check_success(&format!("remove {}", record.name), &answer)?;
            }
        }
        Ok(())
    }

    async fn list(
        &self,
        zone: &HostName,
        name: &HostName,
    ) -> Result<Option<Vec<String>>, DnsError> {
        let records = self.records(zone, name).await?;
        let values = records.iter().map(|record| unquote(&record.data));
        Ok(Some(values.collect()))
    }
}
