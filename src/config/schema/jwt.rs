//! Tokens that say who sends a request.

use std::collections::BTreeMap;

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::text::{Duration, Off};

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub(crate) enum Jwt {
    Off(Off),
    On(Box<JwtOptions>),
}

/// A JSON Web Token for each request (RFC 7519), verified with public keys.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct JwtOptions {
    /// A file with the verification keys: a JSON Web Key Set, or public keys or certificates in PEM.
    /// Either this or `jwks_url`.
    pub(crate) keys_file: Option<String>,
    /// Where the keys are fetched, as a JSON Web Key Set.
    pub(crate) jwks_url: Option<String>,
    /// A PEM file with the roots to trust at `jwks_url` instead of the system's.
    pub(crate) ca_file: Option<String>,
    /// How often the keys at `jwks_url` are fetched again. A token that none of the
    /// known keys has signed causes that too.
    pub(crate) refresh: Duration,
    /// Who may have issued a token (`iss`): one, or several. By default anyone who has a key.
    pub(crate) issuer: Option<OneOrMore>,
    /// For whom a token has to be (`aud`): one, or several; or `off` for whomever. By default only
    /// tokens that are for nobody in particular are accepted.
    pub(crate) audience: Option<OneOrMore>,
    /// How tokens may be signed. By default in each way that their keys are for.
    #[schemars(length(min = 1))]
    pub(crate) algorithms: Option<Vec<AlgorithmName>>,
    /// How far the clocks of issuers may be from this one's.
    pub(crate) clock_skew: Duration,
    /// The header field with the token, instead of `Authorization: Bearer`.
    pub(crate) header: Option<String>,
    /// The cookie with the token, instead of `Authorization: Bearer`.
    pub(crate) cookie: Option<String>,
    /// What a token has to say, by the names of claims: a value, or one of several. Other clients get
    /// 403.
    #[schemars(with = "BTreeMap<String, ClaimValues>")]
    pub(crate) claims: IndexMap<String, ClaimValues>,
}

impl Default for JwtOptions {
    fn default() -> Self {
        Self {
            keys_file: None,
            jwks_url: None,
            ca_file: None,
            refresh: Duration::new("10m"),
            issuer: None,
            audience: None,
            algorithms: None,
            clock_skew: Duration::new("60s"),
            header: None,
            cookie: None,
            claims: IndexMap::new(),
        }
    }
}

/// One text, or several.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub(crate) enum OneOrMore {
    One(String),
    Several(Vec<String>),
}

impl OneOrMore {
    pub(crate) fn as_slice(&self) -> &[String] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Several(several) => several,
        }
    }
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub(crate) enum ClaimValues {
    Text(String),
    Number(u64),
    Truth(bool),
    Several(Vec<ClaimValue>),
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub(crate) enum ClaimValue {
    Text(String),
    Number(u64),
    Truth(bool),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub(crate) enum AlgorithmName {
    #[serde(rename = "RS256")]
    Rs256,
    #[serde(rename = "RS384")]
    Rs384,
    #[serde(rename = "RS512")]
    Rs512,
    #[serde(rename = "PS256")]
    Ps256,
    #[serde(rename = "PS384")]
    Ps384,
    #[serde(rename = "PS512")]
    Ps512,
    #[serde(rename = "ES256")]
    Es256,
    #[serde(rename = "ES384")]
    Es384,
    #[serde(rename = "ES512")]
    Es512,
    #[serde(rename = "EdDSA")]
    EdDsa,
}
