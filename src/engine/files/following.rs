//! The watch over all paths that are in use, which change while the engine runs.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::super::blocking;
use super::watch::Watch;

/// How often files are checked if the system gives no watch.
pub(super) const WITHOUT_WATCH: Duration = Duration::from_secs(5);

/// How often in a row a check may lead to more that is to be watched.
const FOLLOWED: usize = 4;

/// The watch over what is used.
pub(super) struct Following {
    /// `None` if the system gives none.
    watch: Option<Watch>,
    /// The paths that are watched, unless they may lead to other places by now.
    followed: Option<Arc<Vec<PathBuf>>>,
    /// Whether all of them could be watched.
    is_whole: bool,
    /// How often a check may lead to more before something changes.
    left: usize,
}

impl Following {
    pub(super) fn start() -> Self {
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

    /// Whether every change is noticed.
    pub(super) fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// Lets checks lead to more again: something has changed.
    pub(super) fn allow_more(&mut self) {
        self.left = FOLLOWED;
    }

    /// Watches `paths` from now on, and returns whether that is more than before.
    pub(super) async fn watch_new_paths(&mut self, paths: &Arc<Vec<PathBuf>>) -> bool {
        let followed = self.followed.as_ref();
        if self.left == 0 || followed.is_some_and(|followed| Arc::ptr_eq(followed, paths)) {
            return false;
        }
        let Some(mut watch) = self.watch.take() else {
            return false;
        };
        // A call of the system for each directory takes its time if there are very many.
        let wanted = Arc::clone(paths);
        let follow = move || {
            let outcome = watch.follow_paths(wanted.iter().map(|path| &**path));
            (watch, outcome)
        };
        let Some((watch, outcome)) = blocking(follow).await else {
            self.is_whole = false;
            return false;
        };
        self.watch = Some(watch);
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
        self.followed = Some(Arc::clone(paths));
        self.left -= usize::from(outcome.is_more);
        outcome.is_more
    }

    /// Forgets what is watched: any path may lead elsewhere by now.
    pub(super) fn forget_followed(&mut self) {
        self.followed = None;
    }

    /// Waits for a change. The paths that changed; empty if it is not known which.
    pub(super) async fn wait_for_change(&mut self) -> Vec<PathBuf> {
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
