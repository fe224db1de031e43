//! Finds out whether the server of a connection is still there.
//!
//! A request that ends before its response does may have been given up by its client because the
//! connection is dead. If the connection stays silent for a moment, its server is sent a PING.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use h2::{Ping, PingPong};
use tokio::time::{sleep, timeout};

use crate::lock::MutexExt as _;

/// How long a connection stays silent before its server is sent a PING.
const SILENCE: Duration = Duration::from_secs(1);

/// How long a server may take to acknowledge it.
const ANSWER: Duration = Duration::from_secs(3);

/// The most PINGs between two signs of a server. Servers of gRPC close connections that send more.
const MOST_PINGS: usize = 2;

/// What is known of the server of a connection.
#[derive(Debug)]
pub(super) struct Liveness {
    /// `None` while the server is examined.
    pings: Mutex<Option<PingPong>>,
    /// How often it has been examined since it last sent something of a response.
    doubts: AtomicUsize,
}

/// A doubt about a server, which is to be examined.
pub(super) struct Doubt(PingPong);

impl Liveness {
    pub(super) fn new(pings: Option<PingPong>) -> Self {
        Self {
            pings: Mutex::new(pings),
            doubts: AtomicUsize::new(0),
        }
    }

    /// Records that the server has sent something of a response.
    pub(super) fn note_sign(&self) {
        if self.doubts.load(Ordering::Relaxed) != 0 {
            self.doubts.store(0, Ordering::Relaxed);
        }
    }

    /// Records that a request has ended before its response. `None` if the server is being examined
    /// already.
    pub(super) fn doubt(&self) -> Option<Doubt> {
        let pings = self.pings.lock_unpoisoned().take()?;
        self.doubts.fetch_add(1, Ordering::Relaxed);
        Some(Doubt(pings))
    }

    /// Whether the server is there: it sends something of a response, or acknowledges a PING.
    pub(super) async fn examine(&self, Doubt(mut pings): Doubt) -> bool {
        sleep(SILENCE).await;
        let is_there = match self.doubts.load(Ordering::Relaxed) {
            0 => true,
            1..=MOST_PINGS => {
                let acknowledged = timeout(ANSWER, pings.ping(Ping::opaque())).await;
                acknowledged.is_ok_and(|acknowledged| acknowledged.is_ok())
            }
            // No more than that can be asked: another connection is safer.
            _ => false,
        };
        if is_there {
            *self.pings.lock_unpoisoned() = Some(pings);
        }
        is_there
    }
}
