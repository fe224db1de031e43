//! Checks that an issued certificate is what was requested, before it replaces anything.

use std::sync::Arc;

use zeroize::Zeroizing;

use super::super::deps::Deps;
use super::super::job::Job;
use super::super::revocation;
use crate::certificate::{CertificateWarning, Source, TlsCertificate};
use crate::host::Pattern;
use crate::issuer::{Issued, Issuer};
use crate::schedule::{Failure, FailureClass};

/// The key of the certificate to be replaced, where it may be used again.
pub(super) async fn previous_key(job: &Job, deps: &Deps) -> Option<Zeroizing<Vec<u8>>> {
    let present = job.present.as_ref().filter(|_| !job.is_revoked)?;
    match revocation::is_compromised(deps, present).await {
        Ok(false) => present.key_pem().ok(),
        // Where that cannot be known, another key is the safe one.
        Ok(true) | Err(_) => None,
    }
}

/// The issued certificate, where it is what was requested.
///
/// # Errors
/// Why it is not to be used.
pub(super) async fn check_issued(
    job: &Job,
    issuer: &Arc<dyn Issuer>,
    issued: &Issued,
    deps: &Deps,
) -> Result<TlsCertificate, Failure> {
    let certificate = load_issued(job, issuer, issued, deps)?;
    // An order that was resumed may have an older key.
    if revocation::is_compromised(deps, &certificate)
        .await
        .unwrap_or(false)
    {
        let message = format!(
            "the certificate for {} that {} issued has a compromised key; another will be \
             ordered",
            job.domain(),
            issuer.name()
        );
        return Err(Failure::new(FailureClass::Internal, message));
    }
    Ok(certificate)
}

fn load_issued(
    job: &Job,
    issuer: &Arc<dyn Issuer>,
    issued: &Issued,
    deps: &Deps,
) -> Result<TlsCertificate, Failure> {
    let source = Source::Issuer(Arc::clone(issuer.name()));
    let mut pem = Zeroizing::new(issued.chain.clone());
    pem.extend_from_slice(b"\n");
    pem.extend_from_slice(&issued.key);
    let refuse = |why: String| {
        let message = format!(
            "the certificate for {} that {} issued cannot be used: {why}",
            job.domain(),
            issuer.name()
        );
        Failure::new(FailureClass::Internal, message)
    };
    let loaded = deps
        .loader
        .load(&pem, source)
        .map_err(|error| refuse(error.to_string()))?;
    let has = |fits: fn(&CertificateWarning) -> bool| loaded.warnings.iter().any(fits);
    if has(|one| matches!(one, CertificateWarning::Unrelated { .. }))
        && has(|one| one.missing_issuer().is_some())
    {
        return Err(refuse(
            "its chain is broken: it contains other certificates, but not the issuer's".to_owned(),
        ));
    }
    for warning in loaded.warnings.iter().filter(|one| one.is_told()) {
        tracing::warn!(domain = %job.domain(), issuer = %issuer.name(), %warning, "issued");
    }
    let certificate = loaded.certificate;
    if !covers(&certificate, &job.guard.spec.names) {
        let names: Vec<_> = certificate
            .names()
            .iter()
            .map(ToString::to_string)
            .collect();
        return Err(refuse(format!("it is for {}", names.join(", "))));
    }
    let status = certificate.status().map(|status| status.sources());
    if status.is_some_and(|said| said.cannot_be_stapled()) {
        return Err(refuse(
            "it requires an OCSP response (Must-Staple) but names no OCSP responder: remove \
             'must_staple' from the issuer"
                .to_owned(),
        ));
    }
    certificate.lifetime().check_issued(deps.clock.now())?;
    Ok(certificate)
}

/// Whether `certificate` is for all of `names`, each as it stands.
pub(crate) fn covers(certificate: &TlsCertificate, names: &[Pattern]) -> bool {
    names.iter().all(|name| certificate.names().contains(name))
}
