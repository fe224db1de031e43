//! Finds where a request's body ends, and checks that its chunks are well formed.
//!
//! The scanner reads only the framing and changes nothing: the bytes reach Pingora as they were
//! sent, and never a byte that is not known to belong to this message.

use std::io;

use super::head::Body;

/// The most bytes of chunk extensions in one body; only attackers use them.
const MAX_EXTENSIONS: usize = 4 * 1024;

/// The most bytes of trailers.
const MAX_TRAILERS: usize = 16 * 1024;

/// The rest of a message's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    Chunked(Chunks),
    Length(u64),
    /// Everything until the end of the connection belongs to the message.
    Tunnel,
}

impl Framing {
    /// The framing of a message that has ended.
    pub(super) const DONE: Self = Self::Length(0);

    pub(super) fn new(body: Body) -> Self {
        match body {
            Body::Chunked => Self::Chunked(Chunks::default()),
            Body::Length(length) => Self::Length(length),
            Body::Upgrade => Self::Tunnel,
        }
    }

    /// Whether the message has ended.
    pub(super) fn is_done(&self) -> bool {
        match self {
            Self::Chunked(chunks) => chunks.state == State::End,
            Self::Length(left) => *left == 0,
            Self::Tunnel => false,
        }
    }

    /// How many of `bytes` belong to the message.
    ///
    /// # Errors
    /// `InvalidData` if the chunks are malformed.
    pub(super) fn consume(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Chunked(chunks) => chunks.consume(bytes),
            Self::Length(left) => {
                let here = usize::try_from(*left).map_or(bytes.len(), |left| left.min(bytes.len()));
                *left -= here as u64;
                Ok(here)
            }
            Self::Tunnel => Ok(bytes.len()),
        }
    }
}

/// The state of a chunked body (RFC 9112, section 7.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Chunks {
    state: State,
    size: u64,
    extensions: usize,
    trailers: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// At the beginning of a size, before its first digit.
    #[default]
    SizeStart,
    Size,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    /// At the beginning of a trailer line, or of the empty line that ends the body.
    TrailerStart,
    Trailer,
    TrailerLf,
    EndLf,
    End,
}

impl Chunks {
    fn consume(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut rest = bytes;
        while self.state != State::End {
            if self.state == State::Data {
                let here =
                    usize::try_from(self.size).map_or(rest.len(), |size| size.min(rest.len()));
                self.size -= here as u64;
                rest = rest.get(here..).unwrap_or_default();
                if self.size > 0 {
                    break;
                }
                self.state = State::DataCr;
            }
            let Some((&byte, after)) = rest.split_first() else {
                break;
            };
            self.consume_byte(byte)?;
            rest = after;
        }
        Ok(bytes.len() - rest.len())
    }

    /// Consumes one byte of framing.
    fn consume_byte(&mut self, byte: u8) -> io::Result<()> {
        self.state = match (self.state, byte) {
            (State::SizeStart | State::Size, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                if self.size >> 56 != 0 {
                    return Err(malformed("a chunk size is too large"));
                }
                self.size = self.size << 4 | u64::from(hex(byte));
                State::Size
            }
            (State::Size, b'\r') => State::SizeLf,
            (State::Size, b';' | b' ' | b'\t') => self.extension()?,
            (State::Extension, b'\r') => State::SizeLf,
            (State::Extension, b'\t' | b' '..=b'~' | 0x80..) => self.extension()?,
            (State::SizeLf, b'\n') if self.size == 0 => State::TrailerStart,
            (State::SizeLf, b'\n') => State::Data,
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::SizeStart,
            (State::TrailerStart, b'\r') => State::EndLf,
            // A folded line, or a field without a name.
            (State::TrailerStart, b' ' | b'\t' | b':') => {
                return Err(malformed("a trailer is malformed"));
            }
            (State::Trailer, b'\r') => State::TrailerLf,
            (State::TrailerStart | State::Trailer, b'\t' | b' '..=b'~' | 0x80..) => {
                self.trailer(1)?;
                State::Trailer
            }
            (State::TrailerLf, b'\n') => {
                self.trailer(2)?;
                State::TrailerStart
            }
            (State::EndLf, b'\n') => State::End,
            _ => return Err(malformed("a chunk is malformed")),
        };
        Ok(())
    }

    fn trailer(&mut self, bytes: usize) -> io::Result<()> {
        self.trailers += bytes;
        if self.trailers > MAX_TRAILERS {
            return Err(malformed("the trailers are too large"));
        }
        Ok(())
    }

    fn extension(&mut self) -> io::Result<State> {
        self.extensions += 1;
        if self.extensions > MAX_EXTENSIONS {
            return Err(malformed("the chunk extensions are too large"));
        }
        Ok(State::Extension)
    }
}

fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        _ => digit - b'A' + 10,
    }
}

fn malformed(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many bytes belong to the body, fed whole and byte by byte.
    fn scan(bytes: &[u8]) -> Option<(usize, bool)> {
        let mut whole = Framing::new(Body::Chunked);
        let taken = whole.consume(bytes).ok();
        let mut pieces = Framing::new(Body::Chunked);
        let by_piece = bytes
            .iter()
            .try_fold(0, |sum, byte| {
                pieces.consume(&[*byte]).map(|taken| sum + taken)
            })
            .ok();
        assert_eq!(taken, by_piece, "{}", bytes.escape_ascii());
        assert_eq!(whole, pieces);
        taken.map(|taken| (taken, whole.is_done()))
    }

    #[test]
    fn the_end_of_a_body_is_found() {
        assert_eq!(scan(b"0\r\n\r\nGET"), Some((5, true)));
        assert_eq!(scan(b"3\r\nabc\r\n0\r\n\r\n0"), Some((13, true)));
        assert_eq!(
            scan(b"A;x=y\r\n0123456789\r\n00\r\nT: v\r\n\r\n"),
            Some((31, true))
        );
        assert_eq!(scan(b"3\r\nab"), Some((5, false)));
        assert_eq!(scan(b""), Some((0, false)));
        let mut length = Framing::new(Body::Length(3));
        assert_eq!(length.consume(b"abcdef").ok(), Some(3));
        assert!(length.is_done());
    }

    #[test]
    fn malformed_chunks_are_refused() {
        for bytes in [
            &b"\r\n"[..],
            b"x\r\n",
            b"-1\r\n",
            b"0x3\r\nabc\r\n",
            b" 3\r\nabc\r\n",
            b"3\nabc\r\n",
            b"3\r\r\n",
            b"3\r\nabcd\r\n",
            b"3\r\nabc\n0\r\n\r\n",
            b"3\r\nabc\r0\r\n\r\n",
            b"3;a\nb\r\nabc\r\n",
            b"3;a\0b\r\nabc\r\n",
            b"100000000000000000\r\n",
            b"0\r\n folded\r\n\r\n",
            b"0\r\nT: a\nX: b\r\n\r\n",
            b"0\r\n\n",
        ] {
            assert_eq!(scan(bytes), None, "{}", bytes.escape_ascii());
        }
        let extensions = format!("1;{}\r\n", "a".repeat(MAX_EXTENSIONS));
        assert_eq!(scan(extensions.as_bytes()), None);
        let trailers = format!("0\r\nT: {}\r\n\r\n", "a".repeat(MAX_TRAILERS));
        assert_eq!(scan(trailers.as_bytes()), None);
    }
}
