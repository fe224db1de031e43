//! The troubles that last, for recipients that are added while they do, or that now want to know of
//! them: most are emitted only once.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use super::trouble::{self, Ended};
use crate::clock::UnixTime;
use crate::event::{Event, EventBus, EventKind, EventSink};
use crate::lock::MutexExt as _;

/// How many troubles are known at most.
const MAX_TROUBLES: usize = 20_000;

/// The troubles that last, whoever is told of them.
pub(super) struct StandingTroubles {
    sink: EventSink,
    /// The last event about each, by its key.
    troubles: Mutex<BTreeMap<String, Arc<Event>>>,
}

impl StandingTroubles {
    /// Those that begin from now on.
    pub(super) fn new(events: &EventBus) -> Self {
        Self {
            sink: events.open_sink(EventKind::ALL.iter().copied().collect()),
            troubles: Mutex::default(),
        }
    }

    /// Waits until there may be something to take note of.
    pub(super) async fn wait(&self) {
        self.sink.wait().await;
    }

    /// Takes note of what has happened.
    pub(super) fn collect(&self) {
        // Taken under the lock, so that nobody overtakes.
        let mut troubles = self.troubles.lock_unpoisoned();
        let (events, lost) = self.sink.take();
        if lost > 0 {
            // The end of any may be among what was lost.
            troubles.clear();
        }
        for event in events {
            match trouble::ended(&event) {
                Ended::Keys(keys) => keys.iter().for_each(|key| drop(troubles.remove(key))),
                Ended::Prefix(prefix) => troubles.retain(|key, _| !key.starts_with(prefix)),
            }
            let Some(key) = trouble::key(&event) else {
                continue;
            };
            if troubles.len() < MAX_TROUBLES || troubles.contains_key(&key) {
                troubles.insert(key, event);
            }
        }
    }

    /// The last event about each trouble that lasts at `now`.
    pub(super) fn events(&self, now: UnixTime) -> Vec<Arc<Event>> {
        self.collect();
        let mut troubles = self.troubles.lock_unpoisoned();
        // The limits of CAs end by their time.
        troubles.retain(|_, event| {
            let is_limit = event.kind == EventKind::CaLimited;
            !is_limit || event.next.is_none_or(|end| now < end)
        });
        troubles.values().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::unix;
    use crate::event::Severity;

    #[test]
    fn what_has_begun_and_not_ended_stands() {
        let bus = EventBus::default();
        let standing = StandingTroubles::new(&bus);
        let emit = |at, kind, severity, domain: &str| {
            bus.emit(Event::new(unix(at), kind, severity, domain, ""));
        };
        let failed = EventKind::CertificateFailed;
        emit(1, failed, Severity::Warning, "a.test");
        emit(2, failed, Severity::Error, "a.test");
        emit(3, failed, Severity::Error, "b.test");
        emit(4, EventKind::ConfigRejected, Severity::Error, "");
        let stands = |now| {
            let events = standing.events(unix(now)).into_iter();
            let events = events.map(|one| (one.at.as_secs(), one.domain.clone()));
            events.collect::<Vec<_>>()
        };
        let of = |at, domain: &str| (at, domain.to_owned());
        assert_eq!(stands(4), [of(4, ""), of(2, "a.test"), of(3, "b.test")]);
        emit(5, EventKind::ConfigReloaded, Severity::Info, "");
        emit(6, EventKind::CertificateRenewed, Severity::Info, "a.test");
        let mut limited = Event::new(
            unix(7),
            EventKind::CaLimited,
            Severity::Warning,
            "c.test",
            "",
        );
        limited.next = Some(unix(9));
        bus.emit(limited);
        assert_eq!(stands(8), [of(7, "c.test"), of(3, "b.test")]);
        assert_eq!(stands(9), [of(3, "b.test")]);
    }
}
