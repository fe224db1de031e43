//! Amazon Route 53: its API of 2013-04-01, in XML.
//!
//! It knows sets of records and changes them as a whole. So a set is replaced by naming the old
//! one: the change fails if somebody else was faster, and is then repeated. This way several
//! gateways can set records of one name without losing any.

mod message;
mod signature;

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use tokio::sync::Mutex;

use super::api::{Answer, Api};
use super::{DnsError, DnsProvider, TxtRecord};
use crate::clock::{Clock, SystemClock};
use crate::config::model::{self, Dns};
use crate::host::HostName;
use message::RecordSet;
use signature::{Identity, Unsigned};

/// How many times a change is tried that lost a race or has to wait its turn.
const TRIES: u32 = 8;

/// How many times a change is polled until all name servers have it. It takes up to a minute.
const LOOKS: u32 = 60;

/// The pause between two tries or polls.
const PAUSE: Duration = Duration::from_secs(2);

/// Sets records at Route 53.
pub struct Route53Provider {
    api: Api,
    identity: Identity,
    /// The host, with its port, for which requests are signed.
    host: String,
    hosted_zone_id: Option<String>,
    ttl: u32,
    /// It accepts one change of a zone at a time, and limits the rate of requests.
    turn: Mutex<()>,
    pause: Duration,
}

impl Route53Provider {
    /// The provider of the entry `name`.
    ///
    /// # Errors
    /// If its HTTPS cannot be set up.
    pub fn new(name: &str, config: &model::Route53, dns: &Dns) -> Result<Self, DnsError> {
        let words = (
            "Route 53",
            "'access_key_id' and 'secret_access_key', the clock, and that the key may do \
             route53:ListHostedZonesByName, route53:ListResourceRecordSets, \
             route53:ChangeResourceRecordSets and route53:GetChange",
        );
        let secrets = [
            Some(&config.secret_access_key),
            config.session_token.as_ref(),
        ];
        let secrets = secrets.into_iter().flatten().cloned().collect();
        let uri = config.endpoint.parse::<Uri>().ok();
        let host = uri
            .as_ref()
            .and_then(Uri::authority)
            .map(ToString::to_string);
        Ok(Self {
            api: Api::new(name, dns, words, &config.endpoint, secrets)?,
            identity: Identity {
                access_key_id: config.access_key_id.clone(),
                secret_access_key: config.secret_access_key.clone(),
                session_token: config.session_token.clone(),
                region: config.region.clone(),
                service: "route53",
            },
            host: host.unwrap_or_default(),
            hosted_zone_id: config.hosted_zone_id.clone(),
            ttl: dns.ttl,
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

    async fn call_api(
        &self,
        method: Method,
        path: &str,
        query: &str,
        body: String,
    ) -> Result<Answer, DnsError> {
        let path = format!("/2013-04-01/{path}");
        let request = Unsigned {
            method: method.as_str(),
            host: &self.host,
            path: &path,
            query,
            body: body.as_bytes(),
        };
        let signed = self
            .identity
            .sign(&request, SystemClock.now())
            .map_err(|error| self.api.refused(&format!("cannot sign a request: {error}")))?;
        let mut headers = HeaderMap::new();
        // As it is signed, even with a default port.
        headers.insert(HOST, self.api.sensitive(&self.host)?);
        headers.insert(AUTHORIZATION, self.api.sensitive(&signed.authorization)?);
        headers.insert(
            HeaderName::from_static("x-amz-date"),
            self.api.sensitive(&signed.date)?,
        );
        if let Some(token) = &self.identity.session_token {
            let token = self.api.sensitive(token.expose())?;
            headers.insert(HeaderName::from_static("x-amz-security-token"), token);
        }
        if !body.is_empty() {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/xml"));
        }
        let target = match query {
            "" => path,
            query => format!("{path}?{query}"),
        };
        self.api
            .send_request(method, &target, headers, Bytes::from(body))
            .await
    }

    /// The error for an unsuccessful response.
    fn failure(&self, doing: &str, answer: &Answer) -> DnsError {
        let error = message::error(&answer.body);
        let failure = self.api.failure(doing, answer, &error.to_string());
        match failure {
            // Some temporary failures have status 400.
            DnsError::Refused(what) if error.is_passing() => DnsError::Unreachable(what),
            other => other,
        }
    }

    /// Parses a successful response.
    fn read_xml<T>(
        &self,
        doing: &str,
        answer: &Answer,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Result<T, DnsError> {
        if !answer.is_success() {
            return Err(self.failure(doing, answer));
        }
        let text = str::from_utf8(&answer.body).ok();
        text.and_then(read).ok_or_else(|| {
            self.api.unreachable(&format!(
                "Route 53 sent an unexpected response when asked to {doing}; check 'endpoint'"
            ))
        })
    }

    async fn zone_id(&self, zone: &HostName) -> Result<String, DnsError> {
        if let Some(id) = &self.hosted_zone_id {
            return Ok(id.clone());
        }
        let doing = format!("look up the hosted zone {zone}");
        let query = format!("dnsname={zone}.&maxitems=100");
        let answer = self
            .call_api(Method::GET, "hostedzonesbyname", &query, String::new())
            .await?;
        let mut zones = self.read_xml(&doing, &answer, message::public_zones)?;
        zones.retain(|(name, _)| name == zone.as_str());
        match zones.as_mut_slice() {
            [(_, id)] => Ok(std::mem::take(id)),
            [] => Err(self.api.refused(&format!(
                "Route 53 has no public hosted zone {zone} in the account of the key; check the \
                 key, or that it is the zone's provider"
            ))),
            [..] => Err(self.api.refused(&format!(
                "Route 53 has several public hosted zones {zone}; name the right one in \
                 'hosted_zone_id'"
            ))),
        }
    }

    /// The TXT records of a name, if it has any.
    async fn records(&self, zone_id: &str, name: &HostName) -> Result<Option<RecordSet>, DnsError> {
        let doing = format!("list the records of {name}");
        let path = format!("hostedzone/{zone_id}/rrset");
        let query = format!("maxitems=1&name={name}.&type=TXT");
        let answer = self
            .call_api(Method::GET, &path, &query, String::new())
            .await?;
        let sets = self.read_xml(&doing, &answer, message::record_sets)?;
        // The list begins there, and continues with other names.
        Ok(sets.into_iter().find(|set| set.is_of(name)))
    }

    /// Replaces the set of a name with what `new` makes of it, and waits until all name servers
    /// have it; `None` if it is right already.
    async fn replace_records(
        &self,
        doing: &str,
        zone: &HostName,
        name: &HostName,
        new: impl Fn(Option<&RecordSet>) -> Option<RecordSet> + Send + Sync,
    ) -> Result<(), DnsError> {
        let zone_id = self.zone_id(zone).await?;
        let path = format!("hostedzone/{zone_id}/rrset");
        let turn = self.turn.lock().await;
        let mut tries = 1;
        let change = loop {
            let old = self.records(&zone_id, name).await?;
            let Some(new) = new(old.as_ref()) else {
                return Ok(());
            };
            let body = message::change(name, old.as_ref(), &new);
            let answer = self.call_api(Method::POST, &path, "", body).await?;
            let error = message::error(&answer.body);
            let again = !answer.is_success() && (error.is_passing() || error.is_outrun());
            if !again || tries >= TRIES {
                break self.read_xml(doing, &answer, message::change_info)?;
            }
            tries += 1;
            tokio::time::sleep(self.pause).await;
        };
        drop(turn);
        self.wait_for(doing, change).await
    }

    /// Waits until all name servers of Route 53 have a change.
    async fn wait_for(&self, doing: &str, mut change: message::ChangeInfo) -> Result<(), DnsError> {
        for _ in 0..LOOKS {
            if change.is_in_sync {
                return Ok(());
            }
            tokio::time::sleep(self.pause).await;
            let path = format!("change/{}", change.id);
            let answer = self.call_api(Method::GET, &path, "", String::new()).await?;
            match self.read_xml(doing, &answer, message::change_info) {
                Ok(next) => change = next,
                // A rate limit does not affect the change.
                Err(DnsError::Unreachable(_)) => {}
                Err(error) => return Err(error),
            }
        }
        let what =
            format!("Route 53 has begun to {doing}, and its name servers do not have it yet");
        Err(self.api.unreachable(&what))
    }
}

#[async_trait]
impl DnsProvider for Route53Provider {
    fn name(&self) -> &str {
        self.api.name()
    }

    async fn add(&self, zone: &HostName, record: &TxtRecord) -> Result<(), DnsError> {
        let doing = format!("set {}", record.name);
        let with = |old: Option<&RecordSet>| {
            let mut set = old.cloned().unwrap_or_else(|| RecordSet::empty(self.ttl));
            set.insert(&record.value).then_some(set)
        };
        self.replace_records(&doing, zone, &record.name, with).await
    }

    async fn remove(&self, zone: &HostName, record: &TxtRecord) -> Result<(), DnsError> {
        let doing = format!("remove {}", record.name);
        let without = |old: Option<&RecordSet>| {
            let mut set = old?.clone();
            set.remove(&record.value).then_some(set)
        };
        self.replace_records(&doing, zone, &record.name, without)
            .await
    }

    async fn list(
        &self,
        zone: &HostName,
        name: &HostName,
    ) -> Result<Option<Vec<String>>, DnsError> {
        let zone_id = self.zone_id(zone).await?;
        let set = self.records(&zone_id, name).await?;
        Ok(Some(set.map(|set| set.texts()).unwrap_or_default()))
    }
}
