//! An account as stored, and as used.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use instant_acme::{Account as AcmeAccount, AccountCredentials, Error};
use openssl::error::ErrorStack;
use openssl::pkey::{PKey, Private};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use zeroize::{Zeroize, Zeroizing};

use super::super::client::AcmeClient;
use super::super::jws::Signer;
use crate::base64url::{decode, encode};
use crate::clock::UnixTime;
use crate::config::model::Acme;
use crate::storage::{Key, damaged};

/// An account at a CA.
pub(in crate::acme) struct Account {
    pub(super) stored: AccountRecord,
    pub(super) place: Key,
    /// Whether it is in the storage.
    is_saved: AtomicBool,
}

/// An account as stored.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct AccountRecord {
    /// As instant-acme writes them: the account's URL, its key, the CA's directory.
    pub(super) credentials: Value,
    pub(super) contacts: Vec<String>,
    /// The key identifier of the external account that it is bound to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) bound_to: Option<String>,
    /// When it was created; zero for accounts stored by earlier versions.
    #[serde(default)]
    pub(super) made: UnixTime,
    /// The key (PKCS #8, base64url) that the CA has been asked to accept in place of the current
    /// one. It is unknown whether it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    next_key: Option<String>,
    /// When a person deactivated it. It stays stored, so that no other is created unasked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) deactivated: Option<UnixTime>,
}

impl Account {
    pub(super) fn new(stored: AccountRecord, place: &Key, is_saved: bool) -> Arc<Self> {
        Arc::new(Self {
            stored,
            place: place.clone(),
            is_saved: AtomicBool::new(is_saved),
        })
    }

    pub(super) fn is_saved(&self) -> bool {
        self.is_saved.load(Ordering::Relaxed)
    }

    pub(super) fn note_saved(&self) {
        self.is_saved.store(true, Ordering::Relaxed);
    }

    /// The URL that identifies it at the CA.
    pub(in crate::acme) fn url(&self) -> Option<&str> {
        self.stored.url()
    }

    /// Returns true if it was created less than `age` ago: not all servers of the CA may know
    /// it yet.
    pub(in crate::acme) fn is_younger_than(&self, age: Duration, now: UnixTime) -> bool {
        (self.stored.made..self.stored.made + age).contains(&now)
    }

    /// The signer of its requests.
    ///
    /// # Errors
    /// If the stored account cannot be used.
    pub(in crate::acme) fn signer(&self) -> Result<Signer, Error> {
        self.stored.signer()
    }

    /// The account for use through `client`.
    ///
    /// # Errors
    /// If the stored account cannot be used.
    pub(in crate::acme) async fn open(&self, client: &AcmeClient) -> Result<AcmeAccount, Error> {
        // By reference, so that the key is not copied.
        let credentials = AccountCredentials::deserialize(&self.stored.credentials)?;
        AcmeAccount::builder_with_http(Box::new(client.clone()))
            .from_credentials(credentials)
            .await
    }
}

impl AccountRecord {
    pub(super) fn new(
        credentials: Value,
        contacts: Vec<String>,
        bound_to: Option<String>,
        made: UnixTime,
    ) -> Self {
        Self {
            credentials,
            contacts,
            bound_to,
            made,
            next_key: None,
            deactivated: None,
        }
    }

    /// Parses a stored `value`.
    ///
    /// # Errors
    /// If it is not a usable account.
    pub(super) fn read(value: &[u8]) -> Result<Self, String> {
        let stored: Self = damaged::parse_json(value)?;
        if stored.signer().is_err() {
            return Err("its URL or its key cannot be read".to_owned());
        }
        Ok(stored)
    }

    /// The value to store.
    pub(super) fn write(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(serde_json::to_vec_pretty(self).unwrap_or_default())
    }

    /// The account in a damaged `value`, if its URL and key are intact; the rest is as given.
    pub(super) fn salvage(
        value: &[u8],
        contacts: Vec<String>,
        bound_to: Option<String>,
    ) -> Option<Self> {
        let text = str::from_utf8(value).unwrap_or_else(|error| {
            let whole = value.get(..error.valid_up_to()).unwrap_or_default();
            str::from_utf8(whole).unwrap_or_default()
        });
        let member = |name: &str| {
            let (_, rest) = text.split_once(&format!("\"{name}\""))?;
            let rest = rest.trim_start().strip_prefix(':')?.trim_start();
            let (member, _) = rest.strip_prefix('"')?.split_once('"')?;
            Some(member)
        };
        let credentials = json!({
            "id": member("id")?,
            "key_pkcs8": member("key_pkcs8")?,
            "directory": member("directory")?,
        });
        let stored = Self::new(credentials, contacts, bound_to, UnixTime::default());
        stored.signer().is_ok().then_some(stored)
    }

    /// Returns true if it is bound as configured. A bound account also serves a configuration
    /// without a binding: binding keys can often be used once, and are removed from the
    /// configuration then.
    pub(super) fn serves(&self, config: &Acme) -> bool {
        config
            .eab
            .as_ref()
            .is_none_or(|eab| self.bound_to.as_deref() == Some(&eab.key_id))
    }

    /// Returns true if it is the same account with the same key.
    pub(super) fn is_same_as(&self, other: &Self) -> bool {
        self.credentials == other.credentials && self.deactivated == other.deactivated
    }

    /// The URL that identifies it at the CA.
    pub(super) fn url(&self) -> Option<&str> {
        self.credentials.get("id")?.as_str()
    }

    pub(super) fn signer(&self) -> Result<Signer, Error> {
        let kid = self.url().ok_or(Error::Str("the URL of the account"))?;
        let key = self.credentials.get("key_pkcs8").and_then(Value::as_str);
        Ok(Signer::Account {
            key: key.and_then(read_key).ok_or(Error::KeyRejected)?,
            kid: kid.to_owned(),
        })
    }

    /// The key that may have replaced the current one.
    pub(super) fn next_key(&self) -> Option<PKey<Private>> {
        self.next_key.as_deref().and_then(read_key)
    }

    /// Returns true if it is unknown which key the CA has.
    pub(super) fn is_unsettled(&self) -> bool {
        self.next_key.is_some()
    }

    /// Notes a key that the CA is about to be asked to accept.
    pub(super) fn propose_key(&mut self, key: &PKey<Private>) -> Result<(), ErrorStack> {
        let der = Zeroizing::new(key.private_key_to_pkcs8()?);
        self.next_key = Some(encode(&der));
        Ok(())
    }

    /// Settles whether the CA has accepted that key.
    pub(super) fn settle_key(&mut self, is_taken: bool) {
        let next = self.next_key.take();
        if let (Some(mut next), true) = (next, is_taken)
            && let Some(Value::String(key)) = self.credentials.get_mut("key_pkcs8")
        {
            std::mem::swap(key, &mut next);
            next.zeroize();
        }
    }
}

impl Drop for AccountRecord {
    fn drop(&mut self) {
        wipe(&mut self.credentials);
        self.next_key.zeroize();
    }
}

fn read_key(pkcs8: &str) -> Option<PKey<Private>> {
    PKey::private_key_from_der(&decode(pkcs8)?).ok()
}

/// Overwrites all text in a value.
fn wipe(value: &mut Value) {
    match value {
        Value::String(text) => text.zeroize(),
        Value::Array(values) => values.iter_mut().for_each(wipe),
        Value::Object(members) => members.values_mut().for_each(wipe),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::acme::key::generate;
    use crate::clock::unix;
    use crate::config::model::KeyType;

    #[test]
    fn credentials_are_wiped_wherever_they_stand() {
        let mut value = json!({ "a": "secret", "b": [{ "c": "secret" }, 1] });
        wipe(&mut value);
        assert_eq!(value, json!({ "a": "", "b": [{ "c": "" }, 1] }));
    }

    #[test]
    fn as_much_of_a_damaged_account_is_saved_as_is_whole() {
        let key = generate(KeyType::P256).expect("a key");
        let der = key.private_key_to_pkcs8().expect("DER");
        let credentials = json!({
            "id": "https://ca/1", "key_pkcs8": encode(&der), "directory": "https://ca/dir",
        });
        let contacts = vec!["mailto:ops@a.test".to_owned()];
        let whole = AccountRecord::new(credentials, contacts, None, unix(0)).write();
        assert!(AccountRecord::read(&whole).is_ok());
        let mut is_saved = Vec::new();
        for length in (0..whole.len()).step_by(7) {
            let torn = whole.get(..length).expect("a part");
            assert!(AccountRecord::read(torn).is_err(), "{length}");
            if let Some(stored) = AccountRecord::salvage(torn, Vec::new(), None) {
                assert_eq!(stored.url(), Some("https://ca/1"));
                let signer = stored.signer().expect("a key");
                assert!(signer.key().public_eq(&key));
                assert!(
                    AccountRecord::read(&stored.write()).is_ok(),
                    "it can be stored"
                );
                is_saved.push(length);
            }
        }
        assert!(
            is_saved.len() > 3,
            "all that ends after the key: {is_saved:?}"
        );
        assert!(AccountRecord::read(b"{ \"credentials\": {}, \"contacts\": [] }").is_err());
        assert!(AccountRecord::salvage(b"", Vec::new(), None).is_none());
    }

    #[test]
    fn a_key_takes_the_place_of_another_once_the_ca_has_taken_it() {
        let keys = [(); 2].map(|()| generate(KeyType::P256).expect("a key"));
        let der = keys[0].private_key_to_pkcs8().expect("DER");
        let credentials = json!({ "id": "https://ca/1", "key_pkcs8": encode(&der) });
        let mut stored = AccountRecord::new(credentials, Vec::new(), None, unix(0));
        let is_key =
            |stored: &AccountRecord, key: &PKey<Private>| match stored.signer().expect("a key") {
                Signer::Account { key: own, kid } => own.public_eq(key) && kid == "https://ca/1",
                Signer::Certificate(_) => false,
            };
        for is_taken in [false, true] {
            stored.propose_key(&keys[1]).expect("a key");
            let kept = serde_json::to_vec(&stored).expect("JSON");
            stored = serde_json::from_slice(&kept).expect("what was kept");
            assert!(stored.is_unsettled() && is_key(&stored, &keys[0]));
            assert!(stored.next_key().expect("a key").public_eq(&keys[1]));
            stored.settle_key(is_taken);
            assert!(!stored.is_unsettled());
            assert!(is_key(&stored, &keys[usize::from(is_taken)]));
        }
    }
}
