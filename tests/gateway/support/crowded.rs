//! A server whose queue of connections is full: nobody is refused, and nobody accepted.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use socket2::{Domain, Socket, Type};

/// A server whose queue is full: whoever connects to it waits.
pub struct Crowded {
    listener: TcpListener,
    _queue: Vec<Socket>,
}

impl Crowded {
    pub fn start() -> Self {
        Self::start_at((Ipv4Addr::LOCALHOST, 0).into())
    }

    /// One at this address.
    pub fn start_at(address: SocketAddr) -> Self {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        listener.bind(&address.into()).expect("a free port");
        listener.listen(1).expect("listening");
        let listener = TcpListener::from(listener);
        let address = listener.local_addr().expect("an address");
        let queue = (0..8).map(|_| {
            let client = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
            client.set_nonblocking(true).expect("set");
            _ = client.connect(&address.into());
            client
        });
        Self {
            _queue: queue.collect(),
            listener,
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.listener.local_addr().expect("an address")
    }
}
