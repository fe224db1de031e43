//! Issuers of certificates, as a program names them.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::EngineBuilder;
use super::dns::DnsSettings;
use super::values::{duration, path_text, secret, texts};
use crate::acme::AcmeIssuer;
use crate::challenge::ChallengeType;
use crate::config::model::KeyType;
use crate::config::schema;
use crate::issuer::Issuer;
use crate::local_ca::LocalCa;
use crate::storage::Key;

/// An issuer for [`EngineBuilder::issuer`]: one of the builders, or the program's own [`Issuer`].
pub struct IssuerSource(Source);

enum Source {
    Acme(AcmeIssuerBuilder),
    ZeroSsl(ZeroSslIssuerBuilder),
    LocalCa(LocalCaBuilder),
    Own(Arc<dyn Issuer>),
}

impl From<AcmeIssuerBuilder> for IssuerSource {
    fn from(issuer: AcmeIssuerBuilder) -> Self {
        Self(Source::Acme(issuer))
    }
}

impl From<ZeroSslIssuerBuilder> for IssuerSource {
    fn from(issuer: ZeroSslIssuerBuilder) -> Self {
        Self(Source::ZeroSsl(issuer))
    }
}

impl From<LocalCaBuilder> for IssuerSource {
    fn from(issuer: LocalCaBuilder) -> Self {
        Self(Source::LocalCa(issuer))
    }
}

impl From<Arc<dyn Issuer>> for IssuerSource {
    fn from(issuer: Arc<dyn Issuer>) -> Self {
        Self(Source::Own(issuer))
    }
}

impl<I: Issuer + 'static> From<I> for IssuerSource {
    fn from(issuer: I) -> Self {
        Self(Source::Own(Arc::new(issuer)))
    }
}

impl IssuerSource {
    /// Adds the issuer to what `builder` has.
    pub(super) fn add_to(self, builder: &mut EngineBuilder, name: &str) {
        let raw = match self.0 {
            Source::Acme(AcmeIssuerBuilder { mut raw, ca }) => {
                let ca = ca.settle(builder, name, &mut raw.challenges);
                (raw.dns, raw.ca_file) = (ca.dns, ca.ca_file);
                schema::Issuer {
                    acme: Some(raw),
                    ..schema::Issuer::default()
                }
            }
            Source::ZeroSsl(ZeroSslIssuerBuilder { mut raw, ca }) => {
                let ca = ca.settle(builder, name, &mut raw.challenges);
                (raw.dns, raw.ca_file) = (ca.dns, ca.ca_file);
                schema::Issuer {
                    zerossl: Some(raw),
                    ..schema::Issuer::default()
                }
            }
            Source::LocalCa(LocalCaBuilder(raw)) => schema::Issuer {
                local_ca: Some(raw),
                ..schema::Issuer::default()
            },
            Source::Own(issuer) => {
                if &**issuer.name() != name {
                    builder.mistakes.push(format!(
                        "issuers.{name}: the issuer calls itself {:?}; add it by that name",
                        issuer.name()
                    ));
                }
                if issuer.ca().contains('/') || issuer.ca().parse::<Key>().is_err() {
                    builder.mistakes.push(format!(
                        "issuers.{name}: the name of its CA, {:?}, is part of storage keys; use \
                         letters, digits, '.', '_' and '-'",
                        issuer.ca()
                    ));
                }
                builder.own.issuers.insert(Arc::from(name), issuer);
                schema::Issuer {
                    is_own: true,
                    ..schema::Issuer::default()
                }
            }
        };
        builder.raw.issuers.insert(name.to_owned(), raw);
    }
}

/// What all CAs with ACME have in common and cannot be written at once.
#[derive(Default)]
struct CaSettings {
    dns: Option<String>,
    provider: Option<DnsSettings>,
    roots: Option<PathBuf>,
}

/// The same, written.
struct Settled {
    dns: Option<String>,
    ca_file: Option<String>,
}

impl CaSettings {
    fn settle(
        self,
        builder: &mut EngineBuilder,
        issuer: &str,
        challenges: &mut Option<Vec<schema::Challenge>>,
    ) -> Settled {
        let mut dns = self.dns;
        if let Some(provider) = self.provider {
            let name = provider.own_name().unwrap_or(issuer).to_owned();
            builder.add_dns(&name, provider);
            challenges.get_or_insert_with(|| vec![schema::Challenge::Dns01]);
            dns = Some(name);
        }
        let roots = self.roots;
        Settled {
            dns,
            ca_file: roots.map(|path| path_text(path, &mut builder.mistakes)),
        }
    }
}

impl AcmeIssuer {
    /// Begins an issuer for [`EngineBuilder::issuer`]: a CA with ACME (RFC 8555), Let's Encrypt unless
    /// another is named. By configuring a CA you agree to its terms of service.
    pub fn builder() -> AcmeIssuerBuilder {
        AcmeIssuerBuilder {
            raw: schema::Acme::default(),
            ca: CaSettings::default(),
        }
    }
}

/// A CA with ACME, see [`AcmeIssuer::builder`].
#[must_use]
pub struct AcmeIssuerBuilder {
    raw: schema::Acme,
    ca: CaSettings,
}

/// What is configured alike for both kinds of CAs with ACME.
macro_rules! ca_methods {
    () => {
        /// How names are proved, most preferred first. By default `tls-alpn-01`, then `http-01`, then
        /// `dns-01` if a DNS provider is named.
        pub fn challenges(mut self, kinds: impl IntoIterator<Item = ChallengeType>) -> Self {
            self.raw.challenges = Some(kinds.into_iter().map(challenge).collect());
            self
        }

        /// Proves names by `dns-01` with this provider, and in no other way unless
        /// [`Self::challenges`] names it.
        pub fn dns01(mut self, provider: impl Into<DnsSettings>) -> Self {
            self.ca.provider = Some(provider.into());
            self
        }

        /// Proves names over the DNS with the provider of this name in the builder, see
        /// [`EngineBuilder::dns_provider`].
        pub fn dns(mut self, name: &str) -> Self {
            self.ca.dns = Some(name.to_owned());
            self
        }

        /// The kind of the certificates' keys, P-256 by default.
        pub fn key_type(mut self, key_type: KeyType) -> Self {
            self.raw.key_type = key(key_type);
            self
        }

        /// Keeps the key of the previous certificate in a renewal.
        pub fn reuse_key(mut self) -> Self {
            self.raw.reuse_key = true;
            self
        }

        /// A PEM file with the roots to trust for the CA's own HTTPS instead of the system's.
        pub fn root_certificates(mut self, path: impl Into<PathBuf>) -> Self {
            self.ca.roots = Some(path.into());
            self
        }

        /// A proxy through which the CA is reached, `http://HOST:PORT`.
        pub fn proxy(mut self, url: &str) -> Self {
            self.raw.proxy = Some(url.to_owned());
            self
        }

        /// How many orders may be started in which time: 10 in 10 s by default.
        pub fn order_limit(mut self, orders: u32, per: Duration) -> Self {
            self.raw.limit = schema::OrderLimit {
                orders: orders.into(),
                per: duration(per),
            };
            self
        }

        /// Whether CAA records are looked up before an order, which is the default.
        pub fn check_caa(mut self, is_checked: bool) -> Self {
            self.raw.check_caa = is_checked;
            self
        }

        /// Name servers to ask about names, `ADDRESS:PORT`, instead of the system's.
        pub fn resolvers<N: AsRef<str>>(mut self, addresses: impl IntoIterator<Item = N>) -> Self {
            self.raw.resolvers = texts(addresses);
            self
        }
    };
}

impl AcmeIssuerBuilder {
    ca_methods!();

    /// The CA: the https:// URL of its directory, or one of the names `letsencrypt`,
    /// `letsencrypt-staging`, `google`, `google-staging`, `zerossl`, `sslcom`, `sslcom-rsa`.
    pub fn directory(mut self, directory: &str) -> Self {
        self.raw.directory = directory.to_owned();
        self
    }

    /// Where a failed order is rehearsed before the CA itself is asked again: a directory as above,
    /// or `off`. By default the staging environment of a CA that is known to have one.
    pub fn staging(mut self, directory: &str) -> Self {
        self.raw.staging = Some(directory.to_owned());
        self
    }

    /// Where the CA may write to.
    pub fn email(mut self, address: &str) -> Self {
        self.raw.email = Some(address.to_owned());
        self
    }

    /// External account binding (RFC 8555, section 7.3.4): the identifier of the key, and the key in
    /// base64url as the CA gives it.
    pub fn eab(mut self, key_id: &str, hmac_key: &str) -> Self {
        self.raw.eab = Some(schema::Eab {
            key_id: key_id.to_owned(),
            hmac_key: Some(secret(hmac_key)),
        });
        self
    }

    /// A profile of the CA, such as `tlsserver` or `shortlived`: requested if the CA has it.
    pub fn profile(mut self, name: &str) -> Self {
        self.raw.profile = Some(schema::Profile::Name(name.to_owned()));
        self
    }

    /// How long certificates are to be valid, from 1 h to 398 d, if the CA lets this be chosen.
    pub fn lifetime(mut self, lifetime: Duration) -> Self {
        self.raw.lifetime = Some(duration(lifetime));
        self
    }
}

/// ZeroSSL, with an account there.
#[derive(Debug)]
pub enum ZeroSslIssuer {}

impl ZeroSslIssuer {
    /// Begins an issuer for [`EngineBuilder::issuer`]. One of [`ZeroSslIssuerBuilder::api_key`] and
    /// [`ZeroSslIssuerBuilder::email`] is needed. By configuring it you agree to its terms of
    /// service.
    pub fn builder() -> ZeroSslIssuerBuilder {
        ZeroSslIssuerBuilder {
            raw: schema::ZeroSsl::default(),
            ca: CaSettings::default(),
        }
    }
}

/// ZeroSSL, see [`ZeroSslIssuer::builder`].
#[must_use]
pub struct ZeroSslIssuerBuilder {
    raw: schema::ZeroSsl,
    ca: CaSettings,
}

impl ZeroSslIssuerBuilder {
    ca_methods!();

    /// The access key of the account.
    pub fn api_key(mut self, key: &str) -> Self {
        self.raw.api_key = Some(secret(key));
        self
    }

    /// The address of the account, instead of its access key. With both, ZeroSSL may write to it.
    pub fn email(mut self, address: &str) -> Self {
        self.raw.email = Some(address.to_owned());
        self
    }

    /// The https:// URL of ZeroSSL's own API, for a test environment.
    pub fn endpoint(mut self, url: &str) -> Self {
        self.raw.endpoint = url.to_owned();
        self
    }

    /// The https:// URL of its ACME directory, for a test environment.
    pub fn directory(mut self, url: &str) -> Self {
        self.raw.directory = url.to_owned();
        self
    }
}

impl LocalCa {
    /// Begins an issuer for [`EngineBuilder::issuer`]: a CA of the program's own, for development and
    /// internal names, whose root is kept in the storage.
    pub fn builder() -> LocalCaBuilder {
        LocalCaBuilder(schema::LocalCa::default())
    }
}

/// A local CA, see [`LocalCa::builder`].
#[derive(Debug)]
#[must_use]
pub struct LocalCaBuilder(schema::LocalCa);

impl LocalCaBuilder {
    /// The common name of the root certificate.
    pub fn common_name(mut self, name: &str) -> Self {
        self.0.name = name.to_owned();
        self
    }
}

fn challenge(kind: ChallengeType) -> schema::Challenge {
    match kind {
        ChallengeType::Http01 => schema::Challenge::Http01,
        ChallengeType::TlsAlpn01 => schema::Challenge::TlsAlpn01,
        ChallengeType::Dns01 => schema::Challenge::Dns01,
        ChallengeType::DnsAccount01 => schema::Challenge::DnsAccount01,
        ChallengeType::DnsPersist01 => schema::Challenge::DnsPersist01,
    }
}

fn key(key_type: KeyType) -> schema::KeyType {
    match key_type {
        KeyType::P256 => schema::KeyType::P256,
        KeyType::P384 => schema::KeyType::P384,
        KeyType::Rsa2048 => schema::KeyType::Rsa2048,
        KeyType::Rsa4096 => schema::KeyType::Rsa4096,
        KeyType::Ed25519 => schema::KeyType::Ed25519,
    }
}
