use std::fs::{FileTimes, OpenOptions, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use tempfile::TempDir;

use super::*;
use crate::storage::conformance::{Backend, assert_conformance};

fn key(text: &str) -> Key {
    text.parse().expect("a key")
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("there").mode() & 0o7777
}

fn storage() -> (TempDir, PathBuf, FileStorage) {
    let directory = tempfile::tempdir().expect("a directory");
    let root = directory.path().join("some/data");
    let storage = FileStorage::new(&root);
    (directory, root, storage)
}

/// Everything below `path`, hidden or not.
fn all(path: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(path).into_iter().flatten() {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(all(&path));
        }
        found.push(path);
    }
    found
}

/// Leases whose holders show no sign of life after the first.
const STUCK: LeaseTerms = LeaseTerms {
    lasts: Duration::from_millis(1),
    heartbeat: Duration::from_secs(3600),
};

/// Takes over `key` from a holder without a heartbeat.
fn usurp(root: &Path, key: &Key) -> Lease {
    let storage = FileStorage::with_terms(root, STUCK);
    loop {
        if let Some(lease) = storage.try_lock(key).expect("writable") {
            return lease;
        }
    }
}

#[test]
fn keeps_to_the_contract() {
    let (_directory, root, storage) = storage();
    assert_conformance(&Backend {
        one: Arc::new(storage),
        other: Arc::new(FileStorage::new(&root)),
        usurp: &|key| drop(usurp(&root, key)),
    });
    for path in all(&root.join(".locks")) {
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .expect("a name");
        let is_kept = name == "guard" || path.is_dir() && name.len() == 2;
        assert!(is_kept, "locks leave nothing else: {}", path.display());
    }
    assert!(all(&root.join(".new")).is_empty(), "nor do stores");
}

#[test]
fn modes_are_tight_and_loose_ones_are_mended() {
    let (_directory, root, storage) = storage();
    let key = key("local_ca/root.key");
    storage.store(&key, b"secret").expect("writable");
    let (file, inner) = (root.join("local_ca/root.key"), root.join("local_ca"));
    assert_eq!(
        (mode(&root), mode(&inner), mode(&file)),
        (0o700, 0o700, 0o600)
    );
    // The root may be shared with others: it is left as it is.
    for path in [&root, &inner, &file] {
        fs::set_permissions(path, Permissions::from_mode(0o755)).expect("ours");
    }
    storage.load(&key).expect("readable");
    assert_eq!(
        (mode(&root), mode(&inner), mode(&file)),
        (0o755, 0o700, 0o600)
    );
    fs::set_permissions(&inner, Permissions::from_mode(0o755)).expect("ours");
    storage.store(&key, b"secret").expect("writable");
    assert_eq!(mode(&inner), 0o700);
    let _lease = storage.lock(&key).expect("a lease");
    for path in all(&root) {
        let wanted = if path.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(mode(&path), wanted, "{}", path.display());
    }
}

#[test]
fn errors_name_the_path_and_what_to_do() {
    let (_directory, root, storage) = storage();
    storage.store(&key("a"), b"a file").expect("writable");
    let error = storage.store(&key("a/b"), b"1").expect_err("no directory");
    let text = error.to_string();
    assert!(text.contains(&format!("{}/a", root.display())), "{text}");
    assert!(text.contains("move it away"), "{text}");
    assert_eq!(all(&root.join(".new")), Vec::<PathBuf>::new());
    let full = FileStorage::new("/dev/full/data");
    assert!(full.store(&key("a"), b"1").is_err());
    assert!(full.try_lock(&key("a")).is_err());
}

#[test]
fn what_killed_writers_left_is_swept_and_what_living_ones_write_is_not() {
    let (_directory, root, storage) = storage();
    storage.store(&key("a"), b"1").expect("writable");
    let make = |name: &str, is_old: bool| {
        let path = root.join(".new").join(name);
        let file = File::create(&path).expect("written");
        if is_old {
            let hour_ago = file.metadata().and_then(|metadata| metadata.modified());
            let hour_ago = hour_ago.expect("a time") - Duration::from_secs(3600);
            file.set_times(FileTimes::new().set_modified(hour_ago))
                .expect("set");
        }
        (path, file)
    };
    let ((left, _), (young, _)) = (make("left", true), make("young", false));
    let (written, file) = make("written", true);
    file.try_lock().expect("free");
    storage.store(&key("a"), b"2").expect("writable");
    assert!(left.exists(), "swept when first used only");
    FileStorage::new(&root)
        .store(&key("a"), b"3")
        .expect("writable");
    assert_eq!(
        (left.exists(), young.exists(), written.exists()),
        (false, true, true)
    );
}

#[test]
fn directories_that_are_removed_are_made_again() {
    let (_directory, root, storage) = storage();
    for path in [".new", "b", ".locks"] {
        storage.store(&key("b/c"), b"1").expect("writable");
        let lease = storage.lock(&key("b")).expect("a lease");
        fs::remove_dir_all(root.join(path)).expect("removed");
        if path != ".new" && path != "b" {
            assert!(!lease.is_held(), "{path}");
        }
        drop(lease);
        storage.store(&key("b/c"), b"2").expect("writable");
        let lease = storage.lock(&key("b")).expect("a lease");
        storage
            .store_under(&lease, &key("b/d"), b"3")
            .expect("held");
        assert!(storage.exists(&key("b/c")).expect("readable"));
    }
}

#[test]
fn a_directory_that_was_in_use_is_not_taken_for_an_empty_one() {
    let (directory, root, storage) = storage();
    let (a, b) = (key("accounts/a"), key("accounts/b"));
    assert_eq!(storage.load(&a).expect("the first start"), None);
    assert_eq!(storage.list(&key("accounts")).expect("the first start"), []);
    storage.store(&a, b"1").expect("writable");
    let lease = storage.lock(&b).expect("a lease");
    let away = directory.path().join("away");
    let is_gone = |error: Option<StorageError>| {
        let error = error.expect("it is gone");
        assert!(matches!(error, StorageError::Gone { .. }), "{error}");
    };
    // As if it were unmounted, and the directory below is empty.
    for is_made in [false, true] {
        fs::rename(&root, &away).expect("ours");
        if is_made {
            fs::create_dir(&root).expect("ours");
        }
        is_gone(storage.load(&a).err());
        is_gone(storage.stat(&a).err());
        is_gone(storage.list(&key("accounts")).err());
        is_gone(storage.delete(&a).err());
        is_gone(storage.store(&b, b"2").err());
        is_gone(storage.try_lock(&a).err());
        is_gone(storage.store_under(&lease, &b, b"2").err());
        assert!(all(&root).is_empty(), "nothing is made there");
        if is_made {
            fs::remove_dir(&root).expect("empty");
        }
        fs::rename(&away, &root).expect("ours");
        assert_eq!(storage.load(&b).expect("back"), None);
    }
    storage.store_under(&lease, &b, b"2").expect("held still");
    // A new process starts anew.
    fs::remove_dir_all(&root).expect("ours");
    let again = FileStorage::new(&root);
    assert_eq!(again.load(&a).expect("the first start"), None);
    again.store(&a, b"1").expect("writable");
}

#[test]
fn what_is_no_directory_is_not_taken_for_an_empty_one() {
    let (directory, root, _) = storage();
    let a = key("accounts/a");
    fs::create_dir(directory.path().join("some")).expect("ours");
    fs::write(&root, "a file").expect("ours");
    assert!(FileStorage::new(&root).load(&a).is_err());
    assert!(FileStorage::new(&root).list(&key("accounts")).is_err());
    fs::remove_file(&root).expect("ours");
    // A link to a place where nothing is mounted yet.
    std::os::unix::fs::symlink(directory.path().join("mount/data"), &root).expect("ours");
    assert!(FileStorage::new(&root).load(&a).is_err());
    assert!(FileStorage::new(&root).store(&a, b"1").is_err());
    fs::create_dir_all(directory.path().join("mount/data")).expect("ours");
    assert_eq!(FileStorage::new(&root).load(&a).expect("there"), None);
}

#[test]
fn leases_of_killed_holders_are_swept() {
    let (_directory, root, storage) = storage();
    // As left by a killed process: the file exists, but not the lock on it.
    let part = root.join(".locks/00");
    for lease in ["00.1", "00.2", "01.3"] {
        fs::create_dir_all(part.join(lease)).expect("made");
        fs::write(part.join(lease).join("holder"), "0").expect("written");
        fs::write(part.join(lease).join("half written"), "0").expect("written");
    }
    fs::create_dir_all(part.join("02.4")).expect("made");
    let _lease = storage.lock(&key("a")).expect("a lease");
    assert_eq!(
        all(&part),
        [part.join("guard")],
        "swept with the first lease"
    );
}

#[test]
fn heartbeats_keep_a_lease() {
    let (_directory, root, _) = storage();
    let terms = LeaseTerms {
        lasts: Duration::from_secs(3600),
        heartbeat: Duration::from_millis(1),
    };
    let storage = FileStorage::with_terms(&root, terms);
    let lease = storage.lock(&key("a")).expect("a lease");
    let mut seen = std::collections::BTreeSet::new();
    while seen.len() < 5 {
        let holder = all(&root.join(".locks"))
            .into_iter()
            .find(|path| path.ends_with("holder"));
        seen.insert(fs::read(holder.expect("a holder")).expect("readable"));
    }
    assert!(lease.is_held());
    // The thread ends with the storage.
    let locks = Arc::downgrade(&storage.shared.locks);
    drop((lease, storage));
    while locks.strong_count() > 0 {
        std::thread::yield_now();
    }
}

#[test]
fn a_store_that_was_begun_under_a_lost_lease_changes_nothing() {
    let (_directory, root, storage) = storage();
    storage.store(&key("a"), b"old").expect("writable");
    let lease = storage.lock(&key("lock")).expect("a lease");
    // Like one that is stuck just before the renaming.
    let holder = all(&root.join(".locks"))
        .into_iter()
        .find(|path| path.ends_with("holder"))
        .expect("a holder");
    let mut temporary =
        tempfile::NamedTempFile::new_in(holder.parent().expect("a lease")).expect("made");
    io::Write::write_all(&mut temporary, b"late").expect("written");
    let taker = usurp(&root, &key("lock"));
    assert!(temporary.persist(root.join("a")).is_err());
    storage
        .store_under(&taker, &key("a"), b"new")
        .expect("held");
    assert!(matches!(
        storage.store_under(&lease, &key("a"), b"late"),
        Err(StorageError::Lost { .. })
    ));
    assert_eq!(
        **storage.load(&key("a")).expect("readable").expect("there"),
        *b"new"
    );
}

#[test]
fn values_on_another_file_system_are_written_beside() {
    let (_directory, root, storage) = storage();
    // Memory is one file system, the test's directory usually another; if not, the path is shorter.
    let other = tempfile::tempdir_in("/dev/shm").expect("a directory");
    fs::create_dir_all(&root).expect("made");
    std::os::unix::fs::symlink(other.path(), root.join("apart")).expect("linked");
    let lease = storage.lock(&key("lock")).expect("a lease");
    for value in [&b"1"[..], b"2", b"3"] {
        storage.store(&key("apart/a"), value).expect("writable");
        storage
            .store_under(&lease, &key("apart/b"), value)
            .expect("held");
        for name in ["a", "b"] {
            assert_eq!(fs::read(other.path().join(name)).expect("there"), value);
        }
    }
    assert_eq!(
        storage.list(&key("apart")).expect("readable"),
        [key("apart/a"), key("apart/b")]
    );
    drop(usurp_where_stuck(&root, lease, &storage));
}

/// Loses `lease` on `lock` and shows that it is useless on another file system too.
fn usurp_where_stuck(root: &Path, lease: Lease, storage: &FileStorage) -> Lease {
    let taker = usurp(root, &key("lock"));
    assert!(matches!(
        storage.store_under(&lease, &key("apart/b"), b"late"),
        Err(StorageError::Lost { .. })
    ));
    taker
}

#[test]
fn a_guard_that_is_held_by_one_who_is_stopped_means_busy() {
    let (_directory, root, storage) = storage();
    drop(storage.lock(&key("a")).expect("a lease"));
    let guard = all(&root.join(".locks"))
        .into_iter()
        .next()
        .expect("a guard");
    let guard = OpenOptions::new().write(true).open(guard).expect("there");
    guard.try_lock().expect("free");
    assert!(storage.try_lock(&key("a")).expect("no error").is_none());
    drop(guard);
    assert!(storage.try_lock(&key("a")).expect("writable").is_some());
}
