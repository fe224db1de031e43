//! What every issuer of certificates can be asked, whoever it is.

mod account;
mod preflight;
mod revocation;
pub(crate) mod spec;

use std::sync::Arc;

pub use self::preflight::{Finding, Ports, Preflight, Verdict, would_issue};

use async_trait::async_trait;
use zeroize::Zeroizing;

pub use self::account::{AccountFacts, AccountTask};
pub use self::revocation::{Revocation, RevocationReason};
use crate::certificate::TlsCertificate;
use crate::host::Pattern;
use crate::schedule::{Failure, FailureClass, Intent, RenewalInfo, Wait};
use crate::storage::Lease;

/// Issues certificates.
#[async_trait]
pub trait Issuer: Send + Sync {
    /// Its name in the configuration.
    fn name(&self) -> &Arc<str>;

    /// The segment of storage keys that stands for the CA behind it, see
    /// [`crate::storage::keys::ca`].
    fn ca(&self) -> &str;

    /// What stands for the CA and the account there, see [`crate::storage::keys::account_of`]: what
    /// fails with one says nothing of another.
    fn account_id(&self) -> &str {
        self.ca()
    }

    /// Obtains a certificate. Takes seconds to minutes. Dropped before its end, it leaves behind
    /// what a later call can go on from, and nothing else that matters.
    ///
    /// # Errors
    /// Why there is no certificate.
    async fn issue(&self, request: &Request) -> Result<Issued, Failure>;

    /// When this certificate, which came from here, ought to be renewed (RFC 9773); `None` where
    /// the CA gives no such advice.
    ///
    /// # Errors
    /// Why it cannot be told.
    async fn renewal_info(&self, _: &TlsCertificate) -> Result<Option<RenewalInfo>, Failure> {
        Ok(None)
    }

    /// Whether an order may be asked for now: neither our own pace nor a limit of
    /// the CA that is known stands against it. Asks nobody and does not block. A yes may keep a
    /// place for a moment: it is for who then calls [`Self::issue`].
    ///
    /// # Errors
    /// Until when to wait, and whether that concerns these names alone.
    fn ready(&self, _intent: &Intent<'_>) -> Result<(), Wait> {
        Ok(())
    }

    /// What limit of the CA stands against an order, by what is known. Asks nobody, does not block,
    /// and keeps no place.
    fn held(&self, _intent: &Intent<'_>) -> Option<Wait> {
        None
    }

    /// All limits of the CA that hold now, by what is known. Asks nobody and does not block.
    fn limits(&self) -> Vec<Wait> {
        Vec::new()
    }

    /// Takes over what the storage has of the limits of the CA: other instances may have met some, or
    /// this one before it was started anew. Asks the storage alone. Whether anything was news.
    async fn refresh_limits(&self) -> bool {
        false
    }

    /// Forgets the limits of the CA that are known for `names`: a person says that they are over.
    fn clear_limits(&self, _names: &[Pattern]) {}

    /// Tries whether it would give a certificate, without asking for one.
    async fn preflight(&self, _trial: &Preflight) -> Vec<Finding> {
        Vec::new()
    }

    /// Told once what [`Self::issue`] gave for this request is stored: what was left behind for a
    /// later call can go.
    async fn on_stored(&self, request: &Request);

    /// Told that what [`Self::issue`] gave for this request was `refused`. Unless that is for the
    /// clock, by which it may be good later, what was left behind for a later call can go.
    async fn on_rejected(&self, _request: &Request, _refused: &Failure) {}

    /// Has a certificate revoked that it issued. One that is revoked already is well.
    ///
    /// # Errors
    /// Why it is not revoked.
    async fn revoke(&self, _revocation: &Revocation) -> Result<(), Failure> {
        let message = format!("{} does not revoke certificates", self.name());
        Err(Failure::new(FailureClass::Configuration, message))
    }

    /// Looks after the account at the CA, and tells how it stands then.
    ///
    /// # Errors
    /// Why it stands as before, as far as that is known.
    async fn account(&self, _task: &AccountTask) -> Result<AccountFacts, Failure> {
        let message = format!("{} has no account at a CA", self.name());
        Err(Failure::new(FailureClass::Configuration, message))
    }
}

/// An issuer that issues nothing, for dry runs in which no CA may be asked.
pub struct NullIssuer {
    name: Arc<str>,
}

impl NullIssuer {
    /// Stands in for the issuer with this name.
    pub fn new(name: &Arc<str>) -> Self {
        Self {
            name: Arc::clone(name),
        }
    }
}

#[async_trait]
impl Issuer for NullIssuer {
    fn name(&self) -> &Arc<str> {
        &self.name
    }

    fn ca(&self) -> &str {
        "nobody"
    }

    async fn issue(&self, request: &Request) -> Result<Issued, Failure> {
        Err(Failure::new(
            FailureClass::Configuration,
            format!("no issuer is asked for {}", request.domain()),
        ))
    }

    async fn on_stored(&self, _: &Request) {}
}

/// What an issuer is asked for.
pub struct Request {
    /// The names of the certificate; never empty.
    pub names: Vec<Pattern>,
    /// Their segment of storage keys, see [`crate::storage::keys::subject`].
    pub subject: String,
    /// How often in a row this has failed before.
    pub failures: u32,
    /// How many validations of one of the names have failed that a CA still counts.
    pub failed_validations: u32,
    /// Whether a person asked for it.
    pub is_asked: bool,
    /// The private key (PEM) of the certificate to be replaced, for issuers that are configured to
    /// keep keys.
    pub previous_key: Option<Zeroizing<Vec<u8>>>,
    /// How the certificate to be replaced is known at this issuer, see
    /// [`TlsCertificate::renewal_id`]; `None` where it is of another, or nobody is to be told.
    pub replaces: Option<String>,
    /// The entry of `dns` in the configuration over which to prove the names, where the certificate
    /// names one.
    pub dns: Option<Arc<str>>,
    /// Held while this goes on: what is stored is stored under it.
    pub lease: Arc<Lease>,
}

impl Request {
    /// The first name, by which people know the certificate.
    pub fn domain(&self) -> String {
        self.names
            .first()
            .map(ToString::to_string)
            .unwrap_or_default()
    }
}

/// What an issuer gave. Nobody has looked at it yet.
pub struct Issued {
    /// The chain, leaf first, PEM.
    pub chain: Vec<u8>,
    /// The private key, PEM.
    pub key: Zeroizing<Vec<u8>>,
}
