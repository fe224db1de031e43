//! Registers an account at a CA, with external account binding if required.

use instant_acme::{Account as AcmeAccount, Error, ExternalAccountKey, NewAccount};

use super::super::client::AcmeClient;
use super::super::error::{self, Step};
use super::super::problem::Problem;
use super::super::zerossl;
use super::AccountCtx;
use super::record::AccountRecord;
use super::store::{AccountStore, contacts, internal, unread};
use crate::base64url::decode;
use crate::clock::{Clock, UnixTime};
use crate::config::model::{ExternalAccount, ZeroSsl};
use crate::schedule::{Failure, FailureClass};
use crate::storage::{blocking, damaged, keys};

/// How long, in seconds, a binding is kept before another is requested: their number per day is
/// limited.
const DAY: i64 = 86_400;

/// Creates an account at the CA.
pub(super) async fn register_account(
    store: &AccountStore,
    ctx: AccountCtx<'_>,
) -> Result<AccountRecord, Failure> {
    let clock = store.clock.as_ref();
    match &ctx.config.zerossl {
        Some(zerossl) => register_bound(store, ctx, zerossl).await,
        None => new_account(ctx, ctx.config.eab.as_ref(), clock).await,
    }
}

/// Creates an account bound by a key from ZeroSSL, preferably one received before: their number per
/// day is limited.
async fn register_bound(
    store: &AccountStore,
    ctx: AccountCtx<'_>,
    zerossl: &ZeroSsl,
) -> Result<AccountRecord, Failure> {
    let clock = store.clock.as_ref();
    let place = keys::external_account(&ctx.ca.key, ctx.config.email.as_deref())
        .map_err(|error| internal(&error))?;
    let load = place.clone();
    let kept = blocking(&store.storage, move |storage| {
        damaged::read_or_set_aside(storage, &load, zerossl::read_binding)
    });
    let kept = kept.await.map_err(|error| unread(&error))?;
    if let Some((kept, given)) = kept {
        match new_account(ctx, Some(&kept), clock).await {
            // The binding was withdrawn or used up. A binding that has just been issued is no worse
            // than the next one, and a wrong contact says nothing about it.
            Err(failure) if is_old(given, clock.now()) && is_for_binding(ctx.client) => {
                tracing::info!(
                    ca = ctx.ca.host,
                    %failure,
                    "requesting another external account binding"
                );
            }
            made => return made,
        }
    }
    let given = zerossl::binding(zerossl, ctx.client, clock.now()).await?;
    let value = zerossl::write_binding(&given, clock.now());
    let stored = blocking(&store.storage, move |storage| storage.store(&place, &value)).await;
    if let Err(error) = stored {
        tracing::warn!(
            ca = ctx.ca.host,
            %error,
            "cannot store an external account binding; it will be requested again if needed"
        );
    }
    new_account(ctx, Some(&given), clock).await
}

/// Returns true if a binding received at `given` may be replaced. A clock that was set back does
/// not keep it forever.
fn is_old(given: UnixTime, now: UnixTime) -> bool {
    !(0..DAY).contains(&(now - given))
}

/// Returns true if the CA last refused the account because of its binding.
fn is_for_binding(client: &AcmeClient) -> bool {
    let problem = client.refusal().and_then(|refusal| refusal.problem);
    problem.is_some_and(|problem| names_binding(&problem))
}

fn names_binding(problem: &Problem) -> bool {
    match problem.kind() {
        "externalAccountRequired" | "unauthorized" => true,
        "malformed" => {
            let text = problem.to_string().to_ascii_lowercase();
            let mut words = text.split(|one: char| !one.is_ascii_alphanumeric());
            text.contains("external account")
                || words.any(|word| matches!(word, "binding" | "eab" | "externalaccountbinding"))
        }
        _ => false,
    }
}

async fn new_account(
    ctx: AccountCtx<'_>,
    eab: Option<&ExternalAccount>,
    clock: &dyn Clock,
) -> Result<AccountRecord, Failure> {
    let AccountCtx {
        ca, config, client, ..
    } = ctx;
    if client.directory().meta.external_account_required && eab.is_none() {
        let message = format!(
            "{} requires external account binding; get a key from the CA and set the issuer's \
             'eab'",
            ca.host
        );
        return Err(Failure::new(FailureClass::Configuration, message));
    }
    let external = eab.map(external_key).transpose()?;
    let contacts = contacts(config);
    let contact: Vec<&str> = contacts.iter().map(String::as_str).collect();
    let new = NewAccount {
        contact: &contact,
        terms_of_service_agreed: true,
        only_return_existing: false,
    };
    let made = retry_bad_nonce!(
        AcmeAccount::builder_with_http(Box::new(client.clone()))
            .create(&new, ca.url.clone(), external.as_ref())
            .await
    );
    let failed =
        |error: &Error| error::failure_of(&ca.host, Step::Account, error, client, &[], clock.now());
    let (_, credentials) = made.map_err(|error| failed(&error))?;
    let credentials = serde_json::to_value(&credentials).map_err(|error| failed(&error.into()))?;
    tracing::info!(ca = ca.host, contacts = ?contacts, "created an account");
    let bound_to = eab.map(|eab| eab.key_id.clone());
    Ok(AccountRecord::new(
        credentials,
        contacts,
        bound_to,
        clock.now(),
    ))
}

fn external_key(eab: &ExternalAccount) -> Result<ExternalAccountKey, Failure> {
    let key = decode(eab.hmac_key.expose()).ok_or_else(|| {
        let message = "'hmac_key' of the issuer's 'eab' is not base64url; copy all of it from the \
                       CA";
        Failure::new(FailureClass::Configuration, message)
    })?;
    Ok(ExternalAccountKey::new(eab.key_id.clone(), &key))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::unix;

    #[test]
    fn a_binding_is_exchanged_once_it_is_old_and_refused_itself() {
        for (given, is) in [(0, true), (13_600, true), (13_601, false), (100_000, false)] {
            assert_eq!(is_old(unix(given), unix(100_000)), is, "{given}");
        }
        assert!(
            is_old(unix(100_001), unix(100_000)),
            "the clock was set back"
        );
        for (kind, detail, is) in [
            ("externalAccountRequired", "", true),
            ("unauthorized", "no such key identifier", true),
            (
                "malformed",
                "[External Account Binding] Invalid MAC on JWS",
                true,
            ),
            ("malformed", "the EAB cannot be verified", true),
            ("malformed", "JWS verification error", false),
            ("invalidContact", "external account", false),
            ("userActionRequired", "agree to the terms", false),
        ] {
            assert_eq!(
                names_binding(&Problem::of(kind, detail)),
                is,
                "{kind} {detail}"
            );
        }
    }
}
