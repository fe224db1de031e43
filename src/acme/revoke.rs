//! Revocation at a CA (RFC 8555, section 7.6): by the account that the certificate was issued to,
//! or by the certificate's own key.

use instant_acme::Error;
use openssl::pkey::PKey;
use serde_json::json;

use super::AcmeIssuer;
use super::account::AccountCtx;
use super::client::AcmeClient;
use super::error::{self, Step};
use super::jws::{Signer, post_jws};
use crate::base64url::encode;
use crate::host::Pattern;
use crate::issuer::{Revocation, RevocationReason};
use crate::schedule::{Failure, FailureClass};

/// Has the CA revoke a certificate, signed with a key that it trusts.
pub(super) async fn revoke(issuer: &AcmeIssuer, revocation: &Revocation) -> Result<(), Failure> {
    let client = issuer.ca.client().await?;
    let Some(url) = client.directory().revoke_cert.clone() else {
        let message = format!("{} does not support revoking certificates", issuer.ca.host);
        return Err(Failure::new(FailureClass::Configuration, message));
    };
    let payload = json!({
        "certificate": encode(&revocation.certificate),
        "reason": revocation.reason.code(),
    });
    let mut failure = None;
    for signer in signers(issuer, revocation, &client).await {
        match post_jws(&client, &signer, &url, Some(&payload)).await {
            Ok(_) => return Ok(()),
            Err(_) if was_revoked(&client) => return Ok(()),
            Err(error) => {
                let failed = revocation_failure(issuer, &client, revocation, &error);
                if !may_another(&client) {
                    return Err(failed);
                }
                // The refusal of the most promising signer says most.
                failure.get_or_insert(failed);
            }
        }
    }
    Err(failure.unwrap_or_else(|| {
        let message = "there is no key to sign the revocation with";
        Failure::new(FailureClass::Internal, message)
    }))
}

/// The keys that may sign, the most promising first. CAs believe that a key is compromised if it
/// signs that itself.
async fn signers(issuer: &AcmeIssuer, revocation: &Revocation, client: &AcmeClient) -> Vec<Signer> {
    let ctx = AccountCtx {
        ca: &issuer.ca,
        config: &issuer.config,
        client,
    };
    // Without a known account, the certificate's own key will do.
    let account = issuer
        .shared
        .accounts
        .find_existing(ctx)
        .await
        .ok()
        .flatten();
    let account = account.and_then(|account| account.signer().ok());
    let own = PKey::private_key_from_pem(&revocation.key).ok();
    let mut signers: Vec<Signer> = account
        .into_iter()
        .chain(own.map(Signer::Certificate))
        .collect();
    if revocation.reason == RevocationReason::KeyCompromise {
        signers.reverse();
    }
    signers
}

fn revocation_failure(
    issuer: &AcmeIssuer,
    client: &AcmeClient,
    revocation: &Revocation,
    error: &Error,
) -> Failure {
    let names: Vec<Pattern> = revocation.domain.parse().into_iter().collect();
    let (host, now) = (&issuer.ca.host, issuer.shared.clock.now());
    error::failure_of(host, Step::Revocation, error, client, &names, now)
}

/// Returns true if the certificate was already revoked.
fn was_revoked(client: &AcmeClient) -> bool {
    let problem = client.refusal().and_then(|refusal| refusal.problem);
    problem.is_some_and(|problem| problem.kind() == "alreadyRevoked")
}

/// Returns true if the CA seems to have refused the signer: another may be accepted.
fn may_another(client: &AcmeClient) -> bool {
    client.refusal().is_some_and(|refusal| {
        let kind = refusal
            .problem
            .as_ref()
            .map_or("", |problem| problem.kind());
        refusal.status.is_client_error() && kind != "rateLimited"
    })
}
