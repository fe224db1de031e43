//! The local CA: certificates for names that no public CA vouches for, or not yet.
//!
//! A root valid for ten years is created once and stored. It signs intermediates for thirty days
//! that exist in memory only, and these sign leaves for seven. So a stolen process is worth a
//! month, a restart needs only the root, and issuing touches no disk: it can happen within a
//! handshake. All keys are P-256, which take microseconds to make.
//!
//! The root is never replaced silently. Damaged state is an error. A year before the root ends, a
//! successor is created, announced and printed beside it; sixty days before the end, the successor
//! takes over.

mod authority;
mod key_layout;
mod roots;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose,
    SanType,
};
use thiserror::Error;
use tracing::info;
use zeroize::Zeroizing;

use self::authority::Authority;
use self::key_layout::KeyLayout;
use self::roots::Roots;
use crate::certificate::{CertificateError, Loader, Source, TlsCertificate};
use crate::clock::{Clock, UnixTime};
use crate::host::Pattern;
use crate::lock::MutexExt;
use crate::storage::{Storage, StorageError};

const DAY: i64 = 86_400;

/// How long a leaf is valid: short enough that a leaked key is soon worthless, long enough to
/// repair a gateway over a weekend.
pub const LEAF_LIFETIME: i64 = 7 * DAY;

/// How long an intermediate is valid.
const INTERMEDIATE_LIFETIME: i64 = 30 * DAY;

/// How long before its end an intermediate is renewed, so that every leaf can have its whole
/// lifetime.
const INTERMEDIATE_RENEWAL: i64 = LEAF_LIFETIME + 3 * DAY;

/// How far validity is backdated, for clients whose clocks are slow.
const BACKDATE: Duration = Duration::from_secs(600);

/// The longest common name (RFC 5280, appendix A.1, `ub-common-name`).
const MAX_COMMON_NAME: usize = 64;

/// A CA of the program itself, for development and internal names. Programs begin with
/// [`Self::builder`].
pub struct LocalCa {
    /// Its name in the configuration.
    issuer: Arc<str>,
    storage: Arc<dyn Storage>,
    layout: KeyLayout,
    clock: Arc<dyn Clock>,
    loader: Arc<Loader>,
    /// The common name of new roots.
    name: String,
    state: ArcSwap<State>,
    /// Held while the state is replaced.
    writer: Mutex<()>,
}

struct State {
    roots: Roots,
    intermediate: Authority,
}

#[doc(hidden)]
impl LocalCa {
    /// Opens the CA in `storage`, and creates its root if it has none yet.
    ///
    /// `issuer` is the name of this CA in the configuration, one of all its `locals`; `name` is the
    /// common name of its root.
    ///
    /// # Errors
    /// If the storage fails, or holds a root that is damaged or of unknown ownership.
    pub fn open(
        issuer: Arc<str>,
        locals: &[&str],
        name: &str,
        storage: Arc<dyn Storage>,
        clock: Arc<dyn Clock>,
        loader: Arc<Loader>,
    ) -> Result<Self, LocalCaError> {
        let now = clock.now();
        let layout = KeyLayout::claim_keys(storage.as_ref(), &issuer, locals)?;
        let roots = Roots::open(storage.as_ref(), &layout, name, now)?;
        let intermediate = intermediate(&roots, name, now)?;
        Ok(Self {
            issuer,
            storage,
            layout,
            clock,
            loader,
            name: name.to_owned(),
            state: ArcSwap::from_pointee(State {
                roots,
                intermediate,
            }),
            writer: Mutex::new(()),
        })
    }

    /// The certificates of the root of the CA `issuer` and of its successor, if there is one, in
    /// PEM, from `storage` alone; `None` if no root has been created. `locals` are all local CAs of
    /// the configuration. Creates nothing.
    ///
    /// # Errors
    /// If the storage fails, or holds a root that is damaged or of unknown ownership.
    pub fn stored_root_pem(
        storage: &dyn Storage,
        issuer: &str,
        locals: &[&str],
    ) -> Result<Option<String>, LocalCaError> {
        let layout = KeyLayout::find_owned(storage, issuer, locals)?;
        Ok(Roots::load(storage, &layout)?.map(|roots| roots.pem()))
    }

    /// What clients have to trust: the certificates of the root and, if there are any, of its
    /// successor and its predecessor, in PEM.
    pub fn root_pem(&self) -> String {
        self.state.load().roots.pem()
    }

    /// The name of this CA in the configuration.
    pub fn issuer(&self) -> &Arc<str> {
        &self.issuer
    }

    /// The last second of the root's validity.
    pub fn root_not_after(&self) -> UnixTime {
        self.state.load().roots.current.not_after()
    }

    /// Why clients refuse everything that this CA issues although nothing is wrong here; `None` if
    /// they do not.
    pub fn not_yet_valid(&self) -> Option<String> {
        let begins = self.state.load().roots.current.not_before();
        (begins > self.clock.now()).then(|| {
            let root = self.layout.key(key_layout::ROOT_KEY);
            let root = root.map_or_else(|_| String::new(), |key| self.storage.place(&key));
            format!(
                "the root in {root} is not valid before {}, so clients refuse what is issued below \
                 it: either this machine's clock is slow now, or it was fast when the root was \
                 made; set the clock or, if it is right, move the root and the files beside it \
                 away and restart the gateway to have a new root made, which all clients then have \
                 to trust",
                begins
            )
        })
    }

    /// Issues a certificate for `names`, with a new key. Takes a fraction of a millisecond and no
    /// I/O. [`Pattern::Any`] cannot be in a certificate and is left out.
    ///
    /// # Errors
    /// If no name is left, or the certificate cannot be made.
    pub fn issue(&self, names: &[Pattern]) -> Result<TlsCertificate, LocalCaError> {
        let now = self.clock.now();
        let mut state = self.state.load_full();
        if !has_long_enough(&state.intermediate, now) {
            state = self.renew_intermediate(now)?;
        }
        let authority = &state.intermediate;
        let key = authority::generate_key()?;
        let mut params = leaf_params(names)?;
        let not_after = (now + LEAF_LIFETIME).min(authority.not_after());
        authority::set_validity(&mut params, now - BACKDATE, not_after);
        let leaf = params.signed_by(&key, authority.issuer())?;
        let pem =
            Zeroizing::new(leaf.pem() + authority.pem() + &*Zeroizing::new(key.serialize_pem()));
        let source = Source::Issuer(Arc::clone(&self.issuer));
        Ok(self.loader.load(pem.as_bytes(), source)?.certificate)
    }

    /// Renews the intermediate and creates the root's successor when it is time.
    ///
    /// # Errors
    /// If the storage fails; what exists stays in use.
    pub fn maintain_keys(&self) -> Result<(), LocalCaError> {
        let now = self.clock.now();
        let state = self.state.load_full();
        if state.roots.need_work(now) {
            let _writer = self.writer.lock_unpoisoned();
            let roots = Roots::open(self.storage.as_ref(), &self.layout, &self.name, now)?;
            let intermediate = intermediate(&roots, &self.name, now)?;
            self.state.store(Arc::new(State {
                roots,
                intermediate,
            }));
        } else if !has_long_enough(&state.intermediate, now) {
            self.renew_intermediate(now)?;
        }
        Ok(())
    }

    fn renew_intermediate(&self, now: UnixTime) -> Result<Arc<State>, LocalCaError> {
        let _writer = self.writer.lock_unpoisoned();
        let state = self.state.load_full();
        if has_long_enough(&state.intermediate, now) {
            return Ok(state);
        }
        let roots = state.roots.clone();
        let intermediate = intermediate(&roots, &self.name, now)?;
        let state = Arc::new(State {
            roots,
            intermediate,
        });
        self.state.store(Arc::clone(&state));
        info!(issuer = %self.issuer, "intermediate of the local CA renewed");
        Ok(state)
    }
}

/// Returns true if `authority` lives long enough for a whole leaf, as far as its own issuer allows.
fn has_long_enough(authority: &Authority, now: UnixTime) -> bool {
    now >= authority.not_before() && authority.not_after() - now > INTERMEDIATE_RENEWAL
        // It already lives as long as the root allows; a new one would not live longer.
        || authority.not_after() - authority.not_before() < INTERMEDIATE_LIFETIME
            && authority.not_after() > now
}

fn intermediate(roots: &Roots, name: &str, now: UnixTime) -> Result<Authority, LocalCaError> {
    let not_after = (now + INTERMEDIATE_LIFETIME).min(roots.current.not_after());
    roots.current.sign(
        &common_name(name, "intermediate"),
        now - BACKDATE,
        not_after,
    )
}

fn leaf_params(names: &[Pattern]) -> Result<CertificateParams, LocalCaError> {
    let mut params = CertificateParams::default();
    for name in names.iter().filter(|name| **name != Pattern::Any) {
        params.subject_alt_names.push(match name {
            Pattern::Ip(address) => SanType::IpAddress(*address),
            name => SanType::DnsName(name.to_string().try_into()?),
        });
    }
    let first = names.iter().find(|name| **name != Pattern::Any);
    let first = first.ok_or(LocalCaError::NoName)?.to_string();
    params.distinguished_name = DistinguishedName::new();
    // Without a common name the subject is empty, which is fine too (RFC 5280, section 4.2.1.6).
    if first.len() <= MAX_COMMON_NAME {
        params.distinguished_name.push(DnType::CommonName, first);
    }
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

/// `name` followed by a word, cut to the maximum length of a common name.
fn common_name(name: &str, word: &str) -> String {
    let room = MAX_COMMON_NAME.saturating_sub(word.len() + 1);
    let name: String = name.chars().take(room).collect();
    format!("{name} {word}")
}

/// Why the local CA cannot do its work.
#[derive(Debug, Error)]
pub enum LocalCaError {
    /// A certificate that it issued is rejected, which is a bug.
    #[error("the local CA issued a certificate that cannot be served: {0}")]
    Certificate(#[from] CertificateError),
    /// The stored value has changed.
    #[error(
        "the local CA's {path} is damaged: {reason}; restore it from a backup, or move it and \
         the files beside it away to have a new root made, which all clients then have to trust"
    )]
    Damaged { path: String, reason: String },
    /// There is a root, and several CAs to which it may belong.
    #[error(
        "cannot tell whether the root beside {path} belongs to {one} or {other}: {reason}; write \
         the name of the issuer whose root it is into that file"
    )]
    Unowned {
        path: String,
        reason: String,
        one: String,
        other: String,
    },
    /// A certificate cannot be made.
    #[error("the local CA cannot issue a certificate: {0}")]
    Make(#[from] rcgen::Error),
    /// There is no name to issue for.
    #[error("a certificate needs at least one host name")]
    NoName,
    /// The storage does not answer.
    #[error("the local CA's storage: {0}")]
    Storage(#[from] StorageError),
}

#[cfg(test)]
pub(crate) mod tests;
