//! HTTP/1.1 by hand: bytes out, bytes in, nothing put right on the way.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::PATIENCE;
use super::announcing::announce;

/// Connects, with time-outs so that no test hangs.
pub fn connect(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)
        .unwrap_or_else(|error| panic!("cannot connect to {address}: {error}"));
    stream
        .set_read_timeout(Some(PATIENCE))
        .expect("a read time-out");
    stream
        .set_write_timeout(Some(PATIENCE))
        .expect("a write time-out");
    announce(&mut stream);
    stream
}

/// Sends `request` as it is and returns all that comes until the other side closes.
///
/// A reset ends it like a close: some bytes may have come before.
pub fn exchange(stream: &mut (impl Read + Write), request: impl AsRef<[u8]>) -> Vec<u8> {
    // The other side may refuse before it has read everything.
    let _ = stream
        .write_all(request.as_ref())
        .and_then(|()| stream.flush());
    let mut answer = Vec::new();
    let mut buffer = [0; 16 * 1024];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return answer,
            Ok(read) => answer.extend_from_slice(&buffer[..read]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if is_timeout(&error) => {
                panic!("neither an answer nor a close after {PATIENCE:?}: {answer:?}")
            }
            Err(_) => return answer,
        }
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

/// A response as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    /// Status line and fields, with the blank line.
    pub head: String,
    /// Without transfer coding.
    pub body: Vec<u8>,
}

impl Response {
    /// The value of the first field of this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.head, name)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// The value of the first field of this name in a head.
pub fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().skip(1).find_map(|line| {
        let (field, value) = line.split_once(':')?;
        field.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

/// Reads one response to a request other than HEAD, and leaves what follows it in the stream.
/// Interim responses are skipped.
pub fn read_response(stream: &mut impl Read) -> io::Result<Response> {
    loop {
        let head = read_head(stream)?.ok_or(ErrorKind::UnexpectedEof)?;
        let head = String::from_utf8_lossy(&head).into_owned();
        let status = head
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok())
            .ok_or_else(|| io::Error::new(ErrorKind::InvalidData, head.clone()))?;
        if (100..200).contains(&status) && status != 101 {
            continue;
        }
        let body = if matches!(status, 101 | 204 | 304) {
            Vec::new()
        } else {
            read_body(stream, &head, true)?.0
        };
        return Ok(Response { status, head, body });
    }
}

/// A head with its blank line; `None` where the other side closed before its first byte.
pub fn read_head(stream: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte)? == 0 {
            return if head.is_empty() {
                Ok(None)
            } else {
                Err(ErrorKind::UnexpectedEof.into())
            };
        }
        head.push(byte[0]);
    }
    Ok(Some(head))
}

/// The body that a head announces, decoded and as it came. Without any announcement, all until the
/// close where `until_close`, else none.
pub fn read_body(
    stream: &mut impl Read,
    head: &str,
    until_close: bool,
) -> io::Result<(Vec<u8>, Vec<u8>)> {
    if header(head, "transfer-encoding").is_some() {
        return read_chunked(stream);
    }
    let mut body = Vec::new();
    match header(head, "content-length").and_then(|length| length.parse().ok()) {
        Some(length) => {
            body.resize(length, 0);
            stream.read_exact(&mut body)?;
        }
        None if until_close => {
            stream.read_to_end(&mut body)?;
        }
        None => {}
    }
    Ok((body.clone(), body))
}

fn read_chunked(stream: &mut impl Read) -> io::Result<(Vec<u8>, Vec<u8>)> {
    let (mut body, mut raw) = (Vec::new(), Vec::new());
    loop {
        let line = read_line(stream)?;
        raw.extend_from_slice(&line);
        let line = String::from_utf8_lossy(&line).into_owned();
        let size = line.trim().split(';').next().unwrap_or_default();
        let size = usize::from_str_radix(size, 16)
            .map_err(|_| io::Error::new(ErrorKind::InvalidData, format!("chunk size {line:?}")))?;
        if size == 0 {
            loop {
                let trailer = read_line(stream)?;
                raw.extend_from_slice(&trailer);
                if trailer == b"\r\n" {
                    return Ok((body, raw));
                }
            }
        }
        let mut chunk = vec![0; size + 2];
        stream.read_exact(&mut chunk)?;
        body.extend_from_slice(&chunk[..size]);
        raw.extend_from_slice(&chunk);
    }
}

fn read_line(stream: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    let mut byte = [0];
    while !line.ends_with(b"\r\n") {
        stream.read_exact(&mut byte)?;
        line.push(byte[0]);
    }
    Ok(line)
}
