//! Whether the gateway refuses requests because it has as many as it can carry, which balancers in
//! front of it are to know.

use std::sync::Arc;
use std::time::Duration;

use super::connection_limit::ConnectionLimit;
use crate::readiness::Readiness;
use crate::shutdown::{ShutdownWatch, requested};

/// The part of the readiness.
const PART: &str = "overload";

/// How long a request that was refused counts.
const RECENT: Duration = Duration::from_secs(5);

/// How often that is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// What refuses requests.
#[derive(Clone)]
pub struct Overload {
    pub(super) upstreams: Arc<ConnectionLimit>,
    pub(super) files: Arc<ConnectionLimit>,
}

impl Overload {
    fn reasons(&self) -> impl Iterator<Item = &'static str> {
        let limits = [
            (
                &self.upstreams,
                "requests are refused: as many are at upstreams as server.limits.upstream_connections \
                 or the limit on open files allows",
            ),
            (
                &self.files,
                "requests for files are refused: as many are being sent as the limit on open files \
                 allows",
            ),
        ];
        let full = limits.map(|(limit, reason)| limit.was_full_within(RECENT).then_some(reason));
        full.into_iter().flatten()
    }
}

/// Says in `readiness` whether requests are being refused, until a stop is requested.
pub async fn overload_loop(overload: Overload, readiness: Readiness, mut stopping: ShutdownWatch) {
    let mut was_overloaded = false;
    loop {
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = requested(&mut stopping) => return,
        }
        let is_overloaded = overload.reasons().next().is_some();
        if is_overloaded || was_overloaded {
            readiness.set(PART, overload.reasons());
        }
        match (was_overloaded, is_overloaded) {
            (false, true) => tracing::warn!("not ready: requests are refused for overload"),
            (true, false) => tracing::info!("ready again: no more requests are refused"),
            (false, false) | (true, true) => {}
        }
        was_overloaded = is_overloaded;
    }
}
