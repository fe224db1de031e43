//! The word to stop, as every part of the gateway hears it.

use tokio::sync::watch;

/// Turns true when the gateway stops; the same type as Pingora's `ShutdownWatch`.
pub type ShutdownWatch = watch::Receiver<bool>;

/// Waits for the word to stop.
pub async fn requested(shutdown: &mut ShutdownWatch) {
    // An error means that nobody can say it any more, which is a stop too. What is borrowed from
    // the watch must not be held by the caller, hence the function.
    let _ = shutdown.wait_for(|stop| *stop).await;
}
