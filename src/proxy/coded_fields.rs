//! What a content coding changes in the fields of a response.

/// Whether a field describes the octets of a body, so that it is wrong for an encoded one.
pub(super) fn describes_octets(name: &str) -> bool {
    let is = |other: &str| name.eq_ignore_ascii_case(other);
    match name.len() {
        6 => is("digest"),
        11 => is("repr-digest") || is("content-md5"),
        13 => is("accept-ranges"),
        14 => is("content-digest"),
        _ => false,
    }
}

/// The weak form of a strong entity tag (RFC 9110, section 8.8.3).
pub(super) fn weaken(tag: &[u8]) -> Option<Vec<u8>> {
    let is_strong = tag.len() >= 2 && tag.starts_with(b"\"") && tag.ends_with(b"\"");
    is_strong.then(|| [b"W/", tag].concat())
}
