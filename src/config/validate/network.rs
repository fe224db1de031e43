//! Lists of networks.

use super::context::Context;
use crate::config::model::{Network, NetworkError};
use crate::config::problem::At;

/// The networks of a list.
pub(super) fn networks(ctx: &mut Context<'_>, at: &At<'_>, raw: &[String]) -> Vec<Network> {
    let mut networks = Vec::with_capacity(raw.len());
    for (index, text) in raw.iter().enumerate() {
        let at = at.index(index);
        let (message, hint) = match text.parse() {
            Ok(network) => {
                networks.push(network);
                continue;
            }
            Err(NetworkError::HostBits) => (
                format!("{} has bits beyond its length", at.quoted()),
                "give the first address of the network, such as 10.0.0.0/8",
            ),
            Err(NetworkError::Malformed) => (
                format!("{} is not a network", at.quoted()),
                "write ADDRESS/LENGTH, such as 10.0.0.0/8, or one address",
            ),
        };
        ctx.problems.error(&at, message, hint);
    }
    networks
}
