//! An issuer of tokens.

use openssl::hash::MessageDigest;
use openssl::pkey::{PKey, Private};
use openssl::sign::Signer;
use serde_json::{Value, json};
use snigate::clock::{Clock as _, SystemClock};

/// Issues tokens signed by its key, with EdDSA.
pub struct TokenSigner {
    id: String,
    key: PKey<Private>,
}

impl TokenSigner {
    /// With a new key of this id.
    pub fn new(id: &str) -> Self {
        Self {
            id: id.to_owned(),
            key: PKey::generate_ed25519().expect("a key"),
        }
    }

    pub fn key(&self) -> Value {
        let x = base64url(&self.key.raw_public_key().expect("a key"));
        json!({ "kty": "OKP", "crv": "Ed25519", "use": "sig", "kid": self.id, "x": x })
    }

    /// A set of its key alone.
    pub fn set(&self) -> String {
        key_set(&[self])
    }

    pub fn pem(&self) -> String {
        String::from_utf8(self.key.public_key_to_pem().expect("PEM")).expect("text")
    }

    /// A token with these claims. It expires in an hour unless they say otherwise.
    pub fn token(&self, claims: &Value) -> String {
        let header = json!({ "alg": "EdDSA", "typ": "JWT", "kid": self.id });
        self.with_header(&header.to_string(), claims)
    }

    pub fn with_header(&self, header: &str, claims: &Value) -> String {
        let signed = signed_part(header, claims);
        let mut signer = Signer::new_without_digest(&self.key).expect("a signer");
        let signature = signer.sign_oneshot_to_vec(signed.as_bytes());
        format!("{signed}.{}", base64url(&signature.expect("a signature")))
    }

    /// A token that says it needs no signature, and has none.
    pub fn unsigned(&self, claims: &Value) -> String {
        format!("{}.", signed_part(r#"{"alg":"none"}"#, claims))
    }

    /// A token whose signature is an HMAC with the public key.
    pub fn with_public_key_as_secret(&self, claims: &Value) -> String {
        let signed = signed_part(&format!(r#"{{"alg":"HS256","kid":"{}"}}"#, self.id), claims);
        let secret = PKey::hmac(self.pem().as_bytes()).expect("a key");
        let mut signer = Signer::new(MessageDigest::sha256(), &secret).expect("a signer");
        let mac = signer
            .sign_oneshot_to_vec(signed.as_bytes())
            .expect("a MAC");
        format!("{signed}.{}", base64url(&mac))
    }
}

/// A set of the keys of these issuers.
pub fn key_set(signers: &[&TokenSigner]) -> String {
    let keys: Vec<Value> = signers.iter().map(|signer| signer.key()).collect();
    json!({ "keys": keys }).to_string()
}

fn signed_part(header: &str, claims: &Value) -> String {
    let mut claims = claims.clone();
    if claims.get("exp").is_none() {
        claims["exp"] = json!(unix_time() + 3600);
    }
    format!(
        "{}.{}",
        base64url(header.as_bytes()),
        base64url(claims.to_string().as_bytes())
    )
}

/// Seconds since the Unix epoch.
pub fn unix_time() -> u64 {
    u64::try_from(SystemClock.now().as_secs()).expect("after 1970")
}

/// Base64url without padding.
pub fn base64url(octets: &[u8]) -> String {
    let text = openssl::base64::encode_block(octets);
    text.trim_end_matches('=')
        .replace('+', "-")
        .replace('/', "_")
}
