//! A balancer that announces its clients by the PROXY protocol, in octets that a test chooses.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::PATIENCE;

/// How the header of a connection is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sending {
    /// At once, before the client has sent anything.
    First,
    /// In one piece with what the client sends first.
    Together,
    /// Each octet for itself, and the client's first ones too.
    Crumbs,
}

/// Passes connections on, each from this address and with a header; stops when dropped.
pub struct Balancer {
    address: SocketAddr,
    is_stopped: Arc<AtomicBool>,
}

impl Balancer {
    /// The address that balancers connect from.
    pub const SOURCE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 77);

    /// One in front of `target`.
    pub fn start(target: SocketAddr, header: impl AsRef<[u8]>, sending: Sending) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let is_stopped = Arc::new(AtomicBool::new(false));
        let (stopped, header) = (Arc::clone(&is_stopped), header.as_ref().to_vec());
        thread::spawn(move || {
            for client in listener.incoming() {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                let (Ok(client), header) = (client, header.clone()) else {
                    continue;
                };
                // The test sees how it ends.
                thread::spawn(move || _ = pass_on(&client, target, &header, sending));
            }
        });
        Self {
            address,
            is_stopped,
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A connection from [`Self::SOURCE`].
    pub fn connect(target: SocketAddr) -> TcpStream {
        connect_from(Self::SOURCE.into(), target)
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.is_stopped.store(true, Ordering::Relaxed);
        // It waits for a connection.
        drop(TcpStream::connect(self.address));
    }
}

/// Connects from an address of this machine, with time-outs so that no test hangs.
fn connect_from(source: IpAddr, target: SocketAddr) -> TcpStream {
    let domain = socket2::Domain::for_address(target);
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None).expect("a socket");
    let source = SocketAddr::new(source, 0);
    socket.bind(&source.into()).expect("an address of ours");
    socket.connect(&target.into()).expect("connected");
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).expect("set");
    stream.set_write_timeout(Some(PATIENCE)).expect("set");
    stream
}

fn pass_on(
    client: &TcpStream,
    target: SocketAddr,
    header: &[u8],
    sending: Sending,
) -> io::Result<()> {
    let server = Balancer::connect(target);
    server.set_nodelay(true)?;
    let mut first = vec![0; 4096];
    let mut received = 0;
    if sending != Sending::First {
        received = (&mut &*client).read(&mut first)?;
    }
    let all = [header, first.get(..received).unwrap_or_default()].concat();
    match sending {
        Sending::First | Sending::Together => (&server).write_all(&all)?,
        Sending::Crumbs => {
            for octet in all {
                (&server).write_all(&[octet])?;
                thread::yield_now();
            }
        }
    }
    let copying = {
        let (client, server) = (client.try_clone()?, server.try_clone()?);
        thread::spawn(move || copy(&client, &server))
    };
    copy(&server, client);
    _ = copying.join();
    Ok(())
}

fn copy(mut from: &TcpStream, mut to: &TcpStream) {
    _ = io::copy(&mut from, &mut to);
    _ = to.shutdown(Shutdown::Write);
}
