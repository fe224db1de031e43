//! The trace that a request belongs to, by its `traceparent` (W3C Trace Context).

use http::HeaderName;

use super::request::Fields;

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The id of the trace that a request with these fields says it belongs to; `None` if it says
/// nothing valid.
pub(crate) fn trace_id(fields: Fields<'_>) -> Option<u128> {
    parse(fields.get(&TRACEPARENT))
}

/// Version, trace id, parent id and flags, all in lower-case hexadecimal. A later version may have
/// more.
fn parse(value: &[u8]) -> Option<u128> {
    let (known, rest) = value.split_at_checked(55)?;
    let mut parts = known.split(|&octet| octet == b'-');
    let version = hexadecimal(parts.next()?, 2)?;
    let trace_id = hexadecimal(parts.next()?, 32)?;
    let parent = hexadecimal(parts.next()?, 16)?;
    hexadecimal(parts.next()?, 2)?;
    let is_complete = match version {
        0 => rest.is_empty(),
        0xff => false,
        _ => rest.first().is_none_or(|&octet| octet == b'-'),
    };
    let is_valid = is_complete && parts.next().is_none() && parent != 0;
    (is_valid && trace_id != 0).then_some(trace_id)
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
    fn only_a_valid_traceparent_has_an_id() {
        let id = 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736;
        let valid = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert_eq!(parse(valid.as_bytes()), Some(id));
        let later = format!("cc{}-more", &valid[2..]);
        assert_eq!(parse(later.as_bytes()), Some(id));
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
            assert_eq!(parse(invalid.as_bytes()), None, "{invalid}");
        }
    }
}
