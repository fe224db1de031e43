//! Connections to receivers of syslog messages.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use openssl::ssl::{SslConnector, SslMethod, SslStream};

use crate::config::model::{Syslog, SyslogReceiver};

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(5);

/// How long a receiver may accept nothing.
const SEND: Duration = Duration::from_secs(5);

/// A receiver, and the connection to it if there is one.
pub(super) struct Transport {
    receiver: SyslogReceiver,
    tls: Option<SslConnector>,
    link: Option<Link>,
}

enum Link {
    Unix(UnixDatagram),
    Udp(UdpSocket),
    Tcp(TcpStream),
    Tls(Box<SslStream<TcpStream>>),
}

impl Transport {
    /// A transport that connects when there is something to send.
    ///
    /// # Errors
    /// If the roots cannot be loaded.
    pub(super) fn new(syslog: &Syslog) -> io::Result<Self> {
        let tls = match syslog.receiver {
            SyslogReceiver::Tls(..) => {
                let mut builder = SslConnector::builder(SslMethod::tls_client())?;
                if let Some(file) = &syslog.ca_file {
                    builder.set_ca_file(file)?;
                }
                Some(builder.build())
            }
            _ => None,
        };
        Ok(Self {
            receiver: syslog.receiver.clone(),
            tls,
            link: None,
        })
    }

    /// Whether messages follow each other in a stream, each after its length.
    pub(super) fn is_stream(&self) -> bool {
        matches!(
            self.receiver,
            SyslogReceiver::Tcp(..) | SyslogReceiver::Tls(..)
        )
    }

    /// Sends a message, or as much of a stream as is accepted at once. Returns how many octets were.
    pub(super) fn send(&mut self, octets: &[u8]) -> io::Result<usize> {
        let sent = match self.connected()? {
            Link::Unix(socket) => socket.send(octets),
            Link::Udp(socket) => socket.send(octets),
            Link::Tcp(stream) => stream.write(octets),
            Link::Tls(stream) => stream.write(octets),
        };
        match sent {
            Ok(0) if !octets.is_empty() => Err(ErrorKind::WriteZero.into()),
            sent => sent,
        }
    }

    /// Gives up the connection.
    pub(super) fn disconnect(&mut self) {
        self.link = None;
    }

    /// Gives up a connection that the receiver has closed: what is written to it would be lost.
    pub(super) fn check(&mut self) {
        let is_open = match &mut self.link {
            Some(Link::Tcp(stream)) => {
                stream.set_nonblocking(true).is_ok()
                    && is_quiet(stream.read(&mut [0; 256]))
                    && stream.set_nonblocking(false).is_ok()
            }
            Some(Link::Tls(stream)) => {
                stream.get_ref().set_nonblocking(true).is_ok()
                    && is_quiet(stream.read(&mut [0; 256]))
                    && stream.get_ref().set_nonblocking(false).is_ok()
            }
            Some(Link::Unix(_) | Link::Udp(_)) | None => true,
        };
        if !is_open {
            self.disconnect();
        }
    }

    fn connected(&mut self) -> io::Result<&mut Link> {
        let link = match self.link.take() {
            Some(link) => link,
            None => self.connect()?,
        };
        Ok(self.link.insert(link))
    }

    fn connect(&self) -> io::Result<Link> {
        Ok(match &self.receiver {
            SyslogReceiver::Unix(path) => {
                let socket = UnixDatagram::unbound()?;
                socket.connect(path)?;
                socket.set_write_timeout(Some(SEND))?;
                Link::Unix(socket)
            }
            SyslogReceiver::Udp(host, port) => Link::Udp(try_each(host, *port, |address| {
                let any: SocketAddr = match address {
                    SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
                    SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
                };
                let socket = UdpSocket::bind(any)?;
                socket.connect(address)?;
                Ok(socket)
            })?),
            SyslogReceiver::Tcp(host, port) => Link::Tcp(connect_tcp(host, *port)?),
            SyslogReceiver::Tls(host, port) => {
                let stream = connect_tcp(host, *port)?;
                stream.set_read_timeout(Some(CONNECT))?;
                let tls = self.tls.as_ref().ok_or(ErrorKind::Unsupported)?;
                let stream = tls.connect(host, stream).map_err(io::Error::other)?;
                Link::Tls(Box::new(stream))
            }
        })
    }
}

/// Whether a stream is open that nobody sends to.
fn is_quiet(read: io::Result<usize>) -> bool {
    match read {
        Ok(0) => false,
        Ok(_) => true,
        Err(error) => error.kind() == ErrorKind::WouldBlock,
    }
}

fn connect_tcp(host: &str, port: u16) -> io::Result<TcpStream> {
    let stream = try_each(host, port, |address| {
        TcpStream::connect_timeout(&address, CONNECT)
    })?;
    stream.set_write_timeout(Some(SEND))?;
    Ok(stream)
}

/// The first success with an address of a host, or the last failure.
fn try_each<T>(
    host: &str,
    port: u16,
    connect: impl Fn(SocketAddr) -> io::Result<T>,
) -> io::Result<T> {
    let mut failure = io::Error::new(ErrorKind::NotFound, "the host has no address");
    for address in (host, port).to_socket_addrs()? {
        match connect(address) {
            Ok(link) => return Ok(link),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}
