//! The addresses of a server that are known, in the order in which they are tried.
//!
//! Those of a name are equal. Those of SRV records have a priority, which makes tiers of them, and a
//! weight within their tier.

use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::Arc;

use pingora_core::protocols::l4::socket::SocketAddr as PeerAddress;

use super::availability::Kept;
use super::balance;
use super::endpoint::{Endpoint, Rank};
use crate::config::model::KeepAlive;

/// How many addresses are remembered that the last look-ups have not found.
const MOST_GONE: usize = 64;

/// An address that a look-up has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FoundAddress {
    pub(crate) address: SocketAddr,
    /// The lowest is tried first.
    pub(crate) priority: u16,
    /// Its share among those of the same priority.
    pub(crate) weight: u16,
}

impl FoundAddress {
    /// One that is equal to all others.
    pub(crate) fn equal(address: SocketAddr) -> Self {
        Self {
            address,
            priority: 0,
            weight: 1,
        }
    }
}

/// All known addresses, tier by tier.
#[derive(Debug, Default)]
pub(crate) struct KnownAddresses {
    endpoints: Vec<Arc<Endpoint>>,
    tiers: Vec<Tier>,
    /// Those that were found before, the last ones first. Names with many addresses show some of them
    /// at a time, and what is known of an address must be known when it is found again.
    gone: Vec<Arc<Endpoint>>,
    /// How connections to new ones are kept.
    keepalive: KeepAlive,
}

/// Addresses of one priority.
#[derive(Clone, Debug)]
pub(super) struct Tier {
    /// Where they begin in the list of all.
    start: usize,
    len: usize,
    /// Which of them is the first to be tried, in each turn; empty if their weights are equal.
    round: Box<[u16]>,
}

impl Deref for KnownAddresses {
    type Target = [Arc<Endpoint>];

    fn deref(&self) -> &[Arc<Endpoint>] {
        &self.endpoints
    }
}

impl KnownAddresses {
    /// Addresses that are equal. `keepalive` is for those that are found.
    pub(super) fn new(endpoints: Vec<Arc<Endpoint>>, keepalive: KeepAlive) -> Self {
        let tier = Tier {
            start: 0,
            len: endpoints.len(),
            round: Box::default(),
        };
        Self {
            endpoints,
            tiers: vec![tier],
            gone: Vec::new(),
            keepalive,
        }
    }

    /// Those that a look-up has found. Addresses that were known keep their state, also if some
    /// look-ups in between have not found them. If the look-up
    /// is not complete, those of a family of which it has found none are kept.
    pub(super) fn update(&self, found: &[FoundAddress], is_complete: bool) -> Self {
        let mut found = found.to_vec();
        if !is_complete {
            let has_found = |is_ipv4: bool| {
                let mut families = found.iter().map(|one| one.address.is_ipv4());
                families.any(|family| family == is_ipv4)
            };
            let missing = [true, false].map(|is_ipv4| !has_found(is_ipv4));
            found.extend(self.as_found().filter(|one| {
                let [is_v4_missing, is_v6_missing] = missing;
                match one.address.is_ipv4() {
                    true => is_v4_missing,
                    false => is_v6_missing,
                }
            }));
        }
        // Of one that was found twice, the first counts.
        found.sort_by_key(|one| (one.address, one.priority));
        found.dedup_by_key(|one| one.address);
        found.sort_by_key(|one| (one.priority, one.address));
        let tiers = found.chunk_by(|one, other| one.priority == other.priority);
        let mut start = 0;
        let tiers = tiers
            .map(|tier| {
                let tier = Tier::new(start, tier);
                start += tier.len;
                tier
            })
            .collect();
        let endpoints: Vec<_> = found.iter().map(|one| self.endpoint_of(one)).collect();
        let is_found = |known: &Arc<Endpoint>| endpoints.iter().any(|one| Arc::ptr_eq(one, known));
        let gone = self.endpoints.iter().chain(&self.gone);
        let gone = gone.filter(|known| !is_found(known)).take(MOST_GONE);
        Self {
            tiers,
            gone: gone.cloned().collect(),
            endpoints,
            keepalive: self.keepalive,
        }
    }

    /// These addresses with what is known of those that an earlier pool has too.
    pub(super) fn succeed(&self, earlier: &Self, kept: Kept) -> Self {
        let succeed = |own: &Arc<Endpoint>| {
            let same = earlier.iter().find(|one| one.text == own.text);
            same.map_or_else(|| Arc::clone(own), |same| Arc::new(own.succeed(same, kept)))
        };
        Self {
            endpoints: self.iter().map(succeed).collect(),
            // What is known of them may not hold for the new upstream.
            gone: Vec::new(),
            tiers: self.tiers.clone(),
            keepalive: self.keepalive,
        }
    }

    /// The addresses as a look-up would find them.
    pub(super) fn as_found(&self) -> impl Iterator<Item = FoundAddress> {
        self.endpoints.iter().filter_map(|endpoint| {
            let Rank { priority, weight } = endpoint.rank();
            Some(FoundAddress {
                address: *endpoint.address.as_inet()?,
                priority,
                weight,
            })
        })
    }

    fn endpoint_of(&self, found: &FoundAddress) -> Arc<Endpoint> {
        let known = self
            .endpoints
            .iter()
            .chain(&self.gone)
            .find(|endpoint| endpoint.address.as_inet() == Some(&found.address));
        let endpoint = known.map_or_else(
            || {
                let text = found.address.to_string();
                let address = PeerAddress::Inet(found.address);
                Arc::new(Endpoint::new(address, text, self.keepalive))
            },
            Arc::clone,
        );
        endpoint.set_rank(Rank {
            priority: found.priority,
            weight: found.weight.max(1),
        });
        endpoint
    }

    /// All addresses in the order of a turn, tier by tier.
    pub(super) fn in_turn(&self, turn: usize) -> impl Iterator<Item = &Arc<Endpoint>> {
        self.tiers.iter().flat_map(move |tier| {
            let first = tier.first(turn);
            (0..tier.len).filter_map(move |offset| {
                let at = first.wrapping_add(offset).checked_rem(tier.len)?;
                self.endpoints.get(tier.start + at)
            })
        })
    }
}

impl Tier {
    fn new(start: usize, found: &[FoundAddress]) -> Self {
        let weights: Vec<u32> = found
            .iter()
            .map(|one| u32::from(one.weight.max(1)))
            .collect();
        let are_equal = weights.windows(2).all(|pair| pair.first() == pair.last());
        Self {
            start,
            len: found.len(),
            round: match are_equal {
                true => Box::default(),
                false => balance::round(&weights),
            },
        }
    }

    /// The place of the address whose turn it is.
    fn first(&self, turn: usize) -> usize {
        let in_round = turn.checked_rem(self.round.len());
        let weighted = in_round.and_then(|at| self.round.get(at));
        weighted.map_or(turn, |at| usize::from(*at))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn at(text: &str, priority: u16, weight: u16) -> FoundAddress {
        FoundAddress {
            address: text.parse().expect("an address"),
            priority,
            weight,
        }
    }

    fn texts<'a>(endpoints: impl Iterator<Item = &'a Arc<Endpoint>>) -> Vec<String> {
        endpoints.map(|one| one.text.to_string()).collect()
    }

    #[test]
    fn the_lowest_priority_is_tried_first_by_weight() {
        let found = [
            at("10.0.0.3:80", 20, 0),
            at("10.0.0.2:80", 10, 30),
            at("10.0.0.1:80", 10, 10),
        ];
        let known = KnownAddresses::default().update(&found, true);
        let mut firsts: HashMap<String, usize> = HashMap::new();
        for turn in 0..40 {
            let order = texts(known.in_turn(turn));
            assert_eq!(order.len(), 3);
            assert_eq!(order[2], "10.0.0.3:80", "the last resort");
            *firsts.entry(order[0].clone()).or_default() += 1;
        }
        assert_eq!(firsts["10.0.0.1:80"], 10);
        assert_eq!(firsts["10.0.0.2:80"], 30);
    }

    #[test]
    fn equal_addresses_take_turns() {
        let found = [
            "[2001:db8::1]:80",
            "10.0.0.1:80",
            "10.0.0.2:80",
            "10.0.0.1:80",
        ];
        let found = found.map(|text| at(text, 0, 1));
        let known = KnownAddresses::default().update(&found, true);
        let firsts: Vec<_> = (0..3)
            .map(|turn| texts(known.in_turn(turn))[0].clone())
            .collect();
        assert_eq!(firsts, ["10.0.0.1:80", "10.0.0.2:80", "[2001:db8::1]:80"]);
    }

    #[test]
    fn addresses_that_stay_keep_their_state() {
        let before = KnownAddresses::default()
            .update(&[at("10.0.0.1:80", 0, 1), at("10.0.0.2:80", 0, 1)], true);
        let after = before.update(&[at("10.0.0.2:80", 5, 9), at("10.0.0.3:80", 0, 1)], true);
        assert_eq!(texts(after.iter()), ["10.0.0.3:80", "10.0.0.2:80"]);
        assert!(Arc::ptr_eq(&before[1], &after[1]));
        assert_eq!(after[1].rank().priority, 5);
    }

    #[test]
    fn an_address_that_is_found_again_has_its_state() {
        let all: Vec<String> = (1..=6).map(|last| format!("10.0.0.{last}:80")).collect();
        let all: Vec<_> = all.iter().map(|text| at(text, 0, 1)).collect();
        let first = KnownAddresses::default().update(&all[..2], true);
        let known = first.update(&all[2..4], true).update(&all[4..], true);
        assert_eq!(known.len(), 2);
        let again = known.update(&all[..2], true);
        assert!(Arc::ptr_eq(&first[0], &again[0]) && Arc::ptr_eq(&first[1], &again[1]));
        // No more of them are remembered than that.
        let many: Vec<String> = (1..=200).map(|last| format!("10.0.1.{last}:80")).collect();
        let many: Vec<_> = many.iter().map(|text| at(text, 0, 1)).collect();
        let none = again.update(&many, true).update(&all[2..4], true);
        assert_eq!(none.gone.len(), MOST_GONE);
        let anew = none.update(&all[..2], true);
        assert!(!Arc::ptr_eq(&first[0], &anew[0]));
    }

    #[test]
    fn a_family_that_could_not_be_looked_up_stays() {
        let before = KnownAddresses::default().update(
            &[at("10.0.0.1:80", 0, 1), at("[2001:db8::1]:80", 0, 1)],
            true,
        );
        let found = [at("10.0.0.2:80", 0, 1)];
        let partial = before.update(&found, false);
        assert_eq!(texts(partial.iter()), ["10.0.0.2:80", "[2001:db8::1]:80"]);
        assert_eq!(texts(before.update(&found, true).iter()), ["10.0.0.2:80"]);
    }
}
