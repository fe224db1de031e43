//! The signature of a webhook's request, by which its receiver knows that it comes from the gateway,
//! and when it was sent.

use std::fmt::Write as _;

use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::pkey::PKey;
use openssl::sign::Signer;

use crate::clock::UnixTime;
use crate::secret::Secret;

/// The field `Snigate-Signature`: the time and the HMAC-SHA-256 of the time, a dot and the body.
///
/// # Errors
/// If OpenSSL has no memory.
pub(super) fn sign(secret: &Secret, at: UnixTime, body: &[u8]) -> Result<String, ErrorStack> {
    let time = at.as_secs();
    let key = PKey::hmac(secret.expose().as_bytes())?;
    let mut signer = Signer::new(MessageDigest::sha256(), &key)?;
    signer.update(format!("{time}.").as_bytes())?;
    signer.update(body)?;
    let mut field = format!("t={time},v1=");
    for octet in signer.sign_to_vec()? {
        // Writing to a string does not fail.
        let _ = write!(field, "{octet:02x}");
    }
    Ok(field)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::unix;

    /// The value comes from `printf '1700000000.{}' | openssl dgst -sha256 -hmac secret`.
    #[test]
    fn time_and_body_are_signed() {
        let secret = Secret::new("secret".to_owned());
        let field = sign(&secret, unix(1_700_000_000), b"{}").expect("signed");
        assert_eq!(
            field,
            "t=1700000000,v1=b8569b78799ff9e3cbff0fc2d63a33a2b57f3282abd07c37ae5e8e7d79a5f163"
        );
    }
}
