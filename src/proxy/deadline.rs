//! A deadline for an upstream's agreement to an upgrade.
//!
//! Pingora has one timeout for all reads of a connection. An upgraded connection may be silent for
//! long, but until the upstream has agreed to the upgrade it must respond like any other, in each
//! part of its response. If it does not, the connection is ended here.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::sleep;

use super::link::Link;

/// A deadline that is lifted when it is dropped.
#[derive(Debug)]
pub(crate) struct Deadline {
    _lift: oneshot::Sender<()>,
    restart: Arc<Notify>,
    passed: Arc<AtomicBool>,
}

impl Deadline {
    /// Sets a deadline for the connection of a link.
    pub(crate) fn start(link: &Arc<Link>, patience: Duration) -> Self {
        let link = Arc::clone(link);
        let (lift, mut lifted) = oneshot::channel::<()>();
        let restart = Arc::new(Notify::new());
        let restarted = Arc::clone(&restart);
        let passed = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&passed);
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = &mut lifted => return,
                    () = restarted.notified() => {}
                    () = sleep(patience) => break,
                }
            }
            flag.store(true, Ordering::Release);
            link.close();
        });
        Self {
            _lift: lift,
            restart,
            passed,
        }
    }

    /// Restarts the whole time.
    pub(crate) fn restart(&self) {
        self.restart.notify_one();
    }

    /// Whether the connection was ended because of it.
    pub(crate) fn has_passed(&self) -> bool {
        self.passed.load(Ordering::Acquire)
    }
}
