//! What a pool takes over of the one whose place it takes.

use std::sync::Arc;

use super::{Pool, warm_up};
use crate::proxy::availability::Kept;

/// `pool` in the place of `previous`.
pub(super) fn succeed(pool: Pool, previous: &Pool) -> Pool {
    let pool = Pool {
        // So that times mean the same in both.
        started: previous.started,
        ..pool
    };
    let (new, old) = (&pool.upstream, &previous.upstream);
    let kept = Kept {
        down: new.health.is_some() || old.health.is_none(),
        ejected: new.eject.is_some() || old.eject.is_none(),
    };
    for server in &pool.servers {
        let mut same = previous.servers.iter();
        if let Some(same) = same.find(|one| one.address == server.address) {
            server.inherit(same, kept);
        }
    }
    let drain_list = Arc::clone(&previous.drain_list);
    drain_list.carry_over(previous.named_servers(), pool.named_servers());
    warm_up::begin_added(&pool, previous);
    // Requests that end there make room here.
    let queue = pool.queue.map(|own| previous.queue.clone().unwrap_or(own));
    Pool {
        drain_list,
        queue,
        ..pool
    }
}
