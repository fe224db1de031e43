//! The task that reloads: on changes of files, on SIGHUP, when asked, and now and then to be sure.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::blocking;
use super::load::BREATH;
use super::signals::Signals;
use super::state::{GatewayState, ReloadError, ReloadReport};
use super::watch::Watch;
use crate::shutdown::{ShutdownWatch, requested};

/// How often files are looked at where the system gives no watch.
const WITHOUT_WATCH: Duration = Duration::from_secs(5);

/// How often in a row what is used may lead to more that is to be watched.
const FOLLOWED: usize = 4;

/// Asks the task for a reload.
#[derive(Clone)]
pub struct Reloader(mpsc::Sender<oneshot::Sender<Result<ReloadReport, ReloadError>>>);

impl Reloader {
    /// Reloads and says how it went; `None` where the gateway is stopping.
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
    asked: mpsc::Receiver<oneshot::Sender<Result<ReloadReport, ReloadError>>>,
}

/// Makes the task and the handle that asks it.
pub fn task(state: Arc<GatewayState>, signals: Signals) -> (Task, Reloader) {
    let (ask, asked) = mpsc::channel(8);
    let task = Task {
        state,
        signals,
        asked,
    };
    (task, Reloader(ask))
}

impl Task {
    /// Runs until `shutdown` says stop.
    pub async fn run(mut self, mut shutdown: ShutdownWatch) {
        let mut following = Following::start();
        let mut looked = Instant::now();
        // When the next slice of a scan of all files is due.
        let mut next = self.next_slice().await;
        let mut is_fetching = true;
        loop {
            if following.watch_new_paths(&self.state) {
                // What changed there before it was watched has told nobody.
                self.check_paths(Vec::new()).await;
                next = self.next_slice().await;
                if next.is_none() {
                    following.forget_followed();
                }
                continue;
            }
            let check_every = self.state.current().config.renewal.check_every;
            let every = if following.is_whole {
                check_every
            } else {
                check_every.min(WITHOUT_WATCH)
            };
            let slice = next.unwrap_or_else(Instant::now);
            tokio::select! {
                () = tokio::time::sleep_until(slice), if next.is_some() => {
                    next = self.scan_slice().await;
                    if next.is_none() {
                        following.forget_followed();
                    }
                    continue;
                }
                () = self.signals.hangup() => {
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
                paths = following.wait_for_change() => self.check_paths(paths).await,
                () = tokio::time::sleep_until(looked + every), if next.is_none() => {
                    looked = Instant::now();
                    if !following.is_whole {
                        // The system may give by now what it refused.
                        following.forget_followed();
                    }
                    self.check_paths(Vec::new()).await;
                }
                () = tokio::time::sleep(BREATH), if is_fetching && next.is_none() => {
                    is_fetching = self.fetch_certificates().await;
                    continue;
                }
                () = requested(&mut shutdown) => return,
            }
            following.left = FOLLOWED;
            // What is under way goes on when it was to.
            let began = self.next_slice().await;
            next = began.map(|now| next.unwrap_or(now));
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

    /// Scans some of all files. Returns when to continue; `None` where the scan is done.
    async fn scan_slice(&self) -> Option<Instant> {
        let state = Arc::clone(&self.state);
        let sweep = move || {
            state.scan_slice();
            state.scan_pause()
        };
        let rest = blocking(sweep).await.flatten();
        rest.map(|rest| Instant::now() + rest)
    }

    /// Reads some of what is to be in memory and is not yet. Whether there is more.
    async fn fetch_certificates(&self) -> bool {
        let state = Arc::clone(&self.state);
        blocking(move || state.fetch_certificates())
            .await
            .unwrap_or_default()
    }

    /// When to run the first slice of a scan, where one has begun.
    async fn next_slice(&self) -> Option<Instant> {
        let state = Arc::clone(&self.state);
        let rest = blocking(move || state.scan_pause()).await.flatten();
        rest.map(|_| Instant::now())
    }

    async fn check_paths(&self, paths: Vec<PathBuf>) {
        let state = Arc::clone(&self.state);
        blocking(move || state.check_paths(&paths)).await;
    }
}

/// The watch over what is used.
struct Following {
    /// `None` where the system gives none.
    watch: Option<Watch>,
    /// The paths that are watched, where they lead to the same places still.
    followed: Option<Arc<Vec<PathBuf>>>,
    /// Whether all of them could be watched.
    is_whole: bool,
    /// How often what is used may lead to more before something changes.
    left: usize,
}

impl Following {
    fn start() -> Self {
        let watch = Watch::new().inspect_err(|error| {
            tracing::warn!(
                %error,
                "files cannot be watched, checking every {} s instead",
                WITHOUT_WATCH.as_secs()
            );
        });
        Self {
            is_whole: watch.is_ok(),
            watch: watch.ok(),
            followed: None,
            left: FOLLOWED,
        }
    }

    /// Watches what is used now, and says whether that is more than before.
    fn watch_new_paths(&mut self, state: &GatewayState) -> bool {
        let (Some(watch), 1..) = (&mut self.watch, self.left) else {
            return false;
        };
        // It takes its time where there are very many.
        let paths = state.watched();
        let followed = self.followed.as_ref();
        if followed.is_some_and(|followed| Arc::ptr_eq(followed, &paths)) {
            return false;
        }
        let outcome = watch.follow_paths(paths.iter().map(|path| &**path));
        let was_whole = std::mem::replace(&mut self.is_whole, outcome.errors.is_empty());
        if let (true, Some(error)) = (was_whole, outcome.errors.first()) {
            tracing::warn!(
                %error,
                directories = outcome.errors.len(),
                "directories cannot be watched, checking every {} s instead; if the system's limit \
                 is reached, raise fs.inotify.max_user_watches",
                WITHOUT_WATCH.as_secs()
            );
        } else if self.is_whole && !was_whole {
            tracing::info!("all directories are watched again");
        }
        self.followed = Some(paths);
        self.left -= usize::from(outcome.is_more);
        outcome.is_more
    }

    /// Forgets what is watched: any path may lead elsewhere by now.
    fn forget_followed(&mut self) {
        self.followed = None;
    }

    /// Waits for a change. The paths that changed; empty where it is not known which.
    async fn wait_for_change(&mut self) -> Vec<PathBuf> {
        let Some(watch) = &mut self.watch else {
            return std::future::pending().await;
        };
        let paths = watch.wait_for_change().await;
        if watch.may_lead_elsewhere(&paths) {
            self.forget_followed();
        }
        paths
    }
}
