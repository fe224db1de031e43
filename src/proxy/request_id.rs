//! Ids of requests, by which they are found in the logs of the gateway and of servers.

use http::HeaderValue;

/// An id for a request: 128 random bits in hexadecimal.
pub(super) fn new() -> HeaderValue {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let bits = fastrand::u128(..).to_be_bytes();
    let mut text = [b'0'; 32];
    for (pair, octet) in text.chunks_exact_mut(2).zip(bits) {
        let digit = |half: u8| DIGITS.get(usize::from(half & 0xf)).copied();
        if let ([high, low], Some(h), Some(l)) = (pair, digit(octet >> 4), digit(octet)) {
            (*high, *low) = (h, l);
        }
    }
    let mut id = HeaderValue::from_bytes(&text).unwrap_or_else(|_| HeaderValue::from_static("-"));
    // It is never repeated, so HTTP/2 must not index it, which would evict fields that are
    // (RFC 7541, section 6.2.3).
    id.set_sensitive(true);
    id
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_128_bits_in_hexadecimal() {
        let (one, other) = (new(), new());
        for id in [&one, &other] {
            let id = id.to_str().expect("text");
            assert_eq!(id.len(), 32);
            let is_digit = |octet: u8| octet.is_ascii_digit() || (b'a'..=b'f').contains(&octet);
            assert!(id.bytes().all(is_digit), "{id}");
        }
        assert_ne!(one, other);
    }
}
