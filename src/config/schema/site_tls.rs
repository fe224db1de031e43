//! The TLS settings of a single site, and what they have in common with those of all.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub(crate) enum SiteTls {
    Certificate(String),
    Options(SiteTlsOptions),
}

/// The TLS settings of a site.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct SiteTlsOptions {
    /// Where the certificate comes from: `auto` or an issuer's name, as `tls` alone says it.
    pub(crate) certificate: String,
    /// Mozilla's profile. By default that of `tls`.
    pub(crate) profile: Option<TlsProfile>,
    /// The versions of TLS, instead of those of `profile`. By default those of `tls`.
    pub(crate) versions: Option<TlsVersions>,
    /// Cipher suites in order of preference, some for each version. By default those
    /// of `tls`.
    #[schemars(length(min = 1))]
    pub(crate) ciphers: Option<Vec<Cipher>>,
    /// The protocols that are offered by ALPN, in order of preference. By default those of
    /// `tls`. With `tcp`, any: by default none.
    #[schemars(length(min = 1))]
    pub(crate) alpn: Option<Vec<String>>,
}

impl Default for SiteTlsOptions {
    fn default() -> Self {
        Self {
            certificate: "auto".to_owned(),
            profile: None,
            versions: None,
            ciphers: None,
            alpn: None,
        }
    }
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub(crate) enum TlsProfile {
    Intermediate,
    Modern,
}

/// Versions of TLS, from one to another.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct TlsVersions {
    /// The oldest one, in quotes: `"1.2"` or `"1.3"`.
    pub(crate) min: TlsVersion,
    /// The newest one.
    pub(crate) max: TlsVersion,
}

impl Default for TlsVersions {
    fn default() -> Self {
        Self {
            min: TlsVersion::Tls12,
            max: TlsVersion::Tls13,
        }
    }
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub(crate) enum TlsVersion {
    #[serde(rename = "1.2")]
    Tls12,
    #[serde(rename = "1.3")]
    Tls13,
}

/// ECDHE with AEAD, by OpenSSL's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub(crate) enum Cipher {
    #[serde(rename = "TLS_AES_128_GCM_SHA256")]
    Aes128,
    #[serde(rename = "TLS_AES_256_GCM_SHA384")]
    Aes256,
    #[serde(rename = "TLS_CHACHA20_POLY1305_SHA256")]
    ChaCha20,
    #[serde(rename = "ECDHE-ECDSA-AES128-GCM-SHA256")]
    EcdsaAes128,
    #[serde(rename = "ECDHE-RSA-AES128-GCM-SHA256")]
    RsaAes128,
    #[serde(rename = "ECDHE-ECDSA-AES256-GCM-SHA384")]
    EcdsaAes256,
    #[serde(rename = "ECDHE-RSA-AES256-GCM-SHA384")]
    RsaAes256,
    #[serde(rename = "ECDHE-ECDSA-CHACHA20-POLY1305")]
    EcdsaChaCha20,
    #[serde(rename = "ECDHE-RSA-CHACHA20-POLY1305")]
    RsaChaCha20,
}

impl Cipher {
    /// The name by which OpenSSL knows it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Aes128 => "TLS_AES_128_GCM_SHA256",
            Self::Aes256 => "TLS_AES_256_GCM_SHA384",
            Self::ChaCha20 => "TLS_CHACHA20_POLY1305_SHA256",
            Self::EcdsaAes128 => "ECDHE-ECDSA-AES128-GCM-SHA256",
            Self::RsaAes128 => "ECDHE-RSA-AES128-GCM-SHA256",
            Self::EcdsaAes256 => "ECDHE-ECDSA-AES256-GCM-SHA384",
            Self::RsaAes256 => "ECDHE-RSA-AES256-GCM-SHA384",
            Self::EcdsaChaCha20 => "ECDHE-ECDSA-CHACHA20-POLY1305",
            Self::RsaChaCha20 => "ECDHE-RSA-CHACHA20-POLY1305",
        }
    }

    /// Whether it is for TLS 1.3 rather than 1.2.
    pub(crate) fn is_tls13(self) -> bool {
        matches!(self, Self::Aes128 | Self::Aes256 | Self::ChaCha20)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub(crate) enum AlpnProtocol {
    #[serde(rename = "h2")]
    Http2,
    #[serde(rename = "http/1.1")]
    Http1,
}

impl AlpnProtocol {
    /// The protocol of this name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        match name {
            "h2" => Some(Self::Http2),
            "http/1.1" => Some(Self::Http1),
            _ => None,
        }
    }
}
