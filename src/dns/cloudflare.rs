//! Cloudflare: its API, version 4.

use async_trait::async_trait;
use http::Method;
use serde::Deserialize;
use serde_json::json;

use super::api::{Api, MAX_PAGES};
use super::zone_file::{quote, unquote};
use super::{DnsError, DnsProvider, TxtRecord};
use crate::config::model::{self, Dns};
use crate::host::HostName;

/// The minimum, in seconds; 1 would let Cloudflare choose.
const LEAST_TTL: u32 = 60;

/// "An identical record already exists", and its older form.
const IS_THERE: [u64; 2] = [81058, 81057];

/// "Record does not exist".
const IS_NOT_THERE: u64 = 81044;

/// Sets records at Cloudflare.
pub struct CloudflareProvider {
    api: Api,
    ttl: u32,
}

/// What surrounds every response.
#[derive(Deserialize)]
struct Page<T> {
    result: Vec<T>,
    result_info: Option<PageInfo>,
}

#[derive(Deserialize)]
struct PageInfo {
    total_pages: u32,
}

#[derive(Deserialize)]
struct Zone {
    id: String,
    name: String,
    #[serde(default)]
    status: String,
}

#[derive(Deserialize)]
struct Record {
    id: String,
    name: String,
    content: String,
}

#[derive(Default, Deserialize)]
struct Errors {
    errors: Vec<Code>,
}

#[derive(Deserialize)]
struct Code {
    code: u64,
}

impl CloudflareProvider {
    /// The provider of the entry `name`.
    ///
    /// # Errors
    /// If its HTTPS cannot be set up.
    pub fn new(name: &str, config: &model::Cloudflare, dns: &Dns) -> Result<Self, DnsError> {
        let words = (
            "Cloudflare",
            "'api_token': it needs the permissions Zone: Read and DNS: Edit for the zone",
        );
        let token = &config.api_token;
        let api = Api::with_bearer(name, dns, words, &config.endpoint, token)?;
        Ok(Self {
            api,
            ttl: dns.ttl.max(LEAST_TTL),
        })
    }

    async fn zone_id(&self, zone: &HostName) -> Result<String, DnsError> {
        let doing = format!("look up the zone {zone}");
        let path = format!("/zones?name={zone}&per_page=50");
        let answer = self.api.json(Method::GET, &path, None).await?;
        let mut zones = self.api.decode::<Page<Zone>>(&doing, &answer)?.result;
        zones.retain(|found| found.name.eq_ignore_ascii_case(zone.as_str()));
        // Several accounts may claim a zone; only one has it.
        zones.sort_by_key(|found| found.status != "active");
        zones.into_iter().next().map(|zone| zone.id).ok_or_else(|| {
            self.api.refused(&format!(
                "Cloudflare shows no zone {zone}; check that it is in the account, and that \
                 'api_token' has the permission Zone: Read for it"
            ))
        })
    }

    /// The records of a name.
    async fn records(&self, zone_id: &str, name: &HostName) -> Result<Vec<Record>, DnsError> {
        let doing = format!("list the records of {name}");
        let mut records = Vec::new();
        for page in 1..=MAX_PAGES {
            let path = format!(
                "/zones/{zone_id}/dns_records?type=TXT&name={name}&per_page=100&page={page}"
            );
            let answer = self.api.json(Method::GET, &path, None).await?;
            let found = self.api.decode::<Page<Record>>(&doing, &answer)?;
            records.extend(found.result);
            if found
                .result_info
                .is_none_or(|info| info.total_pages <= page)
            {
                break;
            }
        }
        records.retain(|record| record.name.eq_ignore_ascii_case(name.as_str()));
        Ok(records)
    }
}

#[async_trait]
impl DnsProvider for CloudflareProvider {
    fn name(&self) -> &str {
        self.api.name()
    }

    async fn add(&self, zone: &HostName, record: &TxtRecord) -> Result<(), DnsError> {
        let zone_id = self.zone_id(zone).await?;
        let body = json!({
            "type": "TXT",
            "name": record.name.as_str(),
            "content": quote(&record.value),
            "ttl": self.ttl,
        });
        let path = format!("/zones/{zone_id}/dns_records");
        let answer = self.api.json(Method::POST, &path, Some(&body)).await?;
        if codes(&answer.body).any(|code| IS_THERE.contains(&code)) {
            return Ok(());
        }
        self.api
            .check_success(&format!("set {}", record.name), &answer)
    }

    async fn remove(&self, zone: &HostName, record: &TxtRecord) -> Result<(), DnsError> {
        let zone_id = self.zone_id(zone).await?;
        for found in self.records(&zone_id, &record.name).await? {
            if unquote(&found.content) != record.value {
                continue;
            }
            let path = format!("/zones/{zone_id}/dns_records/{}", found.id);
            let answer = self.api.json(Method::DELETE, &path, None).await?;
            // Somebody else was faster.
            if answer.status == 404 || codes(&answer.body).any(|code| code == IS_NOT_THERE) {
                continue;
            }
            self.api
                .check_success(&format!("remove {}", record.name), &answer)?;
        }
        Ok(())
    }

    async fn list(
        &self,
        zone: &HostName,
        name: &HostName,
    ) -> Result<Option<Vec<String>>, DnsError> {
        let zone_id = self.zone_id(zone).await?;
        let records = self.records(&zone_id, name).await?;
        let values = records.iter().map(|record| unquote(&record.content));
        Ok(Some(values.collect()))
    }
}

/// The error codes in a response.
fn codes(body: &[u8]) -> impl Iterator<Item = u64> {
    let errors: Errors = serde_json::from_slice(body).unwrap_or_default();
    errors.errors.into_iter().map(|error| error.code)
}
