//! Where each local CA stores its roots.
//!
//! The first one to be opened has `local_ca` to itself, since it is usually the only one; its name
//! in the configuration is in `local_ca/owner`. Any other has `local_ca/issuers/NAME`. An owner
//! that the configuration does not know, for instance after a crash or a rename of the issuer, does
//! not count: its roots go to the one local CA that has none of its own.

use super::LocalCaError;
use crate::storage::{Key, Storage, Value, damaged};

pub(super) const ROOT_KEY: &str = "root.key";

const FIRST: &str = "local_ca";
const OWNER: &str = "local_ca/owner";
const CLAIM: &str = "local_ca/claim";

/// The prefix of one CA's keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KeyLayout(String);

/// The state of a prefix.
enum Ownership {
    /// It belongs to this CA.
    Settled,
    /// It may be claimed; with the stored owner that no longer exists.
    Free(Option<Value>),
}

impl KeyLayout {
    /// The prefix of the CA that the configuration calls `issuer`, one of `locals`, as things
    /// stand.
    pub(super) fn find_owned(
        storage: &dyn Storage,
        issuer: &str,
        locals: &[&str],
    ) -> Result<Self, LocalCaError> {
        Ok(Self::read_ownership(storage, issuer, locals)?.0)
    }

    /// The same, claimed permanently if it is free.
    pub(super) fn claim_keys(
        storage: &dyn Storage,
        issuer: &str,
        locals: &[&str],
    ) -> Result<Self, LocalCaError> {
        if let (layout, Ownership::Settled) = Self::read_ownership(storage, issuer, locals)? {
            return Ok(layout);
        }
        let _lease = storage.lock(&CLAIM.parse()?)?;
        let (layout, hold) = Self::read_ownership(storage, issuer, locals)?;
        if let Ownership::Free(former) = hold {
            let key = OWNER.parse()?;
            if let Some(former) = former {
                damaged::set_aside(storage, &key, &former, &unknown(&former));
            }
            storage.store(&key, issuer.as_bytes())?;
        }
        Ok(layout)
    }

    fn read_ownership(
        storage: &dyn Storage,
        issuer: &str,
        locals: &[&str],
    ) -> Result<(Self, Ownership), LocalCaError> {
        let (first, own) = (Self(FIRST.to_owned()), Self::of_issuer(issuer));
        let owner = storage.load(&OWNER.parse()?)?;
        let is = |name: &str| {
            owner
                .as_ref()
                .is_some_and(|owner| **owner == *name.as_bytes())
        };
        if is(issuer) {
            return Ok((first, Ownership::Settled));
        }
        if locals.iter().any(|name| is(name)) || own.has_root(storage)? {
            return Ok((own, Ownership::Settled));
        }
        // Roots from before there were owners go to the first CA that is opened.
        if let Some(owner) = &owner
            && first.has_root(storage)?
        {
            for other in locals.iter().filter(|other| **other != issuer) {
                if !Self::of_issuer(other).has_root(storage)? {
                    return Err(LocalCaError::Unowned {
                        path: storage.place(&OWNER.parse()?),
                        reason: unknown(owner),
                        one: issuer.to_owned(),
                        other: (*other).to_owned(),
                    });
                }
            }
        }
        Ok((first, Ownership::Free(owner)))
    }

    /// The prefix of a CA that is not the first.
    fn of_issuer(issuer: &str) -> Self {
        Self(format!("{FIRST}/issuers/{issuer}"))
    }

    fn has_root(&self, storage: &dyn Storage) -> Result<bool, LocalCaError> {
        Ok(storage.exists(&self.key(ROOT_KEY)?)?)
    }

    /// The key of `name` under this prefix.
    pub(super) fn key(&self, name: &str) -> Result<Key, LocalCaError> {
        Ok(format!("{}/{name}", self.0).parse()?)
    }
}

fn unknown(owner: &[u8]) -> String {
    let owner = String::from_utf8_lossy(owner);
    let owner: String = owner.chars().take(64).collect();
    format!("it names {owner:?}, which is not a local CA of the configuration")
}
