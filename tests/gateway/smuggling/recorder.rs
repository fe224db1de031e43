//! An origin that keeps every octet it gets.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// Answers each request, by the plainest reading there is, with 200.
pub(crate) struct Recorder {
    address: SocketAddr,
    connections: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Recorder {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let connections = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&connections);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let mut all = kept.lock().expect("not poisoned");
                let number = all.len();
                all.push(Vec::new());
                let kept = Arc::clone(&kept);
                thread::spawn(move || serve(stream, number, &kept));
            }
        });
        Self {
            address,
            connections,
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// All that came so far, connection by connection.
    pub(crate) fn seen(&self) -> Vec<String> {
        let connections = self.connections.lock().expect("not poisoned");
        connections
            .iter()
            .map(|bytes| String::from_utf8_lossy(bytes).into_owned())
            .collect()
    }

    /// How many request lines came for this path.
    pub(crate) fn count(&self, path: &str) -> usize {
        let line = format!(" {path} HTTP/1.1\r\n");
        self.seen()
            .iter()
            .map(|bytes| bytes.matches(&line).count())
            .sum()
    }
}

fn serve(mut stream: TcpStream, number: usize, kept: &Mutex<Vec<Vec<u8>>>) {
    let mut pending = Vec::new();
    let mut buffer = [0; 16 * 1024];
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        kept.lock().expect("not poisoned")[number].extend_from_slice(&buffer[..count]);
        pending.extend_from_slice(&buffer[..count]);
        while let Some(length) = request(&pending) {
            pending.drain(..length);
            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
            if stream.write_all(answer).is_err() {
                return;
            }
        }
    }
}

/// The length of the request at the beginning of `bytes`, where it is there whole.
fn request(bytes: &[u8]) -> Option<usize> {
    let head = find(bytes, b"\r\n\r\n")? + 4;
    let fields = String::from_utf8_lossy(&bytes[..head]).to_ascii_lowercase();
    let body = if fields.contains("\r\ntransfer-encoding: chunked\r\n") {
        chunked(&bytes[head..])?
    } else {
        fields
            .split_once("\r\ncontent-length: ")
            .and_then(|(_, rest)| rest.split_once("\r\n")?.0.parse().ok())
            .unwrap_or(0)
    };
    (bytes.len() >= head + body).then_some(head + body)
}

/// The length of a body in chunks, where it is there whole.
fn chunked(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let line = find(bytes.get(at..)?, b"\r\n")?;
        let size = String::from_utf8_lossy(&bytes[at..at + line]).into_owned();
        let size = usize::from_str_radix(size.split(';').next()?.trim(), 16).ok()?;
        if size == 0 {
            return Some(at + find(&bytes[at..], b"\r\n\r\n")? + 4);
        }
        at += line + 2 + size + 2;
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    memchr::memmem::find(bytes, what)
}
