//! Where in storage a CA keeps its roots, each local CA its own.
//!
//! The first one to be opened has `local_ca` for itself, as the only one there is mostly; its name
//! in the configuration stands in `local_ca/owner`. Any other has `local_ca/issuers/NAME`. An owner
//! that the configuration does not know, as after a crash or where the issuer got another name, is
//! none: its roots go to the one local CA that has none of its own.

use super::LocalCaError;
use super::roots::ROOT_KEY;
use crate::storage::{Key, Storage, Value, damaged};

const FIRST: &str = "local_ca";
const OWNER: &str = "local_ca/owner";
const CLAIM: &str = "local_ca/claim";

/// What the keys of one CA begin with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KeyLayout(String);

/// How a place is held.
enum Ownership {
    /// It is this CA's.
    Settled,
    /// Nobody's, so that it may be claimed, with the owner in the storage that there is no longer.
    Free(Option<Value>),
}

impl KeyLayout {
    /// The place of the CA that the configuration calls `issuer`, one of `locals`, as things stand.
    pub(super) fn find_owned(
        storage: &dyn Storage,
        issuer: &str,
        locals: &[&str],
    ) -> Result<Self, LocalCaError> {
        Ok(Self::read_ownership(storage, issuer, locals)?.0)
    }

    /// The same, taken for good where nobody has it.
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
        // Roots of before there were owners are the first one's that comes.
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

    /// The place of a CA that is not the first.
    fn of_issuer(issuer: &str) -> Self {
        Self(format!("{FIRST}/issuers/{issuer}"))
    }

    fn has_root(&self, storage: &dyn Storage) -> Result<bool, LocalCaError> {
        Ok(storage.exists(&self.key(ROOT_KEY)?)?)
    }

    /// The key of what is called `name` here.
    pub(super) fn key(&self, name: &str) -> Result<Key, LocalCaError> {
        Ok(format!("{}/{name}", self.0).parse()?)
    }
}

fn unknown(owner: &[u8]) -> String {
    let owner = String::from_utf8_lossy(owner);
    let owner: String = owner.chars().take(64).collect();
    format!("it names {owner:?}, which is not a local CA of the configuration")
}
