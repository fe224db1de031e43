//! Of which class a refusal of a CA is: what that means for when to try again.

use http::StatusCode;

use crate::acme::client::Refusal;
use crate::acme::error::problem::{Problem, Subproblem};
use crate::acme::step::Step;
use crate::schedule::FailureClass;

/// The class of a refusal: by the type of its problem, and else by its status and what was asked
/// for.
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
        // A peer that does not speak ACME is not the CA, and says nothing of what was asked for.
        None if problem.is_none() => FailureClass::Network,
        None if is_missing(status) && is_reading => FailureClass::Network,
        // The order as it is, or what belongs to it, is nothing for this CA.
        None if matches!(step, Step::Order | Step::Finalize) => FailureClass::Configuration,
        None => FailureClass::Internal,
    }
}

/// What a problem means by its type, or by those of the names it is about where its own is general.
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

/// Whether what was asked for is not there, perhaps only not yet.
pub(in crate::acme) fn is_missing(status: StatusCode) -> bool {
    matches!(status, StatusCode::NOT_FOUND | StatusCode::GONE)
}

/// Whether a CA has refused an order, and neither a type of ACME's nor its status says why.
pub(in crate::acme) fn is_unexplained(refusal: &Refusal) -> bool {
    let problem = refusal.problem.as_ref();
    !refusal.status.is_server_error() && problem.is_some_and(|problem| explained(problem).is_none())
}
