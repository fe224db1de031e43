//! Values that cannot be read, as a crash of the machine or a full disk leaves them: they are set
//! aside and reported, and never overwritten silently.
//!
//! A value of `a/b.json` is kept as `a/b.json.damaged-1`. The last few of each key are kept.

use std::fmt::Display;

use serde::de::DeserializeOwned;

use super::{Key, Storage, StorageError};
use crate::clock::UnixTime;

/// How many damaged values of a key are kept.
const KEPT: u32 = 4;

/// Loads and parses the value of `key`. A value that cannot be parsed is set aside and counts as
/// absent.
///
/// # Errors
/// If the storage cannot be read.
pub fn read_or_set_aside<T, E: Display>(
    storage: &dyn Storage,
    key: &Key,
    parse: impl FnOnce(&[u8]) -> Result<T, E>,
) -> Result<Option<T>, StorageError> {
    let Some(value) = storage.load(key)? else {
        return Ok(None);
    };
    match parse(&value) {
        Ok(parsed) => Ok(Some(parsed)),
        Err(error) => {
            set_aside(storage, key, &value, &error);
            Ok(None)
        }
    }
}

/// As [`read_or_set_aside`], for a value in JSON.
///
/// # Errors
/// As for [`read_or_set_aside`].
pub fn read_json<T: DeserializeOwned>(
    storage: &dyn Storage,
    key: &Key,
) -> Result<Option<T>, StorageError> {
    read_or_set_aside(storage, key, |value| parse_json(value))
}

/// Parses a value in JSON. The error does not quote the value, which may be a key.
///
/// # Errors
/// If it is not JSON, or not of this type.
pub fn parse_json<T: DeserializeOwned>(value: &[u8]) -> Result<T, String> {
    if value.iter().all(u8::is_ascii_whitespace) {
        return Err("the file is empty".to_owned());
    }
    serde_json::from_slice(value).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        format!("its JSON is not as expected at line {line}, column {column}")
    })
}

/// Sets aside the damaged `value` of `key`, unless it has been replaced meanwhile, and reports it.
/// Returns where it is kept, for people; `None` if it cannot be moved, and stays.
pub fn set_aside(
    storage: &dyn Storage,
    key: &Key,
    value: &[u8],
    reason: &dyn Display,
) -> Option<String> {
    let path = storage.place(key);
    match try_set_aside(storage, key, value) {
        Ok(Some(aside)) => {
            tracing::error!(%path, %reason, %aside, "a stored file is damaged and was set aside");
            Some(aside)
        }
        // Another process was faster.
        Ok(None) => None,
        Err(error) => {
            tracing::error!(
                %path,
                %reason,
                %error,
                "a stored file is damaged and cannot be set aside"
            );
            None
        }
    }
}

/// Returns true if a value of `key` has been set aside.
///
/// # Errors
/// If the storage cannot be read.
pub fn is_aside(storage: &dyn Storage, key: &Key) -> Result<bool, StorageError> {
    storage.exists(&key.aside(1))
}

fn try_set_aside(
    storage: &dyn Storage,
    key: &Key,
    value: &[u8],
) -> Result<Option<String>, StorageError> {
    let mut aside: Option<(UnixTime, Key)> = None;
    for number in 1..=KEPT {
        let place = key.aside(number);
        let Some(there) = storage.stat(&place)? else {
            aside = Some((UnixTime::MIN, place));
            break;
        };
        if aside
            .as_ref()
            .is_none_or(|(oldest, _)| there.modified < *oldest)
        {
            aside = Some((there.modified, place));
        }
    }
    let Some((_, aside)) = aside else {
        return Ok(None);
    };
    let present = storage.load(key)?;
    if present.is_none_or(|present| *present != *value) {
        return Ok(None);
    }
    storage.rename(key, &aside)?;
    Ok(Some(storage.place(&aside)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::{FileStorage, MemoryStorage};

    fn key(text: &str) -> Key {
        text.parse().expect("a key")
    }

    #[test]
    fn a_damaged_value_is_kept_beside_its_place_and_listed_no_more() {
        let directory = tempfile::tempdir().expect("a directory");
        let stores: [&dyn Storage; 2] = [
            &MemoryStorage::default(),
            &FileStorage::new(directory.path().join("data")),
        ];
        for storage in stores {
            let (damaged, other) = (key("retry/a.json"), key("retry/a.damaged-1.test.json"));
            storage.store(&other, b"[2]").expect("writable");
            for number in 0..KEPT + 2 {
                let value = format!("[{number}");
                storage.store(&damaged, value.as_bytes()).expect("writable");
                let read = read_json::<Vec<u32>>(storage, &damaged).expect("readable");
                assert_eq!(read, None);
                assert!(!storage.exists(&damaged).expect("readable"));
                assert_eq!(
                    storage.list(&key("retry")).expect("readable"),
                    std::slice::from_ref(&other)
                );
            }
            let kept: Vec<_> = (1..=KEPT + 2)
                .filter_map(|number| storage.load(&damaged.aside(number)).expect("readable"))
                .collect();
            assert_eq!(kept.len(), KEPT as usize, "no more than so many are kept");
            storage.store(&damaged, b"[1, 2]").expect("writable");
            let read = read_json::<Vec<u32>>(storage, &damaged).expect("readable");
            assert_eq!(read, Some(vec![1, 2]));
        }
    }

    #[test]
    fn what_was_replaced_meanwhile_is_left_alone() {
        let storage = MemoryStorage::default();
        storage.store(&key("a.json"), b"[1]").expect("writable");
        assert_eq!(set_aside(&storage, &key("a.json"), b"[", &"torn"), None);
        assert!(storage.exists(&key("a.json")).expect("readable"));
    }

    #[test]
    fn the_reason_shows_nothing_of_the_value() {
        let secret = br#"{ "key": "c2VjcmV0"#;
        let reason = parse_json::<Vec<u32>>(secret).expect_err("damaged");
        assert!(!reason.contains("c2VjcmV0"), "{reason}");
        assert_eq!(
            parse_json::<u32>(b" \n"),
            Err("the file is empty".to_owned())
        );
    }
}
