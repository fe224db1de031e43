//! The stored roots: the current one, its successor, its predecessor.
//!
//! `root.key` holds a root's key and certificate in one value, so that no crash can separate them;
//! the certificate is also in `root.crt`, for people. All writing happens under a lock, after
//! reading anew what another process may have written. A damaged root is never replaced; anything
//! else that is damaged is set aside and made again.

use openssl::x509::X509;
use tracing::{info, warn};

use super::authority::Authority;
use super::key_layout::{KeyLayout, ROOT_KEY};
use super::{BACKDATE, DAY, LocalCaError};
use crate::clock::UnixTime;
use crate::storage::{Key, Storage, Value, damaged};

const ROOT_CERTIFICATE: &str = "root.crt";
const NEXT_KEY: &str = "next_root.key";
const PREVIOUS_CERTIFICATE: &str = "previous_root.crt";
const PREVIOUS_KEY: &str = "previous_root.key";
const LOCK: &str = "lock";

/// How long a root is valid.
const LIFETIME: i64 = 3650 * DAY;

/// How long before a root's end its successor is created, so that people can distribute it.
const SUCCESSOR: i64 = 365 * DAY;

/// How long before a root's end its successor takes over.
const TAKE_OVER: i64 = 60 * DAY;

/// The roots that clients may have to trust.
#[derive(Clone)]
pub(super) struct Roots {
    pub(super) current: Authority,
    next: Option<Authority>,
    /// The certificate of the previous root.
    previous: Option<String>,
    /// What else is damaged or missing, and can be made again.
    faults: Vec<Fault>,
}

/// A damaged value besides the root.
#[derive(Clone)]
struct Fault {
    key: Key,
    value: Value,
    reason: String,
}

impl Roots {
    /// The roots in `storage`, after creating and moving those that are due.
    pub(super) fn open(
        storage: &dyn Storage,
        layout: &KeyLayout,
        name: &str,
        now: UnixTime,
    ) -> Result<Self, LocalCaError> {
        if let Some(roots) = Self::load(storage, layout)?
            && !roots.need_work(now)
            && roots.faults.is_empty()
            && storage.exists(&layout.key(ROOT_CERTIFICATE)?)?
        {
            return Ok(roots);
        }
        let _lease = storage.lock(&layout.key(LOCK)?)?;
        let mut roots = match Self::load(storage, layout)? {
            Some(roots) => roots,
            None => Self::first(storage, layout, name, now)?,
        };
        for Fault { key, value, reason } in roots.faults.drain(..) {
            damaged::set_aside(storage, &key, &value, &reason);
        }
        if roots.next.is_none() && roots.wants_successor(now) {
            roots.make_successor(storage, layout, name, now)?;
        }
        if roots.wants_take_over(now) {
            roots.take_over(storage, layout)?;
        }
        storage.store(
            &layout.key(ROOT_CERTIFICATE)?,
            roots.current.pem().as_bytes(),
        )?;
        Ok(roots)
    }

    /// The roots in `storage` as they are; `None` if there are none.
    pub(super) fn load(
        storage: &dyn Storage,
        layout: &KeyLayout,
    ) -> Result<Option<Self>, LocalCaError> {
        let mut faults = Vec::new();
        let certificate = load_certificate(storage, layout, ROOT_CERTIFICATE, &mut faults)?;
        let previous = load_certificate(storage, layout, PREVIOUS_CERTIFICATE, &mut faults)?;
        let next = load_next(storage, layout, &mut faults)?;
        let current = match load_authority(storage, layout, ROOT_KEY)? {
            Some(Ok(current)) => current,
            Some(Err(fault)) => return Err(damage(storage, layout, ROOT_KEY, &fault.reason)),
            None if certificate.is_none() && next.is_none() && faults.is_empty() => {
                return Ok(None);
            }
            None => {
                let reason = "it is gone, but the files that belong to it are there";
                return Err(damage(storage, layout, ROOT_KEY, reason));
            }
        };
        // After a crash while the successor took over, this is the predecessor's certificate.
        if certificate.as_ref().is_some_and(|certificate| {
            certificate != current.pem() && Some(certificate) != previous.as_ref()
        }) {
            let reason = "it is not the certificate in root.key";
            return Err(damage(storage, layout, ROOT_CERTIFICATE, reason));
        }
        // After the same crash, the successor is already the current root.
        let next = next.filter(|next| next.pem() != current.pem());
        let previous = previous.filter(|previous| previous != current.pem());
        Ok(Some(Self {
            current,
            next,
            previous,
            faults,
        }))
    }

    /// All certificates, the current one first.
    pub(super) fn pem(&self) -> String {
        let next = self.next.as_ref().map_or("", Authority::pem);
        let previous = self.previous.as_deref().unwrap_or_default();
        [self.current.pem(), next, previous].concat()
    }

    /// Returns true if a root has to be created or moved.
    pub(super) fn need_work(&self, now: UnixTime) -> bool {
        self.wants_take_over(now) || self.next.is_none() && self.wants_successor(now)
    }

    fn wants_successor(&self, now: UnixTime) -> bool {
        self.current.not_after() - now < SUCCESSOR
    }

    fn wants_take_over(&self, now: UnixTime) -> bool {
        self.current.not_after() - now < TAKE_OVER
    }

    fn first(
        storage: &dyn Storage,
        layout: &KeyLayout,
        name: &str,
        now: UnixTime,
    ) -> Result<Self, LocalCaError> {
        let current = Authority::root(name, now - BACKDATE, now + LIFETIME)?;
        storage.store(&layout.key(ROOT_KEY)?, current.secret_pem().as_bytes())?;
        info!(name, "created the root of the local CA");
        Ok(Self {
            current,
            next: None,
            previous: None,
            faults: Vec::new(),
        })
    }

    fn make_successor(
        &mut self,
        storage: &dyn Storage,
        layout: &KeyLayout,
        name: &str,
        now: UnixTime,
    ) -> Result<(), LocalCaError> {
        let next = Authority::root(name, now - BACKDATE, now + LIFETIME)?;
        storage.store(&layout.key(NEXT_KEY)?, next.secret_pem().as_bytes())?;
        let days_left = (self.current.not_after() - now) / DAY;
        warn!(
            name,
            days_left,
            "the root of the local CA will expire soon: a successor was created, have clients \
             trust it too ('snigate ca root' prints both)"
        );
        self.next = Some(next);
        Ok(())
    }

    /// A crash may follow each step; see `load`.
    fn take_over(&mut self, storage: &dyn Storage, layout: &KeyLayout) -> Result<(), LocalCaError> {
        let Some(next) = self.next.take() else {
            return Ok(());
        };
        storage.store(
            &layout.key(PREVIOUS_CERTIFICATE)?,
            self.current.pem().as_bytes(),
        )?;
        // A clock that is wrong by years must not destroy what clients trust.
        let secret = self.current.secret_pem();
        storage.store(&layout.key(PREVIOUS_KEY)?, secret.as_bytes())?;
        storage.store(&layout.key(ROOT_KEY)?, next.secret_pem().as_bytes())?;
        storage.store(&layout.key(ROOT_CERTIFICATE)?, next.pem().as_bytes())?;
        storage.delete(&layout.key(NEXT_KEY)?)?;
        warn!("the new root of the local CA is in use: clients that do not trust it refuse");
        self.previous = Some(self.current.pem().to_owned());
        self.current = next;
        Ok(())
    }
}

/// The certificate called `name` in PEM. A damaged one is added to `faults`.
fn load_certificate(
    storage: &dyn Storage,
    layout: &KeyLayout,
    name: &str,
    faults: &mut Vec<Fault>,
) -> Result<Option<String>, LocalCaError> {
    let key = layout.key(name)?;
    let Some(value) = storage.load(&key)? else {
        return Ok(None);
    };
    let text = String::from_utf8_lossy(&value).into_owned();
    if X509::from_pem(&value).is_ok() {
        return Ok(Some(text));
    }
    // Clears OpenSSL's error queue.
    drop(openssl::error::ErrorStack::get());
    faults.push(Fault {
        key,
        value,
        reason: "it contains no certificate".to_owned(),
    });
    Ok(None)
}

/// The successor. A damaged one is added to `faults`.
fn load_next(
    storage: &dyn Storage,
    layout: &KeyLayout,
    faults: &mut Vec<Fault>,
) -> Result<Option<Authority>, LocalCaError> {
    match load_authority(storage, layout, NEXT_KEY)? {
        Some(Ok(next)) => Ok(Some(next)),
        Some(Err(fault)) => {
            faults.push(fault);
            Ok(None)
        }
        None => Ok(None),
    }
}

/// A root with its key, or what is wrong with it.
fn load_authority(
    storage: &dyn Storage,
    layout: &KeyLayout,
    name: &str,
) -> Result<Option<Result<Authority, Fault>>, LocalCaError> {
    let key = layout.key(name)?;
    let value = storage.load(&key)?;
    Ok(value.map(|value| {
        let read = Authority::read(&value);
        read.map_err(|reason| Fault { key, value, reason })
    }))
}

fn damage(storage: &dyn Storage, layout: &KeyLayout, name: &str, reason: &str) -> LocalCaError {
    match layout.key(name) {
        Ok(key) => LocalCaError::Damaged {
            path: storage.place(&key),
            reason: reason.to_owned(),
        },
        Err(error) => error,
    }
}
