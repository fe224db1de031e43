//! Hetzner: the zones of its Cloud API. (The DNS Console at dns.hetzner.com, with its own API,
//! preceded it.)

use std::time::Duration;

use async_trait::async_trait;
use http::Method;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::api::{Answer, Api, failure_text};
use super::zone_file::{quote, relative, unquote};
use super::{DnsError, DnsProvider, TxtRecord};
use crate::config::model::{self, Dns};
use crate::host::HostName;

/// The minimum, in seconds.
const LEAST_TTL: u32 = 60;

/// How many times a change is tried while another one locks the zone.
const TRIES: u32 = 10;

/// How many times a pending action is polled.
const LOOKS: u32 = 60;

/// The pause between two tries or polls.
const PAUSE: Duration = Duration::from_secs(1);

/// Sets records at Hetzner.
pub struct HetznerProvider {
    api: Api,
    ttl: u32,
    /// It accepts one change of a zone at a time, and refuses others meanwhile.
    turn: Mutex<()>,
    pause: Duration,
}

#[derive(Deserialize)]
struct Found {
    rrset: RecordSet,
}

#[derive(Deserialize)]
struct RecordSet {
    ttl: Option<u32>,
    records: Vec<Record>,
}

#[derive(Deserialize)]
struct Record {
    value: String,
}

#[derive(Deserialize)]
struct Begun {
    action: Action,
}

#[derive(Deserialize)]
struct Action {
    id: u64,
    status: String,
    error: Option<Reason>,
}

#[derive(Deserialize)]
struct Reason {
    message: String,
}

impl HetznerProvider {
    /// The provider of the entry `name`.
    ///
    /// # Errors
    /// If its HTTPS cannot be set up.
    pub fn new(name: &str, config: &model::Hetzner, dns: &Dns) -> Result<Self, DnsError> {
        let words = (
            "Hetzner",
            "'api_token': it must come from the Cloud Console, from the project that the zone is \
             in, with the permission Read & Write",
        );
        let token = &config.api_token;
        let api = Api::with_bearer(name, dns, words, &config.endpoint, token)?;
        Ok(Self {
            api,
            ttl: dns.ttl.max(LEAST_TTL),
            turn: Mutex::new(()),
            pause: PAUSE,
        })
    }

    /// Pauses this long instead.
    #[cfg(test)]
    pub(super) fn with_pause(mut self, pause: Duration) -> Self {
        self.pause = pause;
        self
    }

    /// The path of the TXT records of a name.
    fn path(&self, zone: &HostName, name: &HostName) -> Result<String, DnsError> {
        let label = relative(zone, name).ok_or_else(|| {
            self.api
                .refused(&format!("{name} is not in the zone {zone}"))
        })?;
        Ok(format!("/zones/{zone}/rrsets/{label}/TXT"))
    }

    /// The TXT records of a name, if it has any.
    async fn records(
        &self,
        zone: &HostName,
        name: &HostName,
    ) -> Result<Option<RecordSet>, DnsError> {
        let path = self.path(zone, name)?;
        let answer = self.api.json(Method::GET, &path, None).await?;
        if answer.status == 404 {
            return Ok(None);
        }
        let doing = format!("list the records of {name}");
        let found = self.api.decode::<Found>(&doing, &answer)?;
        Ok(Some(found.rrset))
    }

    /// Begins a change, as soon as no other one is in progress.
    async fn begin_action(&self, path: &str, body: &Value) -> Result<Answer, DnsError> {
        let mut tries = 1;
        loop {
            let answer = self.api.json(Method::POST, path, Some(body)).await?;
            let busy = answer.status == 423 || answer.status == 409;
            if !busy || tries >= TRIES {
                return Ok(answer);
            }
            tries += 1;
            tokio::time::sleep(self.pause).await;
        }
    }

    /// Waits until a change is complete.
    async fn await_action(&self, doing: &str, answer: &Answer) -> Result<(), DnsError> {
        let mut action = self.api.decode::<Begun>(doing, answer)?.action;
        for _ in 0..LOOKS {
            match &*action.status {
                "success" => return Ok(()),
                "error" => {
                    let why = action.error.map(|error| error.message).unwrap_or_default();
                    let what = format!("Hetzner began to {doing} and failed: {why}");
                    return Err(self.api.unreachable(&what));
                }
                _ => {}
            }
            tokio::time::sleep(self.pause).await;
            let path = format!("/actions/{}", action.id);
            let answer = self.api.json(Method::GET, &path, None).await?;
            action = self.api.decode::<Begun>(doing, &answer)?.action;
        }
        let what = format!("Hetzner began to {doing} and has not finished");
        Err(self.api.unreachable(&what))
    }
}

#[async_trait]
impl DnsProvider for HetznerProvider {
    fn name(&self) -> &str {
        self.api.name()
    }

    async fn add(&self, zone: &HostName, record: &TxtRecord) -> Result<(), DnsError> {
        let _turn = self.turn.lock().await;
        let there = self.records(zone, &record.name).await?;
        let is_there = |set: &RecordSet| {
            let mut records = set.records.iter();
            records.any(|one| unquote(&one.value) == record.value)
        };
        if there.as_ref().is_some_and(is_there) {
            return Ok(());
        }
        let mut body = json!({ "records": [{ "value": quote(&record.value) }] });
        // All records of a name share one TTL: a different one is refused.
        if there.is_none_or(|set| set.ttl.is_none())
            && let Some(map) = body.as_object_mut()
        {
            map.insert("ttl".to_owned(), self.ttl.into());
        }
        let doing = format!("set {}", record.name);
        let path = format!("{}/actions/add_records", self.path(zone, &record.name)?);
        let answer = self.begin_action(&path, &body).await?;
        if answer.status == 404 {
            return Err(self.api.refused(&format!(
                "Hetzner did not {doing} (404): {}; check that the zone {zone} is in the project \
                 of 'api_token'",
                failure_text(&answer.body)
            )));
        }
        self.await_action(&doing, &answer).await
    }

    async fn remove(&self, zone: &HostName, record: &TxtRecord) -> Result<(), DnsError> {
        let _turn = self.turn.lock().await;
        let Some(there) = self.records(zone, &record.name).await? else {
            return Ok(());
        };
        // The value must match exactly.
        let mut records = there.records.into_iter();
        let Some(found) = records.find(|one| unquote(&one.value) == record.value) else {
            return Ok(());
        };
        let body = json!({ "records": [{ "value": found.value }] });
        let path = format!("{}/actions/remove_records", self.path(zone, &record.name)?);
        let answer = self.begin_action(&path, &body).await?;
        // Somebody else was faster.
        if answer.status == 404 {
            return Ok(());
        }
        self.await_action(&format!("remove {}", record.name), &answer)
            .await
    }

    async fn list(
        &self,
        zone: &HostName,
        name: &HostName,
    ) -> Result<Option<Vec<String>>, DnsError> {
        let records = self.records(zone, name).await?;
        let records = records.into_iter().flat_map(|set| set.records);
        let values = records.map(|record| unquote(&record.value));
        Ok(Some(values.collect()))
    }
}
