//! The task that reloads: on changes of files, on SIGHUP, when asked, and now and then to be sure.

use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::blocking;
use super::live::{Live, Refused, Reloaded};
use super::stop::received;
use super::watch::Watch;
use crate::shutdown::{ShutdownWatch, requested};

/// How often files are looked at where the system gives no watch.
const WITHOUT_WATCH: Duration = Duration::from_secs(5);

/// The pause between two slices of a look at all files, in which whoever waits has his turn.
const BREATH: Duration = Duration::from_millis(1);

/// How often in a row what is used may lead to more that is to be watched.
const FOLLOWED: usize = 4;

/// Asks the task for a reload.
#[derive(Clone)]
pub struct Reloader(mpsc::Sender<oneshot::Sender<Result<Reloaded, Refused>>>);

impl Reloader {
    /// Reloads and says how it went; `None` where the gateway is stopping.
    pub async fn reload(&self) -> Option<Result<Reloaded, Refused>> {
        let (reply, answer) = oneshot::channel();
        self.0.send(reply).await.ok()?;
        answer.await.ok()
    }
}

/// The task, before it runs.
pub struct Task {
    live: Arc<Live>,
    asked: mpsc::Receiver<oneshot::Sender<Result<Reloaded, Refused>>>,
}

/// Makes the task and the handle that asks it.
pub fn task(live: Arc<Live>) -> (Task, Reloader) {
    let (ask, asked) = mpsc::channel(8);
    (Task { live, asked }, Reloader(ask))
}

impl Task {
    /// Runs until `shutdown` says stop.
    pub async fn run(mut self, mut shutdown: ShutdownWatch) {
        let mut watch = Watch::new()
            .inspect_err(|error| {
                tracing::warn!(
                    %error,
                    "files cannot be watched, looking every {} s instead",
                    WITHOUT_WATCH.as_secs()
                );
            })
            .ok();
        let mut hangup = signal(SignalKind::hangup())
            .inspect_err(|error| tracing::error!(%error, "cannot listen for SIGHUP"))
            .ok();
        let mut looked = Instant::now();
        let mut is_sweeping = self.is_sweeping().await;
        let mut is_fetching = true;
        loop {
            for _ in 0..FOLLOWED {
                // Where it loads, all is looked at anyway, and again once that is done.
                if is_sweeping || !follow(watch.as_mut(), &self.live) {
                    break;
                }
                // What changed there before it was watched has told nobody.
                self.look(Vec::new()).await;
                while self.sweep().await {}
            }
            let every = match watch {
                Some(_) => self.live.current().config.renewal.check_every,
                None => WITHOUT_WATCH,
            };
            tokio::select! {
                () = received(&mut hangup) => {
                    // The outcome has been logged.
                    drop(self.reload().await);
                }
                Some(first) = self.asked.recv() => {
                    // One reload answers all who asked before it began.
                    let mut replies = vec![first];
                    while let Ok(more) = self.asked.try_recv() {
                        replies.push(more);
                    }
                    let outcome = self.reload().await;
                    for reply in replies {
                        // Who asked may have gone.
                        let _ = reply.send(outcome.clone());
                    }
                }
                paths = changed(watch.as_mut()) => {
                    self.look(paths).await;
                    is_sweeping = self.is_sweeping().await;
                }
                () = tokio::time::sleep_until(looked + every), if !is_sweeping => {
                    looked = Instant::now();
                    self.look(Vec::new()).await;
                    is_sweeping = self.is_sweeping().await;
                }
                () = tokio::time::sleep(BREATH), if is_sweeping => {
                    is_sweeping = self.sweep().await;
                }
                () = tokio::time::sleep(BREATH), if is_fetching && !is_sweeping => {
                    is_fetching = self.fetch().await;
                }
                () = requested(&mut shutdown) => return,
            }
        }
    }

    async fn reload(&self) -> Result<Reloaded, Refused> {
        let live = Arc::clone(&self.live);
        let outcome = blocking(move || live.reload()).await;
        outcome.unwrap_or_else(|| {
            let why = "the reload broke off, which is a defect; see the log";
            Err(Refused::Unable(why.to_owned()))
        })
    }

    /// Looks at some of all files. Whether there are more.
    async fn sweep(&self) -> bool {
        let live = Arc::clone(&self.live);
        let sweep = move || {
            live.sweep();
            live.is_sweeping()
        };
        blocking(sweep).await.unwrap_or_default()
    }

    /// Reads some of what is to be in memory and is not yet. Whether there is more.
    async fn fetch(&self) -> bool {
        let live = Arc::clone(&self.live);
        blocking(move || live.fetch()).await.unwrap_or_default()
    }

    async fn is_sweeping(&self) -> bool {
        let live = Arc::clone(&self.live);
        blocking(move || live.is_sweeping())
            .await
            .unwrap_or_default()
    }

    async fn look(&self, paths: Vec<std::path::PathBuf>) {
        let live = Arc::clone(&self.live);
        blocking(move || live.look(&paths)).await;
    }
}

async fn changed(watch: Option<&mut Watch>) -> Vec<std::path::PathBuf> {
    match watch {
        Some(watch) => watch.changed().await,
        None => std::future::pending().await,
    }
}

/// Watches what is used now, and says whether that is more than before.
fn follow(watch: Option<&mut Watch>, live: &Live) -> bool {
    let Some(watch) = watch else { return false };
    let paths = live.watched();
    let followed = watch.follow(paths.iter().map(|path| &**path));
    for error in followed.errors {
        tracing::warn!(%error, "cannot watch a directory, its changes are seen later");
    }
    followed.is_more
}
