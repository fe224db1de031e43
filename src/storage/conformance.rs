//! The contract of [`Storage`], as a suite of tests for any backend.
//!
//! It is there for the tests of other programs with the feature `conformance`:
//!
//! ```toml
//! [dev-dependencies]
//! snigate = { version = "0.1", features = ["conformance"] }
//! ```
//!
//! A test hands [`assert_conformance`] two handles on one empty storage, as two processes would have
//! them, and a way to take a lease from its holder:
//!
//! ```
//! use std::sync::Arc;
//!
//! use snigate::storage::MemoryStorage;
//! use snigate::storage::conformance::{Backend, assert_conformance};
//!
//! let storage = MemoryStorage::default();
//! assert_conformance(&Backend {
//!     one: Arc::new(storage.clone()),
//!     other: Arc::new(storage.clone()),
//!     usurp: &|key| storage.revoke(key),
//! });
//! ```

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a suite of tests fails by a panic"
)]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use super::{Key, Storage, StorageError, Watch};
use crate::clock::UnixTime;

/// A backend to be tested. Its storage is empty at first; what the suite leaves there is unspecified.
pub struct Backend<'a> {
    /// The storage, as one process sees it.
    pub one: Arc<dyn Storage>,
    /// The same storage, as another process sees it: with a connection and caches of its own, if the
    /// backend has any.
    pub other: Arc<dyn Storage>,
    /// Takes the lease on a key from its holder, as if the holder had been stuck until its lease
    /// expired, and gives it back. On return the key is free.
    pub usurp: &'a dyn Fn(&Key),
}

/// How long to wait for a notification that must not come.
const SETTLED: Duration = Duration::from_millis(50);

/// Holds `backend` to the contract of [`Storage`]. Takes a few seconds, and starts threads.
///
/// # Panics
/// Where the backend breaks the contract, with what it did.
pub fn assert_conformance(backend: &Backend<'_>) {
    for one in [
        values,
        keys,
        lists,
        set_aside,
        stores_at_once,
        leases,
        one_holder_at_a_time,
        tokens_rise,
        lost_leases,
        watches,
    ] {
        one(backend);
    }
}

fn key(text: &str) -> Key {
    text.parse().expect("a key")
}

fn load(storage: &Arc<dyn Storage>, key: &Key) -> Option<Vec<u8>> {
    let value = storage.load(key).expect("readable");
    value.map(|value| value.to_vec())
}

fn values(Backend { one, other, .. }: &Backend<'_>) {
    let key = key("values/a");
    assert_eq!(load(one, &key), None);
    assert!(!one.exists(&key).expect("readable"));
    assert_eq!(one.stat(&key).expect("readable"), None);
    one.delete(&key).expect("nothing to delete is well");

    let large: Vec<u8> = (0..1 << 20).map(|at: u32| (at % 251) as u8).collect();
    for value in [&b"1"[..], b"", b"\0\xff\n", &large, b"short again"] {
        one.store(&key, value).expect("writable");
        assert_eq!(load(one, &key).as_deref(), Some(value));
        assert_eq!(load(other, &key).as_deref(), Some(value), "at once");
        assert!(other.exists(&key).expect("readable"));
        let stat = other.stat(&key).expect("readable").expect("there");
        assert_eq!(stat.size, value.len() as u64);
        assert!(
            stat.modified > UnixTime::from_secs(1_700_000_000),
            "a time: {}",
            stat.modified
        );
    }
    let moved = self::key("values/b");
    one.store(&moved, b"overwritten").expect("writable");
    other.rename(&key, &moved).expect("writable");
    assert_eq!(load(one, &key), None);
    assert_eq!(load(one, &moved).as_deref(), Some(&b"short again"[..]));
    one.rename(&key, &moved).expect("nothing to rename is well");
    other.delete(&moved).expect("writable");
    assert_eq!(load(one, &moved), None);
    assert!(!one.exists(&moved).expect("readable"));
}

fn keys(Backend { one, other, .. }: &Backend<'_>) {
    let long = "a".repeat(200);
    let texts = [
        "k".to_owned(),
        "keys/*.a.example/meta.json".to_owned(),
        "keys/A-b_C.9".to_owned(),
        "keys/x.lock".to_owned(),
        "keys/x/y/z/1/2/3/4/5".to_owned(),
        format!("keys/{long}/{long}"),
    ];
    for text in &texts {
        one.store(&key(text), text.as_bytes()).expect("writable");
    }
    for text in &texts {
        assert_eq!(load(other, &key(text)).as_deref(), Some(text.as_bytes()));
    }
    // What only leads to values, or leads on from one, has none.
    for text in ["keys", "keys/x/y", "k/a", "keys/x.lock/a"] {
        let key = key(text);
        assert_eq!(load(one, &key), None, "{text}");
        assert_eq!(one.stat(&key).expect("readable"), None, "{text}");
        one.delete(&key).expect("nothing to delete is well");
    }
    assert_eq!(one.list(&key("keys")).expect("readable").len(), 5);
    for text in &texts {
        one.delete(&key(text)).expect("writable");
    }
    assert_eq!(one.list(&key("keys")).expect("readable"), []);
}

fn lists(Backend { one, other, .. }: &Backend<'_>) {
    let list = |prefix| other.list(&key(prefix)).expect("readable");
    assert_eq!(list("lists"), []);
    let stored = ["lists/b", "lists/a/2", "lists/a/1", "lists/a-1", "listsb"].map(key);
    for key in &stored {
        one.store(key, b"1").expect("writable");
    }
    assert_eq!(
        list("lists"),
        ["lists/a-1", "lists/a/1", "lists/a/2", "lists/b"].map(key)
    );
    assert_eq!(list("lists/a"), ["lists/a/1", "lists/a/2"].map(key));
    assert_eq!(list("lists/b"), [], "a key is not under itself");
    one.delete(&key("lists/a/1")).expect("writable");
    assert_eq!(list("lists/a"), ["lists/a/2"].map(key));
}

fn set_aside(Backend { one, other, .. }: &Backend<'_>) {
    let (value, aside) = (key("aside/a.json"), key("aside/a.json.damaged-1"));
    let similar = key("aside/a.damaged-1.json");
    for key in [&value, &aside, &similar] {
        one.store(key, b"1").expect("writable");
    }
    assert_eq!(load(other, &aside).as_deref(), Some(&b"1"[..]));
    assert_eq!(
        other.list(&key("aside")).expect("readable"),
        [similar, value],
        "values that were set aside are not listed"
    );
}

fn stores_at_once(Backend { one, other, .. }: &Backend<'_>) {
    let shared = key("stores_at_once/shared");
    one.store(&shared, &[0; 5_000]).expect("writable");
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let reader = scope.spawn(|| {
            while !is_over.load(Ordering::SeqCst) {
                let value = load(other, &shared).expect("always there");
                assert_eq!(value.len(), 5_000);
                assert!(value.iter().all(|byte| *byte == value[0]), "whole");
                assert!(other.exists(&shared).expect("readable"));
            }
        });
        let writers: Vec<_> = (1..5)
            .map(|number: u8| {
                let (storage, shared) = (if number < 3 { one } else { other }, &shared);
                scope.spawn(move || {
                    for round in 0..8 {
                        storage.store(shared, &[number; 5_000]).expect("writable");
                        let own = key(&format!("stores_at_once/{number}/{round}"));
                        storage.store(&own, &[number]).expect("writable");
                    }
                })
            })
            .collect();
        let written: Vec<_> = writers.into_iter().map(|writer| writer.join()).collect();
        is_over.store(true, Ordering::SeqCst);
        reader.join().expect("whole values");
        assert!(written.iter().all(Result::is_ok));
    });
    let keys = one.list(&key("stores_at_once")).expect("readable");
    assert_eq!(keys.len(), 1 + 4 * 8);
}

fn leases(Backend { one, other, .. }: &Backend<'_>) {
    let locked = key("leases/a");
    let lease = one.lock(&locked).expect("a lease");
    assert!(lease.is_held());
    for storage in [one, other] {
        assert!(storage.try_lock(&locked).expect("writable").is_none());
    }
    let more = ["leases", "leases/b", "leases/a/b"].map(key);
    let more = more.map(|key| other.try_lock(&key).expect("writable").expect("another"));
    assert!(more.iter().all(|lease| lease.is_held()));
    // A lock is no value, and does not stand in the way of one.
    assert_eq!(load(one, &locked), None);
    assert_eq!(one.list(&key("leases")).expect("readable"), []);
    other
        .store(&locked, b"no need of a lease")
        .expect("writable");
    one.store_under(&lease, &locked, b"1").expect("held");
    one.store_under(&lease, &key("leases/other"), b"2")
        .expect("held");
    assert_eq!(load(other, &locked).as_deref(), Some(&b"1"[..]));

    drop(lease);
    let lease = other.try_lock(&locked).expect("writable").expect("free");
    drop((lease, more));
    let long = format!("leases/{}/{}", "a".repeat(200), "b".repeat(200));
    assert!(one.lock(&key(&long)).expect("a lease").is_held());
}

fn one_holder_at_a_time(Backend { one, other, .. }: &Backend<'_>) {
    let (locked, value) = (key("one/lock"), key("one/value"));
    let inside = AtomicUsize::new(0);
    thread::scope(|scope| {
        for storage in [one, other, one, other] {
            let (locked, value, inside) = (&locked, &value, &inside);
            scope.spawn(move || {
                for _ in 0..5 {
                    let lease = storage.lock(locked).expect("a lease");
                    assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "alone");
                    let count = load(storage, value).map_or(0, |value| value[0]);
                    storage
                        .store_under(&lease, value, &[count + 1])
                        .expect("held");
                    inside.fetch_sub(1, Ordering::SeqCst);
                }
            });
        }
    });
    assert_eq!(load(one, &value), Some(vec![20]), "no update is lost");
}

fn tokens_rise(Backend { one, other, usurp }: &Backend<'_>) {
    let locked = key("tokens/a");
    let mut tokens = Vec::new();
    for _ in 0..3 {
        for storage in [one, other] {
            let lease = storage.lock(&locked).expect("a lease");
            tokens.push(lease.token());
            let unrelated = storage.lock(&key("tokens/b")).expect("a lease");
            drop(lease);
            drop(unrelated);
        }
        let lease = one.lock(&locked).expect("a lease");
        usurp(&locked);
        tokens.push(lease.token());
    }
    assert!(
        !tokens.contains(&0),
        "0 stands for a lease that is not stored"
    );
    let rising: BTreeSet<u64> = tokens.iter().copied().collect();
    assert_eq!(rising.into_iter().collect::<Vec<_>>(), tokens);
}

fn lost_leases(Backend { one, other, usurp }: &Backend<'_>) {
    let (locked, value) = (key("lost/lock"), key("lost/value"));
    let lease = one.lock(&locked).expect("a lease");
    let unrelated = one.lock(&key("lost/unrelated")).expect("a lease");
    one.store_under(&lease, &value, b"early").expect("held");
    usurp(&locked);
    assert!(!lease.is_held());
    assert!(unrelated.is_held());
    let late = |value_: &[u8]| {
        let error = one.store_under(&lease, &value, value_);
        let error = error.expect_err("the lease is lost");
        assert!(matches!(error, StorageError::Lost { .. }), "{error}");
    };
    late(b"late");
    assert_eq!(load(other, &value).as_deref(), Some(&b"early"[..]));

    let taker = other.lock(&locked).expect("a lease");
    assert!(taker.token() > lease.token());
    late(b"late");
    other.store_under(&taker, &value, b"taker").expect("held");
    late(b"later");
    assert_eq!(load(one, &value).as_deref(), Some(&b"taker"[..]));
    // To give back what is lost takes nothing from the taker.
    drop(lease);
    assert!(taker.is_held());
    assert!(one.try_lock(&locked).expect("writable").is_none());
}

fn watches(Backend { one, other, .. }: &Backend<'_>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime");
    let told = |watch: &mut Watch| {
        let told = async { tokio::time::timeout(Duration::from_secs(20), watch.changed()).await };
        runtime.block_on(told).expect("told in time");
    };
    // Takes notifications without cause.
    let settle = |watch: &mut Watch| {
        let is_told = |watch: &mut Watch| {
            let told = async { tokio::time::timeout(SETTLED, watch.changed()).await.is_ok() };
            runtime.block_on(told)
        };
        while is_told(watch) {}
    };
    let prefix = key("watches/deep/down");
    let mut watch = other.watch(&prefix).expect("watched");
    let mut second = one.watch(&prefix).expect("watched");
    let below = key("watches/deep/down/a/b");
    one.store(&below, b"1").expect("writable");
    told(&mut watch);
    told(&mut second);
    assert_eq!(
        other.list(&prefix).expect("readable"),
        std::slice::from_ref(&below)
    );
    settle(&mut watch);
    one.store(&below, b"2").expect("writable");
    told(&mut watch);
    settle(&mut watch);
    let lease = one.lock(&key("watches/lock")).expect("a lease");
    one.store_under(&lease, &below, b"3").expect("held");
    told(&mut watch);
    settle(&mut watch);
    one.delete(&below).expect("writable");
    told(&mut watch);
    settle(&mut watch);
    for number in 0..20 {
        let key = key(&format!("watches/deep/down/many/{number}"));
        one.store(&key, b"1").expect("writable");
    }
    // Whoever looks after each notification misses none.
    while other.list(&prefix).expect("readable").len() < 20 {
        told(&mut watch);
    }
    drop(watch);
    one.delete(&key("watches/deep/down/many/1"))
        .expect("writable");
    told(&mut second);
}
