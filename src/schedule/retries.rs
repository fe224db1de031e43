//! The failures of one certificate at several CAs.
//!
//! A failure belongs to the account at the CA where it happened: another CA of the list, another
//! directory or another binding is asked immediately.

use std::collections::BTreeMap;

use super::Retry;
use crate::clock::UnixTime;

/// The failures in a row of one certificate, by account.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Retries(BTreeMap<String, Retry>);

impl Retries {
    /// The failures with an account.
    pub fn get(&self, account: &str) -> Option<&Retry> {
        self.0.get(account)
    }

    /// Sets the failures with an account.
    pub fn set(&mut self, account: &str, retry: Retry) {
        self.0.insert(account.to_owned(), retry);
    }

    /// Forgets the failures with these accounts.
    pub fn forget(&mut self, accounts: impl IntoIterator<Item = impl AsRef<str>>) {
        for account in accounts {
            self.0.remove(account.as_ref());
        }
    }

    /// Merges what is known elsewhere, if it is newer.
    pub fn merge_from(&mut self, others: Self) {
        for (account, other) in others.0 {
            let known = self.0.get(&account);
            if known.is_none_or(|known| known.last < other.last) {
                self.0.insert(account, other);
            }
        }
    }

    /// Returns true if the back-off permits asking with this account.
    pub fn is_due(&self, account: &str, now: UnixTime) -> bool {
        self.next(account, now).is_some_and(|next| next <= now)
    }

    /// When this account is to be asked next by the back-off alone; `None` if never automatically.
    /// A clock that was set back does not delay it.
    pub fn next(&self, account: &str, now: UnixTime) -> Option<UnixTime> {
        match self.get(account).cloned() {
            Some(mut retry) => {
                retry.repair_times(now);
                retry.next
            }
            None => Some(UnixTime::MIN),
        }
    }

    /// Makes another attempt with this account due now, if `which` says so about its failures,
    /// whose number is kept. Returns true if there is one.
    pub fn make_due(
        &mut self,
        account: &str,
        which: impl FnOnce(&Retry) -> bool,
        now: UnixTime,
    ) -> bool {
        match self.0.get_mut(account).filter(|retry| which(retry)) {
            Some(retry) => {
                retry.next = Some(retry.next.map_or(now, |next| next.min(now)));
                true
            }
            None => false,
        }
    }

    /// The failures of all these accounts together: the last one, and when one of the accounts is
    /// to be asked next. An account without failures can be asked immediately. `None` if none has
    /// failed.
    pub fn combined(&self, accounts: impl IntoIterator<Item = impl AsRef<str>>) -> Option<Retry> {
        let mut sum: Option<Retry> = None;
        let mut is_untried = false;
        for account in accounts {
            let Some(retry) = self.get(account.as_ref()) else {
                is_untried = true;
                continue;
            };
            let Some(known) = &mut sum else {
                sum = Some(retry.clone());
                continue;
            };
            let next = earlier(known.next, retry.next);
            let failures = known.failures.max(retry.failures);
            let first = known.first.min(retry.first);
            if retry.last > known.last {
                *known = retry.clone();
            }
            (known.next, known.failures, known.first) = (next, failures, first);
        }
        if is_untried && let Some(sum) = &mut sum {
            sum.next = Some(sum.next.map_or(sum.last, |next| next.min(sum.last)));
        }
        sum
    }
}

/// The earlier of two times; `None` is never.
fn earlier(one: Option<UnixTime>, other: Option<UnixTime>) -> Option<UnixTime> {
    one.into_iter().chain(other).min()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::unix;
    use crate::schedule::FailureClass;

    fn retry(last: UnixTime, next: Option<UnixTime>, failures: u32) -> Retry {
        Retry {
            failures,
            last,
            next,
            first: last - 100,
            class: match next {
                Some(_) => FailureClass::Network,
                None => FailureClass::Paused,
            },
            message: format!("failed at {}", last.as_secs()),
            ..Retry::default()
        }
    }

    #[test]
    fn another_account_has_not_failed() {
        let mut retries = Retries::default();
        assert_eq!(retries.combined(["one"]), None);
        retries.set("one", retry(unix(1000), None, 3));
        assert!(!retries.is_due("one", unix(2000)), "paused");
        assert!(retries.is_due("two", unix(1000)));
        assert_eq!(retries.combined(["two"]), None, "nothing is known of it");
        let sum = retries.combined(["one", "two"]).expect("one has failed");
        assert!(sum.is_due(unix(1000)), "two can be asked");
        assert_eq!(sum.message, "failed at 1000");
        assert_eq!(retries.combined(["one"]).expect("failed").next, None);
    }

    #[test]
    fn the_first_that_is_due_decides_and_the_last_failure_is_told() {
        let mut retries = Retries::default();
        retries.set("one", retry(unix(1000), Some(unix(5000)), 4));
        retries.set("two", retry(unix(2000), Some(unix(9000)), 1));
        let sum = retries.combined(["one", "two"]).expect("failed");
        assert_eq!(
            (sum.next, sum.failures, sum.last),
            (Some(unix(5000)), 4, unix(2000))
        );
        assert_eq!(sum.message, "failed at 2000");
        assert_eq!(
            retries.combined(["two"]).expect("failed").next,
            Some(unix(9000))
        );
        retries.set("two", retry(unix(2000), None, 1));
        let sum = retries.combined(["one", "two"]).expect("failed");
        assert_eq!(sum.next, Some(unix(5000)), "a pause at one stops no other");
    }

    #[test]
    fn what_is_later_counts_and_what_may_be_mended_is_due() {
        let mut retries = Retries::default();
        retries.set("one", retry(unix(1000), Some(unix(5000)), 1));
        let mut others = Retries::default();
        others.set("one", retry(unix(900), Some(unix(9000)), 7));
        others.set("two", retry(unix(900), Some(unix(9000)), 7));
        retries.merge_from(others.clone());
        assert_eq!(retries.get("one").expect("known").failures, 1);
        assert_eq!(retries.get("two").expect("learnt").failures, 7);
        assert!(!retries.make_due("one", |_| false, unix(1200)));
        assert!(retries.make_due("one", |_| true, unix(1200)));
        assert!(!retries.make_due("three", |_| true, unix(1200)));
        assert!(retries.is_due("one", unix(1200)));
        // The stored record of the same failure does not undo it.
        others.set("one", retry(unix(1000), Some(unix(5000)), 1));
        retries.merge_from(others);
        assert!(retries.is_due("one", unix(1200)));
        retries.forget(["one", "two"]);
        assert_eq!(retries, Retries::default());
    }
}
