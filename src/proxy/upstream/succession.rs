//! What a pool takes over of the one whose place it takes.

use std::sync::Arc;

use super::{Pool, warm_up};
use crate::proxy::availability::Kept;
use crate::proxy::server::Server;

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
    for (index, server) in pool.servers.iter().enumerate() {
        let is_same = |one: &&Server| one.address == server.address;
        // It may be listed several times.
        let before = pool.servers.iter().take(index).filter(is_same).count();
        if let Some(same) = previous.servers.iter().filter(is_same).nth(before) {
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
