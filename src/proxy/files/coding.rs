//! Files that lie compressed beside others, and which of them a client takes (RFC 9110, section
//! 12.5.3).

/// A content coding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Coding {
    Brotli,
    Zstd,
    Gzip,
}

/// The codings that a client takes, the best first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Codings([Option<Coding>; 3]);

impl Coding {
    const ALL: [Self; 3] = [Self::Brotli, Self::Zstd, Self::Gzip];

    /// Its name in HTTP.
    pub(crate) fn token(self) -> &'static str {
        match self {
            Self::Brotli => "br",
            Self::Zstd => "zstd",
            Self::Gzip => "gzip",
        }
    }

    /// What the name of a compressed file ends in.
    pub(crate) fn extension(self) -> &'static str {
        match self {
            Self::Brotli => "br",
            Self::Zstd => "zst",
            Self::Gzip => "gz",
        }
    }
}

impl Codings {
    /// Those that a field `Accept-Encoding` names.
    pub(crate) fn of(accept_encoding: &[u8]) -> Self {
        if accept_encoding.is_empty() {
            return Self::default();
        }
        let identity = weight(accept_encoding, b"identity").unwrap_or(0);
        let others = weight(accept_encoding, b"*").unwrap_or(0);
        let mut weighed = Coding::ALL.map(|coding| {
            let own = weight(accept_encoding, coding.token().as_bytes());
            let weight = own.unwrap_or(others);
            (weight, (weight > 0 && weight >= identity).then_some(coding))
        });
        // Of equal ones, the order stays.
        weighed.sort_by_key(|(weight, _)| std::cmp::Reverse(*weight));
        Self(weighed.map(|(_, coding)| coding))
    }

    pub(crate) fn iter(self) -> impl Iterator<Item = Coding> {
        self.0.into_iter().flatten()
    }
}

/// The weight of a coding in thousandths, if it is named.
fn weight(accept_encoding: &[u8], coding: &[u8]) -> Option<u16> {
    accept_encoding
        .split(|&octet| octet == b',')
        .find_map(|item| {
            let mut parts = item.split(|&octet| octet == b';').map(<[u8]>::trim_ascii);
            let is_it = parts.next()?.eq_ignore_ascii_case(coding);
            let weight = parts.find_map(|part| {
                let value = part
                    .strip_prefix(b"q=")
                    .or_else(|| part.strip_prefix(b"Q="))?;
                Some(thousandths(value.trim_ascii()))
            });
            is_it.then_some(weight.unwrap_or(1000))
        })
}

/// A weight such as `0.5`, and 0 for anything else.
fn thousandths(value: &[u8]) -> u16 {
    let mut parts = value.splitn(2, |&octet| octet == b'.');
    let mut weight = match parts.next() {
        Some(b"1") => 1000,
        Some(b"0") => 0,
        _ => return 0,
    };
    let mut unit = 100;
    for &digit in parts.next().unwrap_or_default() {
        if !digit.is_ascii_digit() {
            return 0;
        }
        weight += u16::from(digit - b'0') * unit;
        unit /= 10;
    }
    if weight > 1000 { 0 } else { weight }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_coding_that_a_client_prefers_comes_first() {
        use Coding::{Brotli, Gzip, Zstd};
        for (field, expected) in [
            ("", &[][..]),
            ("gzip", &[Gzip]),
            ("gzip, deflate, br, zstd", &[Brotli, Zstd, Gzip]),
            ("GZIP;q=1.0, br;q=0.5", &[Gzip, Brotli]),
            ("gzip;q=0, br", &[Brotli]),
            ("*", &[Brotli, Zstd, Gzip]),
            ("*;q=0, gzip", &[Gzip]),
            ("gzip;q=0.5, *;q=0.2", &[Gzip, Brotli, Zstd]),
            ("identity", &[]),
            ("identity, gzip;q=0.5", &[]),
            ("identity;q=0.5, gzip", &[Gzip]),
            ("deflate", &[]),
            ("gzip;q=high", &[]),
            ("gzip ; q=0.001", &[Gzip]),
            (",;,", &[]),
        ] {
            let found: Vec<_> = Codings::of(field.as_bytes()).iter().collect();
            assert_eq!(found, expected, "{field}");
        }
    }

    #[test]
    fn weights_have_three_digits() {
        for (value, expected) in [
            ("1", 1000),
            ("1.000", 1000),
            ("0.5", 500),
            ("0.123", 123),
            ("0.001", 1),
            ("0", 0),
            ("0.", 0),
            ("1.5", 0),
            ("2", 0),
            ("-1", 0),
            ("NaN", 0),
        ] {
            assert_eq!(thousandths(value.as_bytes()), expected, "{value}");
        }
    }
}
