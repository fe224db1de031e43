//! HTTP/2 by hand: frames out, frames in, for what no proper client would do (RFC 9113).

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;

use super::{TlsClient, TlsStream};

/// A frame as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Frame {
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const GOAWAY: u8 = 7;
    pub const CONTINUATION: u8 = 9;
    pub const END_STREAM: u8 = 1;
    pub const END_HEADERS: u8 = 4;

    pub fn new(kind: u8, flags: u8, stream: u32, payload: impl Into<Vec<u8>>) -> Self {
        Self {
            kind,
            flags,
            stream,
            payload: payload.into(),
        }
    }

    /// HEADERS of a request without a body, whole.
    pub fn get(stream: u32, host: &str, path: &str) -> Self {
        let fields = [
            (":method", "GET"),
            (":scheme", "https"),
            (":authority", host),
            (":path", path),
        ];
        let flags = Self::END_HEADERS | Self::END_STREAM;
        Self::new(Self::HEADERS, flags, stream, Self::fields(&fields))
    }

    /// Fields as HPACK writes them without any table or Huffman coding.
    pub fn fields(fields: &[(&str, &str)]) -> Vec<u8> {
        let mut block = Vec::new();
        for (name, value) in fields {
            block.push(0);
            for text in [name, value] {
                block.push(u8::try_from(text.len()).expect("short"));
                block.extend_from_slice(text.as_bytes());
            }
        }
        block
    }

    pub fn bytes(&self) -> Vec<u8> {
        let len = u32::try_from(self.payload.len()).expect("small");
        let mut bytes = len.to_be_bytes()[1..].to_vec();
        bytes.extend([self.kind, self.flags]);
        bytes.extend(self.stream.to_be_bytes());
        bytes.extend_from_slice(&self.payload);
        bytes
    }
}

/// An HTTP/2 connection whose frames are made and read one by one.
pub struct Frames(pub TlsStream);

impl Frames {
    pub const PREFACE: &'static [u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

    /// Connects and sends nothing after the handshake.
    #[track_caller]
    pub fn silent(address: SocketAddr, host: &str) -> Self {
        let stream = TlsClient::named(host).alpn(&["h2"]).connect(address);
        assert_eq!(stream.alpn().as_deref(), Some("h2"));
        Self(stream)
    }

    /// Connects and sends preface and settings.
    #[track_caller]
    pub fn connect(address: SocketAddr, host: &str, settings: &[(u16, u32)]) -> Self {
        let mut frames = Self::silent(address, host);
        frames.0.write_all(Self::PREFACE).expect("taken");
        let mut payload = Vec::new();
        for (name, value) in settings {
            payload.extend(name.to_be_bytes());
            payload.extend(value.to_be_bytes());
        }
        frames.send(&Frame::new(Frame::SETTINGS, 0, 0, payload));
        frames
    }

    #[track_caller]
    pub fn send(&mut self, frame: &Frame) {
        self.0.write_all(&frame.bytes()).expect("taken");
    }

    /// The next frame, or how the connection ended.
    pub fn next(&mut self) -> io::Result<Frame> {
        let mut header = [0; 9];
        self.0.read_exact(&mut header)?;
        let [a, b, c, kind, flags, stream @ ..] = header;
        let len = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        let mut payload = vec![0; len];
        self.0.read_exact(&mut payload)?;
        Ok(Frame {
            kind,
            flags,
            stream: u32::from_be_bytes(stream) & 0x7fff_ffff,
            payload,
        })
    }

    /// Reads until a frame that is wanted; `None` where the connection ends before.
    #[track_caller]
    pub fn until(&mut self, mut wanted: impl FnMut(&Frame) -> bool) -> Option<Frame> {
        loop {
            match self.next() {
                Ok(frame) if wanted(&frame) => return Some(frame),
                Ok(_) => {}
                Err(error) if is_end(&error) => return None,
                Err(error) => panic!("no frame and no end: {error}"),
            }
        }
    }

    /// Reads until the other side closes.
    #[track_caller]
    pub fn until_closed(&mut self) {
        self.until(|_| false);
    }
}

/// Whether an error means that the other side closed, in whatever manner.
pub fn is_end(error: &io::Error) -> bool {
    !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}
