//! Which content coding a client is sent (RFC 9110, section 12.5.3).

use crate::config::model::Coding;
use crate::proxy::request::Fields;

/// What a client is sent of a response that can be encoded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Preference {
    /// The coding; `None` if the response is sent as it is.
    pub(super) coding: Option<Coding>,
    /// Whether the client refuses a response as it is.
    pub(super) refuses_identity: bool,
}

/// Whether the client of a request with these fields wants its response as it is.
pub(super) fn forbids_changes(fields: Fields<'_>) -> bool {
    let values = fields
        .iter()
        .filter(|(name, _)| name.eq_ignore_ascii_case(b"cache-control"));
    let mut directives = values.flat_map(|(_, value)| members(value));
    directives.any(|directive| directive.eq_ignore_ascii_case(b"no-transform"))
}

/// The members of a list.
pub(super) fn members(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    let members = value.split(|&octet| octet == b',');
    members
        .map(<[u8]>::trim_ascii)
        .filter(|member| !member.is_empty())
}

/// A weight in thousandths.
type Weight = u16;

const FULL: Weight = 1000;

/// What a client says of codings.
#[derive(Default)]
struct Accepted {
    /// In the order of [`Coding::ALL`].
    codings: [Option<Weight>; 3],
    identity: Option<Weight>,
    /// Of all others.
    others: Option<Weight>,
}

/// Chooses the one of `offered`, the preferred one first, that the client prefers.
pub(super) fn choose_coding(fields: Fields<'_>, offered: &[Coding]) -> Preference {
    let accepted = Accepted::read(fields);
    let mut best: Option<(Coding, Weight)> = None;
    for &coding in offered {
        let weight = accepted.weight_of(coding);
        if weight > best.map_or(0, |(_, weight)| weight) {
            best = Some((coding, weight));
        }
    }
    // A client that says nothing of a response as it is accepts one, but does not prefer it.
    let as_it_is = accepted.identity.unwrap_or(0);
    Preference {
        coding: best
            .filter(|(_, weight)| *weight >= as_it_is)
            .map(|(coding, _)| coding),
        refuses_identity: accepted.identity.or(accepted.others) == Some(0),
    }
}

impl Accepted {
    fn read(fields: Fields<'_>) -> Self {
        let mut accepted = Self::default();
        let values = fields
            .iter()
            .filter(|(name, _)| name.eq_ignore_ascii_case(b"accept-encoding"));
        let members = values.flat_map(|(_, value)| value.split(|&octet| octet == b','));
        for member in members {
            let mut parts = member.split(|&octet| octet == b';').map(<[u8]>::trim_ascii);
            let name = parts.next().unwrap_or_default();
            let is = |other: &str| name.eq_ignore_ascii_case(other.as_bytes());
            let Some(weight) = parts.next().map_or(Some(FULL), parse_weight) else {
                continue;
            };
            // An older name, which means the same.
            let is_gzip = is("x-gzip");
            let mut codings = Coding::ALL.into_iter().zip(&mut accepted.codings);
            let known = codings
                .find(|(coding, _)| is(coding.as_str()) || (is_gzip && *coding == Coding::Gzip));
            if let Some((_, known)) = known {
                *known = Some(weight);
            } else if is("identity") {
                accepted.identity = Some(weight);
            } else if name == b"*" {
                accepted.others = Some(weight);
            }
        }
        accepted
    }

    fn weight_of(&self, coding: Coding) -> Weight {
        let mut codings = Coding::ALL.into_iter().zip(self.codings);
        let own = codings.find(|(other, _)| *other == coding);
        let own = own.and_then(|(_, weight)| weight);
        own.or(self.others).unwrap_or(0)
    }
}

/// Parses `q=0.5` (RFC 9110, section 12.4.2).
fn parse_weight(parameter: &[u8]) -> Option<Weight> {
    let (name, value) = parameter.split_at_checked(2)?;
    if !name.eq_ignore_ascii_case(b"q=") {
        return None;
    }
    let (whole, rest) = value.split_first()?;
    let fraction: &[u8] = match rest {
        [] => &[],
        [b'.', fraction @ ..] if fraction.len() <= 3 => fraction,
        _ => return None,
    };
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let digits = fraction.iter().chain(b"000").take(3);
    let thousandths = digits.fold(0, |sum, digit| sum * 10 + Weight::from(digit - b'0'));
    match whole {
        b'0' => Some(thousandths),
        b'1' if thousandths == 0 => Some(FULL),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Coding::{Brotli, Gzip, Zstd};

    fn chosen(value: &str, offered: &[Coding]) -> (Option<Coding>, bool) {
        let lines = format!("GET / HTTP/1.1\r\n{value}\r\n");
        let fields = Fields::Lines(lines.as_bytes());
        let preference = choose_coding(fields, offered);
        (preference.coding, preference.refuses_identity)
    }

    #[test]
    fn the_client_chooses_and_of_equals_the_server() {
        for (value, coding, refuses_identity) in [
            ("gzip, deflate, br, zstd", Some(Zstd), false),
            ("gzip, br", Some(Brotli), false),
            ("gzip", Some(Gzip), false),
            ("X-GZIP", Some(Gzip), false),
            ("GZip;Q=0.5 , br ; q=0.4", Some(Gzip), false),
            ("gzip;q=1.000, br;q=0.999, zstd;q=0.001", Some(Gzip), false),
            ("deflate", None, false),
            ("", None, false),
            ("identity", None, false),
            ("gzip;q=0", None, false),
            ("gzip;q=0.0, br;q=0.000", None, false),
            ("*", Some(Zstd), false),
            ("*;q=0.5, zstd;q=0, gzip;q=0.4", Some(Brotli), false),
            ("*;q=0", None, true),
            ("*;q=0, gzip", Some(Gzip), true),
            ("*;q=0, identity;q=0.1, gzip", Some(Gzip), false),
            ("identity;q=0", None, true),
            ("identity;q=0, br", Some(Brotli), true),
            ("identity;q=0.9, br;q=0.8", None, false),
            ("identity, br", Some(Brotli), false),
            ("identity;q=0, *;q=0", None, true),
            // What is not valid counts for nothing.
            ("gzip;q=2", None, false),
            ("gzip;q=1.001", None, false),
            ("gzip;q=0.1234", None, false),
            ("gzip;q=.5", None, false),
            ("gzip;q=", None, false),
            ("gzip;q=x, br", Some(Brotli), false),
            ("gzip;level=1", None, false),
            (",, ;q=1,", None, false),
        ] {
            let field = format!("Accept-Encoding: {value}");
            let chosen = chosen(&field, &[Zstd, Brotli, Gzip]);
            assert_eq!(chosen, (coding, refuses_identity), "{value}");
        }
        assert_eq!(chosen("X: y", &[Gzip]), (None, false));
        assert_eq!(
            chosen("Accept-Encoding: gzip, br", &[Gzip, Brotli]),
            (Some(Gzip), false)
        );
        assert_eq!(chosen("Accept-Encoding: br, zstd", &[Gzip]), (None, false));
    }

    #[test]
    fn several_fields_are_one_list() {
        let fields = "Accept-Encoding: gzip;q=0.1\r\naccept-encoding: br;q=0.2";
        assert_eq!(chosen(fields, &Coding::ALL), (Some(Brotli), false));
    }

    proptest::proptest! {
        #[test]
        fn any_field_is_read(value in "[a-z*;=,.q0-9 ]{0,40}") {
            chosen(&format!("Accept-Encoding: {value}"), &Coding::ALL);
        }
    }
}
