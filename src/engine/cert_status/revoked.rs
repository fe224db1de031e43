//! What follows when a served certificate turns out to be revoked.

use std::sync::Arc;

use super::super::{Engine, blocking};
use crate::cert_status::FoundRevoked;
use crate::manager::is_managed;
use crate::renewal::FoundRevocation;

/// Has a revoked certificate replaced, where issuers are asked for it, and reports it.
pub(super) async fn replace(engine: &Arc<Engine>, found: FoundRevoked) {
    engine.status_metrics.revoked.inc();
    let (asked, fingerprint) = (Arc::clone(engine), found.certificate.fingerprint());
    let known = blocking(move || is_managed(&asked.lock(), fingerprint)).await;
    let (is_managed, is_known) = known.unwrap_or_default();
    if is_known {
        // A person has had it revoked, or another instance has found it.
        return;
    }
    let FoundRevoked {
        certificate,
        reason,
        said_by,
    } = found;
    let found = FoundRevocation::new(certificate, reason, said_by, is_managed);
    let revoked = found.record(&engine.deps).await;
    found.emit_event(&engine.deps);
    let marking = Arc::clone(engine);
    blocking(move || marking.lock().renewals_mut().mark_revoked(&revoked)).await;
    engine.planned.notify_one();
}
