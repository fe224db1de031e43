//! A request's permit to use a connection to a server, which a shared connection takes over.

use pingora_core::{Error, ErrorType, Result};

use super::Passage;
use super::client::Client;
use super::connected::Connected;
use crate::proxy::connection_limit::UpstreamPermit;

impl<C: Client> Passage<'_, C> {
    /// Has the request hold a permit for its next attempt.
    ///
    /// # Errors
    /// If the connection of the last attempt has taken over the permit, and there is none left.
    pub(super) fn renew_permit(&mut self) -> Result<()> {
        let limit = &self.gateway.connection_limit;
        let client = &*self.client;
        if self.ctx.upstream_permit.is_some()
            || self.ctx.acquire_upstream_permit(limit, client.held())
        {
            return Ok(());
        }
        let why = "a retry finds too many requests at upstreams";
        Err(Error::explain(ErrorType::HTTPStatus(503), why).into_in())
    }

    /// Has a shared connection counted once, whatever the number of its requests.
    pub(super) fn share_permit(&mut self, connected: &Connected) {
        if let Connected::Http2(place) = connected {
            let permit = self.ctx.upstream_permit.take();
            place.count_connection(permit.map(UpstreamPermit::into_used));
        }
    }
}
