//! A deadline for an upstream's agreement to an upgrade.
//!
//! Pingora has one time-out for all reads of a connection. An upgraded one may be silent for long,
//! but unless the upstream has agreed to the upgrade it must answer like any other, in each of its
//! parts. So the connection is ended from here where it does not.

use std::io;
use std::net::Shutdown;
use std::os::fd::{BorrowedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use socket2::SockRef;
use tokio::sync::{Notify, oneshot};
use tokio::time::sleep;

use super::link::Link;

/// A deadline that is lifted when it is dropped.
#[derive(Debug)]
pub(crate) struct Deadline {
    _lift: oneshot::Sender<()>,
    restart: Arc<Notify>,
    passed: Arc<AtomicBool>,
}

impl Deadline {
    /// Sets a deadline for the connection of a link.
    pub(crate) fn of_link(link: &Arc<Link>, patience: Duration) -> Self {
        let link = Arc::clone(link);
        Self::set(patience, move || link.end())
    }

    /// Sets a deadline for the connection of `socket`, which is open and stays so during the call.
    pub(crate) fn of_socket(socket: RawFd, patience: Duration) -> io::Result<Self> {
        // SAFETY: the socket is open for the whole call, in which nothing else can close it. The
        // copy is owned, so that it names this connection even where `socket` is closed early and
        // its number used again.
        let socket = unsafe { BorrowedFd::borrow_raw(socket) }.try_clone_to_owned()?;
        Ok(Self::set(patience, move || {
            // Where this fails the connection has ended by itself.
            _ = SockRef::from(&socket).shutdown(Shutdown::Both);
        }))
    }

    fn set(patience: Duration, end: impl FnOnce() + Send + 'static) -> Self {
        let (lift, mut lifted) = oneshot::channel::<()>();
        let restart = Arc::new(Notify::new());
        let restarted = Arc::clone(&restart);
        let passed = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&passed);
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = &mut lifted => return,
                    () = restarted.notified() => {}
                    () = sleep(patience) => break,
                }
            }
            flag.store(true, Ordering::Release);
            end();
        });
        Self {
            _lift: lift,
            restart,
            passed,
        }
    }

    /// Lets the whole time begin anew.
    pub(crate) fn restart(&self) {
        self.restart.notify_one();
    }

    /// Whether the connection was ended for it.
    pub(crate) fn has_passed(&self) -> bool {
        self.passed.load(Ordering::Acquire)
    }
}
