//! Whether a client gets what a site serves, or somebody it has to let pass: a CA.

use std::sync::Arc;

use crate::config::model::{Access, Compression};
use crate::jwt::Token;
use crate::proxy::authentication::{Authenticator, Denial};
use crate::proxy::granted::Granted;
use crate::proxy::path;
use crate::proxy::request::Request;
use crate::proxy::route::Site;

use super::{CHALLENGES, Decision, Outcome};

/// The token of a challenge, if a request may ask for the response to one.
pub(super) fn challenge_token<'a>(request: &Request<'a>) -> Option<&'a str> {
    let token = path::without_query(request.origin_form()).strip_prefix(CHALLENGES)?;
    let token = std::str::from_utf8(token).ok();
    token.filter(|_| request.is_read())
}

/// Whether a client may not have what it requests because of its address.
pub(super) fn is_forbidden(site: &Site, index: Option<usize>, request: &Request<'_>) -> bool {
    let access = site.access(index);
    access.is_some_and(|access| !access.admits(request.client))
}

/// Whether a request gets the page of a maintenance. That of a CA does not: the server behind a route
/// may obtain certificates itself. A CA sends no query, by which many servers route.
pub(in crate::proxy) fn is_maintained(
    site: &Site,
    index: Option<usize>,
    request: &Request<'_>,
) -> bool {
    let is_in_token = |octet: u8| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_');
    let is_token = |token: &str| !token.is_empty() && token.bytes().all(is_in_token);
    site.maintenance(index).is_some_and(|maintenance| {
        let has_query = request.origin_form().contains(&b'?');
        let is_of_ca = !has_query && challenge_token(request).is_some_and(is_token);
        !maintenance.admits(request.client) && !is_of_ca
    })
}

impl Decision {
    /// Who may have what the route serves, if not everybody.
    pub(in crate::proxy) fn access(&self) -> Option<&Arc<Access>> {
        match &self.outcome {
            Outcome::Route(index) => self.site()?.access(Some(*index)),
            Outcome::Respond(_) | Outcome::Refuse(_) => None,
        }
    }

    /// How the response is compressed, if it is.
    pub(in crate::proxy) fn compression(&self) -> Option<&Arc<Compression>> {
        match &self.outcome {
            Outcome::Route(index) => self.site()?.compression(*index),
            Outcome::Respond(_) | Outcome::Refuse(_) => None,
        }
    }

    /// Whether the request needs what only the gateway's own lane does.
    pub(in crate::proxy) fn needs_own_lane(&self) -> bool {
        self.compression().is_some()
    }

    /// The index of the request's route.
    pub(in crate::proxy) fn route_index(&self) -> Option<u64> {
        match self.outcome {
            Outcome::Route(index) => u64::try_from(index).ok(),
            Outcome::Respond(_) | Outcome::Refuse(_) => None,
        }
    }

    /// The user that sends the request, where clients are authenticated.
    pub(in crate::proxy) fn user(&self) -> Option<&str> {
        let identity = self.identity.as_ref()?;
        let of_token = || identity.token.as_ref()?.subject();
        identity.user.as_deref().or_else(of_token)
    }

    /// The token of the request, where one is needed.
    pub(in crate::proxy) fn token(&self) -> Option<&Token> {
        self.identity.as_ref()?.token.as_deref()
    }

    /// What an authentication service says of the request, where one is asked.
    pub(in crate::proxy) fn granted(&self) -> Option<&Arc<Granted>> {
        self.identity.as_ref()?.granted.as_ref()
    }

    /// Whether it takes time to find out whether the request is served.
    pub(in crate::proxy) fn needs_identity(&self) -> bool {
        self.access().is_some_and(|access| access.authenticates())
    }

    /// Finds out who sends the request, if its route serves only some.
    ///
    /// # Errors
    /// Why the request is refused.
    pub(in crate::proxy) async fn authenticate(
        &mut self,
        authenticator: &Authenticator,
        request: &Request<'_>,
    ) -> Result<(), Denial> {
        if let Some(access) = self.access().filter(|access| access.authenticates()) {
            self.identity = authenticator.authenticate(access, request).await?;
        }
        Ok(())
    }
}
