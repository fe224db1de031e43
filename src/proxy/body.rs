//! The body of a request over HTTP/2, as far as its declared length determines its end.
//!
//! An HTTP/1 server considers a request complete once as many octets have arrived as its head
//! declares. Over HTTP/2 the end is a flag, and a client can continue after the last declared
//! octet, which makes its request malformed (RFC 9113, section 8.1.1). So the last octet is held
//! back until the end has arrived.

use bytes::Bytes;

/// The rest of a body, and what is held back of it.
#[derive(Debug, Default)]
pub(crate) struct Body {
    /// Octets that are to come, `None` if the length is not declared.
    left: Option<u64>,
    /// The last octet.
    held: Bytes,
}

impl Body {
    /// A body of this length, if it is declared.
    pub(crate) fn of(declared: Option<u64>) -> Self {
        Self {
            left: declared,
            held: Bytes::new(),
        }
    }

    /// Replaces the next part by what may be passed on. `None` stands for no octets.
    pub(crate) fn check_part(&mut self, part: &mut Option<Bytes>, is_last: bool) {
        let Some(left) = &mut self.left else {
            return;
        };
        if is_last {
            let held = std::mem::take(&mut self.held);
            if !held.is_empty() {
                // Only an empty part follows the last octet.
                *part = Some(held);
            }
            return;
        }
        let Some(octets) = part.as_mut().filter(|octets| !octets.is_empty()) else {
            return;
        };
        *left = left.saturating_sub(octets.len().try_into().unwrap_or(u64::MAX));
        if *left == 0 {
            self.held = octets.split_off(octets.len() - 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is passed on of each part; the last one comes with the end.
    fn passed(mut body: Body, parts: &[&'static str]) -> Vec<Option<String>> {
        let last = parts.len() - 1;
        let pass = |(at, part): (usize, &&'static str)| {
            let mut part = Some(Bytes::from_static(part.as_bytes()));
            body.check_part(&mut part, at == last);
            part.map(|part| String::from_utf8_lossy(&part).into_owned())
        };
        parts.iter().enumerate().map(pass).collect()
    }

    fn some(parts: &[&str]) -> Vec<Option<String>> {
        parts.iter().map(|part| Some((*part).to_owned())).collect()
    }

    #[test]
    fn the_last_octet_waits_for_the_end() {
        assert_eq!(passed(Body::of(Some(5)), &["hello"]), some(&["hello"]));
        assert_eq!(
            passed(Body::of(Some(5)), &["hello", ""]),
            some(&["hell", "o"])
        );
        let crumbs = passed(Body::of(Some(3)), &["a", "b", "c", ""]);
        assert_eq!(crumbs, some(&["a", "b", "", "c"]));
        let undeclared = passed(Body::default(), &["a", "b", ""]);
        assert_eq!(undeclared, some(&["a", "b", ""]));
    }
}
