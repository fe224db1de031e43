//! `issuers`.

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
    /// ZeroSSL, with an account there.
    pub(crate) zerossl: Option<ZeroSsl>,
    /// A certificate authority of Snigate's own, for development and internal names.
    pub(crate) local_ca: Option<LocalCa>,
    /// Whether it is an issuer of the program that embeds the engine: no file can say so.
    #[serde(skip)]
    pub(crate) is_own: bool,
}

/// An ACME authority (RFC 8555). By configuring it you agree to its terms of service.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Acme {
    /// The authority: `letsencrypt`, `letsencrypt-staging`, `google`, `google-staging`, `zerossl`,
    /// `sslcom`, `sslcom-rsa`, or the https:// URL of another one's directory.
    pub(crate) directory: String,
    /// Where an order is rehearsed once it has failed, before the authority itself is asked again:
    /// a directory as above, or `off`. By default the authority's own staging environment if it has
    /// one that accepts the same account data, as `letsencrypt` does.
    pub(crate) staging: Option<String>,
    /// Where the authority may write to.
    pub(crate) email: Option<String>,
    /// How to prove control of a name, in order of preference. By default `tls-alpn-01`, `http-01`,
    /// and `dns-01` if there is an entry in `dns` for it.
    #[schemars(length(min = 1))]
    pub(crate) challenges: Option<Vec<Challenge>>,
    /// The name of the entry in `dns` that sets challenge records, unless a certificate names
    /// another. By default the only entry.
    pub(crate) dns: Option<String>,
    /// A profile of the authority, such as `tlsserver` or `shortlived`: requested if the authority
    /// has it.
    pub(crate) profile: Option<Profile>,
    /// Which chain is served if the authority offers several. By default its own choice.
    pub(crate) preferred_chain: Option<PreferredChain>,
    /// How long certificates are to be valid, from 1h to 398d, if the authority lets this be
    /// chosen.
    pub(crate) lifetime: Option<Duration>,
    /// Whether the first name is also the certificate's common name, for clients that check nothing
    /// else.
    pub(crate) common_name: bool,
    /// Whether certificates say that they come with a stapled OCSP response (RFC 7633). Most
    /// public authorities refuse that by now.
    pub(crate) must_staple: bool,
    /// The kind of the certificates' keys.
    pub(crate) key_type: KeyType,
    /// Whether a renewed certificate keeps the key of the previous one. By default each has a new
    /// one.
    pub(crate) reuse_key: bool,
    /// A PEM file with the roots to trust for the directory instead of the system's.
    pub(crate) ca_file: Option<String>,
    /// External account binding, if the authority requires it.
    pub(crate) eab: Option<Eab>,
    /// A proxy to reach the authority through, `http://HOST:PORT`.
    pub(crate) proxy: Option<String>,
    /// How many orders may be started in which time.
    pub(crate) limit: OrderLimit,
    /// Whether CAA records are looked up before an order, so that a refusal is explained without
    /// asking the authority.
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
            challenges: None,
            dns: None,
            profile: None,
            preferred_chain: None,
            lifetime: None,
            common_name: false,
            must_staple: false,
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

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub(crate) enum Profile {
    Name(String),
    Named(NamedProfile),
}

impl Profile {
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Name(name) => name,
            Self::Named(named) => &named.name,
        }
    }
}

/// A profile of an authority.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("required" = ["name"]))]
pub(crate) struct NamedProfile {
    /// Its name, as the authority writes it.
    pub(crate) name: String,
    /// Whether nothing is ordered from an authority that does not have it, instead of a certificate
    /// of its default profile.
    pub(crate) required: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub(crate) enum PreferredChain {
    Shortest(Shortest),
    Names(ChainNames),
}

/// The word `shortest`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub(crate) enum Shortest {
    Shortest,
}

/// Whose chain is preferred: one of `root` and `issuer`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("minProperties" = 1, "maxProperties" = 1))]
pub(crate) struct ChainNames {
    /// The common name of the root that the chain leads to.
    pub(crate) root: Option<String>,
    /// The common name of an authority that has issued a certificate of the chain.
    pub(crate) issuer: Option<String>,
}

/// How many orders may be started in which time, to stay within the limits of the authority.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
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
    #[serde(rename = "dns-account-01")]
    DnsAccount01,
    #[serde(rename = "dns-persist-01")]
    DnsPersist01,
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
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("required" = ["key_id", "hmac_key"]))]
pub(crate) struct Eab {
    /// The key's identifier.
    pub(crate) key_id: String,
    /// The key itself, in base64url as the authority gives it.
    pub(crate) hmac_key: Option<SecretText>,
}

/// ZeroSSL, with an account there: one of `api_key` and `email`, or both. The rest is as in
/// `acme`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ZeroSsl {
    /// The access key of the account. ZeroSSL exchanges it for a key for external account binding.
    pub(crate) api_key: Option<SecretText>,
    /// The address of the account, which can be given instead of `api_key`. If both are given,
    /// ZeroSSL may write to it.
    pub(crate) email: Option<String>,
    /// The https:// URL of ZeroSSL's own API.
    pub(crate) endpoint: String,
    /// The https:// URL of its ACME directory, or `zerossl`.
    pub(crate) directory: String,
    /// How to prove control of a name, in order of preference.
    #[schemars(length(min = 1))]
    pub(crate) challenges: Option<Vec<Challenge>>,
    /// The name of an entry in `dns`, as with `acme`.
    pub(crate) dns: Option<String>,
    /// The kind of the certificates' keys.
    pub(crate) key_type: KeyType,
    /// Whether a renewed certificate keeps the key of the previous one. By default each has a new
    /// one.
    pub(crate) reuse_key: bool,
    /// A PEM file with the roots to trust for the API and the directory instead of the system's.
    pub(crate) ca_file: Option<String>,
    /// A proxy to reach both through, `http://HOST:PORT`.
    pub(crate) proxy: Option<String>,
    /// How many orders may be started in which time.
    pub(crate) limit: OrderLimit,
    /// Whether CAA records are looked up before an order, as with `acme`.
    pub(crate) check_caa: bool,
    /// The name servers to ask about names, `ADDRESS:PORT`, instead of the system's.
    pub(crate) resolvers: Vec<String>,
}

impl Default for ZeroSsl {
    fn default() -> Self {
        Self {
            api_key: None,
            email: None,
            endpoint: "https://api.zerossl.com".to_owned(),
            directory: "zerossl".to_owned(),
            challenges: None,
            dns: None,
            key_type: KeyType::P256,
            reuse_key: false,
            ca_file: None,
            proxy: None,
            limit: OrderLimit::default(),
            check_caa: true,
            resolvers: Vec::new(),
        }
    }
}

impl ZeroSsl {
    /// What it is as an authority with ACME.
    pub(crate) fn as_acme(&self) -> Acme {
        Acme {
            directory: self.directory.clone(),
            email: self.email.clone(),
            challenges: self.challenges.clone(),
            dns: self.dns.clone(),
            key_type: self.key_type,
            reuse_key: self.reuse_key,
            ca_file: self.ca_file.clone(),
            proxy: self.proxy.clone(),
            limit: self.limit.clone(),
            check_caa: self.check_caa,
            resolvers: self.resolvers.clone(),
            ..Acme::default()
        }
    }
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
