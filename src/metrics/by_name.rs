//! What is counted of each thing that the configuration names: a site, an upstream.
//!
//! The things hold their counts. These are shown for as long as something holds them, be it a request
//! to what a reload has removed, and continue if the thing is in the next configuration too. Only so
//! many have counts of their own; all others are summed up.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};

use crate::lock::MutexExt as _;

/// How many things of a kind are shown by name: the first.
pub(super) const MOST: usize = 5_000;

/// The label of all others. It is no name.
pub(super) const OTHERS: &str = "(others)";

/// The counts of all things of a kind. A handle; clones share the counts.
pub(super) struct ByName<T>(Arc<Shared<T>>);

struct Shared<T> {
    named: Mutex<BTreeMap<Arc<str>, Weak<Named<T>>>>,
    others: Arc<Named<T>>,
    has_others: AtomicBool,
}

/// The counts of one thing, or of all others.
pub struct Named<T> {
    counts: T,
    /// Where they are found; `None` if they are those of all others.
    place: Option<(Arc<str>, Weak<Shared<T>>)>,
}

impl<T> ByName<T> {
    /// The counts of the thing with this name, if something holds them.
    pub(super) fn get(&self, name: &str) -> Option<Arc<Named<T>>> {
        let named = self.0.named.lock_unpoisoned();
        named.get(name)?.upgrade()
    }

    /// Everything that is counted, by name, at last the others if there are any.
    pub(super) fn all(&self) -> Vec<(Arc<str>, Arc<Named<T>>)> {
        let named = self.0.named.lock_unpoisoned();
        let held = named
            .iter()
            .filter_map(|(name, counts)| Some((Arc::clone(name), counts.upgrade()?)));
        let mut all: Vec<_> = held.collect();
        drop(named);
        if self.0.has_others.load(Ordering::Relaxed) {
            all.push((OTHERS.into(), Arc::clone(&self.0.others)));
        }
        all
    }
}

impl<T: Default> ByName<T> {
    /// The counts of the thing with this name, new ones if nothing holds any.
    pub(super) fn get_or_add(&self, name: &str) -> Arc<Named<T>> {
        let mut named = self.0.named.lock_unpoisoned();
        let known = named.get(name);
        if let Some(counts) = known.and_then(Weak::upgrade) {
            return counts;
        }
        if known.is_none() && named.len() >= MOST {
            self.0.has_others.store(true, Ordering::Relaxed);
            return Arc::clone(&self.0.others);
        }
        let name: Arc<str> = name.into();
        let counts = Arc::new(Named {
            counts: T::default(),
            place: Some((Arc::clone(&name), Arc::downgrade(&self.0))),
        });
        named.insert(name, Arc::downgrade(&counts));
        counts
    }
}

impl<T> Drop for Named<T> {
    fn drop(&mut self) {
        let Some((name, shared)) = self.place.take() else {
            return;
        };
        let Some(shared) = shared.upgrade() else {
            return;
        };
        let mut named = shared.named.lock_unpoisoned();
        // Others may have taken the place.
        if named
            .get(&name)
            .is_some_and(|counts| counts.strong_count() == 0)
        {
            named.remove(&name);
        }
    }
}

impl<T> Deref for Named<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.counts
    }
}

impl<T> Clone for ByName<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T: Default> Default for ByName<T> {
    fn default() -> Self {
        let others = Named {
            counts: T::default(),
            place: None,
        };
        Self(Arc::new(Shared {
            named: Mutex::default(),
            others: Arc::new(others),
            has_others: AtomicBool::new(false),
        }))
    }
}

impl<T> fmt::Debug for ByName<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ByName").finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for Named<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Named").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::super::count::Count;
    use super::*;

    /// The names that are shown, and their counts.
    fn shown(all: &ByName<Count>) -> Vec<(String, u64)> {
        let all = all.all().into_iter();
        all.map(|(name, count)| (name.to_string(), count.get()))
            .collect()
    }

    #[test]
    fn counts_last_as_long_as_something_holds_them() {
        let all = ByName::<Count>::default();
        let before = all.get_or_add("a");
        before.inc();
        let after = all.get_or_add("a");
        drop(before);
        after.inc();
        assert_eq!(shown(&all), [("a".to_owned(), 2)]);
        assert!(all.get("a").is_some() && all.get("b").is_none());
        drop(after);
        assert_eq!(shown(&all), []);
        assert!(all.get("a").is_none());
        assert!(all.0.named.lock_unpoisoned().is_empty());
    }

    #[test]
    fn what_is_gone_takes_nothing_from_what_has_its_name_now() {
        let all = ByName::<Count>::default();
        // As if its last holder were about to remove it.
        let gone = Weak::<Named<Count>>::new();
        all.0.named.lock_unpoisoned().insert("a".into(), gone);
        let late = Named {
            counts: Count::default(),
            place: Some(("a".into(), Arc::downgrade(&all.0))),
        };
        let now = all.get_or_add("a");
        now.inc();
        drop(late);
        assert_eq!(shown(&all), [("a".to_owned(), 1)]);
    }

    #[test]
    fn only_so_many_have_counts_of_their_own() {
        let all = ByName::<Count>::default();
        let mut held: Vec<_> = (0..MOST + 2)
            .map(|number| all.get_or_add(&number.to_string()))
            .collect();
        held.iter().for_each(|count| count.inc());
        assert_eq!(all.all().len(), MOST + 1);
        assert_eq!(shown(&all).pop(), Some((OTHERS.to_owned(), 2)));
        // One that goes leaves its place to one that comes.
        held.remove(0);
        let new = all.get_or_add("new");
        new.inc();
        assert_eq!(all.all().len(), MOST + 1);
        assert!(shown(&all).contains(&("new".to_owned(), 1)));
    }

    #[test]
    fn threads_that_come_and_go_share_the_counts() {
        let all = ByName::<Count>::default();
        let kept = all.get_or_add("kept");
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..2_000 {
                        all.get_or_add("kept").inc();
                        all.get_or_add("brief").inc();
                        all.all();
                    }
                });
            }
        });
        assert_eq!(kept.get(), 8_000);
        assert_eq!(shown(&all), [("kept".to_owned(), 8_000)]);
    }
}
