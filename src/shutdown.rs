//! The signal to stop, for every part of the gateway.

use tokio::sync::watch;

/// Turns true when the gateway stops; the same type as Pingora's `ShutdownWatch`.
pub type ShutdownWatch = watch::Receiver<bool>;

/// Waits for the signal to stop.
pub async fn requested(shutdown: &mut ShutdownWatch) {
    // An error means that nobody can send the signal any more, which is a stop too. The function
    // exists because the caller must not hold what is borrowed from the watch.
    let _ = shutdown.wait_for(|stop| *stop).await;
}
