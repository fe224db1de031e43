//! A service of the operator's that says which names may have a certificate.

mod breaker;
mod freshness;

use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response, StatusCode, Uri};
use tokio::sync::Semaphore;

use self::breaker::Breaker;
use self::freshness::freshness;
use super::lru::{LruCache, lru_cache};
use crate::clock::{Clock, UnixTime};
use crate::config::model::Ask;
use crate::host::HostName;
use crate::http_client::{Body, HttpClient, HttpError, Options, Patience};

/// How many answers are kept; beyond, those that were used last stay.
const ROOM: u64 = 20_000;

/// How many questions may be open at once.
const MAX_OPEN: usize = 32;

/// Asks the service, and remembers what it says.
pub(super) struct Asker {
    config: Ask,
    http: HttpClient,
    /// `HOST:PORT`, for people: the rest may be secret.
    place: String,
    clock: Arc<dyn Clock>,
    answers: LruCache<HostName, CachedAnswer>,
    breaker: Breaker,
    open: Semaphore,
}

#[derive(Clone, Copy, Debug)]
struct CachedAnswer {
    allowed: bool,
    until: UnixTime,
}

/// What the service says of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Yes,
    No,
    /// It cannot be told, and why.
    Nothing(String),
}

impl Asker {
    /// Reads the roots to trust, where HTTPS is spoken.
    ///
    /// # Errors
    /// Where that cannot be set up. Says which service is meant.
    pub(super) fn new(config: &Ask, clock: Arc<dyn Clock>) -> Result<Self, String> {
        let text = config.url.expose();
        let url: Uri = text.parse().map_err(|_| "'ask' is not a URL".to_owned())?;
        let place = url
            .authority()
            .map_or_else(String::new, ToString::to_string);
        let is_plain = url.scheme_str() == Some("http");
        let http = HttpClient::new(Options {
            ca_file: config.ca_file.as_deref(),
            proxy: None,
            allow_plain: is_plain,
            only_plain: is_plain,
            patience: Patience {
                connect: config.timeout,
                request: config.timeout,
            },
        })
        .map_err(|error| format!("cannot contact the service {place}: {error}"))?;
        Ok(Self {
            config: config.clone(),
            http,
            place,
            clock,
            answers: lru_cache(ROOM),
            breaker: Breaker::default(),
            open: Semaphore::new(MAX_OPEN),
        })
    }

    pub(super) fn config(&self) -> &Ask {
        &self.config
    }

    /// What is known of `host` without asking.
    pub(super) fn cached_answer(&self, host: &str) -> Option<bool> {
        let answer = self.answers.get(host)?;
        (self.clock.now() < answer.until).then_some(answer.allowed)
    }

    /// Asks whether `name`, which `client` wants, may have a certificate.
    pub(super) async fn ask_service(&self, name: &HostName, client: Option<IpAddr>) -> Answer {
        if let Some(allowed) = self.cached_answer(name.as_str()) {
            return if allowed { Answer::Yes } else { Answer::No };
        }
        let Ok(Ok(_permit)) = tokio::time::timeout(self.config.timeout, self.open.acquire()).await
        else {
            return Answer::Nothing(format!("{} has too many pending requests", self.place));
        };
        if !self.breaker.admits(self.clock.now()) {
            return Answer::Nothing(format!(
                "{} has not responded recently and will not be asked for a while",
                self.place
            ));
        }
        let answer = match self.request(name, client) {
            Ok(request) => self.http.send(request).await,
            Err(error) => return Answer::Nothing(error.to_string()),
        };
        let said = self.read_answer(name, answer);
        match &said {
            Answer::Yes | Answer::No => self.breaker.record_success(),
            Answer::Nothing(why) => {
                if let Some(seconds) = self.breaker.record_failure(self.clock.now()) {
                    return Answer::Nothing(format!("{why}; it will not be asked for {seconds} s"));
                }
            }
        }
        said
    }

    fn request(
        &self,
        name: &HostName,
        client: Option<IpAddr>,
    ) -> Result<Request<Body>, http::Error> {
        let url = with_query(self.config.url.expose(), name, client);
        Request::get(url).body(Body::default())
    }

    fn read_answer(
        &self,
        name: &HostName,
        answer: Result<Response<bytes::Bytes>, HttpError>,
    ) -> Answer {
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => return Answer::Nothing(format!("{}: {error}", self.place)),
        };
        let status = answer.status();
        let (allowed, default) = if status.is_success() {
            (true, self.config.cache_allowed)
        } else if is_no(status) {
            (false, self.config.cache_refused)
        } else {
            let why = if status.is_redirection() {
                ", which is not followed"
            } else {
                ""
            };
            return Answer::Nothing(format!("{} responded with {status}{why}", self.place));
        };
        let life = freshness(answer.headers(), default);
        self.remember(name, allowed, life);
        if allowed { Answer::Yes } else { Answer::No }
    }

    fn remember(&self, name: &HostName, allowed: bool, life: Duration) {
        let life = i64::try_from(life.as_secs()).unwrap_or(i64::MAX);
        if life == 0 {
            self.answers.invalidate(name);
            return;
        }
        let until = self.clock.now().saturating_add(life);
        self.answers
            .insert(name.clone(), CachedAnswer { allowed, until });
    }
}

/// Whether a status is a no, and not one that says to ask again.
fn is_no(status: StatusCode) -> bool {
    const AGAIN: [StatusCode; 3] = [
        StatusCode::REQUEST_TIMEOUT,
        StatusCode::TOO_EARLY,
        StatusCode::TOO_MANY_REQUESTS,
    ];
    status.is_client_error() && !AGAIN.contains(&status)
}

/// `url` with the question in its query. A name in normal form and an address need no escaping.
fn with_query(url: &str, name: &HostName, client: Option<IpAddr>) -> String {
    let url = url.split_once('#').map_or(url, |(url, _)| url);
    let (base, query) = url.split_once('?').unwrap_or((url, ""));
    let between = if query.is_empty() { "" } else { "&" };
    let mut text = format!("{base}?{query}{between}domain={name}");
    if let Some(client) = client {
        // Writing to a text does not fail.
        let _ = write!(text, "&client={}", client.to_canonical());
    }
    text
}

#[cfg(test)]
mod tests;
