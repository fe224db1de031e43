//! Rehearsals: an order that has failed is tried at the staging CA before it costs anything of the
//! limits of the other.

use crate::acme::AcmeIssuer;
use crate::acme::directory::Ca;
use crate::issuer::Request;
use crate::schedule::{Failure, FailureClass};
use crate::storage::keys;

/// Of so many attempts in a row one is made without a rehearsal, which may fail for ever for
/// reasons of the staging CA.
const UNREHEARSED: u32 = 5;

/// After how many failures in a row whoever asks for an attempt gets one without a rehearsal.
const ENOUGH: u32 = 3;

impl AcmeIssuer {
    /// Asks the staging CA first where the last attempt failed: what would fail again fails there,
    /// and costs nothing of the limits of the other. What it says of the names counts. Its own
    /// troubles, and ours with it, say nothing of the other CA: there is no rehearsal then.
    pub(in crate::acme) async fn rehearse_order(
        &self,
        staging: &Ca,
        request: &Request,
    ) -> Result<(), Failure> {
        self.emit_progress(request, format!("rehearsing at {}", staging.host));
        match self.obtain_from(staging, request).await {
            Ok(_) => {
                if let Ok(place) = keys::order(&staging.key, &request.subject) {
                    self.delete_order(place).await;
                }
                self.emit_progress(
                    request,
                    format!("the rehearsal at {} succeeded", staging.host),
                );
                Ok(())
            }
            Err(mut failure) if is_of_the_names(failure.class) => {
                failure.message = format!(
                    "the rehearsal at the staging CA failed, {} was not asked: {}",
                    self.ca.host, failure.message
                );
                Err(failure)
            }
            Err(failure) => {
                self.emit_progress(request, format!("no rehearsal: {failure}"));
                Ok(())
            }
        }
    }
}

/// Whether an attempt is rehearsed: where the last one failed. Now and then it is not, and where a
/// person still asks for it, so that what fails at the staging CA alone is had all the same.
pub(in crate::acme) fn is_rehearsed(request: &Request) -> bool {
    let is_insisted = request.is_asked && request.failures >= ENOUGH;
    request.failures > 0 && !is_insisted && !request.failures.is_multiple_of(UNREHEARSED)
}

/// Whether a failure at one CA is to be expected at another.
fn is_of_the_names(class: FailureClass) -> bool {
    match class {
        FailureClass::Validation | FailureClass::Refused => true,
        FailureClass::Network
        | FailureClass::RateLimited
        | FailureClass::Paused
        | FailureClass::Configuration
        | FailureClass::Storage
        | FailureClass::Clock
        | FailureClass::Internal => false,
    }
}
