//! Base64url (RFC 4648, section 5), which ACME and tokens use for binary data.

use zeroize::Zeroizing;

/// Encodes without padding.
pub(crate) fn encode(bytes: &[u8]) -> String {
    let standard = openssl::base64::encode_block(bytes);
    let standard = standard.trim_end_matches('=');
    standard.replace('+', "-").replace('/', "_")
}

/// Decodes with or without padding.
pub(crate) fn decode(text: &str) -> Option<Zeroizing<Vec<u8>>> {
    let bare = text.trim().trim_end_matches('=');
    if bare.is_empty() || bare.len() % 4 == 1 {
        return None;
    }
    let mut standard = Zeroizing::new(String::with_capacity(bare.len() + 3));
    for char in bare.chars() {
        standard.push(match char {
            '-' => '+',
            '_' => '/',
            'a'..='z' | 'A'..='Z' | '0'..='9' => char,
            _ => return None,
        });
    }
    while !standard.len().is_multiple_of(4) {
        standard.push('=');
    }
    openssl::base64::decode_block(&standard)
        .ok()
        .map(Zeroizing::new)
}

/// Decodes the one text that stands for some octets: without padding, and without anything else that
/// could be left out.
pub(crate) fn decode_exactly(text: &str) -> Option<Zeroizing<Vec<u8>>> {
    decode(text).filter(|decoded| encode(decoded) == text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_has_no_padding_and_comes_back() {
        let decoded = |text| decode(text).map(|bytes| bytes.to_vec());
        assert_eq!(encode(&[0xfb, 0xff]), "-_8");
        assert_eq!(encode(b""), "");
        assert_eq!(decoded("-_8"), Some(vec![0xfb, 0xff]));
        assert_eq!(decoded("-_8="), Some(vec![0xfb, 0xff]));
        assert_eq!(decoded(" YWJj\n"), Some(b"abc".to_vec()));
        for wrong in ["", "a", "+/8=", "a b c", "a.bc", "=a=="] {
            assert_eq!(decoded(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn octets_have_one_exact_text() {
        let decoded = |text| decode_exactly(text).map(|bytes| bytes.to_vec());
        assert_eq!(decoded("-_8"), Some(vec![0xfb, 0xff]));
        for other in ["-_8=", " -_8", "-_9", ""] {
            assert_eq!(decoded(other), None, "{other:?}");
        }
    }
}
