//! A TCP relay that can be told to pass, to keep waiting or to be gone: a network with a switch.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};

use super::Port;

/// What happens to connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Switch {
    Pass,
    /// Connections are accepted and wait for [`Switch::Pass`].
    Hold,
    /// Nobody listens, and what was open is cut.
    Gone,
}

/// Passes connections on; stops when dropped.
pub struct Relay {
    address: SocketAddr,
    _port: Option<Port>,
    shared: Arc<Shared>,
    listening: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    target: SocketAddr,
    switch: (Mutex<Switch>, Condvar),
    /// Both ends of each connection that is open, or was.
    open: Mutex<Vec<TcpStream>>,
    accepted: Mutex<usize>,
    stop: AtomicBool,
}

impl Relay {
    /// One on a port of its own.
    pub fn to(target: SocketAddr, switch: Switch) -> Self {
        let port = Port::take();
        Self::begin(port.address(), Some(port), target, switch)
    }

    /// One at this address, which has to be free.
    pub fn at(address: SocketAddr, target: SocketAddr) -> Self {
        Self::begin(address, None, target, Switch::Pass)
    }

    fn begin(address: SocketAddr, port: Option<Port>, target: SocketAddr, switch: Switch) -> Self {
        let relay = Self {
            address,
            _port: port,
            shared: Arc::new(Shared {
                target,
                switch: (Mutex::new(Switch::Gone), Condvar::new()),
                open: Mutex::default(),
                accepted: Mutex::new(0),
                stop: AtomicBool::new(false),
            }),
            listening: Mutex::new(None),
        };
        relay.turn(switch);
        relay
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// How many connections there have been.
    pub fn connections(&self) -> usize {
        *self.shared.accepted.lock().expect("not poisoned")
    }

    pub fn turn(&self, switch: Switch) {
        let mut listening = self.listening.lock().expect("not poisoned");
        *self.shared.switch.0.lock().expect("not poisoned") = switch;
        self.shared.switch.1.notify_all();
        if switch == Switch::Gone {
            if let Some(thread) = listening.take() {
                self.shared.stop.store(true, Ordering::SeqCst);
                // Wakes the accept loop.
                let _ = TcpStream::connect(self.address);
                thread.join().expect("it does not panic");
            }
            self.cut();
        } else if listening.is_none() {
            let listener = TcpListener::bind(self.address).expect("a port of our own");
            self.shared.stop.store(false, Ordering::SeqCst);
            let shared = Arc::clone(&self.shared);
            *listening = Some(thread::spawn(move || shared.accept(&listener)));
        }
    }

    /// Cuts all connections.
    pub fn cut(&self) {
        let mut open = self.shared.open.lock().expect("not poisoned");
        for stream in open.drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.turn(Switch::Gone);
    }
}

impl Shared {
    fn accept(self: &Arc<Self>, listener: &TcpListener) {
        for stream in listener.incoming() {
            if self.stop.load(Ordering::SeqCst) {
                return;
            }
            let Ok(stream) = stream else { continue };
            *self.accepted.lock().expect("not poisoned") += 1;
            let shared = Arc::clone(self);
            thread::spawn(move || shared.carry(&stream));
        }
    }

    fn carry(&self, client: &TcpStream) {
        self.keep(client);
        let switch = self.switch.0.lock().expect("not poisoned");
        let switch = self.switch.1.wait_while(switch, |at| *at == Switch::Hold);
        if *switch.expect("not poisoned") == Switch::Gone {
            return;
        }
        let Ok(server) = TcpStream::connect(self.target) else {
            let _ = client.shutdown(Shutdown::Both);
            return;
        };
        self.keep(&server);
        let (from, to) = (client.try_clone(), server.try_clone());
        let up = thread::spawn(move || pump(from, to));
        pump(server.try_clone(), client.try_clone());
        up.join().expect("it does not panic");
    }

    fn keep(&self, stream: &TcpStream) {
        let mut open = self.open.lock().expect("not poisoned");
        open.extend(stream.try_clone());
    }
}

fn pump(from: io::Result<TcpStream>, to: io::Result<TcpStream>) {
    let (Ok(mut from), Ok(mut to)) = (from, to) else {
        return;
    };
    let _ = io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Write);
}
