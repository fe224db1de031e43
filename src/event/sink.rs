//! Events that wait for one reader, without end or losses as long as there is room.
//!
//! A subscriber that lags behind loses the events that were emitted first. A sink keeps the gravest
//! instead, and counts the others.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, Weak};

use tokio::sync::Notify;

use super::{Event, KindSet, Severity, Survey, Surveys};
use crate::lock::MutexExt as _;

/// How many events wait at most: more than a gateway with very many certificates emits in the time
/// that a slow disk takes.
const ROOM: usize = 8192;

/// Events that wait for their reader, the oldest first.
pub struct EventSink(Arc<Shared>);

pub(super) struct Shared {
    waiting: Mutex<Waiting>,
    arrived: Notify,
    surveys: Arc<Surveys>,
}

struct Waiting {
    kinds: KindSet,
    /// By severity, so that the least severe make room. Each with the number of its arrival.
    events: [VecDeque<(u64, Arc<Event>)>; 4],
    arrived: u64,
    lost: u64,
}

impl EventSink {
    pub(super) fn new(kinds: KindSet, surveys: Arc<Surveys>) -> Self {
        Self(Arc::new(Shared {
            waiting: Mutex::new(Waiting {
                kinds,
                events: Default::default(),
                arrived: 0,
                lost: 0,
            }),
            arrived: Notify::new(),
            surveys,
        }))
    }

    pub(super) fn downgrade(&self) -> Weak<Shared> {
        Arc::downgrade(&self.0)
    }

    /// Collects events of these kinds from now on.
    pub fn set_kinds(&self, kinds: KindSet) {
        self.0.waiting.lock_unpoisoned().kinds = kinds;
    }

    /// All events that wait, in the order of their arrival, and how many were lost since the last
    /// call for want of room.
    pub fn take(&self) -> (Vec<Arc<Event>>, u64) {
        let mut waiting = self.0.waiting.lock_unpoisoned();
        let events = std::mem::take(&mut waiting.events);
        let lost = std::mem::take(&mut waiting.lost);
        drop(waiting);
        let mut events: Vec<_> = events.into_iter().flatten().collect();
        events.sort_unstable_by_key(|(number, _)| *number);
        (events.into_iter().map(|(_, event)| event).collect(), lost)
    }

    /// Returns true if a survey is complete. What it has found can be taken then.
    pub fn is_complete(&self, survey: Survey) -> bool {
        self.0.surveys.is_complete(survey)
    }

    /// Waits until there may be something to take, or a survey is complete.
    pub async fn wait(&self) {
        self.0.arrived.notified().await;
    }
}

impl Shared {
    /// Has the reader look again.
    pub(super) fn wake(&self) {
        self.arrived.notify_one();
    }

    pub(super) fn push(&self, event: &Arc<Event>) {
        let mut waiting = self.waiting.lock_unpoisoned();
        if !waiting.kinds.contains(event.kind) {
            return;
        }
        waiting.push(event);
        drop(waiting);
        self.arrived.notify_one();
    }
}

impl Waiting {
    fn push(&mut self, event: &Arc<Event>) {
        let number = self.arrived;
        self.arrived += 1;
        let rank = rank(event.severity);
        if self.events.iter().map(VecDeque::len).sum::<usize>() >= ROOM {
            self.lost += 1;
            let least = self.events.iter_mut().take(rank + 1);
            // If only graver ones wait, it is the one to be lost.
            match least.into_iter().find(|events| !events.is_empty()) {
                Some(events) => drop(events.pop_front()),
                None => return,
            }
        }
        if let Some(events) = self.events.get_mut(rank) {
            events.push_back((number, Arc::clone(event)));
        }
    }
}

fn rank(severity: Severity) -> usize {
    match severity {
        Severity::Info => 0,
        Severity::Warning => 1,
        Severity::Error => 2,
        Severity::Critical => 3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::unix;
    use crate::event::{EventBus, EventKind};

    fn event(at: usize, severity: Severity) -> Event {
        let at = unix(i64::try_from(at).expect("small"));
        Event::new(at, EventKind::CertificateFailed, severity, "", "no")
    }

    #[tokio::test]
    async fn the_gravest_are_kept_in_order_and_the_others_counted() {
        let bus = EventBus::default();
        let sink = bus.open_sink([EventKind::CertificateFailed].into_iter().collect());
        bus.emit(Event::new(
            unix(0),
            EventKind::StorageFailed,
            Severity::Critical,
            "",
            "not wanted",
        ));
        for at in 0..ROOM {
            bus.emit(event(at, Severity::Warning));
        }
        bus.emit(event(ROOM, Severity::Info));
        bus.emit(event(ROOM + 1, Severity::Error));
        sink.wait().await;
        let (events, lost) = sink.take();
        assert_eq!((events.len(), lost), (ROOM, 2));
        let times: Vec<_> = events.iter().map(|event| event.at.as_secs()).collect();
        assert!(times.is_sorted(), "in order");
        assert_eq!(times.first(), Some(&1), "the oldest made room");
        assert_eq!(times.last().copied(), i64::try_from(ROOM + 1).ok());
        assert_eq!(sink.take().1, 0);
    }

    #[test]
    fn a_sink_that_is_gone_collects_nothing() {
        let bus = EventBus::default();
        drop(bus.open_sink(EventKind::ALL.iter().copied().collect()));
        bus.emit(event(1, Severity::Info));
        assert!(bus.0.sinks.lock_unpoisoned().is_empty());
    }
}
