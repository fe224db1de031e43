//! Stopping: gracefully on SIGTERM and SIGQUIT, at once on SIGINT.

use async_trait::async_trait;
use futures::future::BoxFuture;
use pingora_core::server::{ShutdownSignal, ShutdownSignalWatch};
use tokio::sync::{Mutex, mpsc, watch};

use super::signals::Signals;
use super::systemd;
use crate::readiness::Readiness;

/// The part of [`Readiness`] that is set while the gateway stops.
const PART: &str = "stop";

/// Lets a part of the gateway request a graceful stop.
#[derive(Clone, Debug)]
pub struct Stopper(mpsc::Sender<()>);

impl Stopper {
    /// Requests a graceful stop. A second request changes nothing.
    pub fn stop(&self) {
        // Full means that it is requested already, closed that it is under way.
        let _ = self.0.try_send(());
    }
}

/// Waits until open requests are done, but not beyond the grace period. Returns whether all are.
pub type Drain = Box<dyn Fn() -> BoxFuture<'static, bool> + Send + Sync>;

/// Carries out a stop: waits for a reason, makes the gateway unready, signals every part, and lets
/// Pingora's server end once the connections have drained.
///
/// Pingora's own graceful stop sleeps through the whole grace period even if nothing is open.
pub struct Stop {
    asked: Mutex<mpsc::Receiver<()>>,
    signals: Signals,
    stopping: watch::Sender<bool>,
    readiness: Readiness,
    drain: Drain,
}

impl Stop {
    /// A stop that has not been requested yet. Once it is, `stopping` turns true, and `drain` is
    /// called.
    pub fn new(
        signals: Signals,
        readiness: Readiness,
        stopping: watch::Sender<bool>,
        drain: Drain,
    ) -> (Self, Stopper) {
        let (ask, asked) = mpsc::channel(1);
        let stop = Self {
            asked: Mutex::new(asked),
            signals,
            stopping,
            readiness,
            drain,
        };
        (stop, Stopper(ask))
    }

    async fn stop_in_order(&self) {
        self.readiness.set(PART, ["the gateway is stopping"]);
        systemd::stopping();
        tracing::info!("stopping: no new connections, waiting for open requests");
        // Without a receiver nothing is left to stop.
        let _ = self.stopping.send(true);
        tokio::select! {
            all = (self.drain)() => {
                if all {
                    tracing::info!("stopped");
                } else {
                    tracing::warn!("stopped with requests open at the end of the grace period");
                }
            }
            () = self.signals.interrupt() => tracing::warn!("stopped at once, with requests open"),
        }
    }
}

#[async_trait]
impl ShutdownSignalWatch for Stop {
    async fn recv(&self) -> ShutdownSignal {
        let mut asked = self.asked.lock().await;
        tokio::select! {
            () = self.signals.terminate() => self.stop_in_order().await,
            Some(()) = asked.recv() => self.stop_in_order().await,
            () = self.signals.interrupt() => {
                self.readiness.set(PART, ["the gateway is stopping"]);
                systemd::stopping();
                tracing::info!("stopped at once");
            }
        }
        ShutdownSignal::FastShutdown
    }
}
