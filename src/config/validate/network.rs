//! Networks, and lists of them.

use super::context::Context;
use crate::config::model::{Network, NetworkError};
use crate::config::problem::At;

/// The networks of a list.
pub(super) fn networks(ctx: &mut Context<'_>, at: &At<'_>, raw: &[String]) -> Vec<Network> {
    let entries = raw.iter().enumerate();
    entries
        .filter_map(|(index, text)| network(ctx, &at.index(index), text))
        .collect()
}

/// One network.
pub(super) fn network(ctx: &mut Context<'_>, at: &At<'_>, raw: &str) -> Option<Network> {
    let (message, hint) = match raw.parse() {
        Ok(network) => return Some(network),
        Err(NetworkError::HostBits) => (
            format!("{} has bits beyond its length", at.quoted()),
            "give the first address of the network, such as 10.0.0.0/8",
        ),
        Err(NetworkError::Malformed) => (
            format!("{} is not a network", at.quoted()),
            "write ADDRESS/LENGTH, such as 10.0.0.0/8, or one address",
        ),
    };
    ctx.problems.error(at, message, hint);
    None
}
