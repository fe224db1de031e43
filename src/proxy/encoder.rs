//! Encoders of content codings, with bounds on their memory.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};

use brotli::CompressorWriter;
use brotli::enc::BrotliEncoderParams;
use bytes::Bytes;
use flate2::write::GzEncoder;
use zstd::zstd_safe::CParameter;

use crate::config::model::{Coding, CompressionLevel};

/// What all encoders together may use. Without room for its encoder, a response is sent as it is.
static MEMORY: Memory = Memory::new(256 * 1024 * 1024);

/// Memory for encoders.
struct Memory {
    /// In octets.
    used: AtomicUsize,
    most: usize,
}

/// The encoder of one body.
pub(super) struct Encoder {
    stream: Stream,
    /// Whether something has been put in that has not come out.
    has_unflushed: bool,
    _room: Room,
}

enum Stream {
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
    /// In a box, since its state is large.
    Brotli(Box<CompressorWriter<Vec<u8>>>),
    Gzip(GzEncoder<Vec<u8>>),
}

/// How a coding is made.
#[derive(Clone, Copy, Debug)]
struct Settings {
    level: u8,
    /// The binary logarithm of the window.
    window: u8,
    /// How many octets of memory that takes, at most.
    memory: usize,
}

impl Settings {
    const fn new(level: u8, window: u8, kib: usize) -> Self {
        Self {
            level,
            window,
            memory: kib * 1024,
        }
    }

    const fn of(coding: Coding, level: CompressionLevel) -> Self {
        use CompressionLevel::{Best, Default, Fast};
        match (coding, level) {
            (Coding::Zstd, Fast) => Self::new(1, 16, 512),
            (Coding::Zstd, Default) => Self::new(3, 17, 1536),
            (Coding::Zstd, Best) => Self::new(7, 18, 2560),
            (Coding::Brotli, Fast) => Self::new(2, 16, 1152),
            (Coding::Brotli, Default) => Self::new(4, 18, 2560),
            (Coding::Brotli, Best) => Self::new(6, 18, 2560),
            // Its window is 32 KiB.
            (Coding::Gzip, Fast) => Self::new(1, 15, 512),
            (Coding::Gzip, Default) => Self::new(5, 15, 512),
            (Coding::Gzip, Best) => Self::new(7, 15, 512),
        }
    }
}

/// What an encoder uses of the memory of all.
struct Room {
    memory: &'static Memory,
    octets: usize,
}

impl Memory {
    const fn new(most: usize) -> Self {
        Self {
            used: AtomicUsize::new(0),
            most,
        }
    }

    /// Reserves so many octets, if there is room for them.
    fn reserve_octets(&'static self, octets: usize) -> Option<Room> {
        let used = self.used.fetch_add(octets, Ordering::Relaxed);
        // Dropped if it is too much, which gives it back.
        let room = Room {
            memory: self,
            octets,
        };
        (used.saturating_add(octets) <= self.most).then_some(room)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.memory.used.fetch_sub(self.octets, Ordering::Relaxed);
    }
}

impl Encoder {
    /// An encoder for a body of `length` octets, if that is known; `None` if there is no room for
    /// another one.
    ///
    /// # Errors
    /// If there is no memory.
    pub(super) fn new(
        coding: Coding,
        level: CompressionLevel,
        length: Option<u64>,
    ) -> io::Result<Option<Self>> {
        let settings = Settings::of(coding, level);
        let Some(room) = MEMORY.reserve_octets(settings.memory) else {
            return Ok(None);
        };
        Ok(Some(Self {
            stream: Stream::open(coding, settings, length)?,
            has_unflushed: false,
            _room: room,
        }))
    }

    /// Encodes more of the body.
    ///
    /// # Errors
    /// If there is no memory.
    pub(super) fn encode(&mut self, part: &[u8]) -> io::Result<()> {
        self.has_unflushed = true;
        self.stream.writer().write_all(part)
    }

    /// Has everything that has been put in come out.
    ///
    /// # Errors
    /// If there is no memory.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        match std::mem::take(&mut self.has_unflushed) {
            true => self.stream.writer().flush(),
            false => Ok(()),
        }
    }

    /// Takes what has come out.
    pub(super) fn take_output(&mut self) -> Bytes {
        let output = match &mut self.stream {
            Stream::Zstd(encoder) => encoder.get_mut(),
            Stream::Brotli(encoder) => encoder.get_mut(),
            Stream::Gzip(encoder) => encoder.get_mut(),
        };
        std::mem::take(output).into()
    }

    /// Ends the body. Returns the rest of what comes out.
    ///
    /// # Errors
    /// If the body has another length than was said, or if there is no memory.
    pub(super) fn finish(self) -> io::Result<Bytes> {
        self.stream.finish()
    }
}

/// Encodes a whole body. What that takes is not counted with other encoders: it is for one body at a
/// time.
///
/// # Errors
/// If there is no memory.
pub(super) fn encode_whole(
    coding: Coding,
    level: CompressionLevel,
    body: &[u8],
) -> io::Result<Bytes> {
    let length = Some(body.len() as u64);
    let mut stream = Stream::open(coding, Settings::of(coding, level), length)?;
    stream.writer().write_all(body)?;
    stream.finish()
}

impl Stream {
    fn open(coding: Coding, settings: Settings, length: Option<u64>) -> io::Result<Self> {
        let Settings { level, window, .. } = settings;
        Ok(match coding {
            Coding::Zstd => {
                let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), i32::from(level))?;
                encoder.window_log(u32::from(window))?;
                if level > MAX_FREE_LEVEL {
                    encoder.set_parameter(CParameter::HashLog(TABLE))?;
                    encoder.set_parameter(CParameter::ChainLog(TABLE))?;
                }
                encoder.set_pledged_src_size(length)?;
                Self::Zstd(encoder)
            }
            Coding::Brotli => {
                let small = length.map_or(window, window_for).clamp(10, window);
                let hint = length.and_then(|length| usize::try_from(length).ok());
                let params = BrotliEncoderParams {
                    quality: i32::from(level),
                    lgwin: i32::from(small),
                    size_hint: hint.unwrap_or(0),
                    ..BrotliEncoderParams::default()
                };
                let writer = CompressorWriter::with_params(Vec::new(), BUFFER, &params);
                Self::Brotli(Box::new(writer))
            }
            Coding::Gzip => {
                let level = flate2::Compression::new(u32::from(level));
                Self::Gzip(GzEncoder::new(Vec::new(), level))
            }
        })
    }

    fn finish(self) -> io::Result<Bytes> {
        let output = match self {
            Self::Zstd(encoder) => encoder.finish()?,
            Self::Brotli(encoder) => encoder.into_inner(),
            Self::Gzip(encoder) => encoder.finish()?,
        };
        Ok(output.into())
    }

    fn writer(&mut self) -> &mut dyn io::Write {
        match self {
            Self::Zstd(encoder) => encoder,
            Self::Brotli(encoder) => &mut **encoder,
            Self::Gzip(encoder) => encoder,
        }
    }
}

/// Beyond which level the tables of Zstandard are larger than the window suggests, and the binary
/// logarithm of their entries there.
const MAX_FREE_LEVEL: u8 = 3;
const TABLE: u32 = 17;

/// How much of an output Brotli hands on at once.
const BUFFER: usize = 4 * 1024;

/// The window that holds a whole body.
fn window_for(length: u64) -> u8 {
    let bits = u64::BITS - length.saturating_sub(1).leading_zeros();
    u8::try_from(bits).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    const LEVELS: [CompressionLevel; 3] = [
        CompressionLevel::Fast,
        CompressionLevel::Default,
        CompressionLevel::Best,
    ];

    fn decode(coding: Coding, octets: &[u8]) -> Vec<u8> {
        let mut decoded = Vec::new();
        let read = match coding {
            Coding::Zstd => zstd::stream::read::Decoder::new(octets)
                .expect("a decoder")
                .read_to_end(&mut decoded),
            Coding::Brotli => brotli::Decompressor::new(octets, 4096).read_to_end(&mut decoded),
            Coding::Gzip => flate2::read::GzDecoder::new(octets).read_to_end(&mut decoded),
        };
        // The beginning of a body has no end.
        _ = read;
        decoded
    }

    fn encoder(coding: Coding, level: CompressionLevel, length: Option<u64>) -> Encoder {
        let encoder = Encoder::new(coding, level, length).expect("memory");
        encoder.expect("room")
    }

    fn text(len: usize) -> Vec<u8> {
        let words = ["gateway ", "server ", "octet ", "body ", "client "];
        let mut number = 7_usize;
        let mut text = Vec::new();
        while text.len() < len {
            number = number.wrapping_mul(1_103_515_245).wrapping_add(12_345);
            text.extend_from_slice(words[(number >> 16) % words.len()].as_bytes());
        }
        text.truncate(len);
        text
    }

    #[test]
    fn what_goes_in_comes_out() {
        for coding in Coding::ALL {
            for level in LEVELS {
                for (len, is_known) in [(0, false), (1, true), (5_000, true), (400_000, false)] {
                    let text = text(len);
                    let length = is_known.then_some(len as u64);
                    let mut encoder = encoder(coding, level, length);
                    let mut encoded = Vec::new();
                    for part in text.chunks(60_000) {
                        encoder.encode(part).expect("encoded");
                        encoded.extend_from_slice(&encoder.take_output());
                    }
                    encoded.extend_from_slice(&encoder.finish().expect("finished"));
                    let what = format!("{coding:?} {level:?} {len}");
                    assert!(decode(coding, &encoded) == text, "{what}");
                    assert!(len < 5_000 || encoded.len() < len / 2, "{what}");
                }
            }
        }
    }

    #[test]
    fn what_is_flushed_can_be_read_at_once() {
        for coding in Coding::ALL {
            let mut encoder = encoder(coding, CompressionLevel::Default, None);
            let (mut encoded, mut expected) = (Vec::new(), Vec::new());
            for part in ["data: 1\n\n", "data: 2\n\n", "data: 3\n\n"] {
                encoder.encode(part.as_bytes()).expect("encoded");
                encoder.flush().expect("flushed");
                encoded.extend_from_slice(&encoder.take_output());
                expected.extend_from_slice(part.as_bytes());
                assert!(decode(coding, &encoded) == expected, "{coding:?} {part}");
                encoder.flush().expect("flushed");
                assert!(encoder.take_output().is_empty(), "{coding:?}");
            }
        }
    }

    #[test]
    fn a_body_of_another_length_than_was_said_is_not_finished() {
        let mut short = encoder(Coding::Zstd, CompressionLevel::Default, Some(5));
        short.encode(b"abcd").expect("encoded");
        assert!(short.finish().is_err());
    }

    #[test]
    fn encoders_share_their_memory() {
        static SMALL: Memory = Memory::new(10);
        let one = SMALL.reserve_octets(6).expect("room");
        assert!(SMALL.reserve_octets(5).is_none());
        let other = SMALL.reserve_octets(4).expect("room");
        assert!(SMALL.reserve_octets(1).is_none());
        drop((one, other));
        assert!(SMALL.reserve_octets(10).is_some());
    }

    #[test]
    fn windows_hold_whole_bodies() {
        for (length, bits) in [
            (0, 0),
            (1, 0),
            (2, 1),
            (1024, 10),
            (1025, 11),
            (u64::MAX, 64),
        ] {
            assert_eq!(window_for(length), bits, "{length}");
        }
    }
}
