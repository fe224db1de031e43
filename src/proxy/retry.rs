//! Which server a request is sent to after another one has failed it, if to any.

use std::sync::Arc;

use http::StatusCode;

use super::endpoint::Endpoint;
use super::route::Proxy;
use super::upstream::{Choice, Picked, Pool};
use crate::config::model::{RetryCause, RetryCauses};

/// What a request has tried.
#[derive(Default)]
pub(super) struct Retrying {
    /// Addresses that have failed.
    tried: Vec<Arc<Endpoint>>,
    /// How many of the route's retries are used up.
    used: u32,
}

/// What makes a request try another server instead of getting a response.
pub(crate) struct StatusRetry {
    pool: Arc<Pool>,
    on: RetryCauses,
    budget: u32,
    key: Option<u64>,
    /// Addresses that have failed, the current one included.
    tried: Vec<Arc<Endpoint>>,
}

impl Retrying {
    /// Records that the chosen address has failed, and picks the one to try next.
    ///
    /// If it could not be reached, the next one of its server belongs to the same attempt. Anything
    /// else is a retry: the route has to allow it after this cause and this often, and once the
    /// request may have been sent, the budget of the pool too.
    pub(super) fn pick_next(
        &mut self,
        proxy: &Proxy,
        choice: &Choice,
        key: Option<u64>,
        cause: RetryCause,
    ) -> Option<Picked> {
        let (pool, rules) = (&proxy.pool, &proxy.retries);
        self.record_failed(choice);
        if matches!(cause, RetryCause::Connect | RetryCause::Reset) {
            pool.avoid_server(choice);
        }
        if cause == RetryCause::Connect
            && let Some(next) = pool.same_server(choice, &self.tried)
        {
            return Some(next);
        }
        if !rules.on.contains(cause) || self.used >= rules.attempts {
            return None;
        }
        let next = pool.other_server(key, &self.tried)?;
        if cause == RetryCause::Connect {
            pool.retry_budget.record_free_retry();
        } else if !pool.try_retry(rules.budget) {
            return None;
        }
        self.count_retry();
        Some(next)
    }

    /// What makes the request try another server instead of getting the response of the chosen one,
    /// if any status does.
    pub(super) fn by_status(
        &self,
        proxy: &Proxy,
        choice: &Choice,
        key: Option<u64>,
    ) -> Option<StatusRetry> {
        let rules = &proxy.retries;
        let may_retry = rules.on.has_statuses() && self.used < rules.attempts;
        may_retry.then(|| StatusRetry {
            pool: Arc::clone(&proxy.pool),
            on: rules.on,
            budget: rules.budget,
            key,
            tried: [&*self.tried, &[Arc::clone(&choice.endpoint)]].concat(),
        })
    }

    /// Records that an address has failed.
    pub(super) fn record_failed(&mut self, choice: &Choice) {
        self.tried.push(Arc::clone(&choice.endpoint));
    }

    /// Counts a retry that a [`StatusRetry`] has picked a server for.
    pub(super) fn count_retry(&mut self) {
        self.used += 1;
    }
}

impl StatusRetry {
    /// The server to try instead of passing on a response with this status.
    pub(crate) fn pick(&self, status: StatusCode) -> Option<Picked> {
        if !self.on.contains(RetryCause::Status(status)) {
            return None;
        }
        let next = self.pool.other_server(self.key, &self.tried)?;
        self.pool.try_retry(self.budget).then_some(next)
    }
}
