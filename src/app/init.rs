//! The first process of a container, if that is Snigate: it starts the gateway as its child, passes
//! signals on, passes the gateway's messages on to systemd, and reaps orphans.
//!
//! This takes a separate process: a gateway that reaped every process would take the exit status of
//! programs that it waits for.

use std::io;

use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork, getpid};

use crate::service::systemd;

/// Signals that are passed on. SIGABRT is that of systemd's watchdog, which would do nothing to a
/// first process.
const PASSED: [Signal; 8] = [
    Signal::SIGABRT,
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGWINCH,
];

/// Returns `None` at once unless this is process 1. Then it forks: it returns `None` in the child, and
/// in the parent the exit code once the child has ended. To be called before there is another thread.
///
/// # Errors
/// If no process can be created.
pub fn leave_first_process() -> io::Result<Option<u8>> {
    if getpid() != Pid::from_raw(1) {
        return Ok(None);
    }
    let (forwarder, relay) = systemd::relay()?.unzip();
    let waited: SigSet = PASSED.into_iter().chain([Signal::SIGCHLD]).collect();
    let before = SigSet::thread_get_mask()?;
    waited.thread_block()?;
    // SAFETY: there is no other thread that could hold a lock, as the caller promises.
    match unsafe { fork() }? {
        ForkResult::Child => {
            drop(forwarder);
            if let Some(relay) = relay {
                relay.install();
            }
            before.thread_set_mask()?;
            Ok(None)
        }
        ForkResult::Parent { child } => {
            // The messages end with the gateway.
            drop(relay);
            // Without it the gateway serves, though systemd may not know it.
            let last_message = forwarder.and_then(|forwarder| forwarder.start().ok());
            let code = wait_for_child(child, &waited);
            if let Some(wait_for_last_message) = last_message {
                wait_for_last_message();
            }
            Ok(Some(code))
        }
    }
}

/// Waits until the gateway has ended, and returns its exit code.
fn wait_for_child(gateway: Pid, waited: &SigSet) -> u8 {
    loop {
        if let Some(code) = reap(gateway) {
            return code;
        }
        match waited.wait() {
            Ok(Signal::SIGCHLD) | Err(_) => {}
            // If this fails, it has ended, which is noticed next.
            Ok(signal) => _ = kill(gateway, signal),
        }
    }
}

/// Reaps all processes that have ended. Returns the exit code if the gateway is among them.
fn reap(gateway: Pid) -> Option<u8> {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) if pid == gateway => {
                return Some(u8::try_from(code).unwrap_or(1));
            }
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == gateway => {
                // As a shell reports it.
                return Some(u8::try_from(128 + signal as i32).unwrap_or(1));
            }
            Ok(WaitStatus::StillAlive) => return None,
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(_) => return Some(1),
        }
    }
}
