//! The protocols negotiated by ALPN: those of requests, and the one by which a CA validates a name
//! (RFC 8737).

use openssl::ssl::{AlpnError, select_next_proto};

use crate::config::model::TlsPolicy;

/// The protocols of requests in ALPN's wire format (RFC 7301, section 3.1), in order of preference.
/// HTTP/1.0 is served as HTTP/1.1 is.
const REQUESTS: &[u8] = b"\x02h2\x08http/1.1\x08http/1.0";

/// The protocol in which a CA validates a name.
pub(super) const VALIDATION: &[u8] = b"acme-tls/1";

/// The whole extension of a client that offers [`VALIDATION`] and nothing else: the length of the
/// list, the length of the name, the name.
const ONLY_VALIDATION: &[u8] = b"\x00\x0b\x0aacme-tls/1";

/// Whether a client's `application_layer_protocol_negotiation` extension offers validation and
/// nothing else, as a CA does (RFC 8737, section 3).
///
/// There is only one way to write that, so nothing needs to be parsed.
pub(super) fn is_validation(extension: &[u8]) -> bool {
    extension == ONLY_VALIDATION
}

/// Selects the protocol of a connection from what the client offers. `policy` is that of its site, if
/// that has its own, and `general` are the protocols of all sites, if they are configured.
///
/// # Errors
/// If there is none: the handshake fails, or continues without a protocol.
pub(super) fn select_protocol<'a>(
    offered: &'a [u8],
    is_validation: bool,
    policy: Option<&TlsPolicy>,
    general: Option<&[&str]>,
) -> Result<&'a [u8], AlpnError> {
    if is_validation {
        // It is all that was offered.
        return Ok(VALIDATION);
    }
    let tunnel = policy.and_then(|policy| policy.tunnel.as_ref());
    let own = policy.and_then(|policy| policy.protocols.as_deref());
    let selected = match (tunnel, own.or(general)) {
        (Some(tunnel), _) => match &tunnel.protocols {
            Some(own) => select_from(own.iter().map(|name| &**name), offered),
            // What is within TLS is between the client and its server.
            None => return Err(AlpnError::NOACK),
        },
        (None, Some(own)) => select_from(own.iter().copied(), offered),
        (None, None) => select_next_proto(REQUESTS, offered),
    };
    selected.ok_or(AlpnError::ALERT_FATAL)
}

/// The first of `own` that the client offers.
pub(super) fn select_from<'a, 'b>(
    mut own: impl Iterator<Item = &'b str>,
    offered: &'a [u8],
) -> Option<&'a [u8]> {
    own.find_map(|own| offers(offered).find(|offer| *offer == own.as_bytes()))
}

/// The protocols in what a client offers (RFC 7301, section 3.1).
fn offers(mut list: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (length, rest) = list.split_first()?;
        let (offer, rest) = rest.split_at_checked(usize::from(*length))?;
        list = rest;
        Some(offer)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A list of protocols as it stands on the wire.
    fn wire(protocols: &[Vec<u8>]) -> Vec<u8> {
        let list: Vec<u8> = protocols
            .iter()
            .flat_map(|name| [&[name.len() as u8][..], name].concat())
            .collect();
        [&(list.len() as u16).to_be_bytes()[..], &list].concat()
    }

    #[test]
    fn a_whole_offer_of_it_alone_counts() {
        assert!(is_validation(&wire(&[VALIDATION.to_vec()])));
        for end in 0..ONLY_VALIDATION.len() {
            assert!(!is_validation(&ONLY_VALIDATION[..end]), "cut at {end}");
        }
        assert!(!is_validation(&[ONLY_VALIDATION, b"\x00"].concat()));
        assert!(!is_validation(&wire(&[
            VALIDATION.to_vec(),
            VALIDATION.to_vec()
        ])));
        assert!(!is_validation(&wire(&[b"ACME-TLS/1".to_vec()])));
    }

    proptest! {
        #[test]
        fn no_other_list_counts(
            protocols in proptest::collection::vec(
                prop_oneof![
                    Just(VALIDATION.to_vec()),
                    proptest::collection::vec(any::<u8>(), 1..20),
                ],
                0..4,
            ),
        ) {
            let alone = protocols.len() == 1 && protocols[0] == VALIDATION;
            prop_assert_eq!(is_validation(&wire(&protocols)), alone);
        }

        #[test]
        fn nothing_that_is_no_list_counts(octets in proptest::collection::vec(any::<u8>(), 0..40)) {
            prop_assume!(octets != ONLY_VALIDATION);
            prop_assert!(!is_validation(&octets));
        }
    }
}
