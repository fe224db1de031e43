//! How responses are compressed.

/// How the responses of a route are compressed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Compression {
    /// Never empty, each at most once; the preferred one first.
    pub codings: Vec<Coding>,
    /// Never empty.
    pub types: Vec<MediaTypes>,
    /// The least octets of a body whose length is known beforehand.
    pub min_size: u64,
    pub level: CompressionLevel,
}

/// A content coding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Coding {
    Zstd,
    Brotli,
    Gzip,
}

impl Coding {
    pub const ALL: [Self; 3] = [Self::Zstd, Self::Brotli, Self::Gzip];

    /// Its name in messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Brotli => "br",
            Self::Gzip => "gzip",
        }
    }
}

/// How much work is spent on compression.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CompressionLevel {
    Fast,
    Default,
    Best,
}

/// Media types, in lower case.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum MediaTypes {
    /// This one: `text/html`.
    Exact(Box<str>),
    /// Those that begin so: `text/`.
    Main(Box<str>),
    /// Those that end so: `+json`.
    Suffix(Box<str>),
}

/// The media type of streams of events, which are compressed only if they are named themselves.
const EVENT_STREAM: &[u8] = b"text/event-stream";

/// How the media types of gRPC begin, which compresses its messages itself.
const GRPC: &[u8] = b"application/grpc";

impl Compression {
    /// Whether bodies of a media type are compressed. `content_type` may have parameters.
    pub fn covers(&self, content_type: &[u8]) -> bool {
        let media = content_type.split(|&octet| octet == b';').next();
        let media = media.unwrap_or_default().trim_ascii();
        let begins = |begin: &[u8]| {
            let same = media.get(..begin.len());
            same.is_some_and(|same| same.eq_ignore_ascii_case(begin))
        };
        let ends = |end: &[u8]| {
            let same = media.len().checked_sub(end.len());
            let same = same.and_then(|at| media.get(at..));
            same.is_some_and(|same| same.eq_ignore_ascii_case(end))
        };
        let is_stream = media.eq_ignore_ascii_case(EVENT_STREAM);
        !begins(GRPC)
            && self.types.iter().any(|types| match types {
                MediaTypes::Exact(one) => media.eq_ignore_ascii_case(one.as_bytes()),
                MediaTypes::Main(begin) => !is_stream && begins(begin.as_bytes()),
                MediaTypes::Suffix(end) => ends(end.as_bytes()),
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_compared_without_case_and_parameters() {
        let compression = |types: Vec<MediaTypes>| Compression {
            codings: vec![Coding::Gzip],
            types,
            min_size: 0,
            level: CompressionLevel::Default,
        };
        let some = compression(vec![
            MediaTypes::Exact("application/json".into()),
            MediaTypes::Main("text/".into()),
            MediaTypes::Suffix("+json".into()),
        ]);
        for (covered, content_type) in [
            (true, "application/json"),
            (true, "Application/JSON ; charset=utf-8"),
            (true, "text/html;charset=utf-8"),
            (true, "TEXT/plain"),
            (true, "application/problem+json"),
            (false, "application/jsonp"),
            (false, "text"),
            (false, "image/png"),
            (false, ""),
            (false, "text/event-stream"),
            (false, "application/grpc+json"),
        ] {
            let is_covered = some.covers(content_type.as_bytes());
            assert_eq!(is_covered, covered, "{content_type}");
        }
        let all = compression(vec![
            MediaTypes::Exact("text/event-stream".into()),
            MediaTypes::Main("application/".into()),
        ]);
        assert!(all.covers(b"text/event-stream; charset=utf-8"));
        assert!(!all.covers(b"application/grpc"));
        assert!(!all.covers(b"application/grpc-web+proto"));
    }
}
