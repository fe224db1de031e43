//! Which server of a pool a request goes to.
//!
//! First come the servers that are no backups, in the order that the pool's method gives, then the
//! backups. If none of them is in use, the least bad one is tried.

use std::mem;
use std::sync::Arc;
use std::time::Duration;

use super::group::{Group, Method};
use super::{Choice, Picked, Pool, millis};
use crate::proxy::admission::Admission;
use crate::proxy::availability::{Admittance, Trial};
use crate::proxy::connection_limit::UpstreamPermit;
use crate::proxy::endpoint::Endpoint;
use crate::proxy::hash;
use crate::proxy::no_server::NoServer;
use crate::proxy::sticky::Session;

/// How long the only request that tries an ejected address keeps others from trying it.
const TRIAL: u64 = 60_000;

/// What a server is picked by.
struct Search<'a> {
    key: Option<u64>,
    tried: &'a [Arc<Endpoint>],
    now: u64,
    /// How long the share of an address rises that has come up, in milliseconds.
    slow_start: Option<u64>,
    /// Whether an address has as many requests as it may have.
    is_full: bool,
}

impl Search<'_> {
    /// Whether an address does not get this request because it has come up a moment ago. Such an
    /// address gets requests in its turn only, and not all of those.
    fn holds_back(&self, endpoint: &Endpoint, has_turn: bool) -> bool {
        let Some(time) = self.slow_start else {
            return false;
        };
        let (warm_up, now) = (&endpoint.warm_up, self.now);
        warm_up.is_running(now, time) && !(has_turn && warm_up.takes_turn(now, time))
    }
}

impl Pool {
    /// The server for a request that has not been sent to any. `key` is that of
    /// [`Pool::balance_key`].
    ///
    /// # Errors
    /// Why there is none.
    pub(crate) fn next_server(&self, key: Option<u64>) -> Result<Picked, NoServer> {
        if self.has_waiting() {
            return Err(NoServer::Full);
        }
        self.first_server(key, None)
    }

    /// The same once there is room, for which the request waits in line. `session` may name the
    /// address that it prefers; `permit` is the request's.
    ///
    /// # Errors
    /// Why there is none; [`NoServer::Full`] if there is no room within `patience`.
    pub(crate) async fn wait_for_server(
        &self,
        key: Option<u64>,
        session: Option<&Session>,
        permit: Option<&UpstreamPermit>,
        patience: Duration,
    ) -> Result<Picked, NoServer> {
        let Some(queue) = &self.queue else {
            return self.first_server(key, session);
        };
        let admit = || match self.first_server(key, session) {
            Err(NoServer::Full) => None,
            decided => Some(decided),
        };
        let connection = permit.and_then(UpstreamPermit::connection);
        let waited = queue.wait(connection, patience, admit).await;
        waited.unwrap_or(Err(NoServer::Full))
    }

    /// The use of the address that a client's cookie names, if requests get it and none waits.
    pub(crate) fn home_server(&self, session: &Session) -> Option<Picked> {
        if self.has_waiting() {
            return None;
        }
        let now = self.now();
        let picked = self.admit_at_home(session, now)?;
        self.retry_budget.record_request(now);
        Some(picked)
    }

    fn admit_at_home(&self, session: &Session, now: u64) -> Option<Picked> {
        let home = session.home()?;
        self.admit(home.server, &home.endpoint, now, &mut false)
    }

    /// A server for a request that has not been sent to any, which is counted once it is not for
    /// lack of room that it has none.
    fn first_server(
        &self,
        key: Option<u64>,
        session: Option<&Session>,
    ) -> Result<Picked, NoServer> {
        let now = self.now();
        let home = session.and_then(|session| self.admit_at_home(session, now));
        let picked = match home {
            Some(picked) => Ok(picked),
            None => self.pick(key, &[], now),
        };
        if !matches!(picked, Err(NoServer::Full)) {
            self.retry_budget.record_request(now);
        }
        picked
    }

    /// Whether requests wait for room, which others must not overtake.
    pub(crate) fn has_waiting(&self) -> bool {
        self.queue.as_ref().is_some_and(|queue| queue.is_used())
    }

    /// Another address of the same server that is in use and not in `tried`.
    pub(crate) fn same_server(&self, choice: &Choice, tried: &[Arc<Endpoint>]) -> Option<Picked> {
        let now = self.now();
        let server = self.servers.get(choice.server)?;
        let mut is_full = false;
        server.find_in_turn(tried, |endpoint| {
            self.admit(choice.server, endpoint, now, &mut is_full)
        })
    }

    /// A server with an address that is not in `tried`: one in use, else one that is avoided. It is
    /// for a request that has been sent already, so it came earlier than those that wait.
    pub(crate) fn other_server(&self, key: Option<u64>, tried: &[Arc<Endpoint>]) -> Option<Picked> {
        self.pick(key, tried, self.now()).ok()
    }

    fn pick(
        &self,
        key: Option<u64>,
        tried: &[Arc<Endpoint>],
        now: u64,
    ) -> Result<Picked, NoServer> {
        let slow_start = self.upstream.slow_start.map(millis);
        let mut search = Search {
            key,
            tried,
            now,
            slow_start,
            is_full: false,
        };
        let mut first_turn = None;
        for group in self.groups() {
            let turn = group.next_turn();
            first_turn = first_turn.or(Some(turn));
            search.slow_start = slow_start;
            let mut picked = self.pick_of(group, turn, &mut search);
            if picked.is_none() && search.slow_start.take().is_some() {
                // Those with a small share are better than none.
                picked = self.pick_of(group, turn, &mut search);
            }
            if let Some(picked) = picked {
                return Ok(picked);
            }
        }
        self.pick_least_bad(first_turn.unwrap_or(0), tried, search.is_full)
    }

    /// The use of a server of a group, which has the turn of this number.
    fn pick_of(&self, group: &Group, turn: usize, search: &mut Search<'_>) -> Option<Picked> {
        let tried = search.tried;
        match &group.method {
            Method::InTurn => group
                .round_from(turn)
                .enumerate()
                .find_map(|(place, index)| {
                    let server = self.servers.get(index)?;
                    let mut has_turn = place == 0;
                    server.find_in_turn(tried, |endpoint| {
                        if search.holds_back(endpoint, mem::take(&mut has_turn)) {
                            return None;
                        }
                        self.admit(index, endpoint, search.now, &mut search.is_full)
                    })
                }),
            Method::ByKey(ring) => {
                // A request without the key goes to any server.
                let key = search.key.unwrap_or_else(|| hash::of(&turn.to_be_bytes()));
                ring.order(key).find_map(|member| {
                    let index = usize::from(*group.members.get(usize::from(member))?);
                    let server = self.servers.get(index)?;
                    server.find_by_key(key, tried, |endpoint| {
                        self.admit(index, endpoint, search.now, &mut search.is_full)
                    })
                })
            }
            Method::LeastRequests { are_many } => {
                let two = are_many.then(|| {
                    let at_random = [(); 2].map(|()| group.random());
                    self.pick_least_busy(|| at_random.into_iter(), search)
                });
                let order = || group.members_from(turn);
                two.flatten()
                    .or_else(|| self.pick_least_busy(order, search))
            }
        }
    }

    /// The use of the address with the fewest requests in flight for its weight, among the servers of
    /// `order`.
    fn pick_least_busy<I: Iterator<Item = usize>>(
        &self,
        order: impl Fn() -> I,
        search: &mut Search<'_>,
    ) -> Option<Picked> {
        // Those that another request was faster at.
        let mut lost = Vec::new();
        loop {
            let (index, endpoint) = self.least_busy(order(), &lost, search)?;
            if let Some(picked) = self.admit(index, &endpoint, search.now, &mut search.is_full) {
                return Some(picked);
            }
            lost.push(endpoint);
        }
    }

    /// The address with the fewest requests in flight for its weight, the first of equals.
    fn least_busy(
        &self,
        order: impl Iterator<Item = usize>,
        lost: &[Arc<Endpoint>],
        search: &mut Search<'_>,
    ) -> Option<(usize, Arc<Endpoint>)> {
        let mut best: Option<(usize, Arc<Endpoint>, u64, u64)> = None;
        for (place, index) in order.enumerate() {
            let Some(server) = self.servers.get(index) else {
                continue;
            };
            // The priorities of one server say nothing of those of another.
            let mut own: Option<(Arc<Endpoint>, u64, u64, u16)> = None;
            let mut has_turn = place == 0;
            server.find_in_turn(search.tried, |endpoint| {
                let has_turn = mem::take(&mut has_turn);
                let rank = endpoint.rank();
                let weight = u64::from(server.weight) * u64::from(rank.weight);
                let is_lost = lost.iter().any(|lost| Arc::ptr_eq(lost, endpoint));
                if is_lost
                    || !endpoint.availability.is_in_use(search.now)
                    || search.holds_back(endpoint, has_turn)
                {
                    return None;
                }
                let requests = endpoint.in_flight();
                if server.max_connections != 0 && requests >= server.max_connections {
                    search.is_full = true;
                    return None;
                }
                let requests = requests as u64;
                let is_better = own
                    .as_ref()
                    .is_none_or(|(_, others, other_weight, priority)| {
                        rank.priority < *priority
                            || rank.priority == *priority
                                && requests.saturating_mul(*other_weight)
                                    < others.saturating_mul(weight)
                    });
                if is_better {
                    own = Some((Arc::clone(endpoint), requests, weight, rank.priority));
                }
                // All are to be seen.
                None::<()>
            });
            if let Some((endpoint, requests, weight, _)) = own
                && best.as_ref().is_none_or(|(_, _, others, other_weight)| {
                    requests.saturating_mul(*other_weight) < others.saturating_mul(weight)
                })
            {
                best = Some((index, endpoint, requests, weight));
            }
        }
        best.map(|(index, endpoint, ..)| (index, endpoint))
    }

    /// The least bad address that is not drained, since none is in use: one that is avoided, else the
    /// ejected one that has been out for longest, else, in turn, one whose health checks fail. They
    /// may be wrong about it.
    fn pick_least_bad(
        &self,
        turn: usize,
        tried: &[Arc<Endpoint>],
        mut is_full: bool,
    ) -> Result<Picked, NoServer> {
        if is_full {
            return Err(NoServer::Full);
        }
        let mut why = NoServer::Unresolved;
        let mut best: Option<(usize, Arc<Endpoint>, (bool, u64))> = None;
        let order = self.groups().flat_map(|group| group.members_from(turn));
        for index in order {
            let Some(server) = self.servers.get(index) else {
                continue;
            };
            server.find_in_turn(tried, |endpoint| {
                let availability = &endpoint.availability;
                if availability.is_drained() {
                    why = NoServer::Drained;
                    return None;
                }
                let most = server.max_connections;
                if most != 0 && endpoint.in_flight() >= most {
                    is_full = true;
                    return None;
                }
                let until = match availability.is_ejected() {
                    true => availability.out_until(),
                    false => 0,
                };
                let badness = (availability.is_down(), until);
                if best.as_ref().is_none_or(|(_, _, other)| badness < *other) {
                    best = Some((index, Arc::clone(endpoint), badness));
                }
                None::<()>
            });
        }
        let Some((index, endpoint, (_, until))) = best else {
            return Err(if is_full { NoServer::Full } else { why });
        };
        let trial = (until != 0).then_some(Trial::SHARED);
        self.enter(index, &endpoint, trial, &mut is_full)
            .ok_or(NoServer::Full)
    }

    /// The use of an address by a request, if the address is in use and has room for it. `is_full`
    /// is set if it has none.
    fn admit(
        &self,
        server: usize,
        endpoint: &Arc<Endpoint>,
        now: u64,
        is_full: &mut bool,
    ) -> Option<Picked> {
        let trial = match endpoint.availability.admit(now, TRIAL) {
            Admittance::Refused => return None,
            Admittance::Admitted => None,
            Admittance::Trial(trial) => Some(trial),
        };
        self.enter(server, endpoint, trial, is_full)
    }

    fn enter(
        &self,
        server: usize,
        endpoint: &Arc<Endpoint>,
        trial: Option<Trial>,
        is_full: &mut bool,
    ) -> Option<Picked> {
        let most = self.servers.get(server)?.max_connections;
        if !endpoint.try_enter(most) {
            if let Some(trial) = trial {
                endpoint.availability.release_trial(trial);
            }
            *is_full = true;
            return None;
        }
        let admission = Admission::new(endpoint, trial, self.queue.as_ref());
        let choice = Choice {
            server,
            endpoint: Arc::clone(endpoint),
        };
        Some(Picked { choice, admission })
    }

    fn groups(&self) -> impl Iterator<Item = &Group> {
        self.groups.iter()
    }
}
