//! `dns`.

use std::collections::BTreeMap;

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::text::{Duration, Off, SecretText};

/// Where DNS records are set: exactly one of the providers, and how to check that they are there.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Dns {
    /// A name server with dynamic updates.
    pub(crate) rfc2136: Option<Rfc2136>,
    /// Cloudflare.
    pub(crate) cloudflare: Option<Cloudflare>,
    /// Amazon Route 53.
    pub(crate) route53: Option<Route53>,
    /// DigitalOcean.
    pub(crate) digitalocean: Option<DigitalOcean>,
    /// Hetzner, in its cloud console.
    pub(crate) hetzner: Option<Hetzner>,
    /// An acme-dns server, to which names are delegated by CNAME.
    pub(crate) acme_dns: Option<AcmeDns>,
    /// Your own server that implements lego's `httpreq` protocol.
    pub(crate) httpreq: Option<HttpReq>,
    /// A program, called as by lego's `exec`.
    pub(crate) exec: Option<DnsExec>,
    /// The time to live of the records, in seconds. Providers with a higher minimum get theirs.
    #[schemars(range(min = 1, max = 86_400))]
    pub(crate) ttl: u64,
    /// Resolvers to ask instead of the system's, `ADDRESS:PORT`.
    pub(crate) resolvers: Vec<String>,
    /// Whether the CA is only asked to check a record once the zone's name servers return it:
    /// `off`, or how that is checked.
    pub(crate) propagation: Propagation,
    /// A PEM file with the roots to trust for the provider's HTTPS instead of the system's.
    pub(crate) ca_file: Option<String>,
    /// A proxy to reach the provider's HTTPS through, `http://HOST:PORT`.
    pub(crate) proxy: Option<String>,
    /// Whether it is a provider of the program that embeds the engine: no file can say so.
    #[serde(skip)]
    pub(crate) is_own: bool,
}

impl Default for Dns {
    fn default() -> Self {
        Self {
            rfc2136: None,
            cloudflare: None,
            route53: None,
            digitalocean: None,
            hetzner: None,
            acme_dns: None,
            httpreq: None,
            exec: None,
            ttl: 60,
            resolvers: Vec::new(),
            propagation: Propagation::Checked(PropagationCheck::default()),
            ca_file: None,
            proxy: None,
            is_own: false,
        }
    }
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub(crate) enum Propagation {
    Off(Off),
    Checked(PropagationCheck),
}

/// How to check that a record can be seen.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct PropagationCheck {
    /// Name servers to ask instead of the zone's own, `ADDRESS:PORT`.
    pub(crate) servers: Vec<String>,
    /// How long all of them may take, from 1s to 1h.
    pub(crate) timeout: Duration,
    /// The time between two checks, from 100ms to 10m.
    pub(crate) interval: Duration,
    /// How long to wait once all of them have it, at most 1h.
    pub(crate) wait: Duration,
}

impl Default for PropagationCheck {
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            timeout: Duration::new("2m"),
            interval: Duration::new("2s"),
            wait: Duration::new("0s"),
        }
    }
}

/// A name server with dynamic updates (RFC 2136), signed by TSIG.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("required" = ["server"]))]
pub(crate) struct Rfc2136 {
    /// The server's address, `ADDRESS:PORT` or `NAME:PORT`.
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

/// Cloudflare.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("required" = ["api_token"]))]
pub(crate) struct Cloudflare {
    /// An API token with the permissions Zone: Read and DNS: Edit.
    pub(crate) api_token: Option<SecretText>,
    /// The URL of the API.
    pub(crate) endpoint: String,
}

impl Default for Cloudflare {
    fn default() -> Self {
        Self {
            api_token: None,
            endpoint: "https://api.cloudflare.com/client/v4".to_owned(),
        }
    }
}

/// Amazon Route 53.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("required" = ["access_key_id", "secret_access_key"]))]
pub(crate) struct Route53 {
    /// The identifier of an access key.
    pub(crate) access_key_id: String,
    /// The access key itself.
    pub(crate) secret_access_key: Option<SecretText>,
    /// The token that comes with a temporary access key.
    pub(crate) session_token: Option<SecretText>,
    /// The hosted zone, if the key may not list them or several have the same name.
    pub(crate) hosted_zone_id: Option<String>,
    /// The region that requests are signed for: `us-east-1` except in China and GovCloud.
    pub(crate) region: String,
    /// The URL of the API.
    pub(crate) endpoint: String,
}

impl Default for Route53 {
    fn default() -> Self {
        Self {
            access_key_id: String::new(),
            secret_access_key: None,
            session_token: None,
            hosted_zone_id: None,
            region: "us-east-1".to_owned(),
            endpoint: "https://route53.amazonaws.com".to_owned(),
        }
    }
}

/// DigitalOcean.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("required" = ["api_token"]))]
pub(crate) struct DigitalOcean {
    /// A personal access token that may read, create and delete domains.
    pub(crate) api_token: Option<SecretText>,
    /// The URL of the API.
    pub(crate) endpoint: String,
}

impl Default for DigitalOcean {
    fn default() -> Self {
        Self {
            api_token: None,
            endpoint: "https://api.digitalocean.com".to_owned(),
        }
    }
}

/// Hetzner, in its cloud console.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("required" = ["api_token"]))]
pub(crate) struct Hetzner {
    /// An API token of the project that the zone is in, with read and write permission.
    pub(crate) api_token: Option<SecretText>,
    /// The URL of the API.
    pub(crate) endpoint: String,
}

impl Default for Hetzner {
    fn default() -> Self {
        Self {
            api_token: None,
            endpoint: "https://api.hetzner.cloud/v1".to_owned(),
        }
    }
}

/// An acme-dns server, with one account or with a file of accounts.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("required" = ["endpoint"]))]
pub(crate) struct AcmeDns {
    /// The URL of the server's API.
    pub(crate) endpoint: String,
    /// The user name of the account; with `password` and `subdomain`.
    pub(crate) username: Option<String>,
    /// The password of the account.
    pub(crate) password: Option<SecretText>,
    /// The subdomain of the account, without the server's domain.
    pub(crate) subdomain: Option<String>,
    /// Instead of one account, a file (JSON, as lego and goacmedns keep it) with an account for
    /// each name. Names without one are registered, and the CNAME record to set is reported.
    pub(crate) accounts: Option<String>,
}

/// Your own server that implements lego's `httpreq` protocol.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("required" = ["endpoint"]))]
pub(crate) struct HttpReq {
    /// The URL below which `/present` and `/cleanup` are called.
    pub(crate) endpoint: String,
    /// A user name, with `password`.
    pub(crate) username: Option<String>,
    /// The user's password.
    pub(crate) password: Option<SecretText>,
}

/// A program, called as by lego's `exec`: `COMMAND present NAME. VALUE` and `COMMAND cleanup …`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("required" = ["command"]))]
pub(crate) struct DnsExec {
    /// The program, by its absolute path, and arguments to put before the others.
    #[schemars(length(min = 1))]
    pub(crate) command: Vec<String>,
    /// How long a call may take, from 1s to 1h.
    pub(crate) timeout: Duration,
    /// Environment variables for it. Besides these it only has `PATH`.
    #[schemars(with = "BTreeMap<String, SecretText>")]
    pub(crate) env: IndexMap<String, SecretText>,
}

impl Default for DnsExec {
    fn default() -> Self {
        Self {
            command: Vec::new(),
            timeout: Duration::new("2m"),
            env: IndexMap::new(),
        }
    }
}
