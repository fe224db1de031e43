//! A CA: where it is, what its directory says, and the connections to it.
//!
//! Nothing is read or fetched before it is needed: a CA that is down, or a file of roots that is
//! missing, does not keep the gateway from its start.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::uri::Uri;
use http::{Method, StatusCode};
use serde_json::{Map, Value, json};

use super::client::{AcmeClient, Refusal, follow_redirects};
use super::error;
use super::lenient::{json, place, texts, word};
use super::single_flight::SingleFlight;
use crate::acme::error::problem::words;
use crate::clock::Clock;
use crate::config::model::Acme;
use crate::http_client::{HttpClient, HttpError, Options};
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
    http: SingleFlight<Arc<HttpClient>>,
    directory: SingleFlight<Arc<Directory>>,
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
#[derive(Debug, Default)]
pub(super) struct Meta {
    pub(super) external_account_required: bool,
    /// The issuer domain names that it goes by in CAA records (RFC 8659, section 4.2).
    pub(super) caa_identities: Vec<String>,
    /// The names of its profiles.
    pub(super) profiles: Vec<String>,
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
            http: SingleFlight::default(),
            directory: SingleFlight::default(),
        }
    }

    /// A client for one certificate.
    ///
    /// # Errors
    /// Where the directory cannot be had.
    pub(super) async fn client(&self) -> Result<AcmeClient, Failure> {
        let http = self.http.get_or_make(Duration::MAX, self.connect()).await?;
        let directory = self
            .directory
            .get_or_make(DIRECTORY_LASTS, self.fetch_directory(&http))
            .await?;
        Ok(AcmeClient::new(http, directory, Arc::clone(&self.clock)))
    }

    /// Whether it gives advice on renewals (RFC 9773), as far as that is known.
    pub(super) fn gives_advice(&self) -> Option<bool> {
        let directory = self.directory.try_get()?;
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

    async fn fetch_directory(&self, http: &HttpClient) -> Result<Arc<Directory>, Failure> {
        let wrong = |why: &str| {
            let message = format!(
                "{} is not an ACME directory: {why}; correct the issuer's 'directory' or 'staging'",
                self.url
            );
            Failure::new(FailureClass::Configuration, message)
        };
        let url: Uri = self.url.parse().map_err(|_| wrong("this is not a URL"))?;
        let reply = follow_redirects(http, &Method::GET, url.clone()).await;
        let reply = reply.map_err(|error| self.unreachable(&error))?;
        if let Some(refusal) = Refusal::of(&reply, self.clock.now()) {
            let failure = error::refusal_failure(
                &self.host,
                error::Step::Directory,
                &refusal,
                &[],
                self.clock.now(),
            );
            // Anything else that a CA does not show is not there.
            let status = refusal.status;
            let is_lasting = status.is_client_error()
                && status != StatusCode::REQUEST_TIMEOUT
                && failure.class != FailureClass::RateLimited;
            return Err(match is_lasting {
                true => wrong(&format!("the response is {}", error::answer_text(&refusal))),
                false => failure,
            });
        }
        let directory = read_directory(&url, reply.body());
        directory.map(Arc::new).map_err(|why| wrong(&why))
    }

    fn unreachable(&self, error: &HttpError) -> Failure {
        error::unreachable(&self.host, error)
    }
}

/// The directory at `url`, or why what is there is none. Members that cannot be read are absent.
fn read_directory(url: &Uri, body: &[u8]) -> Result<Directory, String> {
    let value = json(body);
    let Some(members) = value.as_ref().and_then(Value::as_object) else {
        let words = words(body).unwrap_or_default();
        return Err(format!("the response is not a JSON object: {words:?}"));
    };
    let needed = |name: &str| {
        place(url, members, name).ok_or_else(|| format!("it has no valid URL for '{name}'"))
    };
    let optional = ["revokeCert", "keyChange", "renewalInfo"];
    let optional = optional.map(|name| place(url, members, name));
    let [revoke_cert, key_change, renewal_info] = optional;
    let meta = members.get("meta").and_then(Value::as_object);
    let meta = meta.map(meta_of).unwrap_or_default();
    let mut directory = Directory {
        url: url.clone(),
        body: Bytes::new(),
        new_nonce: needed("newNonce")?,
        new_account: needed("newAccount")?,
        new_order: needed("newOrder")?,
        revoke_cert,
        key_change,
        renewal_info,
        meta,
    };
    let body = json!({
        "newNonce": directory.new_nonce, "newAccount": directory.new_account,
        "newOrder": directory.new_order, "renewalInfo": directory.renewal_info,
    });
    directory.body = body.to_string().into();
    Ok(directory)
}

fn meta_of(members: &Map<String, Value>) -> Meta {
    let profiles = match members.get("profiles") {
        Some(Value::Object(profiles)) => {
            let described = profiles.iter().filter(|(_, value)| !value.is_null());
            described.map(|(name, _)| name.clone()).collect()
        }
        named => texts(named).collect(),
    };
    Meta {
        external_account_required: word(members, "externalAccountRequired") == "true",
        caa_identities: texts(members.get("caaIdentities")).collect(),
        profiles,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(body: &str) -> Result<Directory, String> {
        read_directory(&Uri::from_static("https://ca.test/dir"), body.as_bytes())
    }

    #[test]
    fn what_cannot_be_read_is_absent() {
        let read = directory(
            r#"{ "newNonce": "/n", "newAccount": "/a", "newOrder": "/o", "revokeCert": null,
                 "keyChange": {}, "renewalInfo": 17, "newAuthz": 17,
                 "meta": { "caaIdentities": null, "externalAccountRequired": null,
                           "profiles": { "classic": "for all", "old": null, "odd": 1 } } }"#,
        )
        .expect("a directory");
        let meta = &read.meta;
        assert!(!meta.external_account_required && meta.caa_identities.is_empty());
        assert_eq!(meta.profiles, ["classic", "odd"]);
        assert_eq!(
            (read.revoke_cert, read.key_change, read.renewal_info),
            (None, None, None)
        );
        for meta in [
            "null",
            "17",
            "[]",
            "\"\"",
            r#"{"profiles":17,"caaIdentities":{}}"#,
        ] {
            let body =
                format!(r#"{{"newNonce":"/n","newAccount":"/a","newOrder":"/o","meta":{meta}}}"#);
            assert!(directory(&body).is_ok(), "{meta}");
        }
        let text = r#"{"newNonce":"https://ca.test/n","newAccount":"//ca.test/a","newOrder":"/o",
            "meta":{"caaIdentities":"ca.test","externalAccountRequired":"true"}}"#;
        let read = directory(&format!("\u{feff}{text}\0\n")).expect("a directory");
        assert_eq!(read.new_order, "https://ca.test/o");
        assert!(read.meta.external_account_required);
        assert_eq!(read.meta.caa_identities, ["ca.test"]);
    }

    #[test]
    fn what_is_missing_is_named() {
        let whole = r#"{"newNonce":"/n","newAccount":"/a","newOrder":"/o"}"#;
        for name in ["newNonce", "newAccount", "newOrder"] {
            let why = directory(&whole.replace(name, "other"))
                .err()
                .expect("not whole");
            assert!(why.contains(name), "{why}");
        }
        let why = directory("<title>Welcome</title>").err().expect("a page");
        assert!(why.contains("Welcome"), "{why}");
    }
}
