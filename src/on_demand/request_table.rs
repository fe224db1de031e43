//! The names that clients wait for, in one table: how far each is, and who waits for it.
//!
//! All handshakes that want a name share its one flight: the gate's work on it. Where a CA is to be
//! asked, the flight asks the manager in turn, and waits for its answer.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::{oneshot, watch};

use super::ObtainError;
use crate::certificate::sni::CertificateSet;
use crate::host::HostName;
use crate::lock::MutexExt as _;

/// How many names may be in the table at once.
const MOST_NAMES: usize = 20_000;

/// How many of them the manager may be asked for.
const MOST_ASKED_FOR: usize = 1_000;

/// After how long another try is worth it where there were too many.
const TOO_MANY: Duration = Duration::from_secs(5);

/// What came of a name: its certificate, or none.
pub(super) type Outcome = Option<Arc<CertificateSet>>;

/// What waiting handshakes watch: nothing until the flight has ended.
pub(super) type Waiter = watch::Receiver<Option<Outcome>>;

/// What the manager answers.
pub(super) type Answer = Result<(), ObtainError>;

/// Every name that clients wait for.
#[derive(Default)]
pub struct RequestTable(Mutex<Table>);

#[derive(Default)]
struct Table {
    names: HashMap<HostName, Request, ahash::RandomState>,
    /// Those that the manager has not taken yet, in the order of the requests.
    queued: VecDeque<HostName>,
    /// How many the manager is asked for.
    asked_for: usize,
    /// Whether the manager takes no names any more.
    is_closed: bool,
}

/// The requests for a name.
#[derive(Default)]
struct Request {
    stage: Stage,
    /// The gate's work on it, if any.
    flight: Option<Waiter>,
    /// Where the manager's answer goes.
    answers: Vec<oneshot::Sender<Answer>>,
}

/// How far the requests for a name are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    /// The gate decides on it, or the local CA issues its certificate.
    #[default]
    Deciding,
    /// The manager is asked for it, and has not taken it yet.
    Queued,
    /// The storage is read: it is not known how the name stands.
    LookingUp,
    /// The manager knows how it stands.
    Obtaining,
}

/// The work for one name. Where it is dropped without an outcome, it has failed.
pub(super) struct Flight {
    table: Arc<RequestTable>,
    name: HostName,
    ended: watch::Sender<Option<Outcome>>,
}

/// Names that are being looked up, until it is dropped.
pub(super) struct LookupGuard {
    table: Arc<RequestTable>,
    names: Vec<HostName>,
}

impl RequestTable {
    /// Joins the flight for `name`. Where there is none, it begins with the one that is returned.
    /// `None` where there are too many names.
    pub(super) fn join(self: &Arc<Self>, name: &HostName) -> Option<(Waiter, Option<Flight>)> {
        let mut table = self.lock();
        let is_full = table.names.len() >= MOST_NAMES;
        let request = match table.names.entry(name.clone()) {
            Entry::Occupied(request) => request.into_mut(),
            Entry::Vacant(_) if is_full => return None,
            Entry::Vacant(request) => request.insert(Request::default()),
        };
        if let Some(waiter) = &request.flight {
            return Some((waiter.clone(), None));
        }
        let (ended, waiter) = watch::channel(None);
        request.flight = Some(waiter.clone());
        let flight = Flight {
            table: Arc::clone(self),
            name: name.clone(),
            ended,
        };
        Some((waiter, Some(flight)))
    }

    /// Asks the manager for `name`. Returns where its answer comes, and whether the name is new to
    /// it.
    ///
    /// # Errors
    /// Where the manager is asked for too many names, or takes none any more.
    pub(super) fn ask_manager(
        &self,
        name: &HostName,
    ) -> Result<(oneshot::Receiver<Answer>, bool), ObtainError> {
        let (sender, receiver) = oneshot::channel();
        let mut table = self.lock();
        let table = &mut *table;
        if table.is_closed {
            return Err(ObtainError::stopped());
        }
        let request = table.names.get(name);
        let is_new = request.is_none_or(|request| request.stage == Stage::Deciding);
        if is_new && table.asked_for >= MOST_ASKED_FOR {
            return Err(ObtainError {
                why: format!("{MOST_ASKED_FOR} other names are waited for"),
                retry_after: Some(TOO_MANY),
                is_begun: false,
            });
        }
        let request = table.names.entry(name.clone()).or_default();
        request.answers.push(sender);
        if is_new {
            request.stage = Stage::Queued;
            table.asked_for += 1;
            table.queued.push_back(name.clone());
        }
        Ok((receiver, is_new))
    }

    /// Whether there are names that the manager has not taken yet.
    pub(super) fn has_queued(&self) -> bool {
        !self.lock().queued.is_empty()
    }

    /// Takes names that the manager is asked for, so many at most.
    pub(super) fn take_queued(&self, most: usize) -> Vec<HostName> {
        let mut table = self.lock();
        let count = table.queued.len().min(most);
        let taken: Vec<_> = table.queued.drain(..count).collect();
        table.advance(&taken, Stage::Queued, Stage::Obtaining);
        taken
    }

    /// Leaves these names out of what [`Self::obtaining`] says until the guard is dropped.
    pub(super) fn begin_lookup(self: &Arc<Self>, names: Vec<HostName>) -> LookupGuard {
        let mut table = self.lock();
        table.advance(&names, Stage::Obtaining, Stage::LookingUp);
        LookupGuard {
            table: Arc::clone(self),
            names,
        }
    }

    /// The names that the manager has taken and has not answered, none that is being looked up.
    pub(super) fn obtaining(&self) -> Vec<HostName> {
        let table = self.lock();
        let names = table.names.iter();
        let obtaining = names.filter(|(_, request)| request.stage == Stage::Obtaining);
        obtaining.map(|(name, _)| name.clone()).collect()
    }

    /// Gives the manager's answer to all who wait for `name`.
    pub(super) fn answer(&self, name: &HostName, answer: &Answer) {
        let mut table = self.lock();
        let Some(request) = table.names.get_mut(name) else {
            return;
        };
        let answers = std::mem::take(&mut request.answers);
        if std::mem::take(&mut request.stage) != Stage::Deciding {
            table.asked_for -= 1;
        }
        table.remove_finished(name);
        drop(table);
        for sender in answers {
            // The client may have left.
            let _ = sender.send(answer.clone());
        }
    }

    /// Whether the manager takes no names any more.
    pub(super) fn is_closed(&self) -> bool {
        self.lock().is_closed
    }

    /// Refuses all names that the manager is asked for, from now on too.
    pub(super) fn close(&self) {
        let mut table = self.lock();
        table.is_closed = true;
        table.queued.clear();
        table.asked_for = 0;
        let mut answers = Vec::new();
        table.names.retain(|_, request| {
            answers.append(&mut request.answers);
            request.stage = Stage::Deciding;
            request.flight.is_some()
        });
        drop(table);
        for sender in answers {
            // The client may have left.
            let _ = sender.send(Err(ObtainError::stopped()));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // Each change is whole: a panic in between leaves no client waiting for ever, since the
        // manager looks at all names.
        self.0.lock_unpoisoned()
    }
}

impl Table {
    /// Moves those of `names` that are at the stage `from` to the stage `to`.
    fn advance(&mut self, names: &[HostName], from: Stage, to: Stage) {
        for name in names {
            if let Some(request) = self.names.get_mut(name)
                && request.stage == from
            {
                request.stage = to;
            }
        }
    }

    /// Removes `name` where neither the gate nor the manager works for it.
    fn remove_finished(&mut self, name: &HostName) {
        if let Some(request) = self.names.get(name)
            && request.flight.is_none()
            && request.stage == Stage::Deciding
        {
            self.names.remove(name);
        }
    }
}

impl Flight {
    pub(super) fn name(&self) -> &HostName {
        &self.name
    }

    /// Wakes all that wait.
    pub(super) fn finish(self, outcome: Outcome) {
        self.ended.send_replace(Some(outcome));
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        let mut table = self.table.lock();
        if let Some(request) = table.names.get_mut(&self.name) {
            request.flight = None;
        }
        table.remove_finished(&self.name);
    }
}

impl Drop for LookupGuard {
    fn drop(&mut self) {
        let mut table = self.table.lock();
        table.advance(&self.names, Stage::LookingUp, Stage::Obtaining);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name() -> HostName {
        "a.example".parse().expect("a name")
    }

    #[tokio::test]
    async fn all_who_want_a_name_share_its_work() {
        let table = Arc::new(RequestTable::default());
        let name = name();
        let (mut first, flight) = table.join(&name).expect("room");
        let flight = flight.expect("the first begins it");
        let (mut second, none) = table.join(&name).expect("room");
        assert!(none.is_none() && *flight.name() == name);
        flight.finish(None);
        for waiter in [&mut first, &mut second] {
            let ended = waiter.wait_for(Option::is_some).await;
            assert!(matches!(ended.as_deref(), Ok(Some(None))));
        }
        // A lost flight has failed, and another begins.
        let (mut waiter, flight) = table.join(&name).expect("room");
        drop(flight.expect("it begins anew"));
        assert!(waiter.wait_for(Option::is_some).await.is_err());
        assert!(table.join(&name).expect("room").1.is_some());
    }

    #[tokio::test]
    async fn a_name_passes_its_stages_and_leaves_nothing_behind() {
        let table = Arc::new(RequestTable::default());
        let name = name();
        let (_, flight) = table.join(&name).expect("room");
        let (first, is_new) = table.ask_manager(&name).expect("room");
        let (second, is_again) = table.ask_manager(&name).expect("room");
        assert!(is_new && !is_again && table.has_queued());
        assert_eq!(table.obtaining(), [], "it is not taken yet");
        assert_eq!(table.take_queued(9), std::slice::from_ref(&name));
        let looking_up = table.begin_lookup(vec![name.clone()]);
        assert_eq!(table.obtaining(), [], "it is being looked up");
        drop(looking_up);
        assert_eq!(table.obtaining(), std::slice::from_ref(&name));
        table.answer(&name, &Ok(()));
        assert_eq!((first.await, second.await), (Ok(Ok(())), Ok(Ok(()))));
        assert_eq!(table.obtaining(), []);
        drop(flight);
        let table = table.lock();
        assert!(table.names.is_empty() && table.asked_for == 0);
    }

    #[tokio::test]
    async fn a_closed_table_refuses_all_names_at_once() {
        let table = Arc::new(RequestTable::default());
        let name = name();
        let (waiting, _) = table.ask_manager(&name).expect("room");
        table.close();
        let stopped = ObtainError::stopped();
        assert_eq!(waiting.await, Ok(Err(stopped.clone())));
        assert!(table.is_closed() && !table.has_queued());
        assert_eq!(table.ask_manager(&name).err(), Some(stopped));
        let table = table.lock();
        assert!(table.names.is_empty() && table.asked_for == 0);
    }
}
