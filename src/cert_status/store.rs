//! OCSP responses in the storage: a restart has them, whether responders work or not.

use std::collections::HashSet;

use super::ocsp::{self, Answer};
use crate::certificate::TlsCertificate;
use crate::clock::UnixTime;
use crate::storage::{Storage, StorageError, keys};

/// How long, in seconds, a response of an unknown certificate is kept: longer than any is good.
const KEPT: i64 = 30 * 86_400;

/// Staples the stored response of `certificate`, if it is still good at `now`. Blocks on the storage.
/// Whether there is one.
pub(crate) fn restore_staple(
    storage: &dyn Storage,
    certificate: &TlsCertificate,
    now: UnixTime,
) -> bool {
    let (Some(status), Some(issuer)) = (certificate.status(), certificate.issuer()) else {
        return false;
    };
    let fingerprint = certificate.fingerprint().to_string();
    let stored = keys::ocsp(&fingerprint).and_then(|key| storage.load(&key));
    // Where it cannot be read, the responder is asked.
    let Ok(Some(octets)) = stored else {
        return false;
    };
    let Ok(leaf) = certificate.leaf() else {
        return false;
    };
    // Checked as if it had just come: nobody sends clients what a disk has damaged.
    let Ok(Answer::Good(staple)) = ocsp::check(&octets, &leaf, issuer, now) else {
        return false;
    };
    status.update(|known| known.staple = Some(staple.into()));
    true
}

/// Stores the response for the certificate with this fingerprint.
pub(crate) fn store_staple(
    storage: &dyn Storage,
    fingerprint: &str,
    response: &[u8],
) -> Result<(), StorageError> {
    storage.store(&keys::ocsp(fingerprint)?, response)
}

/// Removes the response for the certificate with this fingerprint.
pub(crate) fn forget_staple(storage: &dyn Storage, fingerprint: &str) -> Result<(), StorageError> {
    storage.delete(&keys::ocsp(fingerprint)?)
}

/// Removes responses that were stored long ago, of certificates that are not `known` here: another
/// instance that has them would have stored newer ones.
pub(crate) fn sweep(
    storage: &dyn Storage,
    known: &HashSet<String>,
    now: UnixTime,
) -> Result<(), StorageError> {
    for key in storage.list(&keys::all_ocsp()?)? {
        let name = key.as_str().rsplit('/').next().unwrap_or_default();
        let fingerprint = name.strip_suffix(".der").unwrap_or(name);
        if known.contains(fingerprint) {
            continue;
        }
        let stat = storage.stat(&key)?;
        if stat.is_some_and(|stat| now - stat.modified > KEPT) {
            storage.delete(&key)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::unix;
    use crate::storage::MemoryStorage;

    #[test]
    fn only_what_nobody_refreshes_is_removed() {
        let storage = MemoryStorage::default();
        for name in ["aa", "bb"] {
            store_staple(&storage, name, b"response").expect("stored");
        }
        let stored = keys::ocsp("aa").and_then(|key| storage.stat(&key));
        let then = stored.expect("readable").expect("stored").modified;
        let known = HashSet::from(["aa".to_owned()]);
        let left = |now| {
            sweep(&storage, &known, now).expect("swept");
            let keys = storage.list(&keys::all_ocsp().expect("a key"));
            keys.expect("listed").len()
        };
        assert_eq!((left(then + KEPT), left(then + KEPT + 1)), (2, 1));
        assert_eq!(left(unix(i64::MAX)), 1);
        forget_staple(&storage, "aa").expect("removed");
        assert_eq!(left(then), 0);
    }
}
