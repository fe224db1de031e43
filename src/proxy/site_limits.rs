//! The limits of sites and their routes, which outlive reloads that do not change them.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::rate_limit::{RateLimiter, RateTable};
use crate::config::model::{self, Conditions, PathMatch, RateLimit, RouteRate};
use crate::throttle::Throttle;

/// The limits of all sites that have any, by the first host of each.
#[derive(Default)]
pub(crate) struct AllLimits {
    sites: HashMap<Arc<str>, Arc<SiteLimits>>,
    table: Arc<RateTable>,
}

/// The limits of a site.
pub(crate) struct SiteLimits {
    /// For requests that no route is for.
    rate: Option<Arc<RateLimiter>>,
    /// For each route.
    routes: Box<[RouteLimit]>,
    max_requests: usize,
    requests: Arc<Requests>,
}

struct RouteLimit {
    path: PathMatch,
    conditions: Option<Arc<Conditions>>,
    is_own: bool,
    rate: Option<Arc<RateLimiter>>,
}

/// The requests of a site that are in progress.
#[derive(Default)]
struct Requests {
    count: AtomicUsize,
    refusals: Throttle,
}

/// A request of a site that is in progress, until this is dropped.
pub(crate) struct SitePermit(Arc<Requests>);

impl Drop for SitePermit {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, Ordering::Relaxed);
    }
}

impl AllLimits {
    /// No limits yet, with what has been counted so far.
    pub(super) fn after(previous: Option<&Self>) -> Self {
        Self {
            sites: HashMap::new(),
            table: previous.map_or_else(Arc::default, |previous| Arc::clone(&previous.table)),
        }
    }

    /// Adds the limits of a site, and returns them if it has any. A limit that is the same in
    /// `previous` keeps what has been counted.
    pub(super) fn add(
        &mut self,
        name: &Arc<str>,
        site: &model::Site,
        previous: Option<&Self>,
    ) -> Option<Arc<SiteLimits>> {
        let has_own = |route: &model::Route| matches!(route.rate, RouteRate::Own(_));
        let model::SiteLimits { rate, max_requests } = &site.limits;
        if rate.is_none() && *max_requests == 0 && !site.routes.iter().any(has_own) {
            return None;
        }
        // Several sites may have one host, each at other addresses.
        let key = match site.listen.first() {
            None => Arc::clone(name),
            Some(address) => format!("{name} {address}").into(),
        };
        let known = previous.and_then(|previous| previous.sites.get(&key));
        let limiter = |limit: &Arc<RateLimit>, known: Option<&Arc<RateLimiter>>| match known {
            Some(known) if known.has_limit(limit) => Arc::clone(known),
            Some(_) | None => Arc::new(RateLimiter::new(limit, &self.table)),
        };
        let rate = rate
            .as_ref()
            .map(|limit| limiter(limit, known.and_then(|known| known.rate.as_ref())));
        let routes = site.routes.iter().map(|route| RouteLimit {
            path: route.path.clone(),
            conditions: route.conditions.clone(),
            is_own: has_own(route),
            rate: match &route.rate {
                RouteRate::Off => None,
                RouteRate::OfSite => rate.clone(),
                RouteRate::Own(limit) => {
                    let known = known.and_then(|known| known.own_rate(route));
                    Some(limiter(limit, known))
                }
            },
        });
        let limits = Arc::new(SiteLimits {
            routes: routes.collect(),
            rate,
            max_requests: *max_requests,
            requests: known.map_or_else(Arc::default, |known| Arc::clone(&known.requests)),
        });
        self.sites.insert(key, Arc::clone(&limits));
        Some(limits)
    }
}

impl SiteLimits {
    fn own_rate(&self, route: &model::Route) -> Option<&Arc<RateLimiter>> {
        let mut own = self.routes.iter().filter(|limit| limit.is_own);
        let is_same =
            |limit: &&RouteLimit| limit.path == route.path && limit.conditions == route.conditions;
        own.find(is_same)?.rate.as_ref()
    }

    /// The limit of the route at an index, or of requests that no route is for.
    pub(super) fn rate(&self, index: Option<usize>) -> Option<&RateLimiter> {
        match index.and_then(|index| self.routes.get(index)) {
            Some(route) => route.rate.as_deref(),
            None => self.rate.as_deref(),
        }
    }

    /// Whether requests in progress are limited.
    pub(super) fn has_most(&self) -> bool {
        self.max_requests > 0
    }

    /// Counts a request in progress; `None` if there are as many as may be.
    pub(super) fn begin_request(&self, site: &str) -> Option<SitePermit> {
        let requests = &self.requests;
        let begun = requests
            .count
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| {
                (count < self.max_requests).then(|| count.saturating_add(1))
            });
        if begun.is_err() {
            if let Some(suppressed) = requests.refusals.admit() {
                tracing::warn!(
                    site,
                    max_requests = self.max_requests,
                    suppressed,
                    "requests are refused with 503: as many are in progress as max_requests allows",
                );
            }
            return None;
        }
        Some(SitePermit(Arc::clone(requests)))
    }
}
