//! Checks over a connection of HTTP/2 of their own.

use bytes::Bytes;
use h2::client::{Builder, SendRequest};
use http::header::{ACCEPT, CONTENT_TYPE, TE, USER_AGENT};
use http::request::Builder as RequestBuilder;
use http::{HeaderName, HeaderValue, Method, Request, StatusCode, Version};

use crate::proxy::dial::Duplex;

/// The most octets of a head that is received.
const MAX_HEAD: u32 = 16 * 1024;

/// Sends a GET request and returns the status of the response.
pub(super) async fn request_status(
    socket: Box<dyn Duplex>,
    path: &str,
    host: &str,
    is_tls: bool,
) -> Result<u16, String> {
    let head = begin(Method::GET, path, host, is_tls).header(ACCEPT, "*/*");
    let head = head.body(()).map_err(unfit)?;
    over_http2(socket, async |mut sender| {
        let (response, _) = sender.send_request(head, true)?;
        response.await.map(|response| response.status().as_u16())
    })
    .await
}

/// Asks a server for the health of a service, as `grpc.health.v1.Health` has it. An empty name stands
/// for the whole server.
///
/// # Errors
/// Why the service is not healthy.
pub(super) async fn check_grpc(
    socket: Box<dyn Duplex>,
    service: &str,
    host: &str,
    is_tls: bool,
) -> Result<(), String> {
    let head = begin(Method::POST, "/grpc.health.v1.Health/Check", host, is_tls)
        .header(CONTENT_TYPE, "application/grpc")
        .header(TE, "trailers");
    let head = head.body(()).map_err(unfit)?;
    let request = frame_message(&encode_request(service));
    let (head, message, trailers) = over_http2(socket, async |mut sender| {
        let (response, mut body) = sender.send_request(head, false)?;
        body.send_data(request.into(), true)?;
        let (head, mut body) = response.await?.into_parts();
        let mut message = Vec::new();
        while let Some(part) = body.data().await {
            let part = part?;
            message.extend_from_slice(&part);
            if message.len() > MAX_MESSAGE {
                break;
            }
            _ = body.flow_control().release_capacity(part.len());
        }
        let trailers = match message.len() > MAX_MESSAGE {
            true => None,
            false => body.trailers().await?,
        };
        Ok((head, message, trailers.unwrap_or_default()))
    })
    .await?;
    if head.status != StatusCode::OK {
        return Err(format!(
            "the response has the status {}",
            head.status.as_u16()
        ));
    }
    // If nothing else follows, the head has it.
    let status = trailers.get(STATUS).or_else(|| head.headers.get(STATUS));
    match status.map(HeaderValue::as_bytes) {
        Some(b"0") => {}
        Some(b"12") => return Err("the server has no grpc.health.v1.Health".to_owned()),
        Some(b"5") => return Err(format!("the server knows no service {service:?}")),
        Some(other) => {
            let other = other.escape_ascii();
            return Err(format!("the check ends with grpc-status {other}"));
        }
        None => return Err("the response has no grpc-status".to_owned()),
    }
    match read_status(&message) {
        Some(SERVING) => Ok(()),
        Some(0) => Err("the service is UNKNOWN".to_owned()),
        Some(2) => Err("the service is NOT_SERVING".to_owned()),
        Some(3) => Err("the service is SERVICE_UNKNOWN".to_owned()),
        Some(other) => Err(format!("the service has the status {other}")),
        None => Err("the response is no HealthCheckResponse".to_owned()),
    }
}

const STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// The status of a service that works.
const SERVING: u64 = 1;

/// The most octets of a response, with what frames it.
const MAX_MESSAGE: usize = 1024;

/// A message with what frames it: that it is not compressed, and its length.
fn frame_message(message: &[u8]) -> Vec<u8> {
    let len = u32::try_from(message.len()).unwrap_or(u32::MAX);
    [&[0], &len.to_be_bytes()[..], message].concat()
}

/// A `HealthCheckRequest`: the service is its field 1, a text.
fn encode_request(service: &str) -> Vec<u8> {
    let mut message = Vec::new();
    if service.is_empty() {
        return message;
    }
    message.push(1 << 3 | 2);
    let mut len = service.len();
    while len >= 0x80 {
        message.push((len & 0x7f) as u8 | 0x80);
        len >>= 7;
    }
    message.push(len as u8);
    message.extend_from_slice(service.as_bytes());
    message
}

/// The status in a framed `HealthCheckResponse`: its field 1, a number, 0 if it is left out. `None`
/// if it is none.
fn read_status(framed: &[u8]) -> Option<u64> {
    let (&[0, a, b, c, d], mut rest) = framed.split_first_chunk()? else {
        return None;
    };
    if u32::from_be_bytes([a, b, c, d]) as usize != rest.len() {
        return None;
    }
    let mut status = 0;
    while !rest.is_empty() {
        let key = read_number(&mut rest)?;
        match (key >> 3, key & 7) {
            (1, 0) => status = read_number(&mut rest)?,
            (_, 0) => _ = read_number(&mut rest)?,
            (_, 2) => {
                let len = usize::try_from(read_number(&mut rest)?).ok()?;
                rest = rest.get(len..)?;
            }
            (_, 1) => rest = rest.get(8..)?,
            (_, 5) => rest = rest.get(4..)?,
            _ => return None,
        }
    }
    Some(status)
}

/// Takes a number of variable length.
fn read_number(octets: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (&octet, rest) = octets.split_first()?;
        *octets = rest;
        number |= u64::from(octet & 0x7f) << shift;
        if octet & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

fn begin(method: Method, path: &str, host: &str, is_tls: bool) -> RequestBuilder {
    let scheme = if is_tls { "https" } else { "http" };
    Request::builder()
        .method(method)
        .uri(format!("{scheme}://{host}{path}"))
        .version(Version::HTTP_2)
        .header(USER_AGENT, "snigate")
}

fn unfit(error: http::Error) -> String {
    format!("the request cannot be sent: {error}")
}

/// What `ask` makes of a connection that lasts as long as it.
async fn over_http2<T>(
    socket: Box<dyn Duplex>,
    ask: impl AsyncFnOnce(SendRequest<Bytes>) -> Result<T, h2::Error>,
) -> Result<T, String> {
    let mut builder = Builder::new();
    builder.enable_push(false).max_header_list_size(MAX_HEAD);
    let asked = async {
        let (sender, connection) = builder.handshake::<_, Bytes>(socket).await?;
        let asking = async { ask(sender.ready().await?).await };
        tokio::select! {
            biased;
            answer = asking => answer.map(Some),
            ended = connection => ended.map(|()| None),
        }
    };
    match asked.await {
        Ok(Some(answer)) => Ok(answer),
        Ok(None) => Err("the connection ends before the response".to_owned()),
        Err(error) => Err(format!("the check over HTTP/2 fails: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_names_the_service() {
        assert!(encode_request("").is_empty());
        assert_eq!(encode_request("a.B"), b"\x0a\x03a.B");
        let long = "a".repeat(300);
        assert!(encode_request(&long).starts_with(b"\x0a\xac\x02aaa"));
        assert_eq!(frame_message(b"\x08\x01"), b"\0\0\0\0\x02\x08\x01");
    }

    #[test]
    fn a_response_has_a_status() {
        let read = |message: &[u8]| read_status(&frame_message(message));
        assert_eq!(read(b"\x08\x01"), Some(SERVING));
        assert_eq!(read(b"\x08\x02"), Some(2));
        assert_eq!(read(b""), Some(0));
        // With fields that are not known.
        assert_eq!(
            read(b"\x12\x02ab\x08\x01\x18\x80\x01\x25abcd"),
            Some(SERVING)
        );
        for bad in [&b"\x08"[..], b"\x12\x05ab", b"\x0b", b"\x08\x80"] {
            assert_eq!(read(bad), None, "{bad:?}");
        }
        assert_eq!(read_status(b"\x01\0\0\0\x02\x08\x01"), None, "compressed");
        assert_eq!(read_status(b"\0\0\0\0\x03\x08\x01"), None, "cut");
        assert_eq!(read_status(b""), None);
    }
}
