//! Certificates that their CA has revoked by itself, as its OCSP responder or its list says.

use std::collections::HashSet;
use std::sync::Arc;

use super::super::deps::Deps;
use super::RevocationJob;
use crate::certificate::{Source, TlsCertificate};
use crate::event::{Event, EventKind, Severity};
use crate::issuer::RevocationReason;
use crate::printable::Printable as _;

/// A served certificate that turned out to be revoked.
pub(crate) struct FoundRevocation {
    job: RevocationJob,
    said_by: String,
}

impl FoundRevocation {
    /// `is_managed` says whether issuers are asked for it, so that it is replaced.
    pub(crate) fn new(
        certificate: Arc<TlsCertificate>,
        reason: RevocationReason,
        said_by: String,
        is_managed: bool,
    ) -> Self {
        let first = certificate.names().first();
        let issuer = certificate.source().label().into();
        Self {
            job: RevocationJob {
                domain: first.map(ToString::to_string).unwrap_or_default(),
                certificate,
                reason,
                issuer,
                ca: None,
                is_replaced: is_managed,
            },
            said_by,
        }
    }

    /// Records it, so that every instance replaces the certificate. A compromised key is never used
    /// again. Returns the fingerprint where it is to be replaced.
    pub(crate) async fn record(&self, deps: &Deps) -> HashSet<String> {
        if !self.job.is_replaced {
            return HashSet::new();
        }
        if self.job.reason == RevocationReason::KeyCompromise {
            self.job.retire_key(deps).await;
        }
        self.job.store_record(deps).await;
        HashSet::from([self.job.fingerprint().to_string()])
    }

    /// Emits the event: clients that learn of it refuse the certificate from now on.
    pub(crate) fn emit_event(&self, deps: &Deps) {
        let RevocationJob {
            certificate,
            domain,
            reason,
            issuer,
            is_replaced,
            ..
        } = &self.job;
        let said_by = &self.said_by;
        let then = match (certificate.source(), is_replaced) {
            (_, true) => {
                "it is served until a replacement with another key, which is being obtained, takes \
                 its place"
                    .to_owned()
            }
            (Source::Directory(path) | Source::File(path), false) => format!(
                "obtain another one at its CA and replace {}, which is loaded at once",
                path.to_path().printable()
            ),
            (_, false) => "nothing here replaces it".to_owned(),
        };
        let key = match reason {
            RevocationReason::KeyCompromise => "; others may have its key: never use that again",
            _ => "",
        };
        let message = format!(
            "the certificate for {domain} is revoked ({reason}), as {said_by} says{key}; {then}"
        );
        let kind = EventKind::CertificateRevoked;
        let now = deps.clock.now();
        let mut event = Event::new(now, kind, Severity::Critical, domain.clone(), message);
        event.issuer = Some(Arc::clone(issuer));
        event.not_after = Some(certificate.not_after());
        event.reason = Some(reason.to_string());
        deps.events.emit(event);
    }
}
