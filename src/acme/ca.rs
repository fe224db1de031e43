//! A CA: the address of its directory, and the connections to it.
//!
//! Nothing is read or fetched before it is needed: a CA that is down, or a missing file of roots,
//! does not keep the gateway from starting.

use std::sync::Arc;
use std::time::Duration;

use http::uri::Uri;
use http::{Method, StatusCode};

use super::client::{AcmeClient, follow_redirects};
use super::directory::{Directory, read_directory};
use super::error;
use super::refusal::Refusal;
use super::single_flight::SingleFlight;
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
    /// Host and port of that URL, as people know it.
    pub(super) host: String,
    /// Its segment in storage keys.
    pub(super) key: String,
    config: Arc<Acme>,
    clock: Arc<dyn Clock>,
    http: SingleFlight<Arc<HttpClient>>,
    directory: SingleFlight<Arc<Directory>>,
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
    /// If the directory cannot be fetched.
    pub(super) async fn client(&self) -> Result<AcmeClient, Failure> {
        let http = self.http.get_or_make(Duration::MAX, self.connect()).await?;
        let directory = self
            .directory
            .get_or_make(DIRECTORY_LASTS, self.fetch_directory(&http))
            .await?;
        Ok(AcmeClient::new(http, directory, Arc::clone(&self.clock)))
    }

    /// Returns true if it offers renewal information (RFC 9773); `None` if that is not known yet.
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
            // Any other refusal means that there is no directory.
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
