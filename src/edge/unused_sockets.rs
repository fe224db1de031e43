//! Sockets of systemd that no configuration in force names. They stay open in systemd, so the kernel
//! completes connections to them: these are closed at once, or their clients would wait for nothing.

use std::sync::mpsc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::watch;

use super::inherited;
use super::stream::{Acceptor, ListeningSocket};
use crate::config::model::ListenAddress;
use crate::shutdown::{ShutdownWatch, requested};

/// How long a socket may take to be free for its listener.
const STOPPING: Duration = Duration::from_secs(1);

/// The pause after an error that would occur again at once.
const RETRY: Duration = Duration::from_millis(100);

#[derive(Default)]
pub(super) struct UnusedSockets(Vec<Unused>);

/// The sockets of a name that is not used.
struct Unused {
    name: &'static str,
    /// What ends the tasks that refuse connections, and their ends.
    refusing: Option<(watch::Sender<bool>, mpsc::Receiver<()>)>,
}

impl UnusedSockets {
    /// Notes which addresses are in use. With a runtime, connections to all other sockets of systemd
    /// are refused from now on.
    pub(super) fn update(&mut self, used: Vec<ListenAddress>, runtime: Option<&Handle>) {
        let is_used = |name: &str| {
            let mut used = used.iter();
            used.any(|at| matches!(at, ListenAddress::Systemd(other) if **other == *name))
        };
        for unused in self.0.extract_if(.., |unused| is_used(unused.name)) {
            unused.end();
        }
        for name in inherited::unused(is_used) {
            if self.0.iter().any(|unused| unused.name == name) {
                continue;
            }
            tracing::warn!(
                "systemd passed the socket '{name}', which is not used: its connections are closed; \
                 name it in 'server.https' or 'server.http' as systemd:{name}, or remove its unit"
            );
            let refusing = None;
            self.0.push(Unused { name, refusing });
        }
        if let Some(runtime) = runtime {
            self.refuse(runtime);
        }
    }

    /// Refuses connections to all of them.
    pub(super) fn refuse(&mut self, runtime: &Handle) {
        for unused in &mut self.0 {
            if unused.refusing.is_some() {
                continue;
            }
            let (stop, stopping) = watch::channel(false);
            let (running, end) = mpsc::channel();
            for socket in inherited::find(unused.name).unwrap_or_default() {
                runtime.spawn(refuse(socket, stopping.clone(), running.clone()));
            }
            unused.refusing = Some((stop, end));
        }
    }
}

impl Unused {
    /// Ends refusing, before others accept from the sockets.
    fn end(self) {
        if let Some((stop, end)) = self.refusing {
            stop.send_replace(true);
            // An error is what is waited for: all senders are dropped.
            _ = end.recv_timeout(STOPPING);
        }
    }
}

/// Closes each connection to a socket.
async fn refuse(socket: ListeningSocket, mut stopping: ShutdownWatch, _running: mpsc::Sender<()>) {
    let accepting = async {
        let Ok(acceptor) = Acceptor::of(socket) else {
            return;
        };
        loop {
            if acceptor.accept().await.is_err() {
                tokio::time::sleep(RETRY).await;
            }
        }
    };
    tokio::select! {
        () = requested(&mut stopping) => {}
        () = accepting => {}
    }
}
