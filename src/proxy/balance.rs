//! The order in which the servers of a pool take turns.

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

#[cfg(test)]
mod tests {
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
