//! Watches: how a storage says that something has changed.

use std::any::Any;

use tokio::sync::watch;

/// Waits for changes. Several changes may come as one; none is lost.
pub struct Watch {
    pub(super) changes: watch::Receiver<u64>,
    /// Dropped with the watch.
    _guard: Option<Box<dyn Any + Send + Sync>>,
}

impl Watch {
    /// Waits until something may have changed since the last call.
    pub async fn changed(&mut self) {
        if self.changes.changed().await.is_err() {
            // No notifier is left, so nothing can change any more.
            std::future::pending().await
        }
    }

    /// Keeps `guard` for as long as the watch is kept: a backend ends its watching when it is
    /// dropped.
    #[must_use]
    pub fn with_guard(self, guard: impl Send + Sync + 'static) -> Self {
        Self {
            _guard: Some(Box::new(guard)),
            ..self
        }
    }
}

/// The end of [`Watch`]es that a backend keeps: it says when something has changed.
///
/// ```
/// use snigate::storage::ChangeNotifier;
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let notifier = ChangeNotifier::default();
/// let mut watch = notifier.watch();
/// notifier.notify();
/// watch.changed().await;
/// # });
/// ```
#[derive(Debug)]
pub struct ChangeNotifier(watch::Sender<u64>);

impl ChangeNotifier {
    /// A watch of what this notifier reports from now on.
    pub fn watch(&self) -> Watch {
        Watch {
            changes: self.0.subscribe(),
            _guard: None,
        }
    }

    /// Wakes every watch. Does not block.
    pub fn notify(&self) {
        self.0
            .send_modify(|changes| *changes = changes.wrapping_add(1));
    }

    /// Whether no watch is left, so that the notifier can go.
    pub fn is_unwatched(&self) -> bool {
        self.0.is_closed()
    }
}

impl Default for ChangeNotifier {
    fn default() -> Self {
        Self(watch::Sender::new(0))
    }
}
