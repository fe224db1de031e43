//! What runs beside the edge: watching files, reloading, obtaining certificates, watching over
//! their validity, stopping.

mod care;
pub mod gate;
pub mod halt;
mod issue;
pub mod live;
pub mod load;
mod next;
pub mod on_demand;
mod outcome;
mod publish;
pub mod reload;
pub mod renewal;
pub mod signals;
mod stamps;
pub mod stop;
pub mod systemd;
pub mod validity;
pub mod watch;

/// Runs what blocks, on files or for long, off the runtime's threads; `None` where it panicked, or
/// where the runtime ends and takes up nothing more.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    tokio::task::spawn_blocking(work)
        .await
        .inspect_err(|error| {
            if error.is_panic() {
                tracing::error!(%error, "work broke off, the old state goes on");
            }
        })
        .ok()
}
