//! How many certificates have a response, counted as that changes.

use std::collections::BTreeMap;

use crate::clock::UnixTime;

/// How many certificates have a response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) good: i64,
    pub(crate) missing: i64,
    pub(crate) revoked: i64,
    /// When the first response ends.
    pub(crate) first_end: Option<UnixTime>,
}

/// What a certificate counts as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Counted {
    /// It has a response that ends then.
    Good(UnixTime),
    Missing,
    Revoked,
}

#[derive(Default)]
pub(super) struct Tally {
    count: Count,
    /// How many responses end when.
    ends: BTreeMap<UnixTime, usize>,
}

impl Tally {
    pub(super) fn count(&self) -> Count {
        Count {
            first_end: self.ends.first_key_value().map(|(end, _)| *end),
            ..self.count
        }
    }

    /// Counts one certificate as `new`, no longer as `old`.
    pub(super) fn change(&mut self, old: Option<Counted>, new: Option<Counted>) {
        if old == new {
            return;
        }
        if let Some(old) = old {
            *self.number(old) -= 1;
            if let Counted::Good(end) = old
                && let Some(many) = self.ends.get_mut(&end)
            {
                *many -= 1;
                if *many == 0 {
                    self.ends.remove(&end);
                }
            }
        }
        if let Some(new) = new {
            *self.number(new) += 1;
            if let Counted::Good(end) = new {
                *self.ends.entry(end).or_default() += 1;
            }
        }
    }

    fn number(&mut self, counted: Counted) -> &mut i64 {
        match counted {
            Counted::Good(_) => &mut self.count.good,
            Counted::Missing => &mut self.count.missing,
            Counted::Revoked => &mut self.count.revoked,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::unix;

    #[test]
    fn the_first_end_is_known_whatever_comes_and_goes() {
        let mut tally = Tally::default();
        let good = |end| Some(Counted::Good(unix(end)));
        for end in [30, 10, 10, 20] {
            tally.change(None, good(end));
        }
        let first = |tally: &Tally| tally.count().first_end;
        assert_eq!((tally.count().good, first(&tally)), (4, Some(unix(10))));
        tally.change(good(10), good(40));
        assert_eq!(first(&tally), Some(unix(10)));
        tally.change(good(10), Some(Counted::Missing));
        assert_eq!(first(&tally), Some(unix(20)));
        tally.change(good(20), None);
        tally.change(Some(Counted::Missing), Some(Counted::Revoked));
        let count = tally.count();
        assert_eq!((count.good, count.missing, count.revoked), (2, 0, 1));
        assert_eq!(count.first_end, Some(unix(30)));
    }
}
