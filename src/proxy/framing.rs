//! Finds where the body of an HTTP/1 message ends, and checks that its chunks are well formed.

use std::io;

use bytes::{Buf as _, Bytes, BytesMut};

/// The most bytes of chunk extensions in one body; only attackers use them.
const MAX_EXTENSIONS: usize = 4 * 1024;

/// The most digits of a chunk's size. Others refuse longer ones, even if they are zeros.
const MAX_DIGITS: u8 = 16;

/// The most octets of trailers.
pub(crate) const MAX_TRAILERS: usize = 16 * 1024;

/// The rest of a message's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    Chunked(Chunks),
    Length(u64),
    /// Everything until the end of the connection belongs to the message.
    Tunnel,
}

impl Framing {
    /// The framing of a message that has ended.
    pub const DONE: Self = Self::Length(0);

    /// The framing of a body in chunks that begins here.
    pub fn chunked() -> Self {
        Self::Chunked(Chunks::default())
    }

    /// Whether the message has ended.
    pub fn is_done(&self) -> bool {
        match self {
            Self::Chunked(chunks) => chunks.state == State::End,
            Self::Length(left) => *left == 0,
            Self::Tunnel => false,
        }
    }

    /// How many of `octets` belong to the message.
    ///
    /// # Errors
    /// `InvalidData` if the chunks are malformed.
    pub fn consume(&mut self, octets: &[u8]) -> io::Result<usize> {
        match self {
            Self::Chunked(chunks) => chunks.consume(octets),
            Self::Length(left) => {
                let here = fit(*left, octets.len());
                *left -= here as u64;
                Ok(here)
            }
            Self::Tunnel => Ok(octets.len()),
        }
    }

    /// Removes the next octets of the body from the beginning of `buffer`, and what frames them.
    /// Empty if more octets are needed, or if the message has ended. Lines of trailers are appended
    /// to `trailers`.
    ///
    /// # Errors
    /// `InvalidData` if the chunks are malformed.
    pub fn take_data(
        &mut self,
        buffer: &mut BytesMut,
        trailers: &mut Vec<u8>,
    ) -> io::Result<Bytes> {
        let count = match self {
            Self::Chunked(chunks) => {
                buffer.advance(chunks.skip_framing(buffer, trailers)?);
                chunks.take_data(buffer.len())
            }
            Self::Length(left) => {
                let here = fit(*left, buffer.len());
                *left -= here as u64;
                here
            }
            Self::Tunnel => buffer.len(),
        };
        let data = match count {
            0 => Bytes::new(),
            count => buffer.split_to(count).freeze(),
        };
        if let Self::Chunked(chunks) = self {
            // The end often comes with the last octets. What is malformed comes after them.
            let (mut ahead, before) = (*chunks, trailers.len());
            if let Ok(count) = ahead.skip_framing(buffer, trailers) {
                buffer.advance(count);
                *chunks = ahead;
            } else {
                trailers.truncate(before);
            }
        }
        Ok(data)
    }
}

/// How many of the octets that are left are among `available` ones.
fn fit(left: u64, available: usize) -> usize {
    usize::try_from(left).map_or(available, |left| left.min(available))
}

/// The state of a chunked body (RFC 9112, section 7.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Chunks {
    state: State,
    /// How many digits of a size have been read.
    digits: u8,
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
    /// After white space behind a size, which extensions may follow.
    SizeEnd,
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
                let here = self.take_data(rest.len());
                rest = rest.get(here..).unwrap_or_default();
                if self.size > 0 {
                    break;
                }
            }
            let Some((&byte, after)) = rest.split_first() else {
                break;
            };
            self.consume_byte(byte)?;
            rest = after;
        }
        Ok(bytes.len() - rest.len())
    }

    /// Consumes what frames the next data, or ends the body. Returns its length.
    fn skip_framing(&mut self, octets: &[u8], trailers: &mut Vec<u8>) -> io::Result<usize> {
        let mut count = 0;
        for &octet in octets {
            if matches!(self.state, State::Data | State::End) {
                break;
            }
            let is_trailer = matches!(
                self.state,
                State::TrailerStart | State::Trailer | State::TrailerLf
            );
            self.consume_byte(octet)?;
            if is_trailer && self.state != State::EndLf {
                trailers.push(octet);
            }
            count += 1;
        }
        Ok(count)
    }

    /// Consumes data, of which so many octets are available. Returns how many belong to the chunk.
    fn take_data(&mut self, available: usize) -> usize {
        if self.state != State::Data {
            return 0;
        }
        let here = fit(self.size, available);
        self.size -= here as u64;
        if self.size == 0 {
            self.state = State::DataCr;
        }
        here
    }

    /// Consumes one byte of framing.
    fn consume_byte(&mut self, byte: u8) -> io::Result<()> {
        self.state = match (self.state, byte) {
            (State::SizeStart | State::Size, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                if self.state == State::SizeStart {
                    self.digits = 0;
                }
                if self.size >> 56 != 0 || self.digits == MAX_DIGITS {
                    return Err(malformed("a chunk size is too large"));
                }
                self.digits += 1;
                self.size = self.size << 4 | u64::from(hex(byte));
                State::Size
            }
            (State::Size | State::SizeEnd | State::Extension, b'\r') => State::SizeLf,
            (State::Size | State::SizeEnd, b' ' | b'\t') => self.extension(State::SizeEnd)?,
            (State::Size | State::SizeEnd, b';')
            | (State::Extension, b'\t' | b' '..=b'~' | 0x80..) => {
                self.extension(State::Extension)?
            }
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

    /// Counts an octet that follows a size. `next` is the state after it.
    fn extension(&mut self, next: State) -> io::Result<State> {
        self.extensions += 1;
        if self.extensions > MAX_EXTENSIONS {
            return Err(malformed("the chunk extensions are too large"));
        }
        Ok(next)
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
        let mut whole = Framing::chunked();
        let taken = whole.consume(bytes).ok();
        let mut pieces = Framing::chunked();
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
        assert_eq!(scan(b"0 \t\r\n\r\n"), Some((7, true)));
        let zeros = b"0000000000000001\r\na\r\n0000000000000000\r\n\r\n";
        assert_eq!(scan(zeros), Some((zeros.len(), true)));
        assert_eq!(scan(b"1 \t; x\r\na\r\n0\r\n\r\n"), Some((16, true)));
        assert_eq!(scan(b"3\r\nab"), Some((5, false)));
        assert_eq!(scan(b""), Some((0, false)));
        let mut length = Framing::Length(3);
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
            b"00000000000000003\r\nabc\r\n",
            b"1\r\na\r\n00000000000000000\r\n\r\n",
            b"3 4\r\nabc\r\n",
            b"3\t;\r\nabc\r\n0 x\r\n\r\n",
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

    /// A body as it was taken in pieces.
    #[derive(Debug, PartialEq, Eq)]
    struct Taken {
        data: Vec<u8>,
        trailers: Vec<u8>,
        /// What belongs to no message.
        rest: Vec<u8>,
        is_done: bool,
        is_malformed: bool,
    }

    impl Taken {
        fn of(data: &[u8], rest: &[u8], is_done: bool) -> Self {
            Self {
                data: data.to_vec(),
                trailers: Vec::new(),
                rest: rest.to_vec(),
                is_done,
                is_malformed: false,
            }
        }

        fn with_trailers(self, trailers: &[u8]) -> Self {
            Self {
                trailers: trailers.to_vec(),
                ..self
            }
        }

        fn malformed_after(data: &[u8]) -> Self {
            Self {
                data: data.to_vec(),
                trailers: Vec::new(),
                rest: Vec::new(),
                is_done: false,
                is_malformed: true,
            }
        }
    }

    /// Takes a body whose octets arrive in these pieces.
    fn take_body<'a>(mut framing: Framing, pieces: impl Iterator<Item = &'a [u8]>) -> Taken {
        let mut buffer = BytesMut::new();
        let (mut data, mut trailers) = (Vec::new(), Vec::new());
        for piece in pieces {
            buffer.extend_from_slice(piece);
            while !framing.is_done() && !buffer.is_empty() {
                match framing.take_data(&mut buffer, &mut trailers) {
                    Ok(new) => {
                        let is_stuck = new.is_empty() && !framing.is_done();
                        assert!(!is_stuck || buffer.is_empty(), "all that frames is taken");
                        data.extend_from_slice(&new);
                    }
                    Err(error) => {
                        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
                        return Taken::malformed_after(&data);
                    }
                }
            }
        }
        Taken::of(&data, &buffer, framing.is_done()).with_trailers(&trailers)
    }

    /// Takes it in one piece and octet by octet.
    fn take_both(framing: Framing, octets: &[u8]) -> Taken {
        let whole = take_body(framing, [octets].into_iter());
        let crumbs = take_body(framing, octets.chunks(1));
        assert_eq!(whole, crumbs, "{}", octets.escape_ascii());
        whole
    }

    #[test]
    fn the_data_of_a_body_is_taken_without_what_frames_it() {
        let chunked = |octets: &[u8]| take_both(Framing::chunked(), octets);
        for (octets, expected) in [
            (&b"0\r\n\r\nGET"[..], Taken::of(b"", b"GET", true)),
            (
                b"3\r\nabc\r\n1;x=\"y\"\r\nd\r\n000\r\n\r\n0",
                Taken::of(b"abcd", b"0", true),
            ),
            (
                b"A\r\n0\r\n\r\n56789\r\n0\r\nT: v\r\nU:\r\n\r\n",
                Taken::of(b"0\r\n\r\n56789", b"", true).with_trailers(b"T: v\r\nU:\r\n"),
            ),
            (b"3\r\nab", Taken::of(b"ab", b"", false)),
            (b"3\r\nabc\r\n", Taken::of(b"abc", b"", false)),
            (
                b"3\r\nabc\r\n0\r\nT: v\r\n",
                Taken::of(b"abc", b"", false).with_trailers(b"T: v\r\n"),
            ),
        ] {
            assert_eq!(chunked(octets), expected, "{}", octets.escape_ascii());
        }
        let length = take_both(Framing::Length(3), b"abcdef");
        assert_eq!(length, Taken::of(b"abc", b"def", true));
        let part = take_both(Framing::Length(u64::MAX), b"abc");
        assert_eq!(part, Taken::of(b"abc", b"", false));
        let tunnel = take_both(Framing::Tunnel, b"0\r\n\r\n");
        assert_eq!(tunnel, Taken::of(b"0\r\n\r\n", b"", false));
        assert_eq!(take_both(Framing::DONE, b"a"), Taken::of(b"", b"a", true));
    }

    #[test]
    fn the_data_before_a_malformed_chunk_is_taken() {
        for (octets, data) in [
            (&b"x"[..], &b""[..]),
            (b"3\r\nabcX", b"abc"),
            (b"3\r\nabc\n", b"abc"),
            (b"3\r\nabc\r\n2\r\nde\r\n-1", b"abcde"),
            (b"3\r\nabc\r\n0\r\n : x", b"abc"),
            (b"3\r\nabc\r\n0\r\n\rX", b"abc"),
        ] {
            let taken = take_both(Framing::chunked(), octets);
            assert_eq!(
                taken,
                Taken::malformed_after(data),
                "{}",
                octets.escape_ascii()
            );
        }
    }

    #[test]
    fn the_end_of_a_body_is_taken_with_its_last_data() {
        let mut framing = Framing::chunked();
        let mut buffer = BytesMut::from(&b"3\r\nabc\r\n0\r\n\r\nGET"[..]);
        let data = framing
            .take_data(&mut buffer, &mut Vec::new())
            .expect("well formed");
        assert_eq!(&data[..], b"abc");
        assert!(framing.is_done());
        assert_eq!(&buffer[..], b"GET");
    }

    proptest::proptest! {
        #[test]
        fn a_body_that_was_written_in_chunks_is_read_back(
            chunks in proptest::collection::vec("[a-f0-9\r\n;]{1,40}", 0..6),
            extension in "(;[a-z]{0,3}(=[a-z]{1,3})?)?",
            trailers in "(T: [a-z]{0,5}\r\n){0,2}",
            rest in "[a-f0-9\r\n]{0,5}",
            size in 1_usize..20,
        ) {
            let mut body = String::new();
            for chunk in &chunks {
                body.push_str(&format!("{:x}{extension}\r\n{chunk}\r\n", chunk.len()));
            }
            body.push_str(&format!("0{extension}\r\n{trailers}\r\n{rest}"));
            let expected = Taken::of(chunks.concat().as_bytes(), rest.as_bytes(), true);
            let expected = expected.with_trailers(trailers.as_bytes());
            let taken = take_body(Framing::chunked(), body.as_bytes().chunks(size));
            proptest::prop_assert_eq!(taken, expected);
        }

        #[test]
        fn any_octets_are_taken_the_same_in_pieces(
            octets in "([0-3](;a)?\r\n|[ab]|\r\n|\r|\n|:|0\r\n\r\n){0,12}",
        ) {
            let taken = take_both(Framing::chunked(), octets.as_bytes());
            let mut consumed = Framing::chunked();
            let count = consumed.consume(octets.as_bytes());
            proptest::prop_assert_eq!(count.is_err(), taken.is_malformed);
            if let Ok(count) = count {
                proptest::prop_assert_eq!(&taken.rest, &octets.as_bytes()[count..]);
                proptest::prop_assert_eq!(taken.is_done, consumed.is_done());
            }
        }
    }
}
