//! lego's `httpreq` protocol: `POST /present` and `POST /cleanup` at a server of the user's, with
//! `{"fqdn": "_acme-challenge.example.com.", "value": "…"}`.

use async_trait::async_trait;
use http::Method;
use serde_json::json;

use super::api::Api;
use super::{DnsError, DnsProvider, TxtRecord};
use crate::config::model::{self, Dns};
use crate::host::HostName;

/// Sets records through a server of the user's.
pub struct HttpReqProvider {
    api: Api,
}

impl HttpReqProvider {
    /// The provider of the entry `name`.
    ///
    /// # Errors
    /// If its HTTPS cannot be set up.
    pub fn new(name: &str, config: &model::HttpReq, dns: &Dns) -> Result<Self, DnsError> {
        let words = ("the server", "'username' and 'password'");
        let login = config.login.as_ref();
        let secrets = login.map(|(_, password)| password.clone());
        let mut api = Api::new(
            name,
            dns,
            words,
            &config.endpoint,
            secrets.into_iter().collect(),
        )?;
        if let Some((user, password)) = login {
            api = api.with_password(user, password)?;
        }
        Ok(Self { api })
    }

    async fn post(&self, path: &str, doing: &str, record: &TxtRecord) -> Result<(), DnsError> {
        let body = json!({ "fqdn": format!("{}.", record.name), "value": record.value });
        let answer = self.api.json(Method::POST, path, Some(&body)).await?;
        self.api
            .check_success(&format!("{doing} {}", record.name), &answer)
    }
}

#[async_trait]
impl DnsProvider for HttpReqProvider {
    fn name(&self) -> &str {
        self.api.name()
    }

    fn needs_zone(&self) -> bool {
        false
    }

    async fn add(&self, _: &HostName, record: &TxtRecord) -> Result<(), DnsError> {
        self.post("/present", "set", record).await
    }

    async fn remove(&self, _: &HostName, record: &TxtRecord) -> Result<(), DnsError> {
        self.post("/cleanup", "remove", record).await
    }

    /// The protocol cannot list records.
    async fn list(&self, _: &HostName, _: &HostName) -> Result<Option<Vec<String>>, DnsError> {
        Ok(None)
    }
}
