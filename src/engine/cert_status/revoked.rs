//! What follows when served certificates turn out to be revoked.

use std::collections::HashSet;
use std::sync::Arc;

use super::super::{Engine, blocking};
use crate::cert_status::FoundRevoked;
use crate::manager::KnownRevoked;
use crate::renewal::FoundRevocation;

/// How many are replaced together: a CA may revoke all that it has issued.
const TOGETHER: usize = 256;

/// Has revoked certificates replaced, where issuers are asked for them, and reports them.
pub(super) async fn replace(engine: &Arc<Engine>, found: Vec<FoundRevoked>) {
    let mut found = found.into_iter().peekable();
    while found.peek().is_some() {
        replace_some(engine, found.by_ref().take(TOGETHER).collect()).await;
    }
}

async fn replace_some(engine: &Arc<Engine>, found: Vec<FoundRevoked>) {
    let number = u64::try_from(found.len()).unwrap_or(u64::MAX);
    engine.status_metrics.revoked.inc_by(number);
    let fingerprints = found.iter().map(|one| one.certificate.fingerprint());
    let fingerprints: HashSet<_> = fingerprints.collect();
    let asked = Arc::clone(engine);
    let known = blocking(move || KnownRevoked::among(&asked.lock(), &fingerprints)).await;
    let known = known.unwrap_or_default();
    let mut revoked = HashSet::new();
    for one in found {
        let fingerprint = one.certificate.fingerprint();
        if known.known.contains(&fingerprint) && !one.is_restored {
            // A person has had it revoked, or another instance has found it.
            continue;
        }
        if let Some(name) = one.certificate.names().first() {
            engine.publication.note_revoked(name);
        }
        let is_managed = known.managed.contains(&fingerprint);
        let found = FoundRevocation::new(one.certificate, one.reason, one.said_by, is_managed);
        revoked.extend(found.record(&engine.deps).await);
        found.emit_event(&engine.deps);
    }
    let marking = Arc::clone(engine);
    blocking(move || marking.lock().renewals_mut().mark_revoked(&revoked)).await;
    engine.planned.notify_one();
}
