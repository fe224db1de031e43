//! The sequence of frames in one direction of a connection (RFC 9113, section 4.1).

/// The length of the client's connection preface (RFC 9113, section 3.4).
pub(super) const PREFACE: usize = 24;

pub(super) const FRAME_HEADER: usize = 9;

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const CONTINUATION: u8 = 9;

pub(super) const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// What a frame's header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
    /// Octets of the payload.
    pub(super) len: usize,
}

impl Frame {
    pub(super) fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// The position in the sequence of frames.
#[derive(Debug)]
pub(super) struct Frames {
    /// Remaining bytes of the preface, or of the current frame's payload.
    skip: usize,
    header: [u8; FRAME_HEADER],
    header_len: usize,
    /// Whether the payload that is being skipped belongs to DATA, which may take any time.
    in_data: bool,
    /// Whether a field block has begun and not ended.
    in_fields: bool,
}

impl Frames {
    /// The frames of the client, which begin with its preface.
    pub(super) fn of_client() -> Self {
        Self::after(PREFACE)
    }

    /// The frames of the server.
    pub(super) fn of_server() -> Self {
        Self::after(0)
    }

    fn after(skip: usize) -> Self {
        Self {
            skip,
            header: [0; FRAME_HEADER],
            header_len: 0,
            in_data: false,
            in_fields: false,
        }
    }

    /// Advances by the bytes that have arrived, and shows `watch` each frame that begins in them.
    /// Returns whether nothing was owed at some point within them.
    pub(super) fn advance(&mut self, mut bytes: &[u8], mut watch: impl FnMut(Frame)) -> bool {
        let mut settled = false;
        while !bytes.is_empty() {
            settled |= !self.is_owed();
            if self.skip > 0 {
                let here = self.skip.min(bytes.len());
                self.skip -= here;
                bytes = bytes.get(here..).unwrap_or_default();
                continue;
            }
            let here = (FRAME_HEADER - self.header_len).min(bytes.len());
            let (now, rest) = bytes.split_at_checked(here).unwrap_or((bytes, &[]));
            if let Some(to) = self.header.get_mut(self.header_len..self.header_len + here) {
                to.copy_from_slice(now);
            }
            self.header_len += here;
            bytes = rest;
            if self.header_len == FRAME_HEADER {
                watch(self.begin_frame());
            }
        }
        settled || !self.is_owed()
    }

    fn begin_frame(&mut self) -> Frame {
        let [a, b, c, kind, flags, stream @ ..] = self.header;
        let len = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        self.skip = len;
        self.header_len = 0;
        self.in_data = kind == DATA;
        let frame = Frame {
            kind,
            flags,
            stream: u32::from_be_bytes(stream) & 0x7fff_ffff,
            len,
        };
        if matches!(kind, HEADERS | CONTINUATION) {
            self.in_fields = !frame.has(END_HEADERS);
        }
        frame
    }

    /// Whether something has begun that must be completed in time.
    pub(super) fn is_owed(&self) -> bool {
        self.header_len > 0 || self.in_fields || (self.skip > 0 && !self.in_data)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::edge::http2) fn frame(kind: u8, flags: u8, len: usize) -> Vec<u8> {
        let len = u32::try_from(len).expect("small").to_be_bytes();
        let mut frame = vec![len[1], len[2], len[3], kind, flags, 0, 0, 0, 1];
        frame.resize(FRAME_HEADER + usize::from(len[3]), 0);
        frame
    }

    #[test]
    fn what_is_begun_is_owed_until_it_is_whole() {
        let mut frames = Frames::of_client();
        assert!(frames.is_owed(), "the preface");
        frames.advance(&[0; PREFACE], drop);
        assert!(!frames.is_owed());

        let settings = frame(4, 0, 6);
        for byte in &settings[..settings.len() - 1] {
            frames.advance(&[*byte], drop);
            assert!(frames.is_owed());
        }
        frames.advance(&settings[settings.len() - 1..], drop);
        assert!(!frames.is_owed());

        frames.advance(&frame(HEADERS, 0, 3), drop);
        assert!(frames.is_owed(), "a block of fields without its end");
        frames.advance(&frame(CONTINUATION, 0, 3), drop);
        assert!(frames.is_owed());
        frames.advance(&frame(CONTINUATION, END_HEADERS, 0), drop);
        assert!(!frames.is_owed());

        frames.advance(&frame(DATA, 0, 100)[..20], drop);
        assert!(!frames.is_owed(), "a body may take its time");
    }

    #[test]
    fn each_frame_is_seen_once_however_it_comes() {
        let mut stream = Vec::new();
        for (kind, len) in [
            (4, 6),
            (HEADERS, 40),
            (DATA, 0),
            (DATA, 200),
            (RST_STREAM, 4),
        ] {
            stream.extend(frame(kind, 1, len));
        }
        for size in [1, 7, 13, stream.len()] {
            let (mut frames, mut seen) = (Frames::of_server(), Vec::new());
            for part in stream.chunks(size) {
                frames.advance(part, |frame| seen.push((frame.kind, frame.len)));
            }
            let all = [(4, 6), (1, 40), (0, 0), (0, 200), (3, 4)];
            assert_eq!(seen, all, "in parts of {size}");
        }
    }
}
