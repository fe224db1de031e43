//! The address that a connection was accepted at, as its handshake and its requests know it.

use std::sync::Arc;

use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_http::ResponseHeader;

use crate::config::model::ListenAddress;

/// What each connection of a listener carries: Pingora hands it on with every request, and has no use
/// of its own for it on this side.
///
/// # Errors
/// If Pingora cannot make it.
pub fn accepted_at(address: &ListenAddress) -> pingora_core::Result<Arc<ProxyDigest>> {
    let head = Box::new(ResponseHeader::build(http::StatusCode::OK, None)?);
    let place = Box::new(address.place());
    Ok(Arc::new(ProxyDigest::new(head, Some(place))))
}

/// The address that a connection was accepted at, if it is one of the edge's.
pub fn accepted_place(carried: Option<&ProxyDigest>) -> Option<&ListenAddress> {
    carried?.user_data.as_ref()?.downcast_ref()
}
