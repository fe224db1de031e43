//! Signals, from the first instant of the process on.
//!
//! `main` blocks them first thing. They are listened to once it is known that this process becomes a
//! gateway, and remembered until the part that acts on them waits for them.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use nix::sys::signal::{SigSet, Signal};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;

/// The signals that a gateway acts on.
const OURS: [Signal; 5] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGUSR1,
];

/// Signals that are blocked: they wait until this is dropped.
#[derive(Debug)]
pub struct Blocked(());

impl Blocked {
    /// Blocks the signals that a gateway acts on. To be called before there is another thread.
    pub fn block() -> Self {
        // It fails only for invalid arguments.
        _ = ours().thread_block();
        Self(())
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        _ = ours().thread_unblock();
    }
}

fn ours() -> SigSet {
    OURS.into_iter().collect()
}

/// The signals that have arrived and have not been acted on. A handle; clones share them.
#[derive(Clone, Debug, Default)]
pub struct Signals(Arc<Arrived>);

#[derive(Debug, Default)]
struct Arrived {
    hangup: Notify,
    user1: Notify,
    terminate: Notify,
    interrupt: Notify,
    is_to_stop: AtomicBool,
}

impl Signals {
    /// Listens from now on, in a separate thread.
    ///
    /// # Errors
    /// If the system does not let a handler be installed or a thread be started.
    pub fn listen() -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()?;
        let (mut hangup, mut interrupt, mut quit, mut terminate, mut user1) = {
            let _context = runtime.enter();
            (
                signal(SignalKind::hangup())?,
                signal(SignalKind::interrupt())?,
                signal(SignalKind::quit())?,
                signal(SignalKind::terminate())?,
                signal(SignalKind::user_defined1())?,
            )
        };
        let signals = Self::default();
        let Self(arrived) = signals.clone();
        let listening = async move {
            loop {
                tokio::select! {
                    Some(()) = hangup.recv() => arrived.hangup.notify_one(),
                    Some(()) = user1.recv() => arrived.user1.notify_one(),
                    Some(()) = interrupt.recv() => arrived.stop(&arrived.interrupt),
                    Some(()) = quit.recv() => arrived.stop(&arrived.terminate),
                    Some(()) = terminate.recv() => arrived.stop(&arrived.terminate),
                    else => return,
                }
            }
        };
        thread::Builder::new()
            .name("signals".to_owned())
            .spawn(move || runtime.block_on(listening))?;
        Ok(signals)
    }

    /// Whether a signal has requested a stop, of a start that is under way too.
    pub fn is_to_stop(&self) -> bool {
        self.0.is_to_stop.load(Ordering::Relaxed)
    }

    /// Waits for SIGHUP; one that came before counts.
    pub async fn hangup(&self) {
        self.0.hangup.notified().await;
    }

    /// Waits for SIGUSR1; one that came before counts.
    pub async fn reopen_logs(&self) {
        self.0.user1.notified().await;
    }

    /// Waits for SIGTERM or SIGQUIT; one that came before counts.
    pub(super) async fn terminate(&self) {
        self.0.terminate.notified().await;
    }

    /// Waits for SIGINT; one that came before counts.
    pub(super) async fn interrupt(&self) {
        self.0.interrupt.notified().await;
    }
}

impl Arrived {
    fn stop(&self, how: &Notify) {
        self.is_to_stop.store(true, Ordering::Relaxed);
        how.notify_one();
    }
}
