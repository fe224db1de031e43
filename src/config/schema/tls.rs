//! `tls`, `storage`, `certificates` and `renewal`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::client_auth::ClientAuth;
use super::site_tls::{AlpnProtocol, Cipher, TlsProfile, TlsVersions};
use super::text::{Duration, Names, Off, SecretText, Size};

/// TLS settings of the HTTPS listeners.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Tls {
    /// Mozilla's profile: `intermediate` for TLS 1.2 and 1.3, the default, `modern` for TLS 1.3
    /// only.
    pub(crate) profile: Option<TlsProfile>,
    /// The versions of TLS, instead of those of `profile`.
    pub(crate) versions: Option<TlsVersions>,
    /// Cipher suites in order of preference, some for each version. By default all that are secure.
    #[schemars(length(min = 1))]
    pub(crate) ciphers: Option<Vec<Cipher>>,
    /// The protocols that are offered by ALPN, in order of preference. By default `h2`, then
    /// `http/1.1`.
    #[schemars(length(min = 1))]
    pub(crate) alpn: Option<Vec<AlpnProtocol>>,
    /// Key exchange groups, in order of preference.
    #[schemars(length(min = 1))]
    pub(crate) groups: Vec<Group>,
    /// The host name or IP address whose certificate is served to clients that name no host (no
    /// SNI) if the address they connect to has none of its own, or, see `unknown_sni`, an unknown
    /// one. Without it such clients get the alert `unrecognized_name`.
    pub(crate) default_certificate: Option<String>,
    /// What a client that names a host without a certificate gets: `default` for the default
    /// certificate if there is one, `reject` for the alert `unrecognized_name`.
    pub(crate) unknown_sni: UnknownSni,
    /// Resumption by session tickets: `off`, or how often their keys are replaced.
    pub(crate) session_tickets: SessionTickets,
    /// Certificates that clients present: `off`, or whose. A site's own `client_auth` takes
    /// precedence.
    pub(crate) client_auth: ClientAuth,
    /// A file to which the secrets of all connections are appended, for Wireshark and the like.
    /// Whoever reads it reads everything that clients and sites exchange: for debugging only. The
    /// variable `SSLKEYLOGFILE` has no effect.
    pub(crate) key_log: Option<String>,
}

impl Default for Tls {
    fn default() -> Self {
        Self {
            profile: None,
            versions: None,
            ciphers: None,
            alpn: None,
            groups: vec![
                Group::X25519MLKEM768,
                Group::X25519,
                Group::P256,
                Group::P384,
            ],
            default_certificate: None,
            unknown_sni: UnknownSni::Default,
            session_tickets: SessionTickets::Rotate(TicketRotation::default()),
            client_auth: ClientAuth::Off(Off::Off),
            key_log: None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub(crate) enum Group {
    X25519MLKEM768,
    SecP256r1MLKEM768,
    SecP384r1MLKEM1024,
    X25519,
    X448,
    #[serde(rename = "P-256")]
    P256,
    #[serde(rename = "P-384")]
    P384,
    #[serde(rename = "P-521")]
    P521,
}

impl Group {
    /// The name by which OpenSSL knows it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::X25519MLKEM768 => "X25519MLKEM768",
            Self::SecP256r1MLKEM768 => "SecP256r1MLKEM768",
            Self::SecP384r1MLKEM1024 => "SecP384r1MLKEM1024",
            Self::X25519 => "X25519",
            Self::X448 => "X448",
            Self::P256 => "P-256",
            Self::P384 => "P-384",
            Self::P521 => "P-521",
        }
    }
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub(crate) enum UnknownSni {
    Default,
    Reject,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub(crate) enum SessionTickets {
    Off(Off),
    Rotate(TicketRotation),
}

/// Keys of session tickets.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct TicketRotation {
    /// How often the keys are replaced, from 1m to 24h.
    pub(crate) rotate: Duration,
}

impl Default for TicketRotation {
    fn default() -> Self {
        Self {
            rotate: Duration::new("12h"),
        }
    }
}

/// Where issued certificates, their keys and accounts are stored.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("maxProperties" = 1))]
pub(crate) struct Storage {
    /// In files below a directory, the default.
    pub(crate) file: Option<FileStorage>,
    /// In etcd, shared by several gateways.
    pub(crate) etcd: Option<Etcd>,
}

/// Storage in files.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct FileStorage {
    /// The directory. It is created if it does not exist.
    pub(crate) path: String,
}

impl Default for FileStorage {
    fn default() -> Self {
        Self {
            path: "./data".to_owned(),
        }
    }
}

/// Storage in etcd.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("required" = ["endpoints"]))]
pub(crate) struct Etcd {
    /// URLs of the members, `https://10.0.0.1:2379`.
    #[schemars(length(min = 1))]
    pub(crate) endpoints: Vec<String>,
    /// What all keys begin with.
    pub(crate) prefix: String,
    /// The user to log in as.
    pub(crate) user: Option<String>,
    /// The user's password.
    pub(crate) password: Option<SecretText>,
    /// A PEM file with the roots to trust instead of the system's.
    pub(crate) ca: Option<String>,
    /// A PEM file with the client certificate.
    pub(crate) cert: Option<String>,
    /// A PEM file with the client certificate's key.
    pub(crate) key: Option<String>,
}

impl Default for Etcd {
    fn default() -> Self {
        Self {
            endpoints: Vec::new(),
            prefix: "/snigate".to_owned(),
            user: None,
            password: None,
            ca: None,
            cert: None,
            key: None,
        }
    }
}

/// Certificates: one of `files`, `directory` and `names`.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Certificate {
    /// A certificate in files; its names come from the certificate.
    pub(crate) files: Option<CertificateFiles>,
    /// A directory of certificates: `NAME.pem` with `NAME.key`, or both in one `NAME.pem`.
    pub(crate) directory: Option<String>,
    /// Host names, wildcards and IP addresses for which a certificate is requested from an issuer.
    #[schemars(length(min = 1))]
    pub(crate) names: Option<Vec<String>>,
    /// Names of issuers, tried in order; with `names`. By default the first issuer.
    pub(crate) issuer: Option<Names>,
    /// The name of the entry in `dns` that sets challenge records; with `names`. By default that of
    /// the issuer.
    pub(crate) dns: Option<String>,
}

/// A certificate in files.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("required" = ["cert"]))]
pub(crate) struct CertificateFiles {
    /// A PEM file with the certificate and its chain.
    pub(crate) cert: String,
    /// A PEM file with the private key; not needed if `cert` contains it too.
    pub(crate) key: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub(crate) enum InMemory {
    #[default]
    All,
    Cache,
}

/// A size with a default of its own.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(inline)]
pub(crate) struct CacheSize(pub(crate) Size);

impl Default for CacheSize {
    fn default() -> Self {
        Self(Size::Text("64MiB".to_owned()))
    }
}

/// When issued certificates are renewed.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Renewal {
    /// The last part of the lifetime in which to renew: 0.33 for the last third.
    #[schemars(range(min = 0, max = 1))]
    pub(crate) window: f64,
    /// How often all certificates are checked.
    pub(crate) check_every: Duration,
    /// Whether to follow the CA's advice on when to renew (RFC 9773), where it gives any.
    pub(crate) ari: bool,
    /// Whether startup fails if a missing certificate cannot be obtained. By default the gateway
    /// starts, serves the other sites and keeps trying.
    pub(crate) required_at_start: bool,
}

impl Default for Renewal {
    fn default() -> Self {
        Self {
            window: 0.33,
            check_every: Duration::new("10m"),
            ari: true,
            required_at_start: false,
        }
    }
}
