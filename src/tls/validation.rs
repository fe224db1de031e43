//! The protocol in which a CA validates a name by TLS (RFC 8737).

/// Its name.
pub(super) const PROTOCOL: &[u8] = b"acme-tls/1";

/// The whole content of the extension of a client that offers it and nothing else: the length of
/// the list, the length of the name, the name (RFC 7301, section 3.1).
const ONLY_OFFER: &[u8] = b"\x00\x0b\x0aacme-tls/1";

/// Whether the content of a client's `application_layer_protocol_negotiation` extension offers
/// this protocol and nothing else, which is how a CA comes (RFC 8737, section 3).
///
/// There is one way to write that, so there is nothing to parse.
pub(super) fn is_only_offer(extension: &[u8]) -> bool {
    extension == ONLY_OFFER
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
        assert!(is_only_offer(&wire(&[PROTOCOL.to_vec()])));
        for end in 0..ONLY_OFFER.len() {
            assert!(!is_only_offer(&ONLY_OFFER[..end]), "cut at {end}");
        }
        assert!(!is_only_offer(&[ONLY_OFFER, b"\x00"].concat()));
        assert!(!is_only_offer(&wire(&[
            PROTOCOL.to_vec(),
            PROTOCOL.to_vec()
        ])));
        assert!(!is_only_offer(&wire(&[b"ACME-TLS/1".to_vec()])));
    }

    proptest! {
        #[test]
        fn no_other_list_counts(
            protocols in proptest::collection::vec(
                prop_oneof![
                    Just(PROTOCOL.to_vec()),
                    proptest::collection::vec(any::<u8>(), 1..20),
                ],
                0..4,
            ),
        ) {
            let alone = protocols.len() == 1 && protocols[0] == PROTOCOL;
            prop_assert_eq!(is_only_offer(&wire(&protocols)), alone);
        }

        #[test]
        fn nothing_that_is_no_list_counts(octets in proptest::collection::vec(any::<u8>(), 0..40)) {
            prop_assume!(octets != ONLY_OFFER);
            prop_assert!(!is_only_offer(&octets));
        }
    }
}
