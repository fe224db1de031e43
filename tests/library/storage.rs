//! The storage in files among processes that are killed and stopped while they write and hold locks.
//!
//! The other processes are this program itself, running the test [`process::child`] with a task.

mod process;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use openssl::sha::sha256;
use snigate::storage::{FileStorage, Key, LeaseTerms, Storage};

use process::Other;

/// How long each of the long tests takes.
const SPAN: Duration = Duration::from_secs(6);

/// Leases that are lost soon.
const TERMS: LeaseTerms = LeaseTerms {
    lasts: Duration::from_millis(400),
    heartbeat: Duration::from_millis(50),
};

/// How long anything is waited for.
const PATIENCE: Duration = Duration::from_secs(30);

const CERTIFICATES: [&str; 2] = [
    "certificates/ca/a.example.pem",
    "certificates/ca/b.example.pem",
];

/// A value of the size of a chain with its key, which shows whether it is whole.
fn certificate(generation: u64) -> Vec<u8> {
    let line = format!("{generation:063}\n");
    let mut value = line
        .repeat(50 + (generation % 50) as usize * 4)
        .into_bytes();
    let sum = sha256(&value);
    value.extend(sum);
    value
}

/// The generation of a certificate in storage, which has to be whole.
fn generation(storage: &FileStorage, key: &Key) -> Option<u64> {
    let value = storage.load(key).expect("readable")?;
    let (body, sum) = value.split_last_chunk::<32>().expect("a whole value");
    assert_eq!(sha256(body), *sum, "{key} is torn");
    let line = body.get(..63).expect("a line");
    let text = std::str::from_utf8(line).expect("digits");
    Some(text.parse().expect("a number"))
}

/// The count in storage, and the token of the lease under which it was stored.
fn counted(storage: &FileStorage) -> (u64, u64) {
    let Some(value) = storage.load(&key("count")).expect("readable") else {
        return (0, 0);
    };
    numbers(std::str::from_utf8(&value).expect("text"))
}

fn numbers(text: &str) -> (u64, u64) {
    let (count, token) = text.split_once(' ').expect("two numbers");
    (
        count.parse().expect("a number"),
        token.parse().expect("a number"),
    )
}

fn key(text: &str) -> Key {
    text.parse().expect("a key")
}

#[test]
fn killed_writers_leave_the_old_or_the_new() {
    let directory = tempfile::tempdir().expect("a directory");
    let root = directory.path().join("data");
    let storage = FileStorage::with_terms(&root, TERMS);
    let keys = CERTIFICATES.map(key);
    for key in &keys {
        storage.store(key, &certificate(0)).expect("writable");
    }
    let is_over = AtomicBool::new(false);
    let start = Instant::now();
    let mut last = [0, 0];
    let mut kills = 0;
    thread::scope(|scope| {
        // Someone who reads all the while, as the gateway does.
        let reader = scope.spawn(|| {
            while !is_over.load(Ordering::SeqCst) {
                for key in &keys {
                    generation(&storage, key).expect("never missing");
                }
                thread::sleep(Duration::from_micros(200));
            }
        });
        while start.elapsed() < SPAN && !reader.is_finished() {
            let other = Other::start("replace", &root);
            other.wait_for("stored ");
            thread::sleep(Duration::from_micros(fastrand::u64(0..15_000)));
            let said = other.kill();
            kills += 1;
            // At once: no wait for a lease to run out.
            let lease = storage.try_lock(&key("locks/a")).expect("writable");
            drop(lease.expect("the lock of a killed process is free"));
            let told = said.iter().filter_map(|line| line.strip_prefix("stored "));
            let told: u64 = told
                .map(|line| line.parse().expect("a number"))
                .max()
                .unwrap_or(0);
            for (last, key) in last.iter_mut().zip(&keys) {
                let now = generation(&storage, key).expect("never missing");
                assert!(
                    now >= *last && now >= told,
                    "{key}: {now} after {last}, {told}"
                );
                *last = now;
            }
        }
        is_over.store(true, Ordering::SeqCst);
        reader.join().expect("whole values");
    });
    assert!(kills >= 5, "killed {kills} times");
    assert_eq!(
        storage.list(&key("certificates")).expect("readable"),
        keys,
        "nothing else is there"
    );

    // What the killed have left is gone after the next start once it is old.
    let hour_ago = fs::FileTimes::new().set_modified(
        fs::metadata(&root)
            .and_then(|metadata| metadata.modified())
            .expect("a time")
            - Duration::from_secs(3600),
    );
    let left = || fs::read_dir(root.join(".new")).expect("there").flatten();
    let count = left().count();
    assert!(count <= kills, "{count} after {kills} kills");
    for entry in left() {
        let file = fs::File::open(entry.path()).expect("there");
        file.set_times(hour_ago).expect("set");
    }
    FileStorage::new(&root)
        .store(&keys[0], b"1")
        .expect("writable");
    assert_eq!(left().count(), 0);
    assert_eq!(leases(&root), 0);
}

/// How many keys are locked, by the dead as well.
fn leases(root: &Path) -> usize {
    let parts = fs::read_dir(root.join(".locks")).expect("there").flatten();
    parts
        .flat_map(|part| fs::read_dir(part.path()).expect("there").flatten())
        .filter(|entry| entry.path().is_dir())
        .count()
}

#[test]
fn two_never_store_out_of_order() {
    let directory = tempfile::tempdir().expect("a directory");
    let root = directory.path().join("data");
    let mut others = [(); 2].map(|()| Other::start("count", &root));
    let mut said = Vec::new();
    let (mut kills, mut stops) = (0, 0);
    let start = Instant::now();
    while start.elapsed() < SPAN {
        for turn in 0..2 {
            said.extend(others[turn].lines.try_iter());
            thread::sleep(Duration::from_micros(fastrand::u64(0..40_000)));
            if fastrand::u8(0..4) == 0 {
                let other = std::mem::replace(&mut others[turn], Other::start("count", &root));
                said.extend(other.kill());
                kills += 1;
            } else {
                // Stopped for longer than its lease lasts, if it has one. If it was stopped while it
                // took or gave back one, the other may have to wait for it to continue.
                others[turn].signal(Signal::SIGSTOP);
                let until = Instant::now() + TERMS.lasts * 2;
                said.extend(others[1 - turn].lines.try_iter());
                while let Ok(line) = {
                    let left = until.saturating_duration_since(Instant::now());
                    others[1 - turn].lines.recv_timeout(left)
                } {
                    said.push(line);
                }
                others[turn].signal(Signal::SIGCONT);
                stops += 1;
            }
        }
    }
    for other in others {
        said.extend(other.kill());
    }
    let mut stored = BTreeMap::new();
    for line in said.iter().filter_map(|line| line.strip_prefix("stored ")) {
        let (count, token) = numbers(line);
        assert_eq!(stored.insert(count, token), None, "{count} stored twice");
    }
    let tokens: Vec<u64> = stored.values().copied().collect();
    assert!(tokens.is_sorted(), "a later count is under a later lease");
    let storage = FileStorage::with_terms(&root, TERMS);
    let (count, token) = counted(&storage);
    assert!(tokens.last().is_some_and(|last| *last <= token));
    // Each has been told but for those whose process was killed before it could tell.
    let missing = count - stored.len() as u64;
    assert!(
        missing <= kills + 2,
        "{missing} of {count} after {kills} kills"
    );
    let lost = said.iter().filter(|line| *line == "lost").count();
    assert!(lost > 0, "{stops} stops, and no lease was lost");
    let lease = storage.lock(&key("locks/count")).expect("free");
    assert!(lease.token() > token);
}

#[test]
fn a_lock_is_free_when_its_holder_is_gone_and_taken_from_one_that_is_stuck() {
    let directory = tempfile::tempdir().expect("a directory");
    let root = directory.path().join("data");
    let storage = FileStorage::with_terms(&root, TERMS);
    let lock = key("locks/a");

    let other = Other::start("hold", &root);
    let first: u64 = other.wait_for("holds ").parse().expect("a number");
    let start = Instant::now();
    while start.elapsed() < TERMS.lasts * 3 {
        assert!(
            storage.try_lock(&lock).expect("writable").is_none(),
            "it lives"
        );
        thread::sleep(TERMS.heartbeat);
    }
    drop(other.kill());
    let lease = storage
        .try_lock(&lock)
        .expect("writable")
        .expect("free at once");
    assert!(lease.token() > first);
    drop(lease);

    let other = Other::start("hold", &root);
    let second: u64 = other.wait_for("holds ").parse().expect("a number");
    other.signal(Signal::SIGSTOP);
    let lease = storage.lock(&lock).expect("taken over");
    assert!(lease.token() > second);
    other.signal(Signal::SIGCONT);
    thread::sleep(TERMS.heartbeat * 2);
    assert!(
        lease.is_held(),
        "its heartbeat is not mistaken for another's"
    );
    assert_eq!(leases(&root), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_tells_of_other_processes() {
    let directory = tempfile::tempdir().expect("a directory");
    let root = directory.path().join("data");
    let storage = FileStorage::new(&root);
    let prefix = key("certificates");
    let mut watch = storage.watch(&prefix).expect("watched");
    let _other = Other::start("replace", &root);
    let told = async {
        while storage.list(&prefix).expect("readable").len() < CERTIFICATES.len() {
            watch.changed().await;
        }
    };
    tokio::time::timeout(PATIENCE, told).await.expect("told");
}
