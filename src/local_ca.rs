//! The local CA: certificates for names that no public CA vouches for, or not yet.
//!
//! A root of ten years is made once and kept in storage; it signs intermediates of thirty days
//! that live in memory alone, and these sign leaves of seven. So a stolen process gives away a
//! month, a restart needs nothing but the root, and issuing touches no disk: it may be done within
//! a handshake. All keys are P-256, which take microseconds to make.
//!
//! The root is never replaced behind anyone's back. Damaged state is an error. A year before its
//! end a successor is made, announced and printed beside it; sixty days before its end the
//! successor takes over.

mod authority;
mod key_layout;
mod roots;

use std::sync::{Arc, Mutex, PoisonError};

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
use crate::clock::{Clock, UnixTime, rfc3339};
use crate::host::Pattern;
use crate::storage::{Storage, StorageError};

const DAY: i64 = 86_400;

/// How long a leaf is valid: short enough that a leaked key is soon worthless, long enough to mend
/// a gateway over a week-end.
pub const LEAF_LIFETIME: i64 = 7 * DAY;

/// How long an intermediate is valid.
const INTERMEDIATE_LIFETIME: i64 = 30 * DAY;

/// When an intermediate is renewed before its end, so that every leaf can have its whole life.
const INTERMEDIATE_RENEWAL: i64 = LEAF_LIFETIME + 3 * DAY;

/// How far back validity begins, for clients whose clocks are slow.
const BACKDATE: i64 = 600;

/// The longest common name (RFC 5280, appendix A.1, `ub-common-name`).
const MAX_COMMON_NAME: usize = 64;

/// A CA of our own.
pub struct LocalCa {
    /// By which the configuration calls it.
    issuer: Arc<str>,
    storage: Arc<dyn Storage>,
    layout: KeyLayout,
    clock: Arc<dyn Clock>,
    loader: Arc<Loader>,
    /// The common name of roots made from now on.
    name: String,
    state: ArcSwap<State>,
    /// Held by whoever replaces the state.
    writer: Mutex<()>,
}

struct State {
    roots: Roots,
    intermediate: Authority,
}

impl LocalCa {
    /// Opens the CA in `storage`, and makes its root there where it has none yet.
    ///
    /// `issuer` is what the configuration calls this CA, one of all its `locals`; `name` is the
    /// common name of its root.
    ///
    /// # Errors
    /// Where the storage fails, or holds a root that is damaged, or whose it is not known.
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

    /// The certificates of the root of the CA `issuer` and of its successor where there is one, in
    /// PEM, from `storage` alone; `None` where no root has been made. `locals` are all local CAs of
    /// the configuration. Makes nothing.
    ///
    /// # Errors
    /// Where the storage fails, or holds a root that is damaged, or whose it is not known.
    pub fn stored_root_pem(
        storage: &dyn Storage,
        issuer: &str,
        locals: &[&str],
    ) -> Result<Option<String>, LocalCaError> {
        let layout = KeyLayout::find_owned(storage, issuer, locals)?;
        Ok(Roots::load(storage, &layout)?.map(|roots| roots.pem()))
    }

    /// What clients have to trust: the certificates of the root, of its successor and of its
    /// predecessor where there are such, in PEM.
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

    /// Why clients refuse all that this CA issues though nothing is wrong with it here: `None` where
    /// they need not.
    pub fn not_yet_valid(&self) -> Option<String> {
        let begins = self.state.load().roots.current.not_before();
        (begins > self.clock.now()).then(|| {
            let root = self.layout.key(roots::ROOT_KEY);
            let root = root.map_or_else(|_| String::new(), |key| self.storage.place(&key));
            format!(
                "the root in {root} is not valid before {}, so clients refuse what is issued below \
                 it: either this machine's clock is slow now, or it was fast when the root was \
                 made; set the clock or, if it is right, move the root and the files beside it \
                 away and restart the gateway to have a new root made, which all clients then have \
                 to trust",
                rfc3339(begins)
            )
        })
    }

    /// Issues a certificate for `names`, with a fresh key. Takes a fraction of a millisecond and
    /// no I/O. [`Pattern::Any`] is no name of a certificate and is left out.
    ///
    /// # Errors
    /// Where no name is left, or the certificate cannot be made.
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

    /// Renews the intermediate and makes the root's successor where it is time.
    ///
    /// # Errors
    /// Where the storage fails; what is at hand goes on serving.
    pub fn maintain_keys(&self) -> Result<(), LocalCaError> {
        let now = self.clock.now();
        let state = self.state.load_full();
        if state.roots.need_work(now) {
            let _writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
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
        let _writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
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

/// Whether `authority` lives long enough for a whole leaf, as far as its own issuer lets it.
fn has_long_enough(authority: &Authority, now: UnixTime) -> bool {
    now >= authority.not_before() && authority.not_after() - now > INTERMEDIATE_RENEWAL
        // Made as long as the root allows; a new one would be no longer.
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
    // Without a common name the subject is empty, which is well too (RFC 5280, section 4.2.1.6).
    if first.len() <= MAX_COMMON_NAME {
        params.distinguished_name.push(DnType::CommonName, first);
    }
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

/// `name` with a word after it, cut so that it is no longer than a common name may be.
fn common_name(name: &str, word: &str) -> String {
    let room = MAX_COMMON_NAME.saturating_sub(word.len() + 1);
    let name: String = name.chars().take(room).collect();
    format!("{name} {word}")
}

/// Why the local CA cannot do its work.
#[derive(Debug, Error)]
pub enum LocalCaError {
    /// What it issued is refused, which is a defect.
    #[error("the local CA issued a certificate that cannot be served: {0}")]
    Certificate(#[from] CertificateError),
    /// What is stored is not what was stored.
    #[error(
        "the local CA's {path} is damaged: {reason}; restore it from a backup, or move it and \
         the files beside it away to have a new root made, which all clients then have to trust"
    )]
    Damaged { path: String, reason: String },
    /// There is a root, and several that it may be of.
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
