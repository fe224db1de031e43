//! The task that reloads on SIGHUP and on request, and opens the files of logs again on SIGUSR1. Changes of files are noticed by the engine, which
//! watches the configuration's together with those of certificates.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::report::{ReloadError, ReloadReport};
use super::state::GatewayState;
use crate::engine::blocking;
use crate::service::signals::Signals;
use crate::shutdown::{ShutdownWatch, requested};

/// Asks the task for a reload.
#[derive(Clone)]
pub struct Reloader(mpsc::Sender<oneshot::Sender<Result<ReloadReport, ReloadError>>>);

impl Reloader {
    /// Reloads, and returns how it went; `None` if the gateway is stopping.
    pub async fn reload(&self) -> Option<Result<ReloadReport, ReloadError>> {
        let (reply, answer) = oneshot::channel();
        self.0.send(reply).await.ok()?;
        answer.await.ok()
    }
}

/// The task, before it runs.
pub struct Task {
    state: Arc<GatewayState>,
    signals: Signals,
    requests: mpsc::Receiver<oneshot::Sender<Result<ReloadReport, ReloadError>>>,
}

/// Makes the task and the handle that asks it.
pub fn task(state: Arc<GatewayState>, signals: Signals) -> (Task, Reloader) {
    let (sender, requests) = mpsc::channel(8);
    let task = Task {
        state,
        signals,
        requests,
    };
    (task, Reloader(sender))
}

impl Task {
    /// Runs until `shutdown` turns true.
    pub async fn run(mut self, mut shutdown: ShutdownWatch) {
        loop {
            tokio::select! {
                () = self.signals.hangup() => {
                    // The outcome has been logged.
                    drop(self.reload().await);
                }
                () = self.signals.reopen_logs() => self.state.reopen_logs(),
                Some(first) = self.requests.recv() => {
                    // One reload answers all requests that came before it began.
                    let mut replies = vec![first];
                    while let Ok(more) = self.requests.try_recv() {
                        replies.push(more);
                    }
                    let outcome = self.reload().await;
                    for reply in replies {
                        // Whoever asked may have gone.
                        let _ = reply.send(outcome.clone());
                    }
                }
                () = requested(&mut shutdown) => return,
            }
        }
    }

    async fn reload(&self) -> Result<ReloadReport, ReloadError> {
        let state = Arc::clone(&self.state);
        let outcome = blocking(move || state.reload()).await;
        outcome.unwrap_or_else(|| {
            let why = "the reload was interrupted by a bug; see the log";
            Err(ReloadError::Unable(why.to_owned()))
        })
    }
}
