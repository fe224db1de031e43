//! What the admin interface shows of upstreams.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};

use super::AdminState;
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
    /// or `down` because health checks fail.
    pub state: String,
    pub weight: u32,
    pub backup: bool,
    /// Requests in flight, if the upstream counts them.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub requests: Option<usize>,
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
