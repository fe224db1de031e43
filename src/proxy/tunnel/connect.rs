//! Opens the connection to a server, another one if the first cannot be reached.

use std::sync::Arc;

use pingora_core::{ErrorType, Result};

use super::Opening;
use crate::config::model::RetryCause;
use crate::proxy::admission::Admission;
use crate::proxy::availability::Trial;
use crate::proxy::connection_limit::UpstreamPermit;
use crate::proxy::dial::{Dialer, Duplex};
use crate::proxy::failure::is_out_of_resources;
use crate::proxy::no_server::NoServer;
use crate::proxy::race;
use crate::proxy::retry::Retrying;
use crate::proxy::route::Tunnel;
use crate::proxy::upstream::{Choice, Picked, Pool, tunnel as upstream};

/// A connection to a server.
pub(super) struct Connected {
    pub(super) socket: Box<dyn Duplex>,
    /// The use of the server, which lasts as long as the connection.
    pub(super) admission: Admission,
    pub(super) judge: Judge,
}

/// What is known of how a server treats its connection.
pub(super) struct Judge {
    pool: Arc<Pool>,
    choice: Choice,
    trial: Option<Trial>,
    is_done: bool,
}

impl Judge {
    /// Records how the server has treated the connection. The first time counts.
    pub(super) fn record(&mut self, has_failed: bool) {
        if !std::mem::replace(&mut self.is_done, true) {
            let trial = self.trial.take();
            self.pool.record_result(&self.choice, trial, has_failed);
            if has_failed {
                self.pool.metrics.failed.inc();
            }
        }
    }

    /// The address of the server.
    pub(super) fn server(&self) -> &str {
        &self.choice.endpoint.text
    }
}

impl Drop for Judge {
    fn drop(&mut self) {
        if let Some(trial) = self.trial.take() {
            self.choice.endpoint.availability.release_trial(trial);
        }
    }
}

/// Opens a connection to a server. `permit` is what it holds of the connections to all upstreams.
///
/// # Errors
/// If no server can be reached.
pub(super) async fn open_connection(
    dialer: &Dialer,
    tunnel: &Tunnel,
    opening: Opening<'_>,
    permit: &UpstreamPermit,
) -> Result<Connected> {
    let (proxy, pool) = (&tunnel.proxy, &tunnel.proxy.pool);
    let key = upstream::balance_key(pool, opening.address());
    let header = upstream::proxy_header(pool, opening.addresses());
    let header = header.as_deref();
    let patience = proxy.connect_timeout;
    let first = match pool.next_server(key) {
        Err(NoServer::Full) => {
            let waiting = pool.wait_for_server(key, None, Some(permit), patience);
            waiting.await
        }
        first => first,
    };
    let mut picked = first.map_err(|why| why.record(&pool.metrics))?;
    let mut retrying = Retrying::default();
    loop {
        let Picked {
            choice,
            mut admission,
        } = picked;
        let dial = |choice: Choice, patience| async move {
            upstream::dial(pool, &choice, header, dialer, patience, opening.protocol).await
        };
        let mut error = match race::open_first(pool, &choice, patience, dial).await {
            Ok((socket, winner)) => {
                let (choice, mut admission) = match winner {
                    Some(winner) => (winner.choice, winner.admission),
                    None => (choice, admission),
                };
                pool.metrics.connected.inc();
                pool.record_connected(&choice);
                _ = socket.set_nodelay();
                let judge = Judge {
                    pool: Arc::clone(pool),
                    choice,
                    trial: admission.take_trial(),
                    is_done: false,
                };
                return Ok(Connected {
                    socket,
                    admission,
                    judge,
                });
            }
            Err(error) => error,
        };
        error.as_up();
        if is_out_of_resources(&error) {
            // The server is not to blame.
            error.etype = ErrorType::HTTPStatus(503);
            return Err(error);
        }
        pool.metrics.connect_failed.inc();
        pool.record_result(&choice, admission.take_trial(), true);
        drop(admission);
        let next = retrying.pick_next(proxy, &choice, key, RetryCause::Connect);
        match next {
            Some(next) => picked = next,
            None => return Err(error),
        }
    }
}
