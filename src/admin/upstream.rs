//! What the admin interface shows of upstreams.

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use http::StatusCode;
use serde::{Deserialize, Serialize};

use super::{AdminState, Problem};
use crate::config::model::Balance;
use crate::proxy::{EndpointView, Pool};

/// An element of `GET /api/v1/upstreams`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct UpstreamView {
    pub name: String,
    /// `round_robin`, `least_requests` or `hash`.
    pub balance: String,
    /// Every known address of every server.
    pub servers: Vec<ServerView>,
}

/// An address of an upstream's server.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct ServerView {
    /// The server as it is configured.
    pub server: String,
    pub address: String,
    /// `up`; `avoided` for some seconds after a connection failed; `ejected` because requests fail;
    /// `down` because health checks fail; or `drained` by people.
    pub state: String,
    pub weight: u32,
    pub backup: bool,
    /// Requests in flight, WebSockets included.
    pub requests: usize,
}

/// What became of a server that was drained or resumed.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct DrainView {
    /// The upstream's name.
    pub upstream: String,
    /// The addresses that were meant.
    pub servers: Vec<ServerView>,
    /// What to know besides.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub warning: Option<String>,
}

impl From<&Pool> for UpstreamView {
    fn from(pool: &Pool) -> Self {
        Self {
            name: pool.name().to_string(),
            balance: match pool.balance() {
                Balance::RoundRobin => "round_robin",
                Balance::LeastRequests => "least_requests",
                Balance::Hash(_) => "hash",
            }
            .to_owned(),
            servers: pool.endpoints().into_iter().map(ServerView::from).collect(),
        }
    }
}

impl ServerView {
    /// Whether this is its name in the configuration, or its address.
    pub fn is_named(&self, name: &str) -> bool {
        self.server == name || self.address == name
    }
}

impl From<EndpointView> for ServerView {
    fn from(endpoint: EndpointView) -> Self {
        Self {
            server: endpoint.server,
            address: endpoint.address.into(),
            state: endpoint.standing.as_str().to_owned(),
            weight: endpoint.weight,
            backup: endpoint.backup,
            requests: endpoint.requests,
        }
    }
}

pub(super) async fn upstreams(State(state): State<AdminState>) -> Json<Vec<UpstreamView>> {
    Json(state.control.upstreams())
}

/// The names of an upstream and a server in a path.
type Names = Result<Path<(String, String)>, PathRejection>;

pub(super) async fn drain(
    State(state): State<AdminState>,
    names: Names,
) -> Result<Json<DrainView>, Problem> {
    set_drained(&state, names, true)
}

pub(super) async fn resume(
    State(state): State<AdminState>,
    names: Names,
) -> Result<Json<DrainView>, Problem> {
    set_drained(&state, names, false)
}

fn set_drained(
    state: &AdminState,
    names: Names,
    is_drained: bool,
) -> Result<Json<DrainView>, Problem> {
    let Path((upstream, server)) =
        names.map_err(|why| Problem::new(why.status(), why.body_text()))?;
    let control = &state.control;
    let is_known = control.set_drained(&upstream, &server, is_drained);
    let views = control.upstreams();
    let names = || views.iter().map(|view| view.name.as_str());
    let Some(view) = views.iter().find(|view| view.name == upstream) else {
        return Err(unknown("upstream", &upstream, names()));
    };
    let servers: Vec<ServerView> = view
        .servers
        .iter()
        .filter(|view| view.is_named(&server))
        .cloned()
        .collect();
    if !is_known {
        let known = view
            .servers
            .iter()
            .flat_map(|view| [view.server.as_str(), view.address.as_str()]);
        let what = format!("server of {upstream}");
        return Err(unknown(&what, &server, known));
    }
    let warning = is_drained.then(|| drain_warning(view)).flatten();
    Ok(Json(DrainView {
        upstream,
        servers,
        warning,
    }))
}

/// What to know of an upstream of which a server has been drained.
fn drain_warning(view: &UpstreamView) -> Option<String> {
    let is_out = |server: &ServerView| matches!(server.state.as_str(), "drained" | "down");
    let is_empty = view.servers.iter().all(is_out);
    is_empty.then(|| {
        format!(
            "{} has no server left for new requests: they get 503",
            view.name
        )
    })
}

/// The problem of a name that nothing has.
fn unknown<'n>(what: &str, name: &str, known: impl Iterator<Item = &'n str>) -> Problem {
    const MOST: usize = 24;
    let mut known: Vec<&str> = known.collect();
    known.sort_unstable();
    known.dedup();
    let hint = match nearest(name, &known) {
        Some(nearest) => format!("did you mean {nearest}?"),
        None if known.is_empty() => "there is none".to_owned(),
        None if known.len() > MOST => "see `snigate upstreams`".to_owned(),
        None => format!("there is {}", known.join(", ")),
    };
    let detail = format!("there is no {what} named {name}; {hint}");
    Problem::new(StatusCode::NOT_FOUND, detail).with("nearest", nearest(name, &known))
}

/// The name most similar to `name`, if any is similar.
fn nearest<'n>(name: &str, known: &[&'n str]) -> Option<&'n str> {
    // The cost of a distance is the product of the lengths.
    const LONGEST: usize = 128;
    let limit = 1 + name.len() / 6;
    let is_near = |known: &str| known.len() <= LONGEST && known.len().abs_diff(name.len()) <= limit;
    known
        .iter()
        .filter(|known| is_near(known))
        .map(|known| (strsim::osa_distance(name, known), *known))
        .filter(|(distance, _)| *distance <= limit)
        .min()
        .map(|(_, known)| known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_suggested() {
        let known = ["127.0.0.1:3000", "127.0.0.1:3001", "app.internal:80"];
        for (name, near) in [
            ("127.0.0.1:300", Some("127.0.0.1:3000")),
            ("app.intern:80", Some("app.internal:80")),
            ("10.9.8.7:1", None),
            ("", None),
        ] {
            assert_eq!(nearest(name, &known), near, "{name}");
        }
        assert_eq!(nearest(&"a".repeat(100_000), &known), None);
    }

    #[test]
    fn draining_the_last_server_is_warned_of() {
        let server = |state: &str| ServerView {
            server: "10.0.0.1:80".to_owned(),
            address: "10.0.0.1:80".to_owned(),
            state: state.to_owned(),
            weight: 1,
            backup: false,
            requests: 0,
        };
        let warning = |states: &[&str]| {
            drain_warning(&UpstreamView {
                name: "app".to_owned(),
                balance: "round_robin".to_owned(),
                servers: states.iter().map(|state| server(state)).collect(),
            })
        };
        assert_eq!(warning(&["drained", "up"]), None);
        assert_eq!(warning(&["drained", "ejected"]), None);
        let warned = warning(&["drained", "down"]).expect("a warning");
        assert!(warned.contains("app has no server left"), "{warned}");
    }
}
