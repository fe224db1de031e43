//! The servers of a pool that are backups, and the others: in which order each are tried.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::config::model::{Balance, UpstreamServer};
use crate::proxy::balance::{self, Ring};

/// Up to so many servers, the one with the fewest requests is found by looking at all. Among more it
/// is the better of two at random, which is nearly as good.
const FEW: usize = 8;

/// Servers among which a request's is chosen: those that are backups, or the others.
pub(super) struct Group {
    /// Indices of its servers.
    pub(super) members: Box<[u16]>,
    /// The same in the order of their turns; each may occur several times.
    round: Box<[u16]>,
    turn: AtomicUsize,
    pub(super) method: Method,
}

/// How a group chooses.
pub(super) enum Method {
    InTurn,
    LeastRequests {
        are_many: bool,
    },
    /// The ring has places in `members`.
    ByKey(Ring),
}

impl Group {
    /// Those of `servers` that are backups, or the others; `None` if there are none.
    pub(super) fn new(
        servers: &[UpstreamServer],
        balance: &Balance,
        is_backup: bool,
    ) -> Option<Self> {
        let members: Vec<(u16, &UpstreamServer)> = (0..=u16::MAX)
            .zip(servers)
            .filter(|(_, server)| server.backup == is_backup)
            .collect();
        let indices: Box<[u16]> = members.iter().map(|(index, _)| *index).collect();
        let weights: Vec<u32> = members.iter().map(|(_, server)| server.weight).collect();
        let turns = balance::round(&weights);
        let round = turns
            .iter()
            .filter_map(|turn| indices.get(usize::from(*turn)).copied());
        let method = match balance {
            Balance::RoundRobin => Method::InTurn,
            Balance::LeastRequests => Method::LeastRequests {
                are_many: members.len() > FEW,
            },
            Balance::Hash(_) => {
                let names: Vec<String> = members
                    .iter()
                    .map(|(_, server)| server.to_string())
                    .collect();
                let named = names
                    .iter()
                    .map(String::as_str)
                    .zip(weights.iter().copied());
                Method::ByKey(Ring::new(named))
            }
        };
        let round: Box<[u16]> = round.collect();
        (!round.is_empty()).then(|| Self {
            members: indices,
            round,
            turn: AtomicUsize::new(0),
            method,
        })
    }

    pub(super) fn next_turn(&self) -> usize {
        self.turn.fetch_add(1, Ordering::Relaxed)
    }

    /// A server at random, by weight.
    pub(super) fn random(&self) -> usize {
        let at = fastrand::usize(..self.round.len().max(1));
        self.round.get(at).map_or(0, |index| usize::from(*index))
    }

    /// All servers, that of a turn first.
    pub(super) fn members_from(&self, turn: usize) -> impl Iterator<Item = usize> {
        let first = self.round_from(turn).next();
        let members = self.members.iter().map(|index| usize::from(*index));
        let others = members.filter(move |index| Some(*index) != first);
        first.into_iter().chain(others)
    }

    /// The servers from a turn on; each may occur several times.
    pub(super) fn round_from(&self, turn: usize) -> impl Iterator<Item = usize> {
        let start = turn.checked_rem(self.round.len()).unwrap_or(0);
        let (before, after) = self.round.split_at_checked(start).unwrap_or_default();
        after.iter().chain(before).map(|index| usize::from(*index))
    }
}
