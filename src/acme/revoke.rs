//! Revocation at a CA (RFC 8555, section 7.6): by the account that the certificate was issued to,
//! or by the certificate's own key.

use instant_acme::Error;
use openssl::pkey::PKey;
use serde_json::json;

use super::AcmeIssuer;
use super::account::AccountCtx;
use super::base64url::encode;
use super::client::AcmeClient;
use super::error::{self, Step};
use super::jws::{Signer, post_jws};
use crate::host::Pattern;
use crate::issuer::{Revocation, RevocationReason};
use crate::schedule::{Failure, FailureClass};

impl AcmeIssuer {
    /// Has the CA revoke a certificate, signed by whoever it believes.
    pub(super) async fn revoke_at_ca(&self, revocation: &Revocation) -> Result<(), Failure> {
        let client = self.ca.client().await?;
        let Some(url) = client.directory().revoke_cert.clone() else {
            let message = format!("{} does not support revoking certificates", self.ca.host);
            return Err(Failure::new(FailureClass::Configuration, message));
        };
        let payload = json!({
            "certificate": encode(&revocation.certificate),
            "reason": revocation.reason.code(),
        });
        let mut failure = None;
        for signer in self.signers(revocation, &client).await {
            match post_jws(&client, &signer, &url, Some(&payload)).await {
                Ok(_) => return Ok(()),
                Err(_) if was_revoked(&client) => return Ok(()),
                Err(error) => {
                    let failed = self.not_revoked(&client, revocation, &error);
                    if !may_another(&client) {
                        return Err(failed);
                    }
                    // What is said to the one who is most likely to be believed tells most.
                    failure.get_or_insert(failed);
                }
            }
        }
        Err(failure.unwrap_or_else(|| {
            let message = "there is no key to sign the revocation with";
            Failure::new(FailureClass::Internal, message)
        }))
    }

    /// The keys that may sign, the most promising first. That a key is compromised, CAs believe
    /// those who have it.
    async fn signers(&self, revocation: &Revocation, client: &AcmeClient) -> Vec<Signer> {
        let ctx = AccountCtx {
            ca: &self.ca,
            config: &self.config,
            client,
        };
        // The certificate's own key does where nothing is known of the account.
        let account = self.shared.accounts.find_existing(ctx).await.ok().flatten();
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

    fn not_revoked(&self, client: &AcmeClient, revocation: &Revocation, error: &Error) -> Failure {
        let names: Vec<Pattern> = revocation.domain.parse().into_iter().collect();
        let (host, now) = (&self.ca.host, self.shared.clock.now());
        error::failure_of(host, Step::Revocation, error, client, &names, now)
    }
}

/// Whether the CA says that it has revoked it before.
fn was_revoked(client: &AcmeClient) -> bool {
    let problem = client.refusal().and_then(|refusal| refusal.problem);
    problem.is_some_and(|problem| problem.kind() == "alreadyRevoked")
}

/// Whether the CA refused the signer, as far as can be told: then another may be believed.
fn may_another(client: &AcmeClient) -> bool {
    client.refusal().is_some_and(|refusal| {
        let kind = refusal
            .problem
            .as_ref()
            .map_or("", |problem| problem.kind());
        refusal.status.is_client_error() && kind != "rateLimited"
    })
}
