//! What every issuer of certificates can be asked: a CA with ACME, the local CA, or an issuer of the
//! program that embeds the engine.

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
pub use crate::certificate::TlsCertificate;
use crate::host::Pattern;
pub use crate::schedule::{Failure, FailureClass, Intent, RenewalInfo, Scope, Wait, WaitReason};
use crate::storage::Lease;

/// Issues certificates. A program implements it for a certificate authority of its own: [`name`],
/// [`ca`], [`issue`] and [`on_stored`] are enough.
///
/// The engine decides when to call it, holds a lock on the certificate meanwhile, checks what was
/// issued, stores it and serves it.
///
/// [`name`]: Self::name
/// [`ca`]: Self::ca
/// [`issue`]: Self::issue
/// [`on_stored`]: Self::on_stored
#[async_trait]
pub trait Issuer: Send + Sync {
    /// The name by which certificates refer to it.
    fn name(&self) -> &Arc<str>;

    /// A segment of storage keys that stands for the CA behind it, such as its host name: letters,
    /// digits, `.`, `_` and `-`. Certificates are stored below it. Another name means another CA.
    fn ca(&self) -> &str;

    /// What stands for the CA and the account there, see [`crate::storage::keys::account_of`]: what
    /// fails with one says nothing about another.
    fn account_id(&self) -> &str {
        self.ca()
    }

    /// Whether it is asked for certificates that require an OCSP response (RFC 7633).
    fn asks_for_must_staple(&self) -> bool {
        false
    }

    /// Obtains a certificate, which may take minutes. Dropped before its end, it leaves behind what
    /// a later call can continue from, and nothing else that matters.
    ///
    /// # Errors
    /// Why there is no certificate. Its class decides when it is tried again.
    async fn issue(&self, request: &Request) -> Result<Issued, Failure>;

    /// When a certificate that it issued ought to be renewed (RFC 9773); `None` if the CA gives no
    /// such advice.
    ///
    /// # Errors
    /// Why the CA cannot be asked.
    async fn renewal_info(&self, _: &TlsCertificate) -> Result<Option<RenewalInfo>, Failure> {
        Ok(None)
    }

    /// Whether an order may be placed now: neither our own pace nor a known limit of the CA is
    /// against it. Asks nobody and does not block. It may reserve a place for a moment, for a call of
    /// [`Self::issue`] that follows.
    ///
    /// # Errors
    /// Until when to wait, and whether that concerns these names alone.
    fn ready(&self, _intent: &Intent<'_>) -> Result<(), Wait> {
        Ok(())
    }

    /// The known limit of the CA that is against an order. Asks nobody, does not block, and reserves
    /// nothing.
    fn held(&self, _intent: &Intent<'_>) -> Option<Wait> {
        None
    }

    /// All known limits of the CA that apply now. Asks nobody and does not block.
    fn limits(&self) -> Vec<Wait> {
        Vec::new()
    }

    /// Reads from the storage what is known of the limits of the CA: other instances may have met
    /// some, or this one before a restart. Returns whether anything was new.
    async fn refresh_limits(&self) -> bool {
        false
    }

    /// Forgets the limits of the CA that are known for `names`: a person says that they are over.
    fn clear_limits(&self, _names: &[Pattern]) {}

    /// Checks whether it would issue a certificate, without ordering one.
    async fn preflight(&self, _trial: &Preflight) -> Vec<Finding> {
        Vec::new()
    }

    /// Called once the certificate that [`Self::issue`] gave for this request is stored: what was
    /// left behind for a later call can go.
    async fn on_stored(&self, request: &Request);

    /// Called if the certificate that [`Self::issue`] gave for this request was rejected. Unless the
    /// clock is the reason, so that it may be valid later, what was left behind can go.
    async fn on_rejected(&self, _request: &Request, _refused: &Failure) {}

    /// Revokes a certificate that it issued. Revoking a revoked certificate succeeds.
    ///
    /// # Errors
    /// Why it is not revoked.
    async fn revoke(&self, _revocation: &Revocation) -> Result<(), Failure> {
        let message = format!("{} does not revoke certificates", self.name());
        Err(Failure::new(FailureClass::Configuration, message))
    }

    /// Carries out a task on the account at the CA, and returns what is known of the account then.
    ///
    /// # Errors
    /// Why the account is unchanged, as far as that is known.
    async fn account(&self, _task: &AccountTask) -> Result<AccountFacts, Failure> {
        let message = format!("{} has no account at a CA", self.name());
        Err(Failure::new(FailureClass::Configuration, message))
    }
}

/// An issuer that issues nothing, for dry runs in which no CA may be asked.
#[doc(hidden)]
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
    /// How many failed validations of one of the names a CA still counts.
    pub failed_validations: u32,
    /// Whether a person asked for it.
    pub is_asked: bool,
    /// The private key (PEM) of the certificate to be replaced, for issuers that are configured to
    /// keep keys.
    pub previous_key: Option<Zeroizing<Vec<u8>>>,
    /// The id of the certificate to be replaced at this issuer, see [`TlsCertificate::renewal_id`];
    /// `None` if another issued it, or the issuer should not know.
    pub replaces: Option<String>,
    /// The entry of `dns` in the configuration that proves the names, if the certificate names one.
    pub dns: Option<Arc<str>>,
    /// Held while the request is carried out: what is stored is stored under it.
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

/// What an issuer gave. It is checked before it is stored and served.
pub struct Issued {
    /// The chain, leaf first, PEM.
    pub chain: Vec<u8>,
    /// The private key, PEM.
    pub key: Zeroizing<Vec<u8>>,
}
