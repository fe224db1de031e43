//! Whom to ask for certificates: the issuers of a list, and the first of them that can be asked now.

use std::sync::Arc;

use indexmap::IndexMap;

use super::super::issued::Issued;
use super::super::job::Authority;
use super::super::needs::Need;
use super::Managed;
use crate::config::model::{Acme, Issuer as Configured};
use crate::issuer::Issuer;
use crate::schedule::{Hold, Wait};

impl Managed {
    /// Those of `names` that are over the network.
    pub(in crate::manager) fn remote(
        &mut self,
        names: &[Arc<str>],
        issuers: &IndexMap<Arc<str>, Configured>,
    ) -> Vec<Arc<dyn Issuer>> {
        names
            .iter()
            .filter_map(|name| match issuers.get(name)? {
                Configured::Acme(acme) => Some(self.issuer(name, acme)),
                Configured::LocalCa { .. } => None,
            })
            .collect()
    }

    pub(in crate::manager) fn issuer(
        &mut self,
        name: &Arc<str>,
        acme: &Arc<Acme>,
    ) -> Arc<dyn Issuer> {
        let make = &self.make;
        let (_, issuer) = self
            .open
            .entry(Arc::clone(name))
            .or_insert_with(|| (Arc::clone(acme), make(name, acme)));
        Arc::clone(issuer)
    }

    pub(super) fn authorities_of(
        &mut self,
        list: &[Arc<str>],
        issued: &mut Issued,
        issuers: &IndexMap<Arc<str>, Configured>,
    ) -> Vec<Authority> {
        let mut authorities = Vec::with_capacity(list.len());
        for name in list {
            match issuers.get(name) {
                Some(Configured::Acme(acme)) => {
                    // A change of the configuration may have closed it.
                    authorities.push(Authority::Remote(self.issuer(name, acme)));
                }
                Some(Configured::LocalCa { .. }) => match issued.local_ca(name, issuers) {
                    Ok(ca) => authorities.extend(ca.map(Authority::Local)),
                    Err(reason) => tracing::error!(issuer = %name, reason, "cannot be asked"),
                },
                None => {}
            }
        }
        authorities
    }
}

/// The place of the first issuer that can be asked for a certificate now. A limit of one CA leaves it
/// to the next one, the pace at which we ask does not.
pub(super) fn ready(authorities: &[Authority], need: &Need) -> Result<usize, Wait> {
    let mut soonest: Option<Wait> = None;
    for (place, authority) in authorities.iter().enumerate() {
        let Authority::Remote(issuer) = authority else {
            return Ok(place);
        };
        let Err(wait) = issuer.ready(&need.names) else {
            return Ok(place);
        };
        let is_pace = wait.hold == Hold::Pace;
        if soonest.as_ref().is_none_or(|one| wait.until < one.until) {
            soonest = Some(wait);
        }
        if is_pace {
            break;
        }
    }
    soonest.map_or(Ok(0), Err)
}
