//! Rehearsals: after a failure, an order is first tried at the staging CA, where it costs none of
//! the real CA's limits.

use crate::acme::AcmeIssuer;
use crate::acme::ca::Ca;
use crate::issuer::Request;
use crate::schedule::{Failure, FailureClass};
use crate::storage::keys;

/// One of this many attempts in a row is made without a rehearsal, which might fail forever for
/// reasons of the staging CA.
const UNREHEARSED: u32 = 5;

/// After this many failures in a row, an attempt that a person requests is made without a
/// rehearsal.
const ENOUGH: u32 = 3;

/// Tries an order at the staging CA: what would fail again fails there, and costs none of the real
/// CA's limits. A failure that is due to the names counts. Other failures say nothing about the
/// real CA, so the rehearsal is skipped then.
pub(in crate::acme) async fn rehearse_order(
    issuer: &AcmeIssuer,
    staging: &Ca,
    request: &Request,
) -> Result<(), Failure> {
    issuer.emit_progress(request, format!("rehearsing at {}", staging.host));
    match issuer.obtain_from(staging, request).await {
        Ok(_) => {
            if let Ok(place) = keys::order(&staging.key, &request.subject) {
                issuer.delete_order(place).await;
            }
            issuer.emit_progress(
                request,
                format!("the rehearsal at {} succeeded", staging.host),
            );
            Ok(())
        }
        Err(mut failure) if is_of_the_names(failure.class) => {
            failure.message = format!(
                "the rehearsal at the staging CA failed, {} was not asked: {}",
                issuer.ca.host, failure.message
            );
            Err(failure)
        }
        Err(failure) => {
            issuer.emit_progress(request, format!("no rehearsal: {failure}"));
            Ok(())
        }
    }
}

/// Returns true if an attempt is rehearsed: after a failure, except now and then, or if a person
/// insists, so that a problem of the staging CA alone cannot prevent a certificate.
pub(in crate::acme) fn is_rehearsed(request: &Request) -> bool {
    let is_insisted = request.is_asked && request.failures >= ENOUGH;
    request.failures > 0 && !is_insisted && !request.failures.is_multiple_of(UNREHEARSED)
}

/// Returns true if a failure at one CA is to be expected at another.
fn is_of_the_names(class: FailureClass) -> bool {
    match class {
        FailureClass::Validation | FailureClass::Refused => true,
        FailureClass::Network
        | FailureClass::RateLimited
        | FailureClass::Paused
        | FailureClass::Configuration
        | FailureClass::Storage
        | FailureClass::Clock
        | FailureClass::Vetoed
        | FailureClass::Internal => false,
    }
}
