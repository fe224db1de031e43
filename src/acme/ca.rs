//! A CA: where it is, what its directory says, and the connections to it.
//!
//! Nothing is read or fetched before it is needed: a CA that is down, or a file of roots that is
//! missing, does not keep the gateway from its start.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http::uri::Uri;
use serde::Deserialize;
use serde_json::Value;

use super::classify;
use super::flight::Flight;
use super::session::{Refusal, Session};
use crate::clock::Clock;
use crate::config::model::Acme;
use crate::http_client::{Body, HttpClient, HttpError, Options};
use crate::schedule::{Failure, FailureClass};
use crate::storage::keys;

/// How long a directory is used before it is fetched again.
const DIRECTORY_LASTS: Duration = Duration::from_secs(3600);

/// One directory of a CA.
pub(super) struct Ca {
    /// The URL of its directory.
    pub(super) url: String,
    /// Host and port of that, by which people know it.
    pub(super) host: String,
    /// Its segment of storage keys.
    pub(super) key: String,
    config: Arc<Acme>,
    clock: Arc<dyn Clock>,
    http: Flight<Arc<HttpClient>>,
    directory: Flight<Arc<Directory>>,
}

/// What is at that URL.
pub(super) struct Directory {
    pub(super) url: Uri,
    pub(super) body: Bytes,
    pub(super) new_nonce: String,
    pub(super) new_account: String,
    pub(super) new_order: String,
    pub(super) revoke_cert: Option<String>,
    pub(super) key_change: Option<String>,
    /// Below which advice on renewals is (RFC 9773, section 3), where the CA gives any.
    pub(super) renewal_info: Option<String>,
    pub(super) meta: Meta,
}

/// What a CA says of itself (RFC 8555, section 7.1.1; draft-ietf-acme-profiles).
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Meta {
    #[serde(default)]
    pub(super) external_account_required: bool,
    /// The issuer domain names that it goes by in CAA records (RFC 8659, section 4.2).
    #[serde(default)]
    pub(super) caa_identities: Vec<String>,
    #[serde(default)]
    pub(super) profiles: serde_json::Map<String, Value>,
}

/// Its members (RFC 8555, section 7.1.1); without those that are not optional it is none.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Members {
    new_nonce: String,
    new_account: String,
    new_order: String,
    #[serde(default)]
    revoke_cert: Option<String>,
    #[serde(default)]
    key_change: Option<String>,
    renewal_info: Option<String>,
    #[serde(default)]
    meta: Meta,
}

impl Ca {
    pub(super) fn new(url: &str, config: Arc<Acme>, clock: Arc<dyn Clock>) -> Self {
        let authority = url.parse().ok().and_then(|uri: Uri| {
            let authority = uri.authority()?;
            Some(authority.as_str().to_owned())
        });
        Self {
            url: url.to_owned(),
            host: authority.unwrap_or_else(|| url.to_owned()),
            key: keys::ca(url),
            config,
            clock,
            http: Flight::default(),
            directory: Flight::default(),
        }
    }

    /// A client for one certificate.
    ///
    /// # Errors
    /// Where the directory cannot be had.
    pub(super) async fn session(&self) -> Result<Session, Failure> {
        let http = self.http.get(Duration::MAX, self.connect()).await?;
        let directory = self
            .directory
            .get(DIRECTORY_LASTS, self.fetch(&http))
            .await?;
        Ok(Session::new(http, directory, Arc::clone(&self.clock)))
    }

    /// Whether it gives advice on renewals (RFC 9773), as far as that is known.
    pub(super) fn gives_advice(&self) -> Option<bool> {
        let directory = self.directory.at_hand()?;
        Some(directory.renewal_info.is_some())
    }

    async fn connect(&self) -> Result<Arc<HttpClient>, Failure> {
        let config = Arc::clone(&self.config);
        let make = move || {
            HttpClient::new(Options {
                ca_file: config.ca_file.as_deref(),
                proxy: config.proxy.as_ref(),
                ..Options::default()
            })
        };
        match tokio::task::spawn_blocking(make).await {
            Ok(Ok(client)) => Ok(Arc::new(client)),
            Ok(Err(error)) => Err(self.unreachable(&error)),
            Err(error) => Err(Failure::new(FailureClass::Internal, error.to_string())),
        }
    }

    async fn fetch(&self, http: &HttpClient) -> Result<Arc<Directory>, Failure> {
        let wrong = |why: &str| {
            let message = format!(
                "{} is no ACME directory: {why}; correct 'directory' or 'staging' of the issuer",
                self.url
            );
            Failure::new(FailureClass::Configuration, message)
        };
        let url: Uri = self.url.parse().map_err(|_| wrong("this is no URL"))?;
        let request = Request::builder()
            .uri(url.clone())
            .body(Body::default())
            .map_err(|_| wrong("this is no URL"))?;
        let reply = http.send(request).await;
        let reply = reply.map_err(|error| self.unreachable(&error))?;
        if let Some(refusal) = Refusal::of(&reply, self.clock.now()) {
            let failure = classify::refused(
                &self.host,
                classify::Step::Directory,
                &refusal,
                &[],
                self.clock.now(),
            );
            // Anything else that a CA does not show is not there.
            return Err(match failure.class {
                FailureClass::Network | FailureClass::RateLimited => failure,
                _ => wrong(&format!("the answer is {}", refusal.status)),
            });
        }
        let body = reply.into_body();
        let (body, members) = read(&body)
            .map_err(|error| wrong(&format!("what is there cannot be read: {error}")))?;
        Ok(Arc::new(Directory {
            url,
            body,
            new_nonce: members.new_nonce,
            new_account: members.new_account,
            new_order: members.new_order,
            revoke_cert: members.revoke_cert,
            key_change: members.key_change,
            renewal_info: members.renewal_info,
            meta: members.meta,
        }))
    }

    fn unreachable(&self, error: &HttpError) -> Failure {
        classify::unreachable(&self.host, error)
    }
}

/// A directory without what is null, which counts as absent, and its members.
fn read(body: &[u8]) -> Result<(Bytes, Members), serde_json::Error> {
    let mut value: Value = serde_json::from_slice(body)?;
    drop_nulls(&mut value);
    let body = serde_json::to_vec(&value)?;
    Ok((body.into(), serde_json::from_value(value)?))
}

fn drop_nulls(value: &mut Value) {
    if let Value::Object(members) = value {
        members.retain(|_, member| !member.is_null());
        members.values_mut().for_each(drop_nulls);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_null_is_absent() {
        let (body, members) = read(
            br#"{ "newNonce": "n", "newAccount": "a", "newOrder": "o", "revokeCert": null,
                  "meta": { "caaIdentities": null, "externalAccountRequired": null,
                            "profiles": { "classic": "for all", "old": null } } }"#,
        )
        .expect("a directory");
        let meta = &members.meta;
        assert!(!meta.external_account_required && meta.caa_identities.is_empty());
        assert_eq!(meta.profiles.keys().collect::<Vec<_>>(), ["classic"]);
        assert!(!String::from_utf8_lossy(&body).contains("null"));
        let bare = r#"{ "newNonce": "n", "newAccount": "a", "newOrder": "o", "meta": null }"#;
        assert!(read(bare.as_bytes()).is_ok());
        assert!(read(&bare.replace(r#""o""#, "null").into_bytes()).is_err());
    }
}
