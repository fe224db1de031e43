//! What runs beside the edge: watching files, reloading, obtaining certificates, watching over
//! their validity, stopping.

mod actions;
pub mod cancel_on_stop;
mod certificates;
mod file_versions;
pub mod load;
pub mod on_demand;
mod prepare;
mod publish;
pub mod reload;
pub mod renewal;
mod report;
pub mod signals;
pub mod start_gate;
pub mod state;
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
                tracing::error!(
                    %error,
                    "work was interrupted by a bug, the old state stays in force"
                );
            }
        })
        .ok()
}
