//! Checks a challenge as a CA does (RFC 8555, section 8.3; RFC 8737, section 3), from this machine.

use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use http::header::{HOST, LOCATION, USER_AGENT};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use openssl::sha::sha256;
use openssl::ssl::{Ssl, SslContext, SslMethod, SslVerifyMode};
use tokio::net::TcpStream;
use tokio_openssl::SslStream;

use crate::challenge::Challenge;
use crate::host::Identifier;

/// How long a server may take, about as long as CAs wait.
const PATIENCE: Duration = Duration::from_secs(10);

/// A key authorization takes about a hundred octets.
const MAX_ANSWER: usize = 16 * 1024;

/// The ALPN protocol of TLS validation, as a list and by itself.
const ACME_TLS_LIST: &[u8] = b"\x0aacme-tls/1";
const ACME_TLS: &[u8] = b"acme-tls/1";

/// Validates over HTTP.
///
/// # Errors
/// What was found instead of the challenge response.
pub(in crate::acme) async fn check_http(
    address: SocketAddr,
    challenge: &Challenge,
) -> Result<(), String> {
    in_time(async {
        let stream = connect(address).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| error.to_string())?;
        let connection = tokio::spawn(connection);
        let request = Request::get(format!("/.well-known/acme-challenge/{}", challenge.token))
            .header(HOST, host(&challenge.domain))
            .header(USER_AGENT, crate::http_client::AGENT)
            .body(Empty::<Bytes>::new())
            .map_err(|error| error.to_string())?;
        let reply = sender.send_request(request).await;
        let (head, body) = reply.map_err(|error| error.to_string())?.into_parts();
        if let Some(to) = head.headers.get(LOCATION)
            && head.status.is_redirection()
        {
            let to = String::from_utf8_lossy(to.as_bytes());
            return Err(format!("it redirects to {to}, so another server answers"));
        }
        if head.status != StatusCode::OK {
            let status = head.status;
            return Err(format!("it answers {status}: another server answers there"));
        }
        let body = Limited::new(body, MAX_ANSWER).collect().await;
        connection.abort();
        let body = body.map_err(|error| error.to_string())?.to_bytes();
        if body.trim_ascii_end() == challenge.key_authorization.as_bytes() {
            Ok(())
        } else {
            Err("it answers something else: another server answers there".to_owned())
        }
    })
    .await
}

/// Validates over TLS.
///
/// # Errors
/// What was found instead of the challenge response.
pub(in crate::acme) async fn check_tls(
    address: SocketAddr,
    challenge: &Challenge,
) -> Result<(), String> {
    let text = |error: openssl::error::ErrorStack| error.to_string();
    let mut context = SslContext::builder(SslMethod::tls_client()).map_err(text)?;
    // The certificate is self-signed: only its extension counts.
    context.set_verify(SslVerifyMode::NONE);
    context.set_alpn_protos(ACME_TLS_LIST).map_err(text)?;
    let mut ssl = Ssl::new(&context.build()).map_err(text)?;
    ssl.set_hostname(challenge.domain.dns_name().as_str())
        .map_err(text)?;
    in_time(async {
        let stream = connect(address).await?;
        let mut stream = SslStream::new(ssl, stream).map_err(text)?;
        let shaken = Pin::new(&mut stream).connect().await;
        let elsewhere = "another server answers there, or something in front of the gateway \
                         terminates TLS";
        shaken.map_err(|error| format!("the handshake fails ({error}): {elsewhere}"))?;
        if stream.ssl().selected_alpn_protocol() != Some(ACME_TLS) {
            return Err(format!("it does not speak acme-tls/1: {elsewhere}"));
        }
        let leaf = stream.ssl().peer_certificate();
        let der = leaf.and_then(|leaf| leaf.to_der().ok()).unwrap_or_default();
        // The OCTET STRING of the extension acmeIdentifier.
        let digest = sha256(challenge.key_authorization.as_bytes());
        let proof = [b"\x04\x20".as_slice(), &digest].concat();
        if memchr::memmem::find(&der, &proof).is_some() {
            Ok(())
        } else {
            Err(format!("it presents another certificate: {elsewhere}"))
        }
    })
    .await
}

/// As written in a `Host` field.
fn host(of: &Identifier) -> String {
    match of {
        Identifier::Ip(IpAddr::V6(address)) => format!("[{address}]"),
        other => other.to_string(),
    }
}

async fn connect(address: SocketAddr) -> Result<TcpStream, String> {
    let stream = TcpStream::connect(address).await;
    stream.map_err(|error| format!("cannot connect to it: {error}"))
}

async fn in_time(look: impl Future<Output = Result<(), String>>) -> Result<(), String> {
    tokio::time::timeout(PATIENCE, look)
        .await
        .unwrap_or_else(|_| {
            Err(format!(
                "it does not respond within {} s",
                PATIENCE.as_secs()
            ))
        })
}
