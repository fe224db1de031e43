//! The trace that a request belongs to (W3C Trace Context).

use std::fmt;

/// The name of the field that says it.
pub const TRACEPARENT: http::HeaderName = http::HeaderName::from_static("traceparent");

/// The name of the field that vendors add to. It has no meaning without a valid `traceparent`.
pub const TRACESTATE: http::HeaderName = http::HeaderName::from_static("tracestate");

/// How many octets `traceparent` has in version 0.
const LENGTH: usize = 55;

/// The id of a trace; never zero. Printed, it has 32 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceId(pub u128);

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// What a `traceparent` says. Printed, it is the field's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext {
    pub trace_id: TraceId,
    /// The span that caused the request, never zero.
    pub parent: u64,
    /// Whether those before have recorded it.
    pub is_sampled: bool,
}

impl TraceContext {
    /// Reads the value of a `traceparent`: version, trace id, parent id and flags, all in lower-case
    /// hexadecimal. A later version may have more. `None` if it is not valid.
    pub fn parse(value: &[u8]) -> Option<Self> {
        let (known, rest) = value.split_at_checked(LENGTH)?;
        let mut parts = known.split(|&octet| octet == b'-');
        let version = hexadecimal(parts.next()?, 2)?;
        let trace_id = hexadecimal(parts.next()?, 32)?;
        let parent = hexadecimal(parts.next()?, 16)?;
        let flags = hexadecimal(parts.next()?, 2)?;
        let is_complete = match version {
            0 => rest.is_empty(),
            0xff => false,
            _ => rest.first().is_none_or(|&octet| octet == b'-'),
        };
        if !is_complete || parts.next().is_some() || trace_id == 0 || parent == 0 {
            return None;
        }
        Some(Self {
            trace_id: TraceId(trace_id),
            parent: u64::try_from(parent).ok()?,
            is_sampled: flags & 1 == 1,
        })
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flags = u8::from(self.is_sampled);
        write!(f, "00-{}-{:016x}-{flags:02x}", self.trace_id, self.parent)
    }
}

fn hexadecimal(digits: &[u8], length: usize) -> Option<u128> {
    let is_digit = |octet: &u8| matches!(octet, b'0'..=b'9' | b'a'..=b'f');
    if digits.len() != length || !digits.iter().all(is_digit) {
        return None;
    }
    u128::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_valid_traceparent_is_read() {
        let valid = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let read = TraceContext {
            trace_id: TraceId(0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736),
            parent: 0x00f0_67aa_0ba9_02b7,
            is_sampled: true,
        };
        assert_eq!(TraceContext::parse(valid.as_bytes()), Some(read));
        assert_eq!(read.to_string(), valid);
        let later = format!("cc{}-more", &valid[2..]);
        assert_eq!(TraceContext::parse(later.as_bytes()), Some(read));
        for invalid in [
            "",
            "00",
            &valid[..54],
            &format!("{valid}-more"),
            &format!("{valid}0"),
            &format!("cc{}.more", &valid[2..]),
            &format!("ff{}", &valid[2..]),
            &valid.to_uppercase(),
            &valid.replace('-', "_"),
            &valid.replace("00f067aa0ba902b7", "0000000000000000"),
            &valid.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            &valid.replace("4bf9", "+bf9"),
            "00-4bf92f3577b34da6a3ce929d0e0e473-600f067aa0ba902b7-01",
        ] {
            assert_eq!(TraceContext::parse(invalid.as_bytes()), None, "{invalid}");
        }
    }
}
