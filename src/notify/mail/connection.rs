//! A connection to a mail server, encrypted as configured.
//!
//! `STARTTLS` is done here, not by the SMTP client: what a server, or somebody in between, has sent
//! before TLS must not be read as if it had come after it.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use lettre::transport::smtp::client::AsyncTokioStream;
use lettre::transport::smtp::extension::ClientId;
use openssl::ssl::SslConnector;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::io::{BufReader, ReadBuf};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_openssl::SslStream;

use super::super::sender::DeliveryError;
use super::MAX_SAID;
use crate::config::model::{Mail, MailTls};
use crate::host::HostName;
use crate::printable::one_line;

/// The longest answer before TLS, in octets.
const LONGEST_ANSWER: u64 = 16 << 10;

/// How long a connection to one of the server's addresses may take.
const CONNECT: Duration = Duration::from_secs(10);

/// Stands for the server's greeting, which it sends once and before TLS.
const GREETING: &[u8] = b"220 TLS\r\n";

/// How the client introduces itself.
pub(super) fn hello(gateway: &str) -> ClientId {
    match gateway.parse::<HostName>() {
        Ok(name) => ClientId::Domain(name.to_string()),
        Err(_) => ClientId::default(),
    }
}

/// Connects to the server, and encrypts the connection as configured.
pub(super) async fn open(
    config: &Mail,
    tls: Option<&SslConnector>,
    hello: &ClientId,
) -> Result<Stream, DeliveryError> {
    let connected = connect(config).await;
    let mut tcp =
        connected.map_err(|error| DeliveryError::later(format!("cannot connect: {error}")))?;
    let peer = tcp
        .peer_addr()
        .map_err(|error| DeliveryError::later(format!("cannot connect: {error}")))?;
    let Some(tls) = tls else {
        return Ok(Stream {
            inner: Inner::Plain(tcp),
            greeting: &[],
            peer,
        });
    };
    let greeting: &[u8] = if config.tls == MailTls::StartTls {
        start_tls(&mut tcp, hello).await?;
        GREETING
    } else {
        &[]
    };
    let stream = encrypt(tls, &config.host, tcp).await;
    let stream =
        stream.map_err(|why| DeliveryError::later(format!("cannot establish TLS: {why}")))?;
    Ok(Stream {
        inner: Inner::Tls(stream),
        greeting,
        peer,
    })
}

/// Connects to the first of the server's addresses that takes the connection. One that does not
/// respond leaves time for the others.
async fn connect(config: &Mail) -> io::Result<TcpStream> {
    let addresses = lookup_host((&*config.host, config.port)).await?;
    let addresses: Vec<SocketAddr> = addresses.collect();
    let parts = u32::try_from(addresses.len()).unwrap_or(u32::MAX);
    let limit = CONNECT.min(config.timeout / parts.saturating_add(1));
    let mut last = io::Error::new(io::ErrorKind::NotFound, "its name has no address");
    for address in addresses {
        match timeout(limit, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = error,
            Err(_) => {
                let why = format!("{address} has not responded within {limit:?}");
                last = io::Error::new(io::ErrorKind::TimedOut, why);
            }
        }
    }
    Err(last)
}

async fn encrypt(
    tls: &SslConnector,
    host: &str,
    tcp: TcpStream,
) -> Result<SslStream<TcpStream>, String> {
    let ssl = tls.configure().and_then(|config| config.into_ssl(host));
    let ssl = ssl.map_err(|error| error.to_string())?;
    let mut stream = SslStream::new(ssl, tcp).map_err(|error| error.to_string())?;
    match Pin::new(&mut stream).connect().await {
        Ok(()) => Ok(stream),
        Err(error) => {
            let verified = stream.ssl().verify_result();
            let why = match verified == openssl::x509::X509VerifyResult::OK {
                true => error.to_string(),
                false => format!("its certificate is not trusted: {verified}"),
            };
            Err(one_line(&why, MAX_SAID))
        }
    }
}

/// Asks the server for TLS (RFC 3207). Nothing of what it says before is believed but that.
async fn start_tls(tcp: &mut TcpStream, hello: &ClientId) -> Result<(), DeliveryError> {
    let mut stream = BufReader::new(tcp);
    ask(&mut stream, None, "greet it").await?;
    let offers = ask(&mut stream, Some(format!("EHLO {hello}\r\n")), "greet it").await?;
    let is_offered = |line: &String| line.trim().eq_ignore_ascii_case("STARTTLS");
    if !offers.iter().any(is_offered) {
        return Err(DeliveryError::later(
            "it does not offer STARTTLS, so nothing is sent; for TLS from the start, usually at port \
             465, write 'tls: implicit'",
        ));
    }
    ask(&mut stream, Some("STARTTLS\r\n".to_owned()), "start TLS").await?;
    if !stream.buffer().is_empty() {
        return Err(DeliveryError::later(
            "something was sent between STARTTLS and TLS: somebody may be in between",
        ));
    }
    Ok(())
}

/// Sends a command and reads the lines of a positive answer, without their codes.
async fn ask(
    stream: &mut BufReader<&mut TcpStream>,
    command: Option<String>,
    doing: &str,
) -> Result<Vec<String>, DeliveryError> {
    let broken =
        |error: &dyn std::fmt::Display| DeliveryError::later(format!("cannot {doing}: {error}"));
    if let Some(command) = command {
        let sent = stream.get_mut().write_all(command.as_bytes()).await;
        sent.map_err(|error| broken(&error))?;
    }
    let mut lines = Vec::new();
    let mut limited = stream.take(LONGEST_ANSWER);
    loop {
        let mut line = Vec::new();
        let read = limited.read_until(b'\n', &mut line).await;
        read.map_err(|error| broken(&error))?;
        if !line.ends_with(b"\n") {
            return Err(broken(&"its answer is incomplete or too long"));
        }
        let line = String::from_utf8_lossy(&line).trim_end().to_owned();
        let (code, text) = line.split_at_checked(3).unwrap_or((&line, ""));
        if !text.starts_with('-') {
            let said = one_line(&line, MAX_SAID);
            let text = text.to_owned();
            return match code.bytes().next() {
                Some(b'2') => {
                    lines.push(text);
                    Ok(lines)
                }
                _ => Err(broken(&said)),
            };
        }
        lines.push(text.trim_start_matches('-').to_owned());
    }
}

/// A connection, encrypted or not.
#[derive(Debug)]
pub(super) struct Stream {
    inner: Inner,
    /// What is read before anything else.
    greeting: &'static [u8],
    peer: SocketAddr,
}

#[derive(Debug)]
enum Inner {
    Plain(TcpStream),
    Tls(SslStream<TcpStream>),
}

impl AsyncTokioStream for Stream {
    fn peer_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.peer)
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.greeting.is_empty() {
            let (now, later) = self
                .greeting
                .split_at(self.greeting.len().min(buffer.remaining()));
            buffer.put_slice(now);
            self.greeting = later;
            return Poll::Ready(Ok(()));
        }
        match &mut self.inner {
            Inner::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Inner::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        octets: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.inner {
            Inner::Plain(stream) => Pin::new(stream).poll_write(cx, octets),
            Inner::Tls(stream) => Pin::new(stream).poll_write(cx, octets),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.inner {
            Inner::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Inner::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.inner {
            Inner::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Inner::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
