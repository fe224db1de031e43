//! The responders, and what is to be asked of each.
//!
//! No responder is asked more than a few things at a time, and one that does not respond rests. They
//! take turns, so that a slow one does not keep others from being asked.

use std::collections::HashMap;

use super::pace::{host, jitter, pause_after};
use super::queue::Queue;
use crate::certificate::Fingerprint;
use crate::clock::UnixTime;

/// How many requests to one responder are under way at a time.
const AT_ONCE: usize = 4;

/// The longest rest of a responder that does not respond, in seconds.
const LONGEST_REST: i64 = 120;

/// All responders that were ever asked.
#[derive(Default)]
pub(super) struct Responders {
    by_host: HashMap<Box<str>, usize>,
    all: Vec<Responder>,
    /// Whose turn it is.
    turn: usize,
}

#[derive(Default)]
struct Responder {
    /// The certificates that it is to be asked about now.
    due: Queue,
    asking: usize,
    failures: u32,
    failing_since: UnixTime,
    rests_until: UnixTime,
}

impl Responders {
    /// Has the responder at `url` asked about a certificate as soon as that is possible.
    pub(super) fn push(&mut self, url: &str, one: Fingerprint, is_required: bool) {
        let host = host(url);
        let at = self.by_host.get(host).copied();
        let at = at.unwrap_or_else(|| {
            self.by_host.insert(host.into(), self.all.len());
            self.all.push(Responder::default());
            self.all.len() - 1
        });
        if let Some(responder) = self.all.get_mut(at) {
            responder.due.push(one, is_required);
        }
    }

    /// Takes what is to be asked at `now`, in turns, `room` at most. `take` says whether a certificate
    /// is still to be asked about.
    pub(super) fn take(
        &mut self,
        room: usize,
        now: UnixTime,
        mut take: impl FnMut(Fingerprint) -> bool,
    ) {
        let mut taken = 0;
        // Those that are not served come first.
        for is_required in [true, false] {
            let mut without = 0;
            while taken < room && without < self.all.len() {
                self.turn = (self.turn + 1) % self.all.len();
                let responder = self.all.get_mut(self.turn);
                let responder = responder.filter(|one| one.is_free(now));
                let is_taken = responder.is_some_and(|one| one.take(is_required, &mut take));
                taken += usize::from(is_taken);
                without = if is_taken { 0 } else { without + 1 };
            }
        }
    }

    /// When something can be asked; `None` while nothing is to be asked, or all that is to be asked
    /// waits for the end of a request.
    pub(super) fn next(&self, now: UnixTime) -> Option<UnixTime> {
        let waiting = self.all.iter();
        let waiting = waiting.filter(|one| !one.due.is_empty() && one.asking < AT_ONCE);
        waiting.map(|one| one.rests_until.max(now)).min()
    }

    /// Notes that a request to the responder at `url` has ended, and whether that responded. Returns how
    /// many times in a row it has not.
    pub(super) fn note_end(
        &mut self,
        url: &str,
        is_reached: bool,
        now: UnixTime,
        rng: &mut fastrand::Rng,
    ) -> u32 {
        let Some(responder) = self.get_mut(url) else {
            return 0;
        };
        responder.asking = responder.asking.saturating_sub(1);
        if is_reached {
            responder.failures = 0;
            return 0;
        }
        if responder.failures == 0 {
            responder.failing_since = now;
        }
        let rest = pause_after(responder.failing_since, now, LONGEST_REST);
        responder.failures = responder.failures.saturating_add(1);
        responder.rests_until = now + jitter(rest, rng);
        responder.failures
    }

    /// How many times in a row the responder at `url` has not responded.
    pub(super) fn failures(&self, url: &str) -> u32 {
        let responder = self.get(url);
        responder.map_or(0, |one| one.failures)
    }

    /// The certificates that the responder at `url` is to be asked about.
    pub(super) fn due(&self, url: &str) -> Vec<Fingerprint> {
        let due = self.get(url).map(|one| one.due.iter().collect());
        due.unwrap_or_default()
    }

    /// Takes note that the clock was set back to `now`.
    pub(super) fn set_back(&mut self, now: UnixTime) {
        for one in &mut self.all {
            one.failing_since = one.failing_since.min(now);
            one.rests_until = one.rests_until.min(now + LONGEST_REST);
        }
    }

    /// Forgets what is to be asked.
    pub(super) fn clear(&mut self) {
        self.all
            .iter_mut()
            .for_each(|one| one.due = Queue::default());
    }

    fn get(&self, url: &str) -> Option<&Responder> {
        self.all.get(*self.by_host.get(host(url))?)
    }

    fn get_mut(&mut self, url: &str) -> Option<&mut Responder> {
        self.all.get_mut(*self.by_host.get(host(url))?)
    }
}

impl Responder {
    fn is_free(&self, now: UnixTime) -> bool {
        self.asking < AT_ONCE && self.rests_until <= now
    }

    /// Takes the next certificate that is still to be asked about. Whether there is one.
    fn take(&mut self, is_required: bool, mut take: impl FnMut(Fingerprint) -> bool) -> bool {
        while let Some(one) = self.due.pop_of(is_required) {
            if take(one) {
                self.asking += 1;
                return true;
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::unix;

    fn one(number: u8) -> Fingerprint {
        Fingerprint([number; 32])
    }

    #[test]
    fn responders_take_turns_however_much_waits_at_one() {
        let mut responders = Responders::default();
        for number in 0..100 {
            responders.push("http://busy/", one(number), false);
        }
        responders.push("http://other/", one(200), false);
        let mut taken = Vec::new();
        responders.take(2, unix(0), |one| {
            taken.push(one);
            true
        });
        assert!(taken.contains(&one(200)), "{taken:?}");
        assert_eq!(taken.len(), 2);
    }

    #[test]
    fn a_clock_that_was_set_back_ends_a_rest() {
        let mut responders = Responders::default();
        let mut rng = fastrand::Rng::with_seed(7);
        for number in 0..2 {
            responders.push("http://one/", one(number), false);
        }
        responders.take(1, unix(1_000_000), |_| true);
        let failures = responders.note_end("http://one/", false, unix(1_000_000), &mut rng);
        assert_eq!((failures, responders.failures("http://one/x")), (1, 1));
        responders.set_back(unix(0));
        assert!(
            responders
                .next(unix(0))
                .is_some_and(|at| at <= unix(LONGEST_REST))
        );
        assert_eq!(responders.due("http://one/"), [one(1)]);
    }
}
