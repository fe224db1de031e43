//! Classifies a CA's refusals, which determines when to try again.

use http::StatusCode;

use super::Step;
use crate::acme::problem::{Problem, Subproblem};
use crate::acme::refusal::Refusal;
use crate::schedule::FailureClass;

/// The class of a refusal: by the type of its problem, or else by its status and the step.
pub(in crate::acme) fn class(
    problem: Option<&Problem>,
    status: StatusCode,
    step: Step,
) -> FailureClass {
    let is_reading = matches!(
        step,
        Step::Authorization
            | Step::Challenge
            | Step::Finalize
            | Step::Poll
            | Step::Download
            | Step::RenewalInfo
    );
    match problem.and_then(explained) {
        Some(class) => class,
        None if matches!(
            status,
            StatusCode::MOVED_PERMANENTLY | StatusCode::PERMANENT_REDIRECT
        ) =>
        {
            FailureClass::Configuration
        }
        None if problem.is_some_and(|problem| problem.kind() == "malformed")
            && step == Step::Account =>
        {
            FailureClass::Configuration
        }
        None if status == StatusCode::TOO_MANY_REQUESTS => FailureClass::RateLimited,
        None if status.is_server_error() || status == StatusCode::REQUEST_TIMEOUT => {
            FailureClass::Network
        }
        // A peer that does not speak ACME is not the CA, and says nothing about the request.
        None if problem.is_none() => FailureClass::Network,
        None if is_missing(status) && is_reading => FailureClass::Network,
        // This CA does not accept the order as it is.
        None if matches!(step, Step::Order | Step::Finalize) => FailureClass::Configuration,
        None => FailureClass::Internal,
    }
}

/// The class of a problem's type, or of its subproblems' types if its own is generic.
fn explained(problem: &Problem) -> Option<FailureClass> {
    let of_names = || {
        let mut kinds = problem.subproblems.iter().map(Subproblem::kind);
        kinds.find_map(class_of)
    };
    match problem.kind() {
        "compound" | "malformed" | "" => of_names(),
        kind => class_of(kind),
    }
}

fn class_of(kind: &str) -> Option<FailureClass> {
    Some(match kind {
        "rateLimited" => FailureClass::RateLimited,
        "rejectedIdentifier" | "unsupportedIdentifier" | "caa" => FailureClass::Refused,
        "dns" | "connection" | "tls" | "incorrectResponse" => FailureClass::Validation,
        "serverInternal" | "badNonce" | "orderNotReady" => FailureClass::Network,
        "accountDoesNotExist"
        | "badCSR"
        | "badPublicKey"
        | "badRevocationReason"
        | "badSignatureAlgorithm"
        | "externalAccountRequired"
        | "invalidContact"
        | "invalidProfile"
        | "unauthorized"
        | "unsupportedContact"
        | "userActionRequired" => FailureClass::Configuration,
        _ => return None,
    })
}

/// Returns true if the resource is missing, perhaps only for now.
pub(in crate::acme) fn is_missing(status: StatusCode) -> bool {
    matches!(status, StatusCode::NOT_FOUND | StatusCode::GONE)
}

/// Returns true if neither an ACME type nor the status explains why a CA has refused an order.
pub(in crate::acme) fn is_unexplained(refusal: &Refusal) -> bool {
    let problem = refusal.problem.as_ref();
    !refusal.status.is_server_error() && problem.is_some_and(|problem| explained(problem).is_none())
}
