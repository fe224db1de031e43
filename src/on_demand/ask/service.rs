//! A service of the operator's that decides over HTTP.

use std::fmt::Write as _;
use std::net::IpAddr;

use async_trait::async_trait;
use http::{Request, Response, StatusCode, Uri};

use super::freshness::freshness;
use crate::config::model::Ask;
use crate::host::HostName;
use crate::http_client::{Body, HttpClient, HttpError, Options, Patience};
use crate::on_demand::{Decider, Decision, Undecided};
use crate::secret::Secret;

/// Asks the service at a URL: a response of 2xx allows the name, one of 4xx refuses it.
pub(super) struct HttpDecider {
    url: Secret,
    http: HttpClient,
    /// `HOST:PORT`, for people: the rest may be secret.
    place: String,
}

impl HttpDecider {
    /// Reads the roots to trust, where HTTPS is spoken.
    ///
    /// # Errors
    /// If that cannot be set up. Says which service is meant.
    pub(super) fn new(url: &Secret, config: &Ask) -> Result<Self, String> {
        let uri: Uri = url
            .expose()
            .parse()
            .map_err(|_| "'ask' is not a URL".to_owned())?;
        let place = uri
            .authority()
            .map_or_else(String::new, ToString::to_string);
        let is_plain = uri.scheme_str() == Some("http");
        let http = HttpClient::new(Options {
            ca_file: config.ca_file.as_deref(),
            proxy: None,
            allow_plain: is_plain,
            only_plain: is_plain,
            patience: Patience {
                connect: config.timeout,
                request: config.timeout,
            },
            max_answer: None,
        })
        .map_err(|error| format!("cannot contact the service {place}: {error}"))?;
        Ok(Self {
            url: url.clone(),
            http,
            place,
        })
    }

    fn request(
        &self,
        name: &HostName,
        client: Option<IpAddr>,
    ) -> Result<Request<Body>, http::Error> {
        let url = with_query(self.url.expose(), name, client);
        Request::get(url).body(Body::default())
    }

    fn read_answer(
        &self,
        answer: Result<Response<bytes::Bytes>, HttpError>,
    ) -> Result<Decision, Undecided> {
        let answer = answer.map_err(|error| Undecided(format!("{}: {error}", self.place)))?;
        let status = answer.status();
        let valid_for = freshness(answer.headers());
        if status.is_success() {
            Ok(Decision::Allow { valid_for })
        } else if is_no(status) {
            Ok(Decision::Refuse { valid_for })
        } else {
            let why = if status.is_redirection() {
                ", which is not followed"
            } else {
                ""
            };
            let why = format!("{} responded with {status}{why}", self.place);
            Err(Undecided(why))
        }
    }
}

#[async_trait]
impl Decider for HttpDecider {
    fn place(&self) -> &str {
        &self.place
    }

    async fn decide(&self, name: &HostName, client: Option<IpAddr>) -> Result<Decision, Undecided> {
        let request = self.request(name, client);
        let request = request.map_err(|error| Undecided(error.to_string()))?;
        self.read_answer(self.http.send(request).await)
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
pub(super) fn with_query(url: &str, name: &HostName, client: Option<IpAddr>) -> String {
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
