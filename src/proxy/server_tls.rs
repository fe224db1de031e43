//! TLS to the servers of an upstream: whom the gateway trusts, what it presents, and what a failure
//! means.

use std::borrow::Cow;
use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;

use openssl::error::ErrorStack;
use openssl::pkey::{PKey, Private};
use openssl::sha::sha256;
use openssl::ssl::{Ssl, SslContext, SslVerifyMode};
use openssl::x509::X509;
use openssl::x509::verify::X509CheckFlags;
use pingora_core::{Error, ErrorType, Result};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_openssl::SslStream;
use zeroize::Zeroizing;

use super::system_roots::{SystemRoots, context, store};
use super::tls_failure;
use super::tls_stream::{TlsStream, Underlay};
use crate::config::model::{
    ClientCertificate, Upstream, UpstreamAddress, UpstreamTls, service_domain,
};
use crate::printable::Printable as _;

/// The protocols that are offered to servers by ALPN (RFC 7301, section 3.1).
pub(super) const HTTP1: &[u8] = b"\x08http/1.1";
pub(super) const HTTP2: &[u8] = b"\x02h2";
pub(super) const HTTP2_OR_1: &[u8] = b"\x02h2\x08http/1.1";

/// What all servers of an upstream have in common.
pub(crate) struct TlsSettings {
    verify: bool,
    /// What trusts the upstream's own roots, or nothing if no certificate is verified; `None` for
    /// the system's roots.
    context: Option<SslContext>,
    /// What is presented to servers that ask for it.
    identity: Option<Identity>,
    /// Why none of the servers can be connected to.
    fault: Option<String>,
    /// Of the files that this was made from, to detect a change.
    digests: Digests,
}

/// Roots, certificate and key, each `None` if there is no such file or it cannot be read.
type Digests = [Option<[u8; 32]>; 3];

/// A client certificate.
struct Identity {
    leaf: X509,
    intermediates: Vec<X509>,
    key: PKey<Private>,
}

impl TlsSettings {
    /// The settings of an upstream; `None` if it does not use TLS.
    pub(crate) fn new(upstream: &Upstream) -> Option<Arc<Self>> {
        let UpstreamTls::On {
            verify,
            ca_file,
            client_certificate,
            ..
        } = &upstream.tls
        else {
            return None;
        };
        let mut settings = Self {
            verify: *verify,
            context: None,
            identity: None,
            fault: None,
            digests: digests(upstream),
        };
        let read = settings.read_files(ca_file.as_deref(), client_certificate.as_ref());
        if let Err(fault) = read {
            tracing::error!(
                upstream = &*upstream.name,
                fault,
                "no server of the upstream can be connected to"
            );
            settings.fault = Some(fault);
        }
        Some(Arc::new(settings))
    }

    /// Whether [`Self::new`] would make the same of `upstream`, whose configuration is the same.
    pub(crate) fn are_for(settings: Option<&Self>, upstream: &Upstream) -> bool {
        settings.is_none_or(|settings| settings.digests == digests(upstream))
    }

    /// Reads the files again that were checked with the configuration.
    fn read_files(
        &mut self,
        ca_file: Option<&Path>,
        client: Option<&ClientCertificate>,
    ) -> Result<(), String> {
        if let Some(path) = ca_file {
            let unusable = |_| format!("the CA file {} is not usable", path.printable());
            let roots = X509::stack_from_pem(&read(path)?).map_err(unusable)?;
            let store = store(roots).map_err(unusable)?;
            self.context = Some(context(Some(store)).map_err(unusable)?);
        } else if !self.verify {
            let unusable = |error| format!("TLS cannot be prepared: {error}");
            self.context = Some(context(None).map_err(unusable)?);
        }
        if let Some(files) = client {
            let unusable = |path: &Path| {
                let path = path.printable();
                format!("the client certificate is not usable: see {path}")
            };
            let chain = X509::stack_from_pem(&read(&files.cert)?);
            let mut chain = chain.unwrap_or_default().into_iter();
            let leaf = chain.next().ok_or_else(|| unusable(&files.cert))?;
            // Without the callback, OpenSSL might ask on the terminal.
            let key = PKey::private_key_from_pem_callback(&read(&files.key)?, |_| Ok(0));
            let key = key.map_err(|_| unusable(&files.key))?;
            let is_pair = leaf.public_key().is_ok_and(|public| public.public_eq(&key));
            if !is_pair {
                return Err(unusable(&files.key));
            }
            self.identity = Some(Identity {
                leaf,
                intermediates: chain.collect(),
                key,
            });
        }
        Ok(())
    }
}

/// TLS to one server.
#[derive(Clone)]
pub(super) struct ServerTls {
    settings: Arc<TlsSettings>,
    /// The name or address that the certificate must cover. A name is sent in the ClientHello.
    name: Arc<str>,
    /// The protocols that are offered to the server, as ALPN has them on the wire; none if empty.
    pub(super) alpn: Cow<'static, [u8]>,
}

impl ServerTls {
    pub(super) fn new(
        settings: &Arc<TlsSettings>,
        tls: &UpstreamTls,
        to: &UpstreamAddress,
    ) -> Self {
        let configured = match tls {
            UpstreamTls::On { server_name, .. } => server_name.as_ref(),
            UpstreamTls::Off => None,
        };
        let name = match (configured, to) {
            (Some(name), _) | (None, UpstreamAddress::Name { host: name, .. }) => name.to_string(),
            (None, UpstreamAddress::Service(name)) => service_domain(name).to_owned(),
            (None, UpstreamAddress::Ip(address)) => address.ip().to_canonical().to_string(),
            (None, UpstreamAddress::Unix(_)) => "localhost".to_owned(),
        };
        Self {
            settings: Arc::clone(settings),
            name: name.into(),
            alpn: Cow::Borrowed(HTTP1),
        }
    }

    /// Performs the handshake over a connection that was just opened. `roots` are the system's.
    ///
    /// # Errors
    /// If the server cannot be trusted, or does not trust the gateway.
    pub(super) async fn handshake<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        socket: S,
        roots: &SystemRoots,
    ) -> Result<TlsStream<S>> {
        if let Some(fault) = &self.settings.fault {
            return Error::e_explain(ErrorType::InvalidCert, fault.clone());
        }
        let invalid = |error: ErrorStack| {
            let why = format!("TLS cannot begin: {error}");
            Error::explain(ErrorType::TLSHandshakeFailure, why)
        };
        let context = match &self.settings.context {
            Some(own) => own.clone(),
            None => roots.context()?,
        };
        let ssl = self.configure(&context).map_err(invalid)?;
        let mut stream = SslStream::new(ssl, Underlay::new(socket)).map_err(invalid)?;
        match Pin::new(&mut stream).connect().await {
            Ok(()) => Ok(TlsStream::new(stream)),
            Err(error) => {
                let verified = self.settings.verify.then(|| stream.ssl().verify_result());
                Err(tls_failure::explain_handshake(&error, verified, &self.name))
            }
        }
    }

    fn configure(&self, context: &SslContext) -> Result<Ssl, ErrorStack> {
        let settings = &*self.settings;
        let mut ssl = Ssl::new(context)?;
        let address = self.name.parse::<IpAddr>();
        if address.is_err() {
            ssl.set_hostname(&self.name)?;
        }
        if !self.alpn.is_empty() {
            ssl.set_alpn_protos(&self.alpn)?;
        }
        if settings.verify {
            let param = ssl.param_mut();
            match address {
                Ok(address) => param.set_ip(address)?,
                Err(_) => {
                    param.set_hostflags(X509CheckFlags::NO_PARTIAL_WILDCARDS);
                    param.set_host(&self.name)?;
                }
            }
            ssl.set_verify(SslVerifyMode::PEER);
        } else {
            ssl.set_verify(SslVerifyMode::NONE);
        }
        if let Some(identity) = &settings.identity {
            ssl.set_certificate(&identity.leaf)?;
            for certificate in &identity.intermediates {
                ssl.add_chain_cert(certificate.clone())?;
            }
            ssl.set_private_key(&identity.key)?;
        }
        Ok(ssl)
    }
}

fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, String> {
    let read = fs::read(path).map(Zeroizing::new);
    read.map_err(|error| format!("the file {} cannot be read: {error}", path.printable()))
}

fn digests(upstream: &Upstream) -> Digests {
    let UpstreamTls::On {
        ca_file,
        client_certificate,
        ..
    } = &upstream.tls
    else {
        return [None; 3];
    };
    let client = client_certificate.as_ref();
    let files = [
        ca_file.as_deref(),
        client.map(|client| &*client.cert),
        client.map(|client| &*client.key),
    ];
    files.map(|file| Some(sha256(&read(file?).ok()?)))
}
