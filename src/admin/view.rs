//! What the admin interface shows: the JSON of its responses.
//!
//! Times are RFC 3339 in UTC. None of these types has a place for a private key.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::clock::UnixTime;
use crate::config::model::{Action, PathMatch, Site, SiteTls, TunnelKind};
use crate::printable::Printable as _;

/// `GET /api/v1/status`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct Status {
    pub version: String,
    pub pid: u32,
    #[serde(with = "rfc3339")]
    pub started: UnixTime,
    pub uptime_seconds: i64,
    /// Open client connections.
    pub connections: u64,
    /// What is listened on.
    #[serde(default)]
    pub listeners: Vec<ListenerView>,
    pub config_file: PathBuf,
    /// `None` before the first reload.
    pub last_reload: Option<LastReload>,
}

/// An address that connections are accepted at.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct ListenerView {
    pub address: String,
    /// `https` or `http`.
    pub protocol: String,
}

/// The result of the last reload.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct LastReload {
    #[serde(with = "rfc3339")]
    pub at: UnixTime,
    /// Whether the new configuration was applied.
    pub taken: bool,
    /// Why it was not.
    pub errors: Vec<Value>,
}

/// An element of `GET /api/v1/sites`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct SiteView {
    pub hosts: Vec<String>,
    /// Where it is served, if not at the addresses of the server.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub listen: Vec<String>,
    /// `auto`, `off`, `pass_through`, or the name of an issuer.
    pub tls: String,
    pub routes: Vec<RouteView>,
    /// The upstream that connections are passed to with TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pass_through: Option<String>,
    /// The upstream that gets what is within TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp: Option<String>,
    /// Where the site is configured, as `FILE:LINE:COLUMN`.
    pub origin: String,
}

/// A route of a site: which requests it is for, and its only action.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct RouteView {
    pub path: PathView,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<String>,
    /// The names of required header fields; their values may be secret.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<String>,
    /// The names of required query parameters; their values may be secret.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub query: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redirect: Option<String>,
    /// The status of a fixed response.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub respond: Option<u16>,
    /// The directory of files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub files: Option<String>,
}

/// The paths of a route, as they are configured.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(untagged)]
pub enum PathView {
    Prefix(String),
    Exact { exact: String },
    Regex { regex: String },
}

impl From<&PathMatch> for PathView {
    fn from(path: &PathMatch) -> Self {
        let text = path.text().to_owned();
        match path {
            PathMatch::Prefix(_) => Self::Prefix(text),
            PathMatch::Exact(_) => Self::Exact { exact: text },
            PathMatch::Regex(_) => Self::Regex { regex: text },
        }
    }
}

impl From<&Site> for SiteView {
    fn from(site: &Site) -> Self {
        let origin = &site.origin;
        let tunnel = |kind| {
            let tunnel = site.tunnel.as_ref().filter(|tunnel| tunnel.kind == kind)?;
            Some(tunnel.proxy.upstream.name.to_string())
        };
        Self {
            hosts: site.hosts.iter().map(ToString::to_string).collect(),
            listen: site.listen.iter().map(ToString::to_string).collect(),
            tls: match &site.tls {
                SiteTls::Auto(_) => "auto".to_owned(),
                SiteTls::Issuer(issuer) => issuer.to_string(),
                SiteTls::Off => "off".to_owned(),
                SiteTls::PassThrough => "pass_through".to_owned(),
            },
            pass_through: tunnel(TunnelKind::PassThrough),
            tcp: tunnel(TunnelKind::Tcp),
            routes: site
                .routes
                .iter()
                .map(|route| {
                    let conditions = route.conditions.as_deref().cloned().unwrap_or_default();
                    let methods = conditions.methods.into_iter();
                    let headers = conditions.headers.into_iter();
                    let query = conditions.query.into_iter();
                    let mut view = RouteView {
                        path: PathView::from(&route.path),
                        methods: methods.map(String::from).collect(),
                        headers: headers.map(|one| one.name.to_string()).collect(),
                        query: query.map(|one| one.name.into()).collect(),
                        upstream: None,
                        redirect: None,
                        respond: None,
                        files: None,
                    };
                    match &route.action {
                        Action::Proxy(proxy) => {
                            view.upstream = Some(proxy.upstream.name.to_string())
                        }
                        Action::Redirect { to, .. } => view.redirect = Some(to.to_string()),
                        Action::Respond { status, .. } => view.respond = Some(status.as_u16()),
                        Action::Files(files) => {
                            view.files = Some(files.root.printable().to_string())
                        }
                    }
                    view
                })
                .collect(),
            origin: format!(
                "{}:{}:{}",
                origin.file.printable(),
                origin.line,
                origin.column
            ),
        }
    }
}

/// The effects of a successful reload.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
pub struct ReloadSummary {
    pub sites: usize,
    pub certificates: usize,
    pub warnings: Vec<Value>,
    /// Keys whose change needs a restart, such as `server.threads`.
    pub restart_needed: Vec<String>,
}

/// Unix time as RFC 3339.
pub(super) mod rfc3339 {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::clock::UnixTime;

    pub(in crate::admin) fn serialize<S: Serializer>(
        time: &UnixTime,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&super::time(*time))
    }

    pub(in crate::admin) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<UnixTime, D::Error> {
        let text = String::deserialize(deserializer)?;
        let time: jiff::Timestamp = text.parse().map_err(Error::custom)?;
        Ok(UnixTime::from_secs(time.as_second()))
    }

    /// The same for optional times.
    pub(in crate::admin) mod option {
        use serde::{Deserialize, Deserializer, Serialize, Serializer};

        use crate::clock::UnixTime;

        #[derive(Deserialize, Serialize)]
        struct Time(#[serde(with = "super")] UnixTime);

        pub(in crate::admin) fn serialize<S: Serializer>(
            time: &Option<UnixTime>,
            serializer: S,
        ) -> Result<S::Ok, S::Error> {
            time.map(Time).serialize(serializer)
        }

        pub(in crate::admin) fn deserialize<'de, D: Deserializer<'de>>(
            deserializer: D,
        ) -> Result<Option<UnixTime>, D::Error> {
            let time = Option::<Time>::deserialize(deserializer)?;
            Ok(time.map(|Time(time)| time))
        }
    }
}

/// A time as the admin interface writes it; one beyond the year 9999 becomes the last before it.
pub fn time(time: UnixTime) -> jiff::Timestamp {
    jiff::Timestamp::from_second(time.as_secs()).unwrap_or(jiff::Timestamp::MAX)
}
