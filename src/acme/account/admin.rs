//! Account commands: show it, create it, change its key or contact, deactivate it.

use std::time::Duration;

use instant_acme::Error;
use openssl::sha::sha256;
use serde_json::{Value, json};

use super::super::ca::Ca;
use super::super::error::{self, Step};
use super::super::json::{json, texts, word};
use super::super::jws::{Signer, jwk, post_jws};
use super::record::AccountRecord;
use super::register::register_account;
use super::roll_over::{self, change_key, settle_key};
use super::store::unread;
use super::{AccountCtx, Accounts, ended};
use crate::base64url::encode;
use crate::config::model::Acme;
use crate::issuer::{AccountFacts, AccountTask};
use crate::printable::lines;
use crate::schedule::{Failure, FailureClass};
use crate::storage::{Key, Lease, StorageError};

/// How long to wait for pending orders, which a change of the key would break.
const QUIET: Duration = Duration::from_secs(60);

/// An account as a CA shows it (RFC 8555, section 7.1.2).
struct Shown {
    /// `None` if it does not say.
    status: Option<String>,
    contact: Option<Vec<String>>,
}

impl Shown {
    /// Reads what can be read.
    fn read(body: &[u8]) -> Self {
        let shown = json(body);
        let members = shown.as_ref().and_then(Value::as_object);
        let status = members.map(|members| word(members, "status"));
        let status = status.filter(|status| !status.is_empty());
        let contact = members.and_then(|members| members.get("contact"));
        let contact = contact.filter(|contact| contact.is_array() || contact.is_string());
        Self {
            status: status.map(|status| lines(&status)),
            contact: contact.map(|all| texts(Some(all)).map(|one| lines(&one)).collect()),
        }
    }
}

impl Accounts {
    /// Carries out a task, and returns the state of the account afterwards.
    ///
    /// # Errors
    /// If there is no account, or the CA refuses.
    pub(in crate::acme) async fn care(
        &self,
        task: &AccountTask,
        ctx: AccountCtx<'_>,
    ) -> Result<AccountFacts, Failure> {
        match task {
            AccountTask::Show => self.show_account(ctx).await,
            AccountTask::Create => self.create_account(ctx).await,
            AccountTask::Rollover => {
                let stored = self.roll_over_key(ctx).await?;
                Ok(facts(&ctx.ca.url, &stored, Some("valid".to_owned())))
            }
            AccountTask::Contact(emails) => self.set_contact(ctx, emails).await,
            AccountTask::Deactivate => self.deactivate_account(ctx).await,
        }
    }

    /// The stored facts about the account, if the CA cannot be asked because of `why`.
    pub(in crate::acme) async fn remember(
        &self,
        ca: &Ca,
        config: &Acme,
        why: &Failure,
    ) -> Result<AccountFacts, Failure> {
        let place = self.store.find_key(ca, config).await?;
        let stored = self
            .store
            .load(&place, config)
            .await
            .map_err(|error| unread(&error))?;
        let stored = stored.ok_or_else(|| no_account(ca))?;
        let mut facts = facts(&ca.url, &stored, None);
        facts.note = Some(format!("showing the stored account: {why}"));
        Ok(facts)
    }

    async fn show_account(&self, ctx: AccountCtx<'_>) -> Result<AccountFacts, Failure> {
        let account = self
            .find_existing(ctx)
            .await?
            .ok_or_else(|| no_account(ctx.ca))?;
        let stored = &account.stored;
        if stored.deactivated.is_some() {
            return Ok(facts(&ctx.ca.url, stored, Some("deactivated".to_owned())));
        }
        match post_account(ctx, stored, None).await {
            Ok(shown) => {
                let mut facts = facts(&ctx.ca.url, stored, shown.status);
                facts.contacts = shown.contact.map_or(facts.contacts, |told| bare(&told));
                Ok(facts)
            }
            Err(error) => {
                let mut facts = facts(&ctx.ca.url, stored, None);
                facts.note = Some(if error::is_account_lost(&error, ctx.client) {
                    let host = &ctx.ca.host;
                    format!("{host} no longer knows the account: the next order creates a new one")
                } else {
                    ctx.failure(Step::AccountShown, &error, self.store.clock.now())
                        .message
                });
                Ok(facts)
            }
        }
    }

    async fn create_account(&self, ctx: AccountCtx<'_>) -> Result<AccountFacts, Failure> {
        let place = self.store.find_key(ctx.ca, ctx.config).await?;
        let _lease = self
            .store
            .lock(ctx.ca)
            .await
            .map_err(|error| unread(&error))?;
        let present = self
            .store
            .load(&place, ctx.config)
            .await
            .map_err(|error| unread(&error))?;
        if let Some(present) = present.filter(|present| present.deactivated.is_none()) {
            let present = settle_key(&self.store, present, ctx, &place).await?;
            let is_fine = match post_account(ctx, &present, None).await {
                Ok(shown) => shown.status.is_none_or(|status| status == "valid"),
                Err(error) => {
                    let refusal = ctx.client.refusal();
                    // It was deactivated elsewhere, or lost.
                    if refusal.is_none_or(|refusal| !refusal.status.is_client_error()) {
                        return Err(ctx.failure(
                            Step::AccountShown,
                            &error,
                            self.store.clock.now(),
                        ));
                    }
                    false
                }
            };
            if is_fine {
                let (host, url) = (&ctx.ca.host, present.url().unwrap_or_default());
                let message =
                    format!("there already is an account at {host}, {url}; nothing to do");
                return Err(Failure::new(FailureClass::Configuration, message));
            }
        }
        let stored = register_account(&self.store, ctx).await?;
        let written = self.store.write(&stored, &place).await;
        written.map_err(|error| unwritten(&error, "the new account"))?;
        self.known_account(&place)
            .account
            .invalidate_if(|_| true)
            .await;
        Ok(facts(&ctx.ca.url, &stored, Some("valid".to_owned())))
    }

    /// Gives the account another key.
    ///
    /// # Errors
    /// If there is no account, or the CA does not take the key.
    async fn roll_over_key(&self, ctx: AccountCtx<'_>) -> Result<AccountRecord, Failure> {
        if ctx.client.directory().key_change.is_none() {
            let message = format!("{} does not support changing an account's key", ctx.ca.host);
            return Err(Failure::new(FailureClass::Configuration, message));
        }
        let place = self.store.find_key(ctx.ca, ctx.config).await?;
        let known = self.known_account(&place);
        let _quiet = tokio::time::timeout(QUIET, known.in_use.write())
            .await
            .map_err(|_| {
                let message = format!(
                    "pending orders at {} need the current key; try again when they have finished",
                    ctx.ca.host
                );
                Failure::new(FailureClass::Storage, message)
            })?;
        let (_lease, mut stored) = self.lock_existing(ctx, &place).await?;
        change_key(&self.store, ctx, &mut stored, &place).await?;
        let written = self.store.write(&stored, &place).await;
        known.account.invalidate_if(|_| true).await;
        let both = "the CA has accepted it, and the gateway will notice at the next use";
        written.map_err(|error| roll_over::unwritten(&error, both))?;
        tracing::info!(ca = ctx.ca.host, "changed the account's key");
        Ok(stored)
    }

    async fn set_contact(
        &self,
        ctx: AccountCtx<'_>,
        emails: &[String],
    ) -> Result<AccountFacts, Failure> {
        let contacts: Vec<String> = emails.iter().map(|one| format!("mailto:{one}")).collect();
        let change = json!({ "contact": contacts });
        let told = "the new contacts";
        self.change_account(
            ctx,
            Step::Contact,
            change,
            "valid",
            told,
            |stored, shown| {
                stored.contacts = shown.contact.unwrap_or(contacts);
            },
        )
        .await
    }

    async fn deactivate_account(&self, ctx: AccountCtx<'_>) -> Result<AccountFacts, Failure> {
        let change = json!({ "status": "deactivated" });
        let now = self.store.clock.now();
        let told = "the deactivation of the account";
        self.change_account(
            ctx,
            Step::Deactivation,
            change,
            "deactivated",
            told,
            |stored, _| {
                stored.deactivated = Some(now);
            },
        )
        .await
    }

    /// The account as stored, with the lock on the CA's accounts.
    ///
    /// # Errors
    /// If there is none, or it is deactivated.
    async fn lock_existing(
        &self,
        ctx: AccountCtx<'_>,
        place: &Key,
    ) -> Result<(Lease, AccountRecord), Failure> {
        let lease = self
            .store
            .lock(ctx.ca)
            .await
            .map_err(|error| unread(&error))?;
        let stored = self
            .store
            .load(place, ctx.config)
            .await
            .map_err(|error| unread(&error))?;
        let stored = stored.ok_or_else(|| no_account(ctx.ca))?;
        if let Some(at) = stored.deactivated {
            return Err(ended(ctx.ca, at));
        }
        Ok((lease, settle_key(&self.store, stored, ctx, place).await?))
    }

    /// Has the CA change the account, checks the resulting status, and stores the change.
    async fn change_account(
        &self,
        ctx: AccountCtx<'_>,
        step: Step,
        change: Value,
        status: &str,
        what: &str,
        note: impl FnOnce(&mut AccountRecord, Shown) + Send,
    ) -> Result<AccountFacts, Failure> {
        let place = self.store.find_key(ctx.ca, ctx.config).await?;
        let (_lease, mut stored) = self.lock_existing(ctx, &place).await?;
        let shown = post_account(ctx, &stored, Some(&change)).await;
        let shown = shown.map_err(|error| ctx.failure(step, &error, self.store.clock.now()))?;
        if let Some(other) = shown.status.as_deref().filter(|shown| *shown != status) {
            let message = format!(
                "{} {step}: it reports the account as {other:?}; check it with `snigate acme \
                 account show`",
                ctx.ca.host
            );
            return Err(Failure::new(FailureClass::Network, message));
        }
        note(&mut stored, shown);
        self.known_account(&place)
            .account
            .invalidate_if(|_| true)
            .await;
        let written = self.store.write(&stored, &place).await;
        written.map_err(|error| unwritten(&error, what))?;
        Ok(facts(&ctx.ca.url, &stored, Some(status.to_owned())))
    }
}

async fn post_account(
    ctx: AccountCtx<'_>,
    stored: &AccountRecord,
    change: Option<&Value>,
) -> Result<Shown, Error> {
    let url = stored.url().ok_or(Error::Str("the URL of the account"))?;
    let signer = stored.signer()?;
    let reply = post_jws(ctx.client, &signer, url, change).await?;
    Ok(Shown::read(reply.body()))
}

/// The failure for an account that does not exist yet.
pub(super) fn no_account(ca: &Ca) -> Failure {
    let message = format!(
        "there is no account at {} yet; the first order creates it, or run `snigate acme account \
         create`",
        ca.host
    );
    Failure::new(FailureClass::Configuration, message)
}

fn facts(directory: &str, stored: &AccountRecord, status: Option<String>) -> AccountFacts {
    let thumbprint = stored.signer().ok().and_then(|signer| thumbprint(&signer));
    AccountFacts {
        directory: directory.to_owned(),
        url: stored.url().unwrap_or_default().to_owned(),
        status,
        contacts: bare(&stored.contacts),
        bound_to: stored.bound_to.clone(),
        thumbprint: thumbprint.unwrap_or_default(),
        note: None,
    }
}

/// The thumbprint of an account's key (RFC 7638, section 3): only the required members, in
/// lexicographic order.
fn thumbprint(signer: &Signer) -> Option<String> {
    let key = jwk(signer.key()).ok()?;
    let member = |name: &str| key.get(name)?.as_str();
    let text = format!(
        r#"{{"crv":"{}","kty":"{}","x":"{}","y":"{}"}}"#,
        member("crv")?,
        member("kty")?,
        member("x")?,
        member("y")?
    );
    Some(encode(&sha256(text.as_bytes())))
}

fn bare(contacts: &[String]) -> Vec<String> {
    let bare = |contact: &String| {
        contact
            .strip_prefix("mailto:")
            .unwrap_or(contact)
            .to_owned()
    };
    contacts.iter().map(bare).collect()
}

fn unwritten(error: &StorageError, what: &str) -> Failure {
    let message = format!(
        "the CA has completed the request, but {what} cannot be stored: {error}; repair the \
         storage and try again"
    );
    Failure::new(FailureClass::Storage, message)
}
