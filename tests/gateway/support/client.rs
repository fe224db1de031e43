//! Clients: the system's curl and openssl, which share no code with the gateway, and a TLS client
//! for what they cannot do.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use openssl::pkey::PKey;
use openssl::ssl::{
    Ssl, SslConnector, SslConnectorBuilder, SslMethod, SslSession, SslSessionCacheMode,
    SslSessionRef, SslStream, SslVerifyMode, SslVersion,
};
use openssl::x509::X509;
use openssl::x509::verify::X509VerifyParam;

use super::certs::Pair;
use super::http1::{Response, connect, exchange, header, read_response};

/// A run of curl.
#[derive(Debug)]
pub struct Curl(Command);

/// Begins a run of curl for `url`. It follows no redirect and gives up after 30 s.
pub fn curl(url: &str) -> Curl {
    let mut command = Command::new("curl");
    command.args([
        "--disable",
        "--silent",
        "--show-error",
        "--include",
        "--max-time",
        "30",
    ]);
    command.args(["--noproxy", "*", "--write-out", "\n%{http_version}", url]);
    Curl(command)
}

/// What curl got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    pub status: u16,
    /// As curl names it: `1.1`, `2`.
    pub version: String,
    /// Of the last response: status line and fields.
    pub head: String,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.head, name)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl Curl {
    /// Adds an argument.
    pub fn arg(mut self, argument: impl Into<OsString>) -> Self {
        self.0.arg(argument.into());
        self
    }

    pub fn args<const N: usize>(mut self, arguments: [&str; N]) -> Self {
        self.0.args(arguments);
        self
    }

    /// Trusts these roots and no others.
    pub fn cacert(self, path: &Path) -> Self {
        self.arg("--cacert").arg(path)
    }

    /// Takes `host` to be at this address, whatever DNS says.
    pub fn resolve(self, host: &str, address: SocketAddr) -> Self {
        self.arg("--resolve")
            .arg(format!("{host}:{}:{}", address.port(), address.ip()))
    }

    /// The reply, or what curl complains of.
    pub fn try_send(mut self) -> Result<Reply, String> {
        let output = self
            .0
            .stdin(Stdio::null())
            .output()
            .expect("curl is installed");
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(format!("{}: {}", output.status, said.trim()));
        }
        let mut rest = output.stdout;
        let end = rest
            .iter()
            .rposition(|byte| *byte == b'\n')
            .expect("a last line");
        let version = String::from_utf8_lossy(&rest[end + 1..]).into_owned();
        rest.truncate(end);
        loop {
            let end = rest
                .windows(4)
                .position(|bytes| bytes == b"\r\n\r\n")
                .expect("a head")
                + 4;
            let body = rest.split_off(end);
            let head = String::from_utf8_lossy(&rest).into_owned();
            let status = head
                .split(' ')
                .nth(1)
                .and_then(|status| status.trim().parse().ok());
            let status = status.expect("a status");
            if (100..200).contains(&status) && body.starts_with(b"HTTP/") {
                rest = body;
                continue;
            }
            return Ok(Reply {
                status,
                version,
                head,
                body,
            });
        }
    }

    /// The reply.
    #[track_caller]
    pub fn send(self) -> Reply {
        let what = format!("{:?}", self.0);
        self.try_send()
            .unwrap_or_else(|error| panic!("{what}: {error}"))
    }
}

/// What `openssl s_client` says of a handshake, both of its outputs together.
pub fn s_client(address: SocketAddr, server_name: Option<&str>, arguments: &[&str]) -> String {
    let mut command = Command::new("openssl");
    command
        .arg("s_client")
        .arg("-connect")
        .arg(address.to_string());
    match server_name {
        Some(name) => command.args(["-servername", name]),
        None => command.arg("-noservername"),
    };
    let output = command
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("openssl is installed");
    let mut said = String::from_utf8_lossy(&output.stdout).into_owned();
    said.push_str(&String::from_utf8_lossy(&output.stderr));
    said
}

/// A TLS client, set up as a test needs it.
pub struct TlsClient {
    builder: SslConnectorBuilder,
    server_name: Option<String>,
    session: Option<SslSession>,
    sessions: Arc<Mutex<Vec<SslSession>>>,
}

impl TlsClient {
    /// One that names this host and verifies nothing.
    pub fn named(server_name: &str) -> Self {
        let mut client = Self::nameless();
        client.server_name = Some(server_name.to_owned());
        client
    }

    /// One that sends no SNI.
    pub fn nameless() -> Self {
        let mut builder = SslConnector::builder(SslMethod::tls_client()).unwrap();
        builder.set_verify(SslVerifyMode::NONE);
        builder
            .set_session_cache_mode(SslSessionCacheMode::CLIENT | SslSessionCacheMode::NO_INTERNAL);
        let sessions = Arc::new(Mutex::new(Vec::new()));
        let keep = Arc::clone(&sessions);
        builder.set_new_session_callback(move |_, session| keep.lock().unwrap().push(session));
        Self {
            builder,
            server_name: None,
            session: None,
            sessions,
        }
    }

    /// Trusts this root and verifies, the host included.
    pub fn trusting(mut self, root: &X509) -> Self {
        self.builder.set_verify(SslVerifyMode::PEER);
        self.builder
            .cert_store_mut()
            .add_cert(root.clone())
            .unwrap();
        self
    }

    /// Offers these protocols.
    pub fn alpn(mut self, protocols: &[&str]) -> Self {
        let mut wire = Vec::new();
        for protocol in protocols {
            wire.push(u8::try_from(protocol.len()).unwrap());
            wire.extend_from_slice(protocol.as_bytes());
        }
        self.builder.set_alpn_protos(&wire).unwrap();
        self
    }

    /// Speaks this version only.
    pub fn version(mut self, version: SslVersion) -> Self {
        // A client that wants to speak an old version must lower its own guard.
        self.builder.set_security_level(0);
        self.builder.set_min_proto_version(Some(version)).unwrap();
        self.builder.set_max_proto_version(Some(version)).unwrap();
        self
    }

    /// Offers to resume this session.
    pub fn session(mut self, session: &SslSessionRef) -> Self {
        self.session = Some(copy(session));
        self
    }

    /// Shows this certificate with its chain if the server requests one.
    pub fn showing(self, pair: &Pair) -> Self {
        self.with(|builder| {
            let key = PKey::private_key_from_pem(pair.key.as_bytes()).expect("a key");
            let chain = X509::stack_from_pem(pair.chain.as_bytes()).expect("a chain");
            builder.set_certificate(&chain[0]).expect("taken");
            builder.set_private_key(&key).expect("taken");
            for one in &chain[1..] {
                builder.add_extra_chain_cert(one.clone()).expect("taken");
            }
        })
    }

    /// Anything else that the library can be told.
    pub fn with(mut self, set: impl FnOnce(&mut SslConnectorBuilder)) -> Self {
        set(&mut self.builder);
        self
    }

    /// Shakes hands; the error names the alert.
    pub fn try_connect(self, address: SocketAddr) -> Result<TlsStream, String> {
        let connector = self.builder.build();
        let mut configuration = connector.configure().unwrap();
        // What can be no host name can be asked for, but OpenSSL 4 lets nobody verify it.
        let is_host = |name: &String| {
            let verification = X509VerifyParam::new();
            verification.is_ok_and(|mut verification| verification.set_host(name).is_ok())
        };
        configuration.set_verify_hostname(self.server_name.as_ref().is_some_and(is_host));
        configuration.set_use_server_name_indication(self.server_name.is_some());
        let mut ssl: Ssl = configuration
            .into_ssl(self.server_name.as_deref().unwrap_or(""))
            .unwrap();
        if let Some(session) = &self.session {
            // SAFETY: the session was made by a client like this one, with the same method.
            unsafe { ssl.set_session(session) }.unwrap();
        }
        ssl.connect(connect(address))
            .map(|stream| TlsStream {
                stream,
                sessions: self.sessions,
            })
            .map_err(|error| format!("{error:?}"))
    }

    /// Shakes hands.
    #[track_caller]
    pub fn connect(self, address: SocketAddr) -> TlsStream {
        self.try_connect(address)
            .unwrap_or_else(|error| panic!("no TLS handshake: {error}"))
    }
}

/// A session of its own: the end of a connection without a closing alert spoils the one in use.
fn copy(session: &SslSessionRef) -> SslSession {
    SslSession::from_der(&session.to_der().unwrap()).unwrap()
}

/// A TLS connection.
pub struct TlsStream {
    stream: SslStream<TcpStream>,
    sessions: Arc<Mutex<Vec<SslSession>>>,
}

impl TlsStream {
    pub fn ssl(&self) -> &openssl::ssl::SslRef {
        self.stream.ssl()
    }

    pub fn tcp(&self) -> &TcpStream {
        self.stream.get_ref()
    }

    /// Says that nothing more will be sent, and continues to read.
    pub fn end_sending(&mut self) {
        self.stream.shutdown().expect("a close_notify is sent");
    }

    /// The certificate that the server presented.
    pub fn certificate(&self) -> X509 {
        self.ssl()
            .peer_certificate()
            .expect("a server presents a certificate")
    }

    /// The DNS names of that certificate.
    pub fn names(&self) -> Vec<String> {
        let certificate = self.certificate();
        let names = certificate.subject_alt_names();
        names
            .iter()
            .flatten()
            .filter_map(|name| name.dnsname().map(str::to_owned))
            .collect()
    }

    pub fn alpn(&self) -> Option<String> {
        let protocol = self.ssl().selected_alpn_protocol()?;
        Some(String::from_utf8_lossy(protocol).into_owned())
    }

    /// Whether an earlier session was resumed.
    pub fn resumed(&self) -> bool {
        self.ssl().session_reused()
    }

    /// The newest session that the server gave. In TLS 1.3 it comes after the handshake, with the
    /// first bytes that are read.
    pub fn session(&self) -> Option<SslSession> {
        let sessions = self.sessions.lock().unwrap();
        sessions.last().map(|session| copy(session))
    }

    /// Sends bytes as they are and reads one response.
    #[track_caller]
    pub fn request(&mut self, request: impl AsRef<[u8]>) -> Response {
        self.write_all(request.as_ref())
            .expect("the request is taken");
        read_response(self).expect("a response")
    }

    /// A GET, leaving the connection open.
    #[track_caller]
    pub fn get(&mut self, host: &str, path: &str) -> Response {
        self.request(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"))
    }

    /// Sends bytes as they are and reads until the close.
    pub fn exchange(&mut self, request: impl AsRef<[u8]>) -> Vec<u8> {
        exchange(self, request)
    }
}

impl Read for TlsStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.read(buffer)
    }
}

impl Write for TlsStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}
