//! Holds the start back until the required certificates are there.

use std::sync::{Arc, OnceLock};

use tokio::sync::watch;

use super::stop::Stopper;
use super::systemd;
use crate::engine::StartObserver;
use crate::renewal::StartupStatus;

/// Holds a start back until its certificates are there, or ends it. A handle; clones share the
/// state.
#[derive(Clone)]
pub struct StartGate {
    open: Arc<watch::Sender<bool>>,
    failed: Arc<OnceLock<String>>,
    stopper: Stopper,
}

impl StartGate {
    /// A gate that is open from the start unless certificates are `required`.
    pub fn new(required: bool, stopper: Stopper) -> Self {
        Self {
            open: Arc::new(watch::Sender::new(!required)),
            failed: Arc::default(),
            stopper,
        }
    }

    /// Waits until the start is over.
    pub async fn wait_until_open(&self) {
        if self.open.subscribe().wait_for(|open| *open).await.is_err() {
            std::future::pending().await
        }
    }

    /// How the start went, once the gateway has stopped.
    ///
    /// # Errors
    /// Why it was ended.
    pub fn outcome(&self) -> Result<(), String> {
        self.failed.get().cloned().map_or(Ok(()), Err)
    }
}

impl StartObserver for StartGate {
    fn is_waiting(&self) -> bool {
        !*self.open.borrow() && self.failed.get().is_none()
    }

    fn update(&self, status: StartupStatus, missing: usize) {
        match status {
            StartupStatus::Complete => _ = self.open.send_replace(true),
            StartupStatus::Failed(why) => {
                // The first reason counts.
                let _ = self.failed.set(why);
                self.stopper.stop();
            }
            // Sent from the loop that waits, so that systemd hears nothing of a start that hangs.
            StartupStatus::Pending => systemd::starting(missing),
        }
    }
}
