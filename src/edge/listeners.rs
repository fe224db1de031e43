//! The listening sockets of a gateway and the tasks that accept from them, as the configuration in
//! force asks for.
//!
//! A change has two steps. [`Listeners::prepare`] binds what is new and can fail.
//! [`Listeners::commit`] cannot: it begins to accept on the new addresses and ends it on those that
//! are no longer wanted. An address that stays keeps its socket and its task.

use std::sync::{Arc, Mutex, MutexGuard, mpsc};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::watch;

use super::listener::{BindError, Bound, Listener, ListenerKind};
use super::listener_plan::{ListenerPlan, Planned, wanted};
use super::unused_sockets::UnusedSockets;
use super::{Edge, accept};
use crate::config::model::{Config, ListenAddress};
use crate::lock::MutexExt as _;
use crate::proxy::DirectResponder;

/// How long a change waits for the addresses that were removed to be closed.
const CLOSING: Duration = Duration::from_secs(1);

/// The listening sockets of an edge. It alone opens and closes them.
pub struct Listeners<A> {
    edge: Arc<Edge<A>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    open: Vec<Open>,
    /// Addresses that this machine does not have.
    without: Vec<ListenAddress>,
    /// Sockets of systemd that are not listened on.
    unused: UnusedSockets,
    phase: Phase,
}

#[derive(Default)]
enum Phase {
    /// Connections wait in the queues of the sockets.
    #[default]
    Waiting,
    /// They are accepted on this runtime.
    Accepting(Handle),
    Closed,
}

/// An open address.
struct Open {
    bound: Arc<Bound>,
    kind: ListenerKind,
    /// What is accepted from, until that begins.
    listener: Option<Listener>,
    /// Turns true when the address is to be closed, for its connections too.
    stop: watch::Sender<bool>,
    /// Ends with the task that accepts.
    accepting: Option<mpsc::Receiver<()>>,
}

impl<A> Listeners<A>
where
    A: DirectResponder + Send + Sync + 'static,
{
    /// Listeners in front of `edge`, none as yet.
    pub fn new(edge: Arc<Edge<A>>) -> Arc<Self> {
        Arc::new(Self {
            edge,
            state: Mutex::default(),
        })
    }

    /// Binds the addresses of a configuration that are not open yet. `before` is a plan that this
    /// one is made in place of: what it has bound is used.
    ///
    /// # Errors
    /// If an address cannot be bound. Nothing has changed then.
    pub fn prepare(
        &self,
        config: &Config,
        before: Option<&ListenerPlan>,
    ) -> Result<ListenerPlan, BindError> {
        let open: Vec<_> = self
            .state()
            .open
            .iter()
            .map(|open| (Arc::clone(&open.bound), open.kind))
            .collect();
        let spare = before.into_iter().flat_map(|plan| &plan.addresses);
        let spare: Vec<_> = spare
            .filter_map(|planned| match planned {
                Planned::New(listener) => Some(Arc::clone(listener.bound())),
                Planned::Open(..) => None,
            })
            .filter(|bound| open.iter().all(|(other, _)| !Arc::ptr_eq(other, bound)))
            .collect();
        ListenerPlan::bind_beside(&wanted(config), &open, &spare)
    }

    /// Listens on the addresses of `plan` and on no others. Returns once the others are closed.
    ///
    /// Connections of an address that is removed are asked to end, as by a stop: what is in flight
    /// on them finishes.
    pub fn commit(&self, plan: ListenerPlan) {
        let mut state = self.state();
        if matches!(state.phase, Phase::Closed) {
            return;
        }
        report_without(&state.without, &plan.without);
        state.without = plan.without;
        for (bound, wanted) in &plan.adapted {
            if let Err(error) = bound.adapt(wanted) {
                tracing::error!(address = %wanted, %error, "cannot change who may connect");
            }
        }
        let mut removed = std::mem::take(&mut state.open);
        let mut added = Vec::new();
        for planned in plan.addresses {
            let is_it = |open: &Open| {
                Arc::ptr_eq(&open.bound, planned.bound()) && open.kind == planned.kind()
            };
            match (removed.iter().position(is_it), planned) {
                (Some(index), _) => state.open.push(removed.swap_remove(index)),
                (None, Planned::New(listener)) => {
                    let bound = listener.bound();
                    if let Err(error) = bound.replace_rivals() {
                        tracing::error!(address = %bound.address(), %error, "cannot listen");
                    }
                    added.push(Open::new(listener));
                }
                // It was closed since the plan was made, which only a stop does.
                (None, Planned::Open(..)) => {}
            }
        }
        let runtime = match &state.phase {
            Phase::Accepting(runtime) => Some(runtime.clone()),
            Phase::Waiting | Phase::Closed => None,
        };
        let ends: Vec<_> = removed.into_iter().filter_map(Open::close).collect();
        let used = state.open.iter().chain(&added);
        let used = used.map(|open| open.bound.wanted().clone()).collect();
        state.unused.update(used, runtime.as_ref());
        for mut open in added {
            if let Some(runtime) = &runtime {
                open.accept(&self.edge, runtime);
            }
            state.open.push(open);
        }
        drop(state);
        for end in ends {
            // The sender is dropped: an error is what is waited for. A task that is held up closes
            // its socket a little later.
            _ = end.recv_timeout(CLOSING);
        }
    }

    /// Accepts connections from now on, on the current runtime.
    pub fn accept(&self) {
        let mut state = self.state();
        let State {
            open,
            unused,
            phase,
            ..
        } = &mut *state;
        if matches!(phase, Phase::Waiting) {
            let runtime = Handle::current();
            for open in open {
                open.accept(&self.edge, &runtime);
            }
            unused.refuse(&runtime);
            *phase = Phase::Accepting(runtime);
        }
    }

    /// Closes all addresses for good. Open connections are asked to end, see [`Edge::drained`].
    pub async fn close(&self) {
        let open = {
            let mut state = self.state();
            state.phase = Phase::Closed;
            state.unused = UnusedSockets::default();
            std::mem::take(&mut state.open)
        };
        for open in &open {
            open.stop.send_replace(true);
        }
        // The application tells clients with a request in flight that it is the last one.
        self.edge.app.http_cleanup().await;
    }

    /// What is listened on: the addresses with their protocols.
    pub fn addresses(&self) -> Vec<(ListenAddress, ListenerKind)> {
        let state = self.state();
        let open = state.open.iter();
        open.map(|open| (open.bound.address().clone(), open.kind))
            .collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock_unpoisoned()
    }
}

impl Open {
    fn new(listener: Listener) -> Self {
        Self {
            bound: Arc::clone(listener.bound()),
            kind: listener.kind(),
            listener: Some(listener),
            stop: watch::Sender::default(),
            accepting: None,
        }
    }

    /// Begins to accept.
    fn accept<A>(&mut self, edge: &Arc<Edge<A>>, runtime: &Handle)
    where
        A: DirectResponder + Send + Sync + 'static,
    {
        let Some(listener) = self.listener.take() else {
            return;
        };
        tracing::info!(address = %self.bound.address(), kind = ?self.kind, "listening");
        let (running, end) = mpsc::channel();
        let (edge, stop) = (Arc::clone(edge), self.stop.subscribe());
        runtime.spawn(async move {
            let _running: mpsc::Sender<()> = running;
            accept::run(edge, listener, stop).await;
        });
        self.accepting = Some(end);
    }

    /// Ends accepting. What is returned ends once the task that accepts has ended.
    fn close(self) -> Option<mpsc::Receiver<()>> {
        tracing::info!(address = %self.bound.address(), kind = ?self.kind, "no longer listening");
        self.stop.send_replace(true);
        self.accepting
    }
}

/// Reports the addresses that this machine does not have, if they are not those of before.
fn report_without(before: &[ListenAddress], now: &[ListenAddress]) {
    if !now.is_empty() && now != before {
        let now: Vec<_> = now.iter().map(ToString::to_string).collect();
        tracing::warn!(
            "this machine has no IPv6: nothing listens on {}, only IPv4 is served; turn IPv6 on, \
             or remove these addresses from 'server.https' and 'server.http'",
            now.join(" and ")
        );
    }
}
