//! One check of one address.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

use super::http2;
use crate::config::model::{Probe, Protocol};
use crate::proxy::dial::{Dialer, Duplex};
use crate::proxy::endpoint::Endpoint;
use crate::proxy::failure::ErrorSummary;
use crate::proxy::upstream::Pool;

/// The most octets of a response that are read.
const MAX_HEAD: usize = 16 * 1024;

/// Checks an address of the server at `index` as the pool's upstream asks for.
///
/// # Errors
/// Why the address does not work.
pub(super) async fn probe(
    pool: &Pool,
    index: usize,
    endpoint: &Endpoint,
    dialer: &Dialer,
) -> Result<(), String> {
    let (Some(check), Some(server)) = (pool.health_check(), pool.servers().get(index)) else {
        return Ok(());
    };
    let probing = async {
        let header = pool.proxy_header(None);
        let opened =
            server.open_connection(endpoint, header.as_deref(), dialer, check.timeout, false);
        let mut socket = opened
            .await
            .map_err(|error| format!("no connection: {}", ErrorSummary(&error)))?;
        // If it fails, the request comes later.
        _ = socket.set_nodelay();
        let host_of =
            |host: &Option<String>| host.clone().unwrap_or_else(|| server.authority(endpoint));
        let (path, host, status) = match &check.probe {
            Probe::Tcp => return Ok(()),
            Probe::Grpc { service, host } => {
                let host = host_of(host);
                return http2::check_grpc(socket, service, &host, pool.has_tls()).await;
            }
            Probe::Http { path, host, status } => (path, host_of(host), status),
        };
        let is_http2 = pool.protocol() == Protocol::Http2 || socket.has_chosen_http2();
        let got = match is_http2 {
            true => http2::request_status(socket, path, &host, pool.has_tls()).await?,
            false => request_status(&mut *socket, path, &host).await?,
        };
        match status.iter().any(|range| range.contains(&got)) {
            true => Ok(()),
            false => Err(format!("the response has the status {got}")),
        }
    };
    let probed = timeout(check.timeout, probing).await;
    probed.unwrap_or_else(|_| Err(format!("no response within {:?}", check.timeout)))
}

/// Sends a GET request and returns the status of the response.
async fn request_status(socket: &mut dyn Duplex, path: &str, host: &str) -> Result<u16, String> {
    let head = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: snigate\r\nAccept: */*\r\n\
         Connection: close\r\n\r\n"
    );
    let sent = async {
        socket.write_all(head.as_bytes()).await?;
        socket.flush().await
    };
    sent.await
        .map_err(|error| format!("the request cannot be sent: {error}"))?;
    let mut received = Vec::with_capacity(1024);
    loop {
        if let Some(status) = final_status(&received)? {
            return Ok(status);
        }
        if received.len() >= MAX_HEAD {
            return Err("the head of the response is too long".to_owned());
        }
        let mut part = [0; 1024];
        let count = socket
            .read(&mut part)
            .await
            .map_err(|error| format!("the response cannot be read: {error}"))?;
        match part.get(..count) {
            Some(part) if !part.is_empty() => received.extend_from_slice(part),
            _ => return Err("the connection ends before the response".to_owned()),
        }
    }
}

/// The status of the first response that is not an interim one, once its whole head is there.
fn final_status(mut received: &[u8]) -> Result<Option<u16>, String> {
    loop {
        let Some(end) = memchr::memmem::find(received, b"\r\n\r\n") else {
            return Ok(None);
        };
        let status = status_of(received).ok_or("the response is not HTTP/1")?;
        if status >= 200 || status == 101 {
            return Ok(Some(status));
        }
        received = received.get(end + 4..).unwrap_or_default();
    }
}

/// The status of a head (RFC 9112, section 4).
fn status_of(head: &[u8]) -> Option<u16> {
    let rest = head.strip_prefix(b"HTTP/1.")?;
    let (_, rest) = rest
        .split_first()
        .filter(|(minor, _)| minor.is_ascii_digit())?;
    let rest = rest.strip_prefix(b" ")?;
    let code = rest.get(..3)?;
    let is_code = code.iter().all(u8::is_ascii_digit);
    let ends = matches!(rest.get(3), Some(b' ' | b'\r'));
    let text = std::str::from_utf8(code).ok()?;
    (is_code && ends).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_is_that_of_the_final_response() {
        let of = |text: &str| final_status(text.as_bytes());
        assert_eq!(of(""), Ok(None));
        assert_eq!(of("HTTP/1.1 200 OK\r\nA: b\r\n"), Ok(None));
        assert_eq!(of("HTTP/1.1 200 OK\r\nA: b\r\n\r\nbody"), Ok(Some(200)));
        assert_eq!(of("HTTP/1.0 503\r\n\r\n"), Ok(Some(503)));
        assert_eq!(of("HTTP/1.1 103 Early\r\nA: b\r\n\r\n"), Ok(None));
        assert_eq!(
            of("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 None\r\n\r\n"),
            Ok(Some(204))
        );
        for bad in [
            "+OK\r\n\r\n",
            "HTTP/2 200\r\n\r\n",
            "HTTP/1.1 2000 X\r\n\r\n",
        ] {
            assert!(of(bad).is_err(), "{bad}");
        }
    }
}
