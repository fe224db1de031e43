//! Merges the failures of several issuers into one.

use std::sync::Arc;

use crate::schedule::{Failure, FailureClass};

/// The failures of all issuers as one, with the patience of the least patient, who is named too.
/// The page of a CA that has paused is shown whoever that is.
pub(super) fn merge(failures: Vec<(&Arc<str>, Failure)>) -> (Arc<str>, Failure) {
    let several = failures.len() > 1;
    let messages: Vec<_> = failures
        .iter()
        .map(|(issuer, failure)| {
            if several {
                format!("{issuer}: {failure}")
            } else {
                failure.to_string()
            }
        })
        .collect();
    let message = messages.join("; ");
    let paused = failures
        .iter()
        .find(|(_, failure)| failure.class == FailureClass::Paused);
    let url = paused.and_then(|(_, failure)| failure.url.clone());
    let soonest = failures
        .into_iter()
        .min_by_key(|(_, failure)| patience(failure.class));
    match soonest {
        Some((issuer, failure)) => {
            let url = url.or_else(|| failure.url.clone());
            let failure = Failure {
                message,
                url,
                ..failure
            };
            (Arc::clone(issuer), failure)
        }
        None => {
            let why = "no issuer is available";
            ("".into(), Failure::new(FailureClass::Configuration, why))
        }
    }
}

/// Which of several failures of one attempt decides when the next is: the one that may be over
/// first.
fn patience(class: FailureClass) -> u8 {
    match class {
        FailureClass::Storage => 0,
        FailureClass::Network => 1,
        FailureClass::Validation => 2,
        FailureClass::Internal => 3,
        FailureClass::RateLimited | FailureClass::Clock => 4,
        FailureClass::Refused => 5,
        FailureClass::Configuration => 6,
        FailureClass::Paused => 7,
    }
}
