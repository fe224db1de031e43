//! What an order asks for (RFC 8555, section 7.4): identifiers, and what the terms add to them.

use instant_acme::{Identifier, NewOrder, Order};

use super::classify::Step;
use super::job::{Job, Stop};
use crate::host::Pattern;
use crate::schedule::{Failure, FailureClass};

impl Job<'_> {
    /// Makes an order at the CA.
    pub(super) async fn place_order(&self, profile: Option<&str>) -> Result<Order, Stop> {
        let identifiers: Vec<Identifier> = self.request.names.iter().map(identifier).collect();
        let mut new = NewOrder::new(&identifiers);
        if let Some(profile) = profile {
            new = new.profile(profile);
        }
        let made = patiently!(self.account.new_order(&new).await);
        made.map_err(|error| self.stop(Step::Order, &error))
    }

    /// The configured profile, where the CA has it (draft-ietf-acme-profiles, section 3).
    ///
    /// # Errors
    /// Where it is required and the CA does not have it.
    pub(super) fn profile(&self) -> Result<Option<&str>, Stop> {
        let Some(profile) = &self.issuer.config.order.profile else {
            return Ok(None);
        };
        let profiles = &self.session.directory().meta.profiles;
        let (host, name) = (&self.ca.host, profile.name.as_str());
        if profiles.contains_key(name) {
            return Ok(Some(name));
        }
        if profile.required {
            let known: Vec<&str> = profiles.keys().map(String::as_str).collect();
            let known = match known.is_empty() {
                true => "it has none at all".to_owned(),
                false => format!("it has {}", known.join(", ")),
            };
            let message = format!(
                "{host} has no profile {name:?}, which 'profile' of the issuer requires: {known}; \
                 choose another, or leave out 'required'"
            );
            let failure = Failure::new(FailureClass::Configuration, message);
            return Err(Stop::Failed(failure));
        }
        tracing::warn!(
            ca = host,
            profile = name,
            "the CA has no such profile: its default is used"
        );
        self.progress(format!(
            "{host} has no profile {name:?}: its default is used"
        ));
        Ok(None)
    }
}

/// A name as a CA knows it (RFC 8555, section 9.7.7; RFC 8738, section 3).
fn identifier(name: &Pattern) -> Identifier {
    match name {
        Pattern::Ip(address) => Identifier::Ip(*address),
        name => Identifier::Dns(name.to_string()),
    }
}
