use openssl::stack::Stack;
use openssl::x509::store::X509StoreBuilder;
use openssl::x509::verify::X509VerifyParam;
use openssl::x509::{X509, X509StoreContext};

use super::*;
use crate::certificate::KeyKind;
use crate::certificate::testing::NOW;
use crate::clock::ManualClock;
use crate::storage::{FileStorage, Key, MemoryStorage};

pub(crate) fn open(
    storage: &MemoryStorage,
    clock: &Arc<ManualClock>,
) -> Result<LocalCa, LocalCaError> {
    open_in(Arc::new(storage.clone()), clock)
}

fn open_in(storage: Arc<dyn Storage>, clock: &Arc<ManualClock>) -> Result<LocalCa, LocalCaError> {
    open_as("local", &["local"], storage, clock)
}

fn open_as(
    issuer: &str,
    locals: &[&str],
    storage: Arc<dyn Storage>,
    clock: &Arc<ManualClock>,
) -> Result<LocalCa, LocalCaError> {
    let loader = Arc::new(Loader::new().expect("a loader"));
    LocalCa::open(
        issuer.into(),
        locals,
        "Test CA",
        storage,
        clock.clone(),
        loader,
    )
}

fn load(storage: &MemoryStorage, name: &str) -> Option<Vec<u8>> {
    let value = storage.load(&key(name)).expect("readable");
    value.map(|value| value.to_vec())
}

fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::at(NOW))
}

fn patterns(names: &[&str]) -> Vec<Pattern> {
    names
        .iter()
        .map(|name| name.parse().expect("a pattern"))
        .collect()
}

fn key(text: &str) -> Key {
    text.parse().expect("a key")
}

/// Returns true if a client that trusts `root` accepts `certificate` for `host` at `now`.
fn is_trusted(certificate: &TlsCertificate, root: &str, host: &str, now: UnixTime) -> bool {
    let mut store = X509StoreBuilder::new().expect("a store");
    for root in X509::stack_from_pem(root.as_bytes()).expect("PEM") {
        store.add_cert(root).expect("a root");
    }
    let mut param = X509VerifyParam::new().expect("a parameter");
    param.set_time(now.as_secs());
    param.set_host(host).expect("a host");
    param
        .set_purpose(openssl::x509::X509PurposeId::SSL_SERVER)
        .expect("a purpose");
    store.set_param(&param).expect("a parameter");
    let pem = certificate.chain_pem().expect("PEM");
    let mut sent = X509::stack_from_pem(&pem).expect("PEM").into_iter();
    let leaf = sent.next().expect("a leaf");
    let mut chain = Stack::new().expect("a stack");
    for certificate in sent {
        chain.push(certificate).expect("pushed");
    }
    let mut context = X509StoreContext::new().expect("a context");
    context
        .init(&store.build(), &leaf, &chain, |context| {
            context.verify_cert()
        })
        .expect("verified")
}

#[test]
fn clients_that_trust_the_root_trust_the_leaves() {
    let clock = clock();
    let ca = open(&MemoryStorage::default(), &clock).expect("a CA");
    let certificate = ca
        .issue(&patterns(&["a.example", "*.a.example"]))
        .expect("a leaf");
    assert_eq!(certificate.names(), patterns(&["a.example", "*.a.example"]));
    assert_eq!(
        (certificate.chain_len(), certificate.kind()),
        (2, KeyKind::Ecdsa)
    );
    assert_eq!(certificate.source(), &Source::Issuer("local".into()));
    assert_eq!(certificate.not_after(), NOW + 7 * DAY);
    assert_eq!(certificate.not_before(), NOW - BACKDATE);
    for host in ["a.example", "x.a.example"] {
        assert!(
            is_trusted(&certificate, &ca.root_pem(), host, NOW),
            "{host}"
        );
    }
    assert!(!is_trusted(&certificate, &ca.root_pem(), "b.example", NOW));
    assert!(!is_trusted(
        &certificate,
        &ca.root_pem(),
        "a.example",
        NOW + 8 * DAY
    ));
    let long = format!("{}.{}.example", "a".repeat(60), "b".repeat(60));
    let certificate = ca.issue(&patterns(&[&long])).expect("a leaf");
    assert!(is_trusted(&certificate, &ca.root_pem(), &long, NOW));
    assert!(matches!(
        ca.issue(&[Pattern::Any]),
        Err(LocalCaError::NoName)
    ));
}

#[test]
fn the_root_lasts_and_the_intermediate_is_renewed() {
    let (storage, clock) = (MemoryStorage::default(), clock());
    let root = open(&storage, &clock).expect("a CA").root_pem();
    assert_eq!(
        LocalCa::stored_root_pem(&storage, "local", &["local"])
            .expect("sound")
            .as_ref(),
        Some(&root)
    );
    let ca = open(&storage, &clock).expect("the same CA");
    assert_eq!(ca.root_pem(), root);
    for _ in 0..20 {
        clock.advance(6 * DAY);
        let certificate = ca.issue(&patterns(&["a.example"])).expect("a leaf");
        assert_eq!(
            certificate.not_after(),
            clock.now() + 7 * DAY,
            "a whole life"
        );
        assert!(is_trusted(
            &certificate,
            &root,
            "a.example",
            clock.now() + 7 * DAY - 1
        ));
    }
}

#[test]
fn nothing_is_made_by_looking() {
    let storage = MemoryStorage::default();
    assert_eq!(
        LocalCa::stored_root_pem(&storage, "local", &["local"]).expect("nothing"),
        None
    );
    assert_eq!(storage.list(&key("local_ca")).expect("readable"), []);
}

#[test]
fn a_damaged_root_is_an_error_and_never_replaced() {
    let (storage, clock) = (MemoryStorage::default(), clock());
    open(&storage, &clock).expect("a CA");
    let root = storage
        .load(&key("local_ca/root.key"))
        .expect("readable")
        .expect("there");
    let other = MemoryStorage::default();
    open(&other, &clock).expect("another CA");
    let foreign = other
        .load(&key("local_ca/root.crt"))
        .expect("readable")
        .expect("there");
    let half = &root[..root.len() / 2];
    let key_alone = &root[..root.len() - foreign.len()];
    for (name, value) in [
        ("local_ca/root.key", &b""[..]),
        ("local_ca/root.key", half),
        ("local_ca/root.key", key_alone),
        ("local_ca/root.key", &[key_alone, &foreign].concat()),
        ("local_ca/root.crt", &foreign),
    ] {
        let damaged = MemoryStorage::default();
        for sound in storage.list(&key("local_ca")).expect("readable") {
            let value = storage.load(&sound).expect("readable").expect("there");
            damaged.store(&sound, &value).expect("writable");
        }
        damaged.store(&key(name), value).expect("writable");
        let error = open(&damaged, &clock).err().expect("an error");
        assert!(
            matches!(&error, LocalCaError::Damaged { path, .. } if path == name),
            "{error}"
        );
        assert_eq!(
            damaged
                .load(&key(name))
                .expect("readable")
                .expect("there")
                .to_vec(),
            value
        );
    }
    storage.delete(&key("local_ca/root.key")).expect("writable");
    let error = open(&storage, &clock).err().expect("an error");
    assert!(error.to_string().contains("it is gone"), "{error}");
}

#[test]
fn a_crash_after_the_first_write_is_mended() {
    let (storage, clock) = (MemoryStorage::default(), clock());
    let root = open(&storage, &clock).expect("a CA").root_pem();
    storage.delete(&key("local_ca/root.crt")).expect("writable");
    assert_eq!(
        open(&storage, &clock).expect("the same CA").root_pem(),
        root
    );
    let copy = storage
        .load(&key("local_ca/root.crt"))
        .expect("readable")
        .expect("there");
    assert_eq!(copy.to_vec(), root.as_bytes());
}

#[test]
fn each_ca_has_a_root_of_its_own() {
    let (storage, clock) = (MemoryStorage::default(), clock());
    let locals = ["a", "b"];
    let open =
        |issuer: &str| open_as(issuer, &locals, Arc::new(storage.clone()), &clock).expect("a CA");
    let stored = |issuer| LocalCa::stored_root_pem(&storage, issuer, &locals).expect("sound");
    // As stored before there could be two: it goes to the first CA that is opened.
    let old = open("a").root_pem();
    storage.delete(&key("local_ca/owner")).expect("writable");
    assert_eq!(stored("a").as_deref(), Some(&*old));
    assert_eq!(open("a").root_pem(), old);
    assert_eq!(stored("b"), None);
    let other = open("b");
    assert_ne!(other.root_pem(), old);
    let leaf = other.issue(&patterns(&["b.example"])).expect("issued");
    assert!(is_trusted(&leaf, &other.root_pem(), "b.example", NOW));
    assert!(!is_trusted(&leaf, &old, "b.example", NOW));
    // In whatever order they come from then on.
    for (issuer, root) in [("b", other.root_pem()), ("a", old)] {
        assert_eq!(open(issuer).root_pem(), root);
        assert_eq!(stored(issuer), Some(root));
    }
    // If the owner's mark is deleted with the root, nothing of the other's is given away.
    for name in ["owner", "root.key", "root.crt"] {
        storage
            .delete(&key(&format!("local_ca/{name}")))
            .expect("writable");
    }
    assert_eq!(open("b").root_pem(), other.root_pem());
}

#[test]
fn an_owner_that_the_configuration_does_not_know_is_none() {
    for torn in [&b""[..], b"loc", b"\xff\0", b"former"] {
        let (storage, clock) = (MemoryStorage::default(), clock());
        let root = open(&storage, &clock).expect("a CA").root_pem();
        storage
            .store(&key("local_ca/owner"), torn)
            .expect("writable");
        let stored = LocalCa::stored_root_pem(&storage, "local", &["local"]);
        assert_eq!(stored.expect("sound").as_ref(), Some(&root));
        assert_eq!(load(&storage, "local_ca/owner").as_deref(), Some(torn));
        assert_eq!(open(&storage, &clock).expect("a CA").root_pem(), root);
        assert_eq!(
            load(&storage, "local_ca/owner").as_deref(),
            Some(&b"local"[..])
        );
        let aside = load(&storage, "local_ca/owner.damaged-1");
        assert_eq!(aside.as_deref(), Some(torn));
        assert_eq!(
            storage.list(&key("local_ca/issuers")).expect("readable"),
            []
        );
    }
}

#[test]
fn of_two_cas_the_one_without_a_root_of_its_own_has_what_nobody_owns() {
    let (storage, clock) = (MemoryStorage::default(), clock());
    let open =
        |issuer: &str, locals: &[&str]| open_as(issuer, locals, Arc::new(storage.clone()), &clock);
    let first = open("a", &["a", "b"]).expect("a CA").root_pem();
    storage
        .store(&key("local_ca/owner"), b"")
        .expect("writable");
    // It is unknown which of them created it.
    for issuer in ["a", "b"] {
        let error = open(issuer, &["a", "b"])
            .err()
            .expect("an error")
            .to_string();
        assert!(
            error.contains("local_ca/owner") && error.contains("write the name"),
            "{error}"
        );
    }
    assert_eq!(
        storage.list(&key("local_ca/issuers")).expect("readable"),
        []
    );
    storage
        .store(&key("local_ca/owner"), b"a")
        .expect("writable");
    let second = open("b", &["a", "b"]).expect("a CA").root_pem();
    assert_ne!(second, first);
    storage
        .store(&key("local_ca/owner"), b"")
        .expect("writable");
    assert_eq!(open("b", &["a", "b"]).expect("a CA").root_pem(), second);
    assert_eq!(open("a", &["a", "b"]).expect("a CA").root_pem(), first);
    // A renamed issuer keeps its root.
    assert_eq!(open("c", &["c", "b"]).expect("a CA").root_pem(), first);
    assert_eq!(open("b", &["c", "b"]).expect("a CA").root_pem(), second);
}

#[test]
fn what_is_damaged_beside_the_root_is_set_aside() {
    let (storage, clock) = (MemoryStorage::default(), clock());
    let root = open(&storage, &clock).expect("a CA").root_pem();
    clock.advance((3650 - 364) * DAY);
    let both = open(&storage, &clock).expect("a CA").root_pem();
    for (name, torn) in [
        ("local_ca/root.crt", &both.as_bytes()[..100]),
        ("local_ca/root.crt", b""),
        ("local_ca/previous_root.crt", b"-----BEGIN"),
        ("local_ca/next_root.key", b""),
    ] {
        storage.store(&key(name), torn).expect("writable");
        let seen = LocalCa::stored_root_pem(&storage, "local", &["local"]);
        assert!(
            seen.expect("sound").expect("a root").starts_with(&root),
            "{name}"
        );
        assert_eq!(
            load(&storage, name).as_deref(),
            Some(torn),
            "looking changes nothing"
        );
        let now = open(&storage, &clock).expect("the same CA").root_pem();
        assert!(now.starts_with(&root), "{name}");
        let number = if torn.is_empty() && name.ends_with("crt") {
            2
        } else {
            1
        };
        let aside = load(&storage, &format!("{name}.damaged-{number}"));
        assert_eq!(aside.as_deref(), Some(torn), "{name}");
    }
    assert_eq!(
        load(&storage, "local_ca/root.crt"),
        Some(root.clone().into_bytes())
    );
    let announced = open(&storage, &clock).expect("the same CA").root_pem();
    assert!(
        announced.len() > root.len() && announced != both,
        "another successor"
    );
    // Without the root's key nothing is created, whatever is left.
    storage.delete(&key("local_ca/root.key")).expect("writable");
    storage
        .store(&key("local_ca/root.crt"), b"")
        .expect("writable");
    let error = open(&storage, &clock).err().expect("an error");
    assert!(matches!(&error, LocalCaError::Damaged { path, .. } if path == "local_ca/root.key"));
}

#[test]
fn nothing_is_made_where_the_storage_cannot_be_read() {
    let (storage, clock) = (MemoryStorage::default(), clock());
    storage.set_failure(Some(std::io::ErrorKind::PermissionDenied));
    assert!(matches!(
        open(&storage, &clock).err(),
        Some(LocalCaError::Storage(_))
    ));
    storage.set_failure(None);
    assert_eq!(storage.list(&key("local_ca")).expect("readable"), []);
}

#[test]
fn a_root_that_has_not_begun_is_told_and_kept() {
    let (storage, clock) = (MemoryStorage::default(), clock());
    clock.advance(3 * 365 * DAY);
    let root = open(&storage, &clock).expect("a CA").root_pem();
    clock.advance(-3 * 365 * DAY);
    let ca = open(&storage, &clock).expect("the same CA");
    assert_eq!(ca.root_pem(), root, "the clock may be slow now");
    let why = ca.not_yet_valid().expect("nobody trusts it");
    assert!(
        why.contains("local_ca/root.key") && why.contains("2028-09-13"),
        "{why}"
    );
    ca.maintain_keys().expect("nothing to do");
    assert_eq!(ca.root_pem(), root);
    clock.advance(3 * 365 * DAY);
    assert_eq!(ca.not_yet_valid(), None);
}

#[test]
fn a_clock_that_is_wrong_by_years_destroys_no_root() {
    let (storage, clock) = (MemoryStorage::default(), clock());
    open(&storage, &clock).expect("a CA");
    let secret = load(&storage, "local_ca/root.key").expect("there");
    clock.advance(20 * 365 * DAY);
    open(&storage, &clock).expect("another root");
    assert_ne!(load(&storage, "local_ca/root.key"), Some(secret.clone()));
    assert_eq!(load(&storage, "local_ca/previous_root.key"), Some(secret));
}

#[test]
fn starting_at_once_makes_one_root() {
    let directory = tempfile::tempdir().expect("a directory");
    let clock = clock();
    let roots: Vec<_> = std::thread::scope(|scope| {
        let start = || {
            let storage = Arc::new(FileStorage::new(directory.path().join("data")));
            open_in(storage, &clock).expect("a CA").root_pem()
        };
        let starting: Vec<_> = (0..6).map(|_| scope.spawn(start)).collect();
        starting
            .into_iter()
            .map(|start| start.join().expect("started"))
            .collect()
    });
    assert!(roots.iter().all(|root| *root == roots[0]));
}

#[test]
fn a_successor_is_announced_a_year_before_it_takes_over() {
    let (storage, clock) = (MemoryStorage::default(), clock());
    let ca = open(&storage, &clock).expect("a CA");
    let old = ca.root_pem();
    clock.advance((3650 - 364) * DAY);
    ca.maintain_keys().expect("a successor");
    let both = ca.root_pem();
    assert!(both.starts_with(&old) && both.len() > old.len());
    let certificate = ca.issue(&patterns(&["a.example"])).expect("a leaf");
    assert!(
        is_trusted(&certificate, &old, "a.example", clock.now()),
        "the old root signs"
    );
    assert_eq!(
        open(&storage, &clock).expect("the same CA").root_pem(),
        both
    );

    clock.advance(310 * DAY);
    ca.maintain_keys().expect("the successor takes over");
    let new = &both[old.len()..];
    assert_eq!(ca.root_pem(), format!("{new}{old}"));
    let certificate = ca.issue(&patterns(&["a.example"])).expect("a leaf");
    assert!(is_trusted(&certificate, new, "a.example", clock.now()));
    assert!(!is_trusted(&certificate, &old, "a.example", clock.now()));
    assert_eq!(
        open(&storage, &clock).expect("the same CA").root_pem(),
        ca.root_pem()
    );

    // A gateway that was off while its root expired.
    clock.advance(5_000 * DAY);
    let ca = open(&storage, &clock).expect("a new root");
    let certificate = ca.issue(&patterns(&["a.example"])).expect("a leaf");
    assert!(is_trusted(
        &certificate,
        &ca.root_pem(),
        "a.example",
        clock.now()
    ));
}
