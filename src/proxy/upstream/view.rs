//! What people see of the servers of a pool.

use super::Pool;
use crate::proxy::availability::Standing;

/// One address of a server, as people see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointView {
    /// The server as it is configured.
    pub server: String,
    pub address: Box<str>,
    pub weight: u32,
    pub backup: bool,
    pub standing: Standing,
    /// Requests in flight.
    pub requests: usize,
}

/// The addresses of every server.
pub(super) fn endpoints(pool: &Pool) -> Vec<EndpointView> {
    let now = pool.now();
    let mut views = Vec::new();
    for (name, server) in pool.named_servers() {
        let endpoints = server.endpoints();
        let lowest = endpoints.first().map_or(0, |one| one.rank().priority);
        views.extend(endpoints.iter().map(|endpoint| EndpointView {
            server: name.clone(),
            address: endpoint.text.clone(),
            weight: server.weight * u32::from(endpoint.rank().weight),
            backup: server.is_backup || endpoint.rank().priority > lowest,
            standing: endpoint.availability.standing(now),
            requests: endpoint.in_flight() + pool.drain_list.earlier_requests(endpoint),
        }));
    }
    views
}
