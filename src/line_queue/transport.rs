//! Connections to receivers of syslog messages.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use openssl::ssl::{HandshakeError, SslConnector, SslStream};
use socket2::{SockRef, TcpKeepalive};

use crate::config::model::{Syslog, SyslogReceiver};
use crate::http_client::tls_connector;

/// How long a connection may take, and then its handshake.
const CONNECT: Duration = Duration::from_secs(5);

/// How long a receiver may acknowledge nothing, or not respond while nothing is sent. What is sent
/// meanwhile is lost with it.
const SILENCE: Duration = Duration::from_secs(30);

/// How long a receiver may accept nothing.
const SEND: Duration = Duration::from_secs(5);

/// A receiver, and the connection to it if there is one.
pub(super) struct Transport {
    receiver: SyslogReceiver,
    ca_file: Option<PathBuf>,
    link: Option<Link>,
}

enum Link {
    Unix(UnixDatagram),
    Udp(UdpSocket),
    Tcp(TcpStream),
    Tls(Box<SslStream<Timed>>),
}

impl Transport {
    /// A transport that connects when there is something to send.
    ///
    /// # Errors
    /// If the roots cannot be loaded.
    pub(super) fn new(syslog: &Syslog) -> io::Result<Self> {
        let transport = Self {
            receiver: syslog.receiver.clone(),
            ca_file: syslog.ca_file.clone(),
            link: None,
        };
        if let SyslogReceiver::Tls(..) = transport.receiver {
            transport.connector()?;
        }
        Ok(transport)
    }

    /// What verifies the receiver. It is made for each connection, since the roots may change.
    fn connector(&self) -> io::Result<SslConnector> {
        tls_connector(self.ca_file.as_deref()).map_err(io::Error::other)
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
                stream.get_ref().tcp.set_nonblocking(true).is_ok()
                    && is_quiet(stream.read(&mut [0; 256]))
                    && stream.get_ref().tcp.set_nonblocking(false).is_ok()
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
                let (connector, tcp) = (self.connector()?, connect_tcp(host, *port)?);
                let until = Some(Instant::now() + CONNECT);
                let connected = connector.connect(host, Timed { tcp, until });
                let mut stream = connected.map_err(|error| match error {
                    HandshakeError::WouldBlock(_) => ErrorKind::TimedOut.into(),
                    error => io::Error::other(error),
                })?;
                stream.get_mut().until = None;
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
    let socket = SockRef::from(&stream);
    socket.set_tcp_user_timeout(Some(SILENCE))?;
    let probes = TcpKeepalive::new().with_time(SILENCE / 2);
    socket.set_tcp_keepalive(&probes.with_interval(SILENCE / 6).with_retries(3))?;
    Ok(stream)
}

/// A connection that is read until a moment, however little comes at a time.
#[derive(Debug)]
struct Timed {
    tcp: TcpStream,
    until: Option<Instant>,
}

impl Read for Timed {
    fn read(&mut self, octets: &mut [u8]) -> io::Result<usize> {
        if let Some(until) = self.until {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(ErrorKind::TimedOut.into());
            }
            self.tcp.set_read_timeout(Some(left))?;
        }
        self.tcp.read(octets)
    }
}

impl Write for Timed {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.tcp.write(octets)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.tcp.flush()
    }
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
