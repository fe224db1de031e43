//! The names that have on-demand certificates from CAs: how each stands, and when it was last used.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use super::record::{Record, UseRecord};
use crate::clock::UnixTime;
use crate::host::{HostName, Pattern};
use crate::issuer::spec::CertSpec;
use crate::storage::{Key, keys};

/// How many uses are written at a time.
const WRITTEN_AT_ONCE: usize = 1_000;

/// Every name that has, or is to have, a certificate.
#[derive(Default)]
pub(super) struct NameTable {
    names: HashMap<HostName, KnownName>,
    /// All of them by when they were last used.
    by_use: BTreeSet<(UnixTime, HostName)>,
    /// Those without a certificate, by when they were last asked for.
    pending: BTreeSet<(UnixTime, HostName)>,
    /// Those whose use is to be written to the storage.
    unwritten: HashSet<HostName>,
    /// Which are to be checked against the configuration.
    recheck: Recheck,
}

/// Which names are to be checked because what may have a certificate has changed.
enum Recheck {
    All,
    These(HashSet<HostName>),
}

impl Default for Recheck {
    fn default() -> Self {
        Self::These(HashSet::new())
    }
}

/// What is known of a name.
pub(super) struct KnownName {
    pub(super) spec: Arc<CertSpec>,
    state: NameState,
    allowed: UnixTime,
    used: UnixTime,
    /// When it was last used according to its record.
    written: UnixTime,
}

/// Whether a name has had its certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NameState {
    /// Not yet: it is being obtained, or tried again after a failure. A client last asked for it at
    /// this time.
    Pending(UnixTime),
    /// One is served, or was.
    Served,
}

impl NameTable {
    pub(super) fn len(&self) -> usize {
        self.names.len()
    }

    /// How many have no certificate yet.
    pub(super) fn pending(&self) -> usize {
        self.pending.len()
    }

    pub(super) fn contains(&self, name: &HostName) -> bool {
        self.names.contains_key(name)
    }

    /// What a name is obtained as; `None` for an unknown one.
    pub(super) fn spec(&self, name: &HostName) -> Option<&Arc<CertSpec>> {
        self.names.get(name).map(|known| &known.spec)
    }

    /// When a name was last used.
    pub(super) fn last_use(&self, name: &HostName) -> Option<UnixTime> {
        self.names.get(name).map(|known| known.used)
    }

    /// Whether the name with the record at `key` is known.
    pub(super) fn has_record(&self, key: &Key) -> bool {
        let stem = key.as_str().strip_prefix("on_demand/");
        let stem = stem.and_then(|stem| stem.strip_suffix(".json"));
        // A name that is too long for a key is looked up.
        let name = stem.and_then(|stem| stem.parse::<HostName>().ok());
        name.is_some_and(|name| {
            self.contains(&name) && keys::on_demand(name.as_str()).is_ok_and(|own| own == *key)
        })
    }

    pub(super) fn insert(
        &mut self,
        name: &HostName,
        spec: &Arc<CertSpec>,
        state: NameState,
        record: &Record,
        used: UnixTime,
    ) {
        let known = KnownName {
            spec: Arc::clone(spec),
            state,
            allowed: record.allowed,
            used,
            written: record.used,
        };
        self.remove(name);
        self.names.insert(name.clone(), known);
        self.by_use.insert((used, name.clone()));
        if let NameState::Pending(asked) = state {
            self.pending.insert((asked, name.clone()));
        }
    }

    pub(super) fn remove(&mut self, name: &HostName) -> Option<KnownName> {
        self.unwritten.remove(name);
        if let Recheck::These(names) = &mut self.recheck {
            names.remove(name);
        }
        let known = self.names.remove(name)?;
        self.by_use.remove(&(known.used, name.clone()));
        if let NameState::Pending(asked) = known.state {
            self.pending.remove(&(asked, name.clone()));
        }
        Some(known)
    }

    /// Records that a client has asked for a name once more.
    pub(super) fn record_request(&mut self, name: &HostName, now: UnixTime) {
        self.record_use(name, now);
        if let Some(known) = self.names.get_mut(name)
            && let NameState::Pending(asked) = &mut known.state
        {
            self.pending.remove(&(*asked, name.clone()));
            *asked = now;
            self.pending.insert((now, name.clone()));
        }
    }

    /// Records that a name has its certificate.
    pub(super) fn record_served(&mut self, name: &HostName) {
        if let Some(known) = self.names.get_mut(name)
            && let NameState::Pending(asked) = known.state
        {
            known.state = NameState::Served;
            self.pending.remove(&(asked, name.clone()));
        }
    }

    /// The names without a certificate that no client has asked for since `oldest`.
    pub(super) fn pending_since(&self, oldest: UnixTime) -> Vec<HostName> {
        let old = self.pending.iter().take_while(|(asked, _)| *asked < oldest);
        old.map(|(_, name)| name.clone()).collect()
    }

    /// Has a name obtained as `spec` from now on. Returns what it was obtained as.
    pub(super) fn replace_spec(
        &mut self,
        name: &HostName,
        spec: Arc<CertSpec>,
    ) -> Option<Arc<CertSpec>> {
        let known = self.names.get_mut(name)?;
        Some(std::mem::replace(&mut known.spec, spec))
    }

    /// Records that a name was used.
    pub(super) fn record_use(&mut self, name: &HostName, at: UnixTime) {
        if let Some(known) = self.names.get_mut(name)
            && known.used < at
        {
            self.by_use.remove(&(known.used, name.clone()));
            known.used = at;
            self.by_use.insert((at, name.clone()));
        }
    }

    /// Records that names were used at `now`. The use is written once the record is `every` seconds
    /// behind.
    pub(super) fn record_uses(&mut self, names: &[HostName], every: i64, now: UnixTime) {
        for name in names {
            self.record_use(name, now);
            let known = self.names.get(name);
            if known.is_some_and(|known| known.used - known.written >= every) {
                self.unwritten.insert(name.clone());
            }
        }
    }

    /// The uses to be written, some at a time.
    pub(super) fn unwritten_uses(&self) -> Vec<UseRecord> {
        let unwritten = self.unwritten.iter().filter_map(|name| {
            let known = self.names.get(name)?;
            Some(UseRecord {
                name: name.clone(),
                record: Record {
                    name: name.to_string(),
                    allowed: known.allowed,
                    used: known.used,
                },
            })
        });
        unwritten.take(WRITTEN_AT_ONCE).collect()
    }

    /// Marks these uses as written.
    pub(super) fn mark_written(&mut self, written: &[UseRecord]) {
        for UseRecord { name, record } in written {
            self.unwritten.remove(name);
            if let Some(known) = self.names.get_mut(name) {
                known.written = record.used;
            }
        }
    }

    /// Records that a name has no record any more: its next use is written.
    pub(super) fn mark_unwritten(&mut self, name: &HostName) {
        if let Some(known) = self.names.get_mut(name) {
            known.written = UnixTime::MIN;
        }
    }

    /// The names that were last used before `oldest`, those unused for longest first.
    pub(super) fn unused_since(&self, oldest: UnixTime) -> impl Iterator<Item = &HostName> {
        let unused = self
            .by_use
            .iter()
            .take_while(move |(used, _)| *used < oldest);
        unused.map(|(_, name)| name)
    }

    /// Has all names checked: what may have a certificate has changed.
    pub(super) fn recheck_all(&mut self) {
        self.recheck = Recheck::All;
    }

    /// Has the names checked that `patterns` cover: the configuration has a certificate for them.
    pub(super) fn recheck_covered(&mut self, patterns: &[Pattern]) {
        if self.names.is_empty() {
            return;
        }
        for pattern in patterns {
            match (pattern, &mut self.recheck) {
                (_, Recheck::All) => {}
                (Pattern::Wildcard(_), recheck) => *recheck = Recheck::All,
                (Pattern::Exact(name), Recheck::These(names)) if self.names.contains_key(name) => {
                    names.insert(name.clone());
                }
                _ => {}
            }
        }
    }

    /// The names to be checked. They count as checked.
    pub(super) fn take_rechecked(&mut self) -> Vec<HostName> {
        match std::mem::take(&mut self.recheck) {
            Recheck::All => self.names.keys().cloned().collect(),
            Recheck::These(names) => names.into_iter().collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificate::sni::Precedence;
    use crate::clock::unix;

    fn name(text: &str) -> HostName {
        text.parse().expect("a name")
    }

    fn add(table: &mut NameTable, text: &str, state: NameState, used: UnixTime) {
        let spec = Arc::new(CertSpec {
            names: vec![Pattern::Exact(name(text))],
            issuers: Vec::new(),
            dns: None,
            precedence: Precedence::OnDemand,
        });
        let record = Record::new(&name(text), used);
        table.insert(&name(text), &spec, state, &record, used);
    }

    #[test]
    fn a_name_waits_until_it_is_served_or_removed() {
        let mut table = NameTable::default();
        for text in ["a.example", "b.example", "c.example"] {
            add(&mut table, text, NameState::Pending(unix(10)), unix(10));
        }
        assert_eq!((table.len(), table.pending()), (3, 3));
        table.record_request(&name("a.example"), unix(30));
        table.record_served(&name("b.example"));
        assert_eq!(table.pending_since(unix(20)), [name("c.example")]);
        table.remove(&name("c.example"));
        assert_eq!(table.pending_since(unix(40)), [name("a.example")]);
        let unused: Vec<_> = table.unused_since(unix(20)).collect();
        assert_eq!(unused, [&name("b.example")]);
    }

    #[test]
    fn a_use_is_written_when_the_record_is_far_behind() {
        let mut table = NameTable::default();
        add(&mut table, "a.example", NameState::Served, unix(100));
        let names = [name("a.example"), name("unknown.example")];
        table.record_uses(&names, 50, unix(149));
        assert!(table.unwritten_uses().is_empty());
        table.record_uses(&names, 50, unix(150));
        let uses = table.unwritten_uses();
        assert_eq!(uses.len(), 1);
        table.mark_written(&uses);
        assert!(table.unwritten_uses().is_empty());
    }

    #[test]
    fn only_names_that_a_change_may_concern_are_checked_again() {
        let mut table = NameTable::default();
        add(&mut table, "a.example", NameState::Served, unix(1));
        add(&mut table, "b.example", NameState::Served, unix(1));
        table.recheck_covered(&[Pattern::Exact(name("a.example"))]);
        assert_eq!(table.take_rechecked(), [name("a.example")]);
        assert!(table.take_rechecked().is_empty());
        table.recheck_covered(&["*.example".parse().expect("a pattern")]);
        assert_eq!(table.take_rechecked().len(), 2);
    }
}
