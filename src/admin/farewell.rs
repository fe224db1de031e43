//! A stop that waits until its own answer is on the wire: a gateway with nothing to drain ends
//! faster than an answer is written.

use std::sync::{Arc, OnceLock};

use axum::Router;
use hyper::body::Incoming;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;

use super::Control;

/// What a connection does when it has ended. Each request of a connection carries its own.
#[derive(Clone, Default)]
pub(super) struct Farewell(Arc<OnceLock<Arc<dyn Control>>>);

impl Farewell {
    /// Has the gateway stop once the connection has ended.
    pub(super) fn stop(&self, control: Arc<dyn Control>) {
        // Asking twice is asking once.
        let _ = self.0.set(control);
    }

    /// The connection has ended.
    pub(super) fn take_leave(&self) {
        if let Some(control) = self.0.get() {
            control.stop();
        }
    }
}

/// A router that hands each request its connection's [`Farewell`].
pub(super) struct Connected {
    pub(super) router: TowerToHyperService<Router>,
    pub(super) farewell: Farewell,
}

impl Service<http::Request<Incoming>> for Connected {
    type Response = <TowerToHyperService<Router> as Service<http::Request<Incoming>>>::Response;
    type Error = <TowerToHyperService<Router> as Service<http::Request<Incoming>>>::Error;
    type Future = <TowerToHyperService<Router> as Service<http::Request<Incoming>>>::Future;

    fn call(&self, mut request: http::Request<Incoming>) -> Self::Future {
        request.extensions_mut().insert(self.farewell.clone());
        self.router.call(request)
    }
}
