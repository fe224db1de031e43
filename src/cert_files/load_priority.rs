//! Which certificates are loaded first because handshakes wait for them.
//!
//! The names of files are known before any file is read. A file named after what a client asks for
//! is loaded before the rest, each file once. So a client that asks for many names does not slow
//! the load down, and nothing has to be remembered beyond the files that exist.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use ahash::RandomState;
use tokio::sync::watch;

use crate::certificate::Validity;
use crate::certificate::sni::{CertificateSet, Loading};
use crate::clock::Clock;
use crate::host::{Host, HostName, Pattern, parent};
use crate::lock::MutexExt as _;

/// How many names may wait. A client that finds no room asks again.
const WAITING: usize = 1_024;

/// How many are loaded between two slices of the scan.
const AT_ONCE: usize = 64;

/// What is loaded first. A handle; clones share the state.
#[derive(Clone)]
pub(super) struct LoadPriority(Arc<Shared>);

struct Shared {
    clock: Arc<dyn Clock>,
    hasher: RandomState,
    /// What files are named after, in order. Empty until all directories are listed.
    named: OnceLock<Box<[u64]>>,
    state: Mutex<State>,
    is_wanted: AtomicBool,
    progress: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Pattern>,
    at_work: Vec<u64>,
    /// Which were asked for, and whether their files are served.
    known: HashMap<u64, bool>,
}

/// A name as it is looked up, without a copy.
#[derive(Clone, Copy, Hash)]
enum Named<'a> {
    Exact(&'a str),
    Wildcard(&'a str),
    Ip(IpAddr),
}

impl<'a> Named<'a> {
    fn of(pattern: &'a Pattern) -> Option<Self> {
        match pattern {
            Pattern::Any => None,
            Pattern::Exact(name) => Some(Self::Exact(name.as_str())),
            Pattern::Wildcard(of) => Some(Self::Wildcard(of.as_str())),
            Pattern::Ip(address) => Some(Self::Ip(address.to_canonical())),
        }
    }

    fn pattern(self) -> Option<Pattern> {
        let name = |name: &str| name.parse::<HostName>().ok();
        Some(match self {
            Self::Exact(exact) => Pattern::Exact(name(exact)?),
            Self::Wildcard(of) => Pattern::Wildcard(name(of)?),
            Self::Ip(address) => Pattern::Ip(address),
        })
    }
}

/// What files for `host` may be named after: itself, the wildcard over it, and the name without its
/// first label, whose certificate often has `www` or the wildcard too.
fn names_of(host: Host<'_>) -> [Option<Named<'_>>; 3] {
    match host {
        Host::Ip(address) => [Some(Named::Ip(address.to_canonical())), None, None],
        Host::Name(name) => {
            let parent = parent(name);
            [
                Some(Named::Exact(name)),
                parent.map(Named::Wildcard),
                parent.map(Named::Exact),
            ]
        }
    }
}

impl LoadPriority {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self(Arc::new(Shared {
            clock,
            hasher: RandomState::new(),
            named: OnceLock::new(),
            state: Mutex::default(),
            is_wanted: AtomicBool::new(false),
            progress: watch::Sender::new(0),
        }))
    }

    /// The hash of `pattern` in the list of names.
    pub(super) fn hash_pattern(&self, pattern: &Pattern) -> Option<u64> {
        Named::of(pattern).map(|named| self.hash(named))
    }

    /// Takes the [marks](Self::mark) of what files are named after.
    pub(super) fn set_listed(&self, mut marks: Vec<u64>) {
        marks.sort_unstable();
        marks.dedup();
        // Files that are added later are found by the scan.
        let _ = self.0.named.set(marks.into_boxed_slice());
    }

    /// Whether it is known what files are named after.
    pub(super) fn is_listed(&self) -> bool {
        self.0.named.get().is_some()
    }

    /// Whether a client waits for a file.
    pub(super) fn is_wanted(&self) -> bool {
        self.0.is_wanted.load(Ordering::Relaxed)
    }

    /// Takes the names whose files are to be loaded now.
    pub(super) fn take_requested(&self) -> Vec<Pattern> {
        if !self.is_wanted() {
            return Vec::new();
        }
        let mut state = self.lock();
        let many = state.queue.len().min(AT_ONCE);
        let taken: Vec<_> = state.queue.drain(..many).collect();
        let marks = taken
            .iter()
            .filter_map(|pattern| self.hash_pattern(pattern));
        state.at_work.extend(marks);
        let is_wanted = !state.queue.is_empty();
        self.0.is_wanted.store(is_wanted, Ordering::Relaxed);
        taken
    }

    /// Notes that the files that were taken are served.
    pub(super) fn mark_served(&self) {
        let mut state = self.lock();
        for mark in std::mem::take(&mut state.at_work) {
            state.known.insert(mark, true);
        }
        drop(state);
        self.0.progress.send_modify(|round| *round += 1);
    }

    fn hash(&self, named: Named<'_>) -> u64 {
        self.0.hasher.hash_one(named)
    }

    /// The mark of `named`, where a file has that name.
    fn find_listed(&self, named: Named<'_>) -> Option<u64> {
        let mark = self.hash(named);
        let marks = self.0.named.get()?;
        marks.binary_search(&mark).is_ok().then_some(mark)
    }

    /// Whether a file of this name is still to be looked at.
    fn is_ahead(&self, named: Named<'_>) -> bool {
        let mark = self.find_listed(named);
        mark.is_some_and(|mark| self.lock().known.get(&mark) != Some(&true))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No change is left half done by a panic.
        self.0.state.lock_unpoisoned()
    }
}

impl Loading for LoadPriority {
    fn is_settled(&self, host: Option<Host<'_>>, found: Option<&CertificateSet>) -> bool {
        let Some(found) = found else {
            return false;
        };
        let Some(host) = host else {
            return true;
        };
        let now = self.0.clock.now();
        let mut certificates = found.by_kind.iter();
        if !certificates.all(|one| one.validity(now) == Validity::Valid) {
            return false;
        }
        let own = match host {
            Host::Ip(address) => Named::Ip(address.to_canonical()),
            Host::Name(name) => Named::Exact(name),
        };
        let is_own = |pattern: &Pattern| match (pattern, host) {
            (Pattern::Exact(exact), Host::Name(name)) => exact.as_str() == name,
            (Pattern::Ip(exact), Host::Ip(address)) => *exact == address.to_canonical(),
            _ => false,
        };
        let mut certificates = found.by_kind.iter();
        certificates.all(|one| one.names().iter().any(is_own)) || !self.is_ahead(own)
    }

    fn prioritize(&self, host: Host<'_>) {
        for named in names_of(host).into_iter().flatten() {
            let Some(mark) = self.find_listed(named) else {
                continue;
            };
            let mut state = self.lock();
            if state.queue.len() >= WAITING || state.known.contains_key(&mark) {
                continue;
            }
            if let Some(pattern) = named.pattern() {
                state.known.insert(mark, false);
                state.queue.push_back(pattern);
                self.0.is_wanted.store(true, Ordering::Relaxed);
            }
        }
    }

    fn progress(&self) -> watch::Receiver<u64> {
        self.0.progress.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificate::Loader;
    use crate::certificate::testing::{DAY, NOW, TestCa};
    use crate::clock::ManualClock;

    fn load_priority(names: &[&str]) -> LoadPriority {
        let load_priority = LoadPriority::new(Arc::new(ManualClock::at(NOW)));
        assert!(!load_priority.is_listed());
        let patterns = names.iter().map(|name| name.parse().expect("a pattern"));
        let marks = patterns.filter_map(|pattern| load_priority.hash_pattern(&pattern));
        load_priority.set_listed(marks.collect());
        load_priority
    }

    fn taken(load_priority: &LoadPriority) -> Vec<String> {
        load_priority
            .take_requested()
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn what_files_are_named_after_is_looked_at_once() {
        let load_priority = load_priority(&["a.example", "*.b.example", "b.example", "192.0.2.1"]);
        let hosts = ["a.example", "x.b.example", "none.example", "a.example"];
        for host in hosts {
            load_priority.prioritize(Host::Name(host));
        }
        load_priority.prioritize(Host::Ip("::ffff:192.0.2.1".parse().expect("an address")));
        let all = ["a.example", "*.b.example", "b.example", "192.0.2.1"];
        assert_eq!(taken(&load_priority), all);
        assert!(!load_priority.is_wanted());
        for number in 0..10 {
            load_priority.prioritize(Host::Name(&format!("{number}.b.example")));
        }
        assert_eq!(taken(&load_priority), [""; 0], "strangers make no work");
        load_priority.mark_served();
        load_priority.prioritize(Host::Name("a.example"));
        assert_eq!(taken(&load_priority), [""; 0]);
        assert_eq!(load_priority.lock().known.len(), 4);
    }

    #[test]
    fn so_many_wait_and_no_more() {
        let names: Vec<_> = (0..2 * WAITING).map(|one| format!("{one}.test")).collect();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        let load_priority = load_priority(&names);
        for name in &names {
            load_priority.prioritize(Host::Name(name));
        }
        let mut looked = 0;
        while load_priority.is_wanted() {
            let some = load_priority.take_requested().len();
            assert!(some <= AT_ONCE);
            looked += some;
        }
        assert_eq!(looked, WAITING);
        load_priority.prioritize(Host::Name(names[WAITING]));
        assert_eq!(
            taken(&load_priority),
            [names[WAITING]],
            "whoever asks again finds room"
        );
    }

    #[test]
    fn what_may_be_better_is_waited_for() {
        let (ca, loader) = (TestCa::new("early"), Loader::new().expect("a loader"));
        let set = |name: &str, end| {
            let certificate = ca.certificate(&loader, &[name], NOW - DAY, end);
            CertificateSet::single(certificate)
        };
        let load_priority = load_priority(&["x.a.example", "*.a.example"]);
        let (x, y) = (Host::Name("x.a.example"), Host::Name("y.a.example"));
        assert!(!load_priority.is_settled(Some(x), None));
        let wildcard = set("*.a.example", NOW + DAY);
        assert!(load_priority.is_settled(Some(y), Some(&wildcard)));
        assert!(!load_priority.is_settled(Some(x), Some(&wildcard)));
        assert!(load_priority.is_settled(Some(x), Some(&set("x.a.example", NOW + DAY))));
        let ended = set("x.a.example", NOW - 1);
        assert!(!load_priority.is_settled(Some(x), Some(&ended)));
        // The file of that name has something else.
        let mut progress = load_priority.progress();
        load_priority.prioritize(x);
        load_priority.take_requested();
        assert!(
            !load_priority.is_settled(Some(x), Some(&wildcard)),
            "not served yet"
        );
        load_priority.mark_served();
        assert!(progress.has_changed().expect("it is there"));
        progress.mark_unchanged();
        assert!(load_priority.is_settled(Some(x), Some(&wildcard)));
        assert!(!load_priority.is_settled(Some(x), Some(&ended)));
        assert!(
            load_priority.is_settled(None, Some(&wildcard)),
            "the default"
        );
    }
}
