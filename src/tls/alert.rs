//! The alert of a handshake that finds no certificate for its name after it has waited.

use super::handshake_trace;

/// A fatal alert as a record of TLS before anything is encrypted (RFC 8446, sections 5.1 and 6): its
/// type, the version in two octets, its length in two, the level and the reason.
const LENGTH: usize = 7;
const ALERT: u8 = 21;
const FATAL: u8 = 2;

const HANDSHAKE_FAILURE: u8 = 40;
const UNRECOGNIZED_NAME: u8 = 112;

/// Corrects the alert that `written`, which a handshake is about to send, ends with: to be called in
/// the task of a handshake that is [`traced`](super::traced).
///
/// A name that is known to have no certificate is refused when its ClientHello is read, with the
/// alert `unrecognized_name`. OpenSSL lets nobody choose the alert once a certificate has been waited
/// for: it would be `handshake_failure`, and a client could not tell a name that is not served from a
/// cipher that is not spoken.
pub fn correct_alert(written: &mut [u8]) {
    let Some([ALERT, 3, _, 0, 2, FATAL, reason]) = written.last_chunk_mut::<LENGTH>() else {
        return;
    };
    if *reason == HANDSHAKE_FAILURE && handshake_trace::is_refused() {
        *reason = UNRECOGNIZED_NAME;
    }
}

#[cfg(test)]
mod tests {
    use super::super::traced;
    use super::*;

    #[tokio::test]
    async fn only_the_alert_of_a_name_that_was_refused_is_corrected() {
        let failure = [21, 3, 3, 0, 2, 2, 40];
        let corrected = |before: &[u8]| {
            let mut written = before.to_vec();
            correct_alert(&mut written);
            written
        };
        assert_eq!(corrected(&failure), failure, "nobody watches");
        let handshake = async {
            assert_eq!(corrected(&failure), failure, "it is not refused");
            handshake_trace::record_refusal();
            let before = [&b"more"[..], &failure].concat();
            assert_eq!(
                corrected(&before),
                [&b"more"[..], &[21, 3, 3, 0, 2, 2, 112]].concat()
            );
            // Another reason, a warning, and what is no alert.
            for other in [
                [21, 3, 3, 0, 2, 2, 80],
                [21, 3, 3, 0, 2, 1, 40],
                [22, 3, 3, 0, 2, 2, 40],
            ] {
                assert_eq!(corrected(&other), other);
            }
            assert_eq!(corrected(&failure[1..]), failure[1..]);
        };
        traced(handshake, None, None).await;
    }
}
