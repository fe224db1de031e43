//! `issuers`, `dns` and `events`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::text::{Duration, SecretText};

/// Who issues certificates: exactly one of the keys.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("minProperties" = 1, "maxProperties" = 1))]
pub(crate) struct Issuer {
    /// A certificate authority with ACME, such as Let's Encrypt.
    pub(crate) acme: Option<Acme>,
    /// ZeroSSL by its own API.
    pub(crate) zerossl: Option<ZeroSsl>,
    /// A certificate authority of Snigate's own, for development and internal names.
    pub(crate) local_ca: Option<LocalCa>,
}

/// An authority with ACME (RFC 8555). Whoever configures it agrees to its terms of service.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Acme {
    /// The authority: `letsencrypt`, `letsencrypt-staging`, `google`, `google-staging`, `zerossl`,
    /// `sslcom`, `sslcom-rsa`, or the https:// URL of another one's directory.
    pub(crate) directory: String,
    /// Where an order is rehearsed once it has failed, before the authority itself is asked again:
    /// a directory as above, or `off`. By default the authority's own staging environment where
    /// it has one that takes the same account data: that is so for `letsencrypt`.
    pub(crate) staging: Option<String>,
    /// Where the authority may write to.
    pub(crate) email: Option<String>,
    /// How to prove control of a name, most wanted first.
    #[schemars(length(min = 1))]
    pub(crate) challenges: Vec<Challenge>,
    /// A profile of the authority, such as `tlsserver` or `shortlived`.
    pub(crate) profile: Option<String>,
    /// The kind of the certificates' keys.
    pub(crate) key_type: KeyType,
    /// Whether a renewed certificate keeps the key of the one before. By default each has a new
    /// one.
    pub(crate) reuse_key: bool,
    /// A PEM file with the roots to trust for the directory instead of the system's.
    pub(crate) ca_file: Option<String>,
    /// External account binding, where the authority asks for it.
    pub(crate) eab: Option<Eab>,
    /// A proxy to reach the authority through, `http://HOST:PORT`.
    pub(crate) proxy: Option<String>,
    /// How many orders may be begun in which time.
    pub(crate) limit: OrderLimit,
    /// Whether CAA records are looked up before an order, so that a refusal is explained and the
    /// authority is not bothered.
    pub(crate) check_caa: bool,
    /// The name servers to ask about names, `ADDRESS:PORT`, instead of the system's.
    pub(crate) resolvers: Vec<String>,
}

impl Default for Acme {
    fn default() -> Self {
        Self {
            directory: "letsencrypt".to_owned(),
            staging: None,
            email: None,
            challenges: vec![Challenge::TlsAlpn01, Challenge::Http01],
            profile: None,
            key_type: KeyType::P256,
            reuse_key: false,
            ca_file: None,
            eab: None,
            proxy: None,
            limit: OrderLimit::default(),
            check_caa: true,
            resolvers: Vec::new(),
        }
    }
}

/// How many orders may be begun in which time, to stay within the limits of the authority.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct OrderLimit {
    /// The number of orders.
    #[schemars(range(min = 1, max = 100_000))]
    pub(crate) orders: u64,
    /// The time, from 1s to 24h.
    pub(crate) per: Duration,
}

impl Default for OrderLimit {
    fn default() -> Self {
        Self {
            orders: 10,
            per: Duration::new("10s"),
        }
    }
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub(crate) enum Challenge {
    #[serde(rename = "dns-01")]
    Dns01,
    #[serde(rename = "http-01")]
    Http01,
    #[serde(rename = "tls-alpn-01")]
    TlsAlpn01,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub(crate) enum KeyType {
    P256,
    P384,
    Rsa2048,
    Rsa4096,
    Ed25519,
}

/// External account binding (RFC 8555, section 7.3.4).
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("required" = ["key_id", "hmac_key"]))]
pub(crate) struct Eab {
    /// The key's identifier.
    pub(crate) key_id: String,
    /// The key itself, in base64url as the authority gives it.
    pub(crate) hmac_key: Option<SecretText>,
}

/// ZeroSSL by its own API.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("required" = ["api_key"]))]
pub(crate) struct ZeroSsl {
    /// The access key of the account.
    pub(crate) api_key: Option<SecretText>,
}

/// A certificate authority of Snigate's own.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct LocalCa {
    /// The common name of the root certificate.
    pub(crate) name: String,
}

impl Default for LocalCa {
    fn default() -> Self {
        Self {
            name: "Snigate Local CA".to_owned(),
        }
    }
}

/// Where DNS records are set: exactly one of the keys.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("minProperties" = 1, "maxProperties" = 1))]
pub(crate) struct Dns {
    /// A name server with dynamic updates.
    pub(crate) rfc2136: Option<Rfc2136>,
}

/// A name server with dynamic updates (RFC 2136), signed by TSIG.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("required" = ["server"]))]
pub(crate) struct Rfc2136 {
    /// The server's address, `ADDRESS:PORT`.
    pub(crate) server: String,
    /// The name of the key.
    pub(crate) tsig_name: Option<String>,
    /// The algorithm of the key.
    pub(crate) tsig_algorithm: TsigAlgorithm,
    /// The key, in base64.
    pub(crate) tsig_secret: Option<SecretText>,
}

impl Default for Rfc2136 {
    fn default() -> Self {
        Self {
            server: String::new(),
            tsig_name: None,
            tsig_algorithm: TsigAlgorithm::HmacSha256,
            tsig_secret: None,
        }
    }
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub(crate) enum TsigAlgorithm {
    #[serde(rename = "hmac-sha256")]
    HmacSha256,
    #[serde(rename = "hmac-sha384")]
    HmacSha384,
    #[serde(rename = "hmac-sha512")]
    HmacSha512,
}

/// Whom to tell of which events: one of `webhook` and `exec`.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("required" = ["on"]))]
pub(crate) struct Hook {
    /// Names of events such as `certificate_failed`; `*` for all.
    #[schemars(length(min = 1))]
    pub(crate) on: Vec<String>,
    /// A request with the event as JSON.
    pub(crate) webhook: Option<Webhook>,
    /// A program that gets the event as JSON on its standard input.
    pub(crate) exec: Option<Exec>,
}

/// A request to tell of events.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("required" = ["url"]))]
pub(crate) struct Webhook {
    /// Where to `POST` to.
    pub(crate) url: String,
    /// A secret to sign the body with (HMAC-SHA-256).
    pub(crate) secret: Option<SecretText>,
}

/// A program to tell of events.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("required" = ["command"]))]
pub(crate) struct Exec {
    /// The program and its arguments.
    #[schemars(length(min = 1))]
    pub(crate) command: Vec<String>,
}
