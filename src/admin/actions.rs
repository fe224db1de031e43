//! The handlers for actions of people on certificates and accounts at CAs.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection};
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::api::{Named, found, named, run_blocking};
use super::{AdminState, CertificateView, Problem};
use crate::issuer::{AccountFacts, AccountTask, RevocationReason};
use crate::renewal::ActionError;
use crate::schedule::FailureClass;

/// An element of `GET /api/v1/issuers`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct IssuerView {
    pub name: String,
    /// `acme` or `local_ca`.
    pub kind: String,
    /// The URL of the CA's directory.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub directory: Option<String>,
}

/// `GET /api/v1/issuers/NAME/account`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct AccountView {
    /// The issuer's name.
    pub issuer: String,
    #[serde(flatten)]
    pub facts: AccountFacts,
}

/// The body of a request.
pub(super) type Sent = Result<Bytes, BytesRejection>;

/// The body of a revocation.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Revoke {
    reason: Option<String>,
}

/// The body of a change of contacts.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Contact {
    email: Vec<String>,
}

pub(super) async fn issuers(State(state): State<AdminState>) -> Json<Vec<IssuerView>> {
    Json(state.control.issuers())
}

/// 202 if another certificate is requested, else 200.
pub(super) async fn revoke(
    State(state): State<AdminState>,
    name: Named,
    body: Sent,
) -> Result<Response, Problem> {
    let name = named(name)?;
    let Revoke { reason } = parse_body(body, r#"{ "reason": "superseded" }"#)?;
    let reason = match reason {
        Some(reason) => reason
            .parse::<RevocationReason>()
            .map_err(|why| Problem::new(StatusCode::BAD_REQUEST, why))?,
        None => RevocationReason::Unspecified,
    };
    let wanted = name.clone();
    let view = run_blocking(&state, move |control| {
        let view = found(&control.certificates(), &wanted)?;
        // A revocation cannot be undone, and others may need the certificate.
        if view.is_named(&wanted) {
            return Ok(view);
        }
        let detail = format!(
            "{wanted} has no certificate of its own; `{}` covers it: use that name",
            view.name
        );
        Err(Problem::new(StatusCode::CONFLICT, detail))
    })
    .await?;
    let Some(fingerprint) = view.fingerprint.clone() else {
        let detail = format!("there is no certificate for {} to revoke", view.name);
        return Err(Problem::new(StatusCode::CONFLICT, detail));
    };
    // In its own task: a client that disconnects does not leave it half done.
    let control = Arc::clone(&state.control);
    let done = tokio::spawn(async move { control.revoke(&fingerprint, reason).await }).await;
    let is_asked = match done {
        Ok(done) => {
            done.map_err(|error| problem(error, &format!("there is no certificate for {name}")))
        }
        Err(_) => Err(broke_off()),
    }?;
    let after = run_blocking(&state, move |control| {
        let views = control.certificates();
        Ok::<CertificateView, Problem>(found(&views, &name).unwrap_or(view))
    });
    let status = if is_asked {
        StatusCode::ACCEPTED
    } else {
        StatusCode::OK
    };
    Ok((status, Json(after.await?)).into_response())
}

pub(super) async fn account(
    State(state): State<AdminState>,
    name: Named,
) -> Result<Json<AccountView>, Problem> {
    run_account_task(&state, named(name)?, AccountTask::Show).await
}

pub(super) async fn account_task(
    State(state): State<AdminState>,
    path: Result<Path<(String, String)>, PathRejection>,
    body: Sent,
) -> Result<Json<AccountView>, Problem> {
    let Path((name, task)) = path.map_err(|why| Problem::new(why.status(), why.body_text()))?;
    let task = match task.as_str() {
        "create" => AccountTask::Create,
        "rollover" => AccountTask::Rollover,
        "deactivate" => AccountTask::Deactivate,
        "contact" => {
            let Contact { email } = parse_body(body, r#"{ "email": ["ops@example.com"] }"#)?;
            if let Some(odd) = email.iter().find(|email| !is_address(email)) {
                let detail = format!("{odd:?} is not an e-mail address, such as ops@example.com");
                return Err(Problem::new(StatusCode::BAD_REQUEST, detail));
            }
            AccountTask::Contact(email)
        }
        other => {
            let detail = format!(
                "unknown account task {other:?}; use create, rollover, contact or deactivate"
            );
            return Err(Problem::new(StatusCode::NOT_FOUND, detail));
        }
    };
    run_account_task(&state, name, task).await
}

async fn run_account_task(
    state: &AdminState,
    issuer: String,
    task: AccountTask,
) -> Result<Json<AccountView>, Problem> {
    let control = Arc::clone(&state.control);
    let unknown = format!("there is no issuer named {issuer}");
    let wanted = issuer.clone();
    let done = tokio::spawn(async move { control.account(&wanted, task).await }).await;
    match done {
        Ok(Ok(facts)) => Ok(Json(AccountView { issuer, facts })),
        Ok(Err(error)) => Err(problem(error, &unknown)),
        Err(_) => Err(broke_off()),
    }
}

/// Parses a body; an empty one has no members.
pub(super) fn parse_body<T: DeserializeOwned>(body: Sent, example: &str) -> Result<T, Problem> {
    let body = body.map_err(|why| Problem::new(why.status(), why.body_text()))?;
    let body = if body.is_empty() {
        b"{}".as_slice()
    } else {
        &body
    };
    serde_json::from_slice(body).map_err(|error| {
        let detail = format!("the body cannot be read: {error}; send JSON such as {example}");
        Problem::new(StatusCode::BAD_REQUEST, detail)
    })
}

/// Returns true if a CA can send mail to it, and nothing in it has a meaning in a `mailto:` URL
/// (RFC 8555, section 7.3).
fn is_address(text: &str) -> bool {
    let parts = text.split_once('@');
    let odd = |octet: u8| !octet.is_ascii_graphic() || b"\"(),:;<>?\\[]&=".contains(&octet);
    parts.is_some_and(|(local, domain)| {
        !local.is_empty()
            && !local.bytes().any(odd)
            && domain.parse::<crate::host::HostName>().is_ok()
    })
}

fn problem(error: ActionError, unknown: &str) -> Problem {
    match error {
        ActionError::Unknown => Problem::new(StatusCode::NOT_FOUND, unknown),
        ActionError::Refused(why) => Problem::new(StatusCode::CONFLICT, why),
        ActionError::Failed(failure) => {
            let status = match failure.class {
                FailureClass::Configuration | FailureClass::Refused | FailureClass::Vetoed => {
                    StatusCode::CONFLICT
                }
                FailureClass::RateLimited | FailureClass::Paused => StatusCode::TOO_MANY_REQUESTS,
                FailureClass::Storage => StatusCode::SERVICE_UNAVAILABLE,
                FailureClass::Network
                | FailureClass::Validation
                | FailureClass::Clock
                | FailureClass::Internal => StatusCode::BAD_GATEWAY,
            };
            Problem::new(status, failure.message)
                .with("class", json!(failure.class))
                .with("url", json!(failure.url))
        }
    }
}

fn broke_off() -> Problem {
    Problem::new(
        StatusCode::INTERNAL_SERVER_ERROR,
        "it was interrupted by a bug; check the current state before trying again. See the log",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_plain() {
        for good in ["ops@example.com", "a+b@c.example"] {
            assert!(is_address(good), "{good}");
        }
        for odd in [
            "",
            "ops",
            "@a.example",
            "a b@c.example",
            "a@b?to=c",
            "a,b@c.example",
            "a@",
        ] {
            assert!(!is_address(odd), "{odd}");
        }
    }
}
