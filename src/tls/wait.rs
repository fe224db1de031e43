//! How a handshake comes by its certificate after its ClientHello, and its wait where certificates
//! are still being loaded.

use std::sync::Arc;

use pingora_core::protocols::tls::TlsRef;

use super::snapshot::{Selection, Snapshot};
use super::{GlobalCertificate, Hello, handshake_trace, lock};
use crate::certificate::sni::CertificateSet;
use crate::host::HostName;

/// What a handshake does after its ClientHello, as far as certificates go.
pub(super) enum CertificateStep {
    Present(Arc<CertificateSet>),
    /// Get the certificate of this name.
    Demand(Arc<Snapshot>, HostName),
    /// Wait until more certificates are loaded.
    Wait,
}

impl CertificateStep {
    pub(super) fn of(hello: &Hello) -> Option<Self> {
        if let Some(set) = &hello.certificates {
            return Some(Self::Present(Arc::clone(set)));
        }
        let snapshot = lock(&hello.snapshot).clone()?;
        if snapshot.certificates.loading().is_some() {
            return Some(Self::Wait);
        }
        Some(Self::Demand(snapshot, hello.server_name.clone()?))
    }
}

impl GlobalCertificate {
    /// The certificate for a client that came before all were loaded. What may be its own is loaded
    /// first; the handshake's deadline bounds the wait.
    pub(super) async fn await_certificate(&self, ssl: &mut TlsRef) -> Option<Arc<CertificateSet>> {
        loop {
            // Watched before it is looked, so that nothing comes in between.
            let before = self.snapshot();
            let mut progress = before.certificates.loading().map(|one| one.progress());
            let snapshot = self.snapshot();
            let hello = ssl.ex_data_mut(self.0.hello)?;
            *lock(&hello.snapshot) = Some(Arc::clone(&snapshot));
            let asked = hello.requested_name();
            match snapshot.select(asked, handshake_trace::local_address()) {
                Selection::Later => {
                    let host = asked.host(handshake_trace::local_address());
                    if let (Some(loading), Some(host)) = (snapshot.certificates.loading(), host) {
                        loading.prioritize(host);
                    }
                }
                Selection::Present { set, fell_back } if fell_back => {
                    return self.use_fallback(ssl, Some(set));
                }
                Selection::Present { set, .. } => return Some(set),
                Selection::OnDemand => {
                    let name = hello.server_name.clone()?;
                    return self.obtain_on_demand(ssl, &snapshot, &name).await;
                }
                Selection::Refuse => return self.use_fallback(ssl, None),
            }
            // An error means that nobody loads any more: the map says so.
            if let Some(progress) = &mut progress {
                let _ = progress.changed().await;
            }
        }
    }
}
