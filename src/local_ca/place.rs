//! Where in storage a CA keeps its roots, each local CA its own.
//!
//! The first one to be opened has `local_ca` for itself, as the only one there is mostly; its name
//! in the configuration stands in `local_ca/owner`. Any other has `local_ca/issuers/NAME`.

use super::LocalCaError;
use crate::storage::{Key, Storage};

const FIRST: &str = "local_ca";
const OWNER: &str = "local_ca/owner";
const CLAIM: &str = "local_ca/claim";

/// What the keys of one CA begin with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place(String);

impl Place {
    /// The place of the CA that the configuration calls `issuer`, as things stand.
    pub(super) fn find(storage: &dyn Storage, issuer: &str) -> Result<Self, LocalCaError> {
        Ok(Self::look(storage, issuer)?.0)
    }

    /// The same, taken for good where nobody has it.
    pub(super) fn claim(storage: &dyn Storage, issuer: &str) -> Result<Self, LocalCaError> {
        if let (place, true) = Self::look(storage, issuer)? {
            return Ok(place);
        }
        let _lease = storage.lock(&CLAIM.parse()?)?;
        let (place, is_settled) = Self::look(storage, issuer)?;
        if !is_settled {
            storage.store(&OWNER.parse()?, issuer.as_bytes())?;
        }
        Ok(place)
    }

    /// A place, and whether it is known to be this issuer's.
    fn look(storage: &dyn Storage, issuer: &str) -> Result<(Self, bool), LocalCaError> {
        let own = Self(format!("{FIRST}/issuers/{issuer}"));
        let owner = storage.load(&OWNER.parse()?)?;
        Ok(match owner {
            Some(owner) if *owner == *issuer.as_bytes() => (Self(FIRST.to_owned()), true),
            Some(_) => (own, true),
            // Roots of before there were owners are the first one's that comes.
            None if storage.load(&own.key("root.key")?)?.is_none() => {
                (Self(FIRST.to_owned()), false)
            }
            None => (own, true),
        })
    }

    /// The key of what is called `name` here.
    pub(super) fn key(&self, name: &str) -> Result<Key, LocalCaError> {
        Ok(self.path(name).parse()?)
    }

    /// The same as text.
    pub(super) fn path(&self, name: &str) -> String {
        format!("{}/{name}", self.0)
    }
}
