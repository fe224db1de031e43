//! Which addresses are left out because requests to them fail.

use std::sync::Arc;

use super::Pool;
use crate::config::model::Eject;
use crate::lock::MutexExt as _;
use crate::proxy::availability::Trial;
use crate::proxy::endpoint::Endpoint;

/// Records how an address has treated a request, which was its trial if `trial` is given.
pub(super) fn record_result(
    pool: &Pool,
    rule: &Eject,
    endpoint: &Arc<Endpoint>,
    trial: Option<Trial>,
    has_failed: bool,
) {
    let (upstream, server) = (&**pool.name(), &*endpoint.text);
    let availability = &endpoint.availability;
    let now = pool.now();
    match (trial, has_failed) {
        (Some(_), false) if availability.is_ejected() => {
            let guard = pool.ejecting.lock_unpoisoned();
            availability.restore();
            drop(guard);
            pool.begin_warm_up(endpoint);
            tracing::info!(upstream, server, "an ejected upstream server works again");
        }
        (Some(trial), true) => {
            let guard = pool.ejecting.lock_unpoisoned();
            let time = availability.eject_again(trial, now, rule);
            drop(guard);
            if let Some(time) = time {
                tracing::warn!(
                    upstream,
                    server,
                    ?time,
                    "an upstream server has failed again and stays ejected",
                );
            }
        }
        (_, false) => {}
        (None, true) => {
            if availability.count_failure(now, rule) {
                eject(pool, rule, endpoint, now);
            }
        }
    }
}

/// Ejects an address, unless that would leave fewer than half of the pool's that are not drained.
fn eject(pool: &Pool, rule: &Eject, endpoint: &Arc<Endpoint>, now: u64) {
    let _guard = pool.ejecting.lock_unpoisoned();
    let (mut all, mut ejected) = (0_usize, 0_usize);
    for server in &pool.servers {
        for endpoint in server.endpoints().iter() {
            if !endpoint.availability.is_drained() {
                all += 1;
                ejected += usize::from(endpoint.availability.is_ejected());
            }
        }
    }
    let availability = &endpoint.availability;
    if availability.is_ejected() || (ejected + 1) * 2 > all {
        return;
    }
    let time = availability.eject(now, rule);
    pool.metrics.ejected.inc();
    tracing::warn!(
        upstream = &**pool.name(),
        server = &*endpoint.text,
        failures = rule.failures,
        ?time,
        "an upstream server is ejected because requests to it fail",
    );
}
