//! How an account is made at a CA, bound to an external one where that is asked for.

use instant_acme::{Account as AcmeAccount, Error, ExternalAccountKey, NewAccount};

use super::super::base64url::decode;
use super::super::classify::{self, Step};
use super::super::zerossl;
use super::stored::Stored;
use super::{Accounts, Want};
use crate::clock::Clock;
use crate::config::model::{ExternalAccount, ZeroSsl};
use crate::schedule::{Failure, FailureClass};
use crate::storage::{blocking, keys};

impl Accounts {
    /// Makes an account at the CA.
    pub(super) async fn make(&self, want: Want<'_>) -> Result<Stored, Failure> {
        let clock = self.clock.as_ref();
        match &want.config.zerossl {
            Some(zerossl) => self.make_bound(want, zerossl).await,
            None => create(want, want.config.eab.as_ref(), clock).await,
        }
    }

    /// Makes an account that is bound by a key that ZeroSSL gives, or has given before: it gives
    /// so many a day.
    async fn make_bound(&self, want: Want<'_>, zerossl: &ZeroSsl) -> Result<Stored, Failure> {
        let clock = self.clock.as_ref();
        let place = keys::external_account(&want.ca.key, want.config.email.as_deref())
            .map_err(|error| super::internal(&error))?;
        let load = place.clone();
        let kept = blocking(&self.storage, move |storage| storage.load(&load)).await;
        if let Some(kept) = kept.ok().flatten().and_then(|kept| zerossl::read(&kept)) {
            match create(want, Some(&kept), clock).await {
                // It has been taken back, or was used up.
                Err(failure) if failure.class == FailureClass::Configuration => {
                    tracing::info!(ca = want.ca.host, %failure, "getting another binding");
                }
                made => return made,
            }
        }
        let given = zerossl::binding(zerossl, want.session, clock.now()).await?;
        let value = zerossl::write(&given);
        let stored = blocking(&self.storage, move |storage| storage.store(&place, &value)).await;
        if let Err(error) = stored {
            tracing::warn!(ca = want.ca.host, %error, "a binding is not kept, and got anew if need be");
        }
        create(want, Some(&given), clock).await
    }
}

async fn create(
    want: Want<'_>,
    eab: Option<&ExternalAccount>,
    clock: &dyn Clock,
) -> Result<Stored, Failure> {
    let Want {
        ca,
        config,
        session,
        ..
    } = want;
    if session.directory().meta.external_account_required && eab.is_none() {
        let message = format!(
            "{} takes no accounts without external account binding; get a key for it from the CA \
             and set 'eab' of the issuer",
            ca.host
        );
        return Err(Failure::new(FailureClass::Configuration, message));
    }
    let external = eab.map(external_key).transpose()?;
    let contacts: Vec<String> = config
        .email
        .iter()
        .map(|email| format!("mailto:{email}"))
        .collect();
    let contact: Vec<&str> = contacts.iter().map(String::as_str).collect();
    let new = NewAccount {
        contact: &contact,
        terms_of_service_agreed: true,
        only_return_existing: false,
    };
    let made = patiently!(
        AcmeAccount::builder_with_http(Box::new(session.clone()))
            .create(&new, ca.url.clone(), external.as_ref())
            .await
    );
    let failed =
        |error: &Error| classify::failed(&ca.host, Step::Account, error, session, &[], clock.now());
    let (_, credentials) = made.map_err(|error| failed(&error))?;
    let credentials = serde_json::to_value(&credentials).map_err(|error| failed(&error.into()))?;
    tracing::info!(ca = ca.host, contacts = ?contacts, "made an account");
    let bound_to = eab.map(|eab| eab.key_id.clone());
    Ok(Stored::new(credentials, contacts, bound_to))
}

fn external_key(eab: &ExternalAccount) -> Result<ExternalAccountKey, Failure> {
    let key = decode(eab.hmac_key.expose()).ok_or_else(|| {
        let message = "'hmac_key' of the issuer's 'eab' is not base64url; copy it from the CA as a \
                       whole";
        Failure::new(FailureClass::Configuration, message)
    })?;
    Ok(ExternalAccountKey::new(eab.key_id.clone(), &key))
}
