//! The orders in which the servers of a pool are tried: in turn, or by the key of a request.

use super::hash;

/// Points on a ring for each unit of weight: with so many, servers of the same weight get shares
/// that differ by a few percent.
const POINTS: u32 = 160;

/// The largest weight on a ring. Larger ones are scaled down, and with them all others.
const MAX_RING_WEIGHT: u32 = 16;

/// The most turns of one round. Weights that would need more are rounded.
const MAX_ROUND: u64 = 4096;

/// One round of smooth weighted round robin, computed in advance: each server occurs as often as
/// its weight says, as evenly spread as possible. Taking a turn costs one atomic addition.
pub(crate) fn round(weights: &[u32]) -> Box<[u16]> {
    let divisor = weights
        .iter()
        .copied()
        .fold(0, greatest_common_divisor)
        .max(1);
    let total: u64 = weights
        .iter()
        .map(|&weight| u64::from(weight / divisor))
        .sum();
    let scale = total.div_ceil(MAX_ROUND).max(1);
    let mut turns: Vec<Turn> = weights
        .iter()
        .zip(0..=u16::MAX)
        .map(|(&weight, server)| Turn {
            server,
            weight: i64::from(weight / divisor)
                .div_euclid(scale.cast_signed())
                .max(1),
            credit: 0,
        })
        .collect();
    let total: i64 = turns.iter().map(|turn| turn.weight).sum();
    (0..total)
        .filter_map(|_| {
            for turn in &mut turns {
                turn.credit += turn.weight;
            }
            // The first of the highest: `max_by_key` returns the last.
            let next = turns.iter_mut().rev().max_by_key(|turn| turn.credit)?;
            next.credit -= total;
            Some(next.server)
        })
        .collect()
}

/// A server while a round is computed.
struct Turn {
    server: u16,
    weight: i64,
    credit: i64,
}

fn greatest_common_divisor(mut a: u32, mut b: u32) -> u32 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// A ring for consistent hashing. Each server has points on it by its weight, and a key belongs to
/// the server of the next point: if a server comes or goes, only its own keys move.
#[derive(Debug)]
pub(crate) struct Ring(Box<[(u64, u16)]>);

impl Ring {
    /// The ring of servers with these names and weights.
    pub(crate) fn new<'a>(servers: impl Iterator<Item = (&'a str, u32)> + Clone) -> Self {
        let heaviest = servers.clone().map(|(_, weight)| weight).max();
        let scale = heaviest.unwrap_or(1).div_ceil(MAX_RING_WEIGHT).max(1);
        let mut points: Vec<(u64, u16)> = servers
            .zip(0..=u16::MAX)
            .flat_map(|((name, weight), server)| {
                let seed = hash::of(name.as_bytes());
                let count = weight.saturating_mul(POINTS).div_euclid(scale).max(1);
                (0..count).map(move |point| (hash::of_parts(seed, &point.to_be_bytes()), server))
            })
            .collect();
        points.sort_unstable();
        Self(points.into())
    }

    /// The servers in the order of a key; each may occur several times.
    pub(crate) fn order(&self, key: u64) -> impl Iterator<Item = u16> {
        let start = self.0.partition_point(|(point, _)| *point < key);
        let (before, after) = self.0.split_at_checked(start).unwrap_or_default();
        after.iter().chain(before).map(|(_, server)| *server)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn turns_are_spread() {
        assert_eq!(*round(&[1, 1, 1]), [0, 1, 2]);
        assert_eq!(*round(&[1000, 1000]), [0, 1]);
        assert_eq!(*round(&[5, 1, 1]), [0, 0, 1, 0, 2, 0, 0]);
        assert_eq!(*round(&[7]), [0]);
        assert!(round(&[]).is_empty());
    }

    fn owners(servers: &[(&str, u32)]) -> Vec<String> {
        let ring = Ring::new(servers.iter().copied());
        let owner = |number: u32| {
            let first = ring.order(hash::of(&number.to_be_bytes())).next();
            let server = first.expect("a server");
            servers[usize::from(server)].0.to_owned()
        };
        (0..20_000).map(owner).collect()
    }

    #[test]
    fn keys_are_spread_by_weight() {
        let mut shares: HashMap<String, u32> = HashMap::new();
        for owner in owners(&[("a", 1), ("b", 1), ("c", 2)]) {
            *shares.entry(owner).or_default() += 1;
        }
        for (server, share) in [("a", 5_000), ("b", 5_000), ("c", 10_000)] {
            let got = shares[server];
            assert!(got.abs_diff(share) < share / 5, "{server}: {got}");
        }
    }

    #[test]
    fn only_the_keys_of_a_server_move_with_it() {
        let with = owners(&[("a", 1), ("b", 1), ("c", 1), ("d", 1)]);
        let without = owners(&[("d", 1), ("a", 1), ("c", 1)]);
        for (with, without) in with.iter().zip(&without) {
            assert!(with == without || with == "b", "{with} became {without}");
        }
    }

    #[test]
    fn every_key_leads_to_every_server() {
        let ring = Ring::new([("a", 1), ("b", 1), ("c", 20)].into_iter());
        for key in [0, hash::of(b"someone"), u64::MAX] {
            let mut order: Vec<u16> = ring.order(key).collect();
            order.sort_unstable();
            order.dedup();
            assert_eq!(order, [0, 1, 2]);
        }
        assert_eq!(Ring::new(std::iter::empty()).order(7).next(), None);
    }

    proptest! {
        #[test]
        fn each_server_gets_its_share(weights in proptest::collection::vec(1u32..=1000, 1..20)) {
            let round = round(&weights);
            let total: u32 = weights.iter().sum();
            prop_assert!(round.len() <= 4096 + weights.len());
            for (server, weight) in weights.iter().enumerate() {
                let turns = round.iter().filter(|&&turn| usize::from(turn) == server).count();
                let share = f64::from(*weight) / f64::from(total);
                let got = turns as f64 / round.len() as f64;
                prop_assert!((got - share).abs() < 0.01, "{got} for {share}");
            }
        }
    }
}
