//! Solvers and syncing instances around one storage.

use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::*;
use crate::clock::ManualClock;
use crate::schedule::FailureClass;
use crate::shutdown::ShutdownWatch;
use crate::storage::{ChangeNotifier, Lease, MemoryStorage, Stat, Storage, Value, Watch};

const NOW: UnixTime = UnixTime::from_secs(1_757_894_400);

/// A storage in memory that reports changes, and fails on command.
struct Shelf {
    inner: MemoryStorage,
    changes: ChangeNotifier,
    is_broken: AtomicBool,
    /// Held while nothing can be read.
    hanging: Mutex<()>,
    /// How often everything was listed.
    looks: AtomicUsize,
    /// How often a value was read.
    loads: AtomicUsize,
}

impl Shelf {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            inner: MemoryStorage::default(),
            changes: ChangeNotifier::default(),
            is_broken: AtomicBool::new(false),
            hanging: Mutex::new(()),
            looks: AtomicUsize::new(0),
            loads: AtomicUsize::new(0),
        })
    }

    fn works(&self) -> Result<&MemoryStorage, StorageError> {
        if self.is_broken.load(Ordering::SeqCst) {
            return Err(StorageError::Io {
                action: "use",
                path: "/broken".into(),
                source: std::io::ErrorKind::StorageFull.into(),
            });
        }
        Ok(&self.inner)
    }

    fn stored(&self) -> Vec<String> {
        let keys = self.inner.list(&keys::challenges().expect("a key"));
        let keys = keys.expect("readable");
        keys.iter().map(ToString::to_string).collect()
    }
}

impl Storage for Shelf {
    fn load(&self, key: &Key) -> Result<Option<Value>, StorageError> {
        self.loads.fetch_add(1, Ordering::SeqCst);
        drop(self.hanging.lock());
        self.works()?.load(key)
    }

    fn store(&self, key: &Key, value: &[u8]) -> Result<(), StorageError> {
        self.works()?.store(key, value)?;
        self.changes.notify();
        Ok(())
    }

    fn delete(&self, key: &Key) -> Result<(), StorageError> {
        self.works()?.delete(key)?;
        self.changes.notify();
        Ok(())
    }

    fn list(&self, prefix: &Key) -> Result<Vec<Key>, StorageError> {
        if *prefix == keys::challenges()? {
            self.looks.fetch_add(1, Ordering::SeqCst);
            drop(self.hanging.lock());
        }
        self.works()?.list(prefix)
    }

    fn store_under(&self, lease: &Lease, key: &Key, value: &[u8]) -> Result<(), StorageError> {
        self.works()?.store_under(lease, key, value)
    }

    fn stat(&self, key: &Key) -> Result<Option<Stat>, StorageError> {
        self.works()?.stat(key)
    }

    fn try_lock(&self, key: &Key) -> Result<Option<Lease>, StorageError> {
        self.works()?.try_lock(key)
    }

    fn watch(&self, _: &Key) -> Result<Watch, StorageError> {
        Ok(self.changes.watch())
    }
}

/// One gateway of several.
struct Instance {
    challenges: Challenges,
    http01: Http01Solver,
    tls_alpn01: TlsAlpn01Solver,
    storage: Arc<Shelf>,
    clock: Arc<ManualClock>,
}

impl Instance {
    fn new(storage: &Arc<Shelf>) -> Self {
        let clock = Arc::new(ManualClock::at(NOW));
        let challenges = Challenges::stored_in(Arc::clone(storage) as _, Arc::clone(&clock) as _);
        let shared = || (challenges.clone(), Arc::clone(storage), Arc::clone(&clock));
        let (one, other) = (shared(), shared());
        Self {
            http01: Http01Solver::new(one.0, one.1, one.2),
            tls_alpn01: TlsAlpn01Solver::new(other.0, other.1, other.2),
            challenges,
            storage: Arc::clone(storage),
            clock,
        }
    }

    fn follow(&self, shutdown: &ShutdownWatch) -> tokio::task::JoinHandle<()> {
        tokio::spawn(sync_with_storage(
            self.challenges.clone(),
            Arc::clone(&self.storage) as _,
            Arc::clone(&self.clock) as _,
            shutdown.clone(),
        ))
    }

    fn read_once(&self) {
        read_once(
            &self.challenges,
            &(Arc::clone(&self.storage) as _),
            &(Arc::clone(&self.clock) as _),
        );
    }

    fn answers(&self, challenge: &Challenge) -> bool {
        match challenge.kind {
            ChallengeType::Http01 => self
                .challenges
                .http01(host(challenge), &challenge.token)
                .is_some_and(|answer| *answer == *challenge.key_authorization),
            ChallengeType::TlsAlpn01 => self
                .challenges
                .tls_alpn01(challenge.domain.dns_name().as_str())
                .is_some_and(|set| match &challenge.domain {
                    Identifier::Dns(name) => set.covers(name.as_str()),
                    Identifier::Ip(address) => set.covers_ip(*address),
                }),
            other => panic!("no listener answers {other:?}"),
        }
    }
}

fn host(challenge: &Challenge) -> Host<'_> {
    match &challenge.domain {
        Identifier::Dns(name) => Host::Name(name.as_str()),
        Identifier::Ip(address) => Host::Ip(*address),
    }
}

fn challenge(kind: ChallengeType, domain: &str, token: &str) -> Challenge {
    Challenge {
        kind,
        domain: domain.parse().expect("a name"),
        token: token.to_owned(),
        key_authorization: format!("{token}.thumbprint"),
        dns: None,
    }
}

fn http01(domain: &str, token: &str) -> Challenge {
    challenge(ChallengeType::Http01, domain, token)
}

fn tls_alpn01(domain: &str, token: &str) -> Challenge {
    challenge(ChallengeType::TlsAlpn01, domain, token)
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(10), "never: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn addresses_are_validated_too() {
    let one = Instance::new(&Shelf::new());
    for address in ["192.0.2.7", "2001:db8::1"] {
        let (http, tls) = (http01(address, "Token"), tls_alpn01(address, "Token"));
        one.http01.present(&http).await.expect("presented");
        one.tls_alpn01.present(&tls).await.expect("presented");
        assert!(one.answers(&http) && one.answers(&tls), "{address}");
        // A CA asks for no address by TLS: an address is not a server name.
        assert!(one.challenges.tls_alpn01(address).is_none());
        let stored = one.storage.stored().join(" ");
        assert!(stored.contains(".arpa.json"), "{stored}");
        one.http01.clean_up(&http).await;
        one.tls_alpn01.clean_up(&tls).await;
        assert!(one.challenges.is_empty() && one.storage.stored().is_empty());
    }
}

#[tokio::test]
async fn a_challenge_is_answered_from_present_to_clean_up_and_no_longer() {
    let one = Instance::new(&Shelf::new());
    let http = http01("a.example", "Token");
    let tls = tls_alpn01("a.example", "Token");
    assert!(one.challenges.is_empty());
    assert!(!one.answers(&http) && !one.answers(&tls));
    one.http01.present(&http).await.expect("presented");
    assert!(one.answers(&http) && !one.answers(&tls));
    assert!(
        one.challenges
            .http01(Host::Name("b.example"), "Token")
            .is_none()
    );
    assert!(
        one.challenges
            .http01(Host::Name("a.example"), "token")
            .is_none()
    );
    one.tls_alpn01.present(&tls).await.expect("presented");
    assert!(one.answers(&tls));
    assert!(one.challenges.tls_alpn01("b.example").is_none());
    assert_eq!(
        one.storage.stored(),
        [
            "challenges/http-01/Token.json",
            "challenges/tls-alpn-01/a.example.json"
        ]
    );
    one.http01.clean_up(&http).await;
    one.tls_alpn01.clean_up(&tls).await;
    one.tls_alpn01.clean_up(&tls).await;
    assert!(one.challenges.is_empty());
    assert!(!one.answers(&http) && !one.answers(&tls));
    assert!(one.storage.stored().is_empty());
}

/// Returns true if the future has completed, after a moment to continue.
async fn goes_on<T>(under_way: &mut (impl Future<Output = T> + Unpin)) -> bool {
    tokio::time::timeout(Duration::from_secs(1), under_way)
        .await
        .is_ok()
}

#[tokio::test(start_paused = true)]
async fn two_orders_with_one_name_are_validated_one_after_the_other() {
    let one = Instance::new(&Shelf::new());
    let solver = &one.tls_alpn01;
    let (first, second) = (tls_alpn01("a.example", "1"), tls_alpn01("a.example", "2"));
    let certificate = || {
        let set = one.challenges.tls_alpn01("a.example").expect("an answer");
        set.by_kind[0].fingerprint()
    };
    solver.present(&first).await.expect("presented");
    let of_first = certificate();
    let mut waiting = solver.present(&second);
    assert!(!goes_on(&mut waiting).await);
    assert_eq!(certificate(), of_first);
    // Another name waits for nothing, nor does another type.
    solver
        .present(&tls_alpn01("b.example", "3"))
        .await
        .expect("presented");
    one.http01
        .present(&http01("a.example", "4"))
        .await
        .expect("presented");
    // The same challenge, of one account, is responded to for both until the last one is done.
    solver.present(&first).await.expect("presented");
    solver.clean_up(&first).await;
    assert!(!goes_on(&mut waiting).await);
    assert!(one.answers(&first));
    solver.clean_up(&first).await;
    waiting.await.expect("presented");
    assert_ne!(certificate(), of_first);
    solver.clean_up(&second).await;
    assert!(!one.answers(&second));
}

#[tokio::test(start_paused = true)]
async fn a_turn_that_nobody_waits_for_any_longer_is_the_next_ones() {
    let one = Instance::new(&Shelf::new());
    let solver = &one.tls_alpn01;
    let [first, second, third] = ["1", "2", "3"].map(|token| tls_alpn01("a.example", token));
    solver.present(&first).await.expect("presented");
    let mut dropped = solver.present(&second);
    assert!(!goes_on(&mut dropped).await);
    let mut waiting = solver.present(&third);
    assert!(!goes_on(&mut waiting).await);
    drop(dropped);
    // Dropping it cleans it up as well.
    solver.clean_up(&second).await;
    assert!(!goes_on(&mut waiting).await);
    solver.clean_up(&first).await;
    waiting.await.expect("presented");

    let start = tokio::time::Instant::now();
    let failure = solver.present(&first).await.expect_err("not in time");
    assert_eq!(failure.class, FailureClass::Network);
    assert!(start.elapsed() <= Duration::from_secs(120));
    solver.clean_up(&first).await;
    assert!(one.answers(&third));
    solver.clean_up(&third).await;
    solver.present(&first).await.expect("presented");
}

#[tokio::test(start_paused = true)]
async fn a_proof_that_is_left_answers_on_and_keeps_nobody_waiting() {
    let one = Instance::new(&Shelf::new());
    let solver = &one.tls_alpn01;
    let [first, second] = ["1", "2"].map(|token| tls_alpn01("a.example", token));
    solver.present(&first).await.expect("presented");
    solver.abandon(&first);
    assert!(one.answers(&first));
    let start = tokio::time::Instant::now();
    solver.present(&second).await.expect("presented");
    assert!(start.elapsed() < Duration::from_millis(100));
    assert!(one.answers(&second));
    solver.clean_up(&second).await;
}

#[tokio::test(start_paused = true)]
async fn a_validation_of_another_instance_that_lives_is_waited_for() {
    let storage = Shelf::new();
    let (one, two) = (Instance::new(&storage), Instance::new(&storage));
    let (theirs, ours) = (tls_alpn01("a.example", "1"), tls_alpn01("a.example", "2"));
    one.read_once();
    one.tls_alpn01.present(&theirs).await.expect("presented");
    let mut waiting = two.tls_alpn01.present(&ours);
    assert!(!goes_on(&mut waiting).await);
    one.tls_alpn01.clean_up(&theirs).await;
    waiting.await.expect("presented");
    two.tls_alpn01.clean_up(&ours).await;

    // One that was killed did not.
    one.tls_alpn01.present(&theirs).await.expect("presented");
    drop(one);
    let start = tokio::time::Instant::now();
    two.tls_alpn01.present(&ours).await.expect("presented");
    assert!(start.elapsed() < Duration::from_millis(100));
}

#[tokio::test]
async fn what_no_ca_may_send_or_the_wrong_solver_is_refused() {
    let one = Instance::new(&Shelf::new());
    let failure = one.http01.present(&http01("a.example", "../x")).await;
    assert_eq!(failure.expect_err("refused").class, FailureClass::Network);
    let failure = one.http01.present(&tls_alpn01("a.example", "Token")).await;
    assert_eq!(failure.expect_err("refused").class, FailureClass::Internal);
    assert!(one.challenges.is_empty());
    assert!(one.storage.stored().is_empty());
}

#[tokio::test]
async fn any_instance_with_the_storage_answers() {
    let storage = Shelf::new();
    let (one, two) = (Instance::new(&storage), Instance::new(&storage));
    let (stop, stopped) = watch::channel(false);
    let followers = [one.follow(&stopped), two.follow(&stopped)];
    let (http, tls) = (http01("a.example", "T1"), tls_alpn01("b.example", "T2"));
    one.http01.present(&http).await.expect("presented");
    one.tls_alpn01.present(&tls).await.expect("presented");
    until("the other answers", || {
        two.answers(&http) && two.answers(&tls)
    })
    .await;
    let made = two.challenges.tls_alpn01("b.example").expect("an answer");

    // Another challenge of the same name replaces the first.
    one.tls_alpn01.clean_up(&tls).await;
    let next = tls_alpn01("b.example", "T3");
    one.tls_alpn01.present(&next).await.expect("presented");
    until("the other answers anew", || {
        let set = two.challenges.tls_alpn01("b.example");
        set.is_some_and(|set| set.by_kind[0].fingerprint() != made.by_kind[0].fingerprint())
    })
    .await;
    for (solver, challenge) in [
        (&one.tls_alpn01 as &dyn ChallengeSolver, &next),
        (&one.http01, &http),
    ] {
        solver.clean_up(challenge).await;
    }
    // A read in progress may have found what was just removed.
    until("the first has nothing", || one.challenges.is_empty()).await;
    until("the other has nothing", || two.challenges.is_empty()).await;
    stop.send(true).expect("heard");
    for follower in followers {
        follower.await.expect("it ends");
    }
}

#[tokio::test]
async fn what_is_over_does_not_come_back_with_a_slow_look_at_the_storage() {
    let one = Instance::new(&Shelf::new());
    let ours = http01("a.example", "Ours");
    assert!(one.challenges.own_keys().is_empty());
    one.http01.present(&ours).await.expect("presented");
    let stored = |challenge: &Challenge| ChallengeRecord {
        challenge: challenge.clone(),
        expires: NOW + 3600,
        instance: None,
    };
    let theirs = http01("b.example", "Theirs");
    let found = [stored(&ours), stored(&theirs)];
    one.http01.clean_up(&ours).await;
    one.challenges.set_others(&found);
    assert!(!one.answers(&ours) && one.answers(&theirs));
}

#[tokio::test]
async fn what_a_killed_process_has_left_is_answered_for_a_while_and_swept() {
    let storage = Shelf::new();
    let gone = Instance::new(&storage);
    let left = http01("a.example", "Left");
    gone.http01.present(&left).await.expect("presented");
    storage
        .store(
            &"challenges/http-01/Odd.json".parse().expect("a key"),
            b"{}",
        )
        .expect("stored");
    drop(gone);

    let (_keep, stopped) = watch::channel(false);
    let next = Instance::new(&storage);
    let follower = next.follow(&stopped);
    until("it is taken over", || next.answers(&left)).await;
    // The order continues where it stood.
    next.http01.present(&left).await.expect("presented");
    next.http01.clean_up(&left).await;
    assert!(next.challenges.is_empty());
    follower.abort();

    next.http01.present(&left).await.expect("presented");
    next.clock.advance(3601);
    let later = Instance::new(&storage);
    later.clock.advance(3601);
    let _followers = [later.follow(&stopped), next.follow(&stopped)];
    until("it is swept", || {
        storage.stored() == ["challenges/http-01/Odd.json"] && next.challenges.is_empty()
    })
    .await;
    assert!(later.challenges.is_empty());
}

#[tokio::test]
async fn a_start_answers_what_was_stored_before_it() {
    let storage = Shelf::new();
    let left = http01("a.example", "Left");
    let gone = Instance::new(&storage);
    gone.http01.present(&left).await.expect("presented");
    let next = Instance::new(&storage);
    next.read_once();
    assert!(next.answers(&left));
}

#[tokio::test]
async fn what_another_instance_has_just_stored_is_looked_for() {
    let storage = Shelf::new();
    let (one, two) = (Instance::new(&storage), Instance::new(&storage));
    let asked = http01("a.example", "Token");
    two.challenges.look_up_token("Token").await;
    assert!(two.challenges.is_empty());
    one.http01.present(&asked).await.expect("presented");
    assert!(!two.answers(&asked), "nobody has told it");
    two.challenges.look_up_token("../Token").await;
    assert!(two.challenges.is_empty());
    two.challenges.look_up_token("Token").await;
    two.challenges.look_up_token("Token").await;
    assert!(two.answers(&asked));
    assert!(two.challenges.remove_answer(&asked) && two.challenges.is_empty());

    two.clock.advance(3601);
    two.challenges.look_up_token("Token").await;
    assert!(two.challenges.is_empty(), "it has expired");
    two.clock.advance(-3601);
    storage.is_broken.store(true, Ordering::SeqCst);
    two.challenges.look_up_token("Token").await;
    assert!(two.challenges.is_empty());
}

#[test]
fn nobody_waits_long_for_a_look_up_or_causes_too_many() {
    let storage = Shelf::new();
    let one = Instance::new(&storage);
    let hanging = storage.hanging.lock().expect("sound");
    let asked: Vec<String> = (0..200).map(|number| format!("T{number}")).collect();
    let looking = asked
        .iter()
        .map(|token| one.challenges.look_up_token(token));
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    // It ends although the storage hangs.
    runtime.block_on(futures::future::join_all(looking));
    drop(hanging);
    let loads = storage.loads.load(Ordering::SeqCst);
    assert!((1..=8).contains(&loads), "{loads} at a time");
}

// In real time: a paused clock runs on while the storage works on another thread.
#[tokio::test]
async fn others_are_given_time_to_hear_of_a_challenge_as_long_as_they_live() {
    let storage = Shelf::new();
    let (one, two) = (Instance::new(&storage), Instance::new(&storage));
    let took = async |token: &str| {
        let (start, challenge) = (tokio::time::Instant::now(), http01("a.example", token));
        one.http01.present(&challenge).await.expect("presented");
        start.elapsed()
    };
    one.read_once();
    assert!(took("Alone").await < Duration::from_millis(100));
    two.read_once();
    assert!(took("Two").await >= Duration::from_millis(300));

    // A killed instance leaves its record, and its lock is free.
    let records = || {
        let keys = storage.list(&keys::instances().expect("a key"));
        keys.expect("readable").len()
    };
    assert_eq!(records(), 2);
    drop(two);
    assert!(took("Killed").await < Duration::from_millis(100));
    assert_eq!(records(), 1);

    // One of another machine.
    let key = keys::instance("elsewhere").expect("a key");
    let _lease = storage.lock(&key).expect("free");
    storage.store(&key, b"{}").expect("stored");
    assert!(took("Elsewhere").await >= Duration::from_millis(1200));
}

#[tokio::test]
async fn an_instance_that_stops_takes_its_record_back() {
    let storage = Shelf::new();
    let one = Instance::new(&storage);
    let (stop, stopped) = watch::channel(false);
    let follower = one.follow(&stopped);
    let is_known = || {
        let keys = storage.list(&keys::instances().expect("a key"));
        !keys.expect("readable").is_empty()
    };
    until("it is known", is_known).await;
    stop.send(true).expect("heard");
    follower.await.expect("it ends");
    assert!(!is_known());
}

#[test]
fn a_start_does_not_wait_for_a_storage_that_is_broken_or_hangs() {
    let storage = Shelf::new();
    storage.is_broken.store(true, Ordering::SeqCst);
    Instance::new(&storage).read_once();
    storage.is_broken.store(false, Ordering::SeqCst);
    let hanging = storage.hanging.lock().expect("sound");
    // It ends although the storage hangs.
    Instance::new(&storage).read_once();
    assert_eq!(storage.looks.load(Ordering::SeqCst), 2);
    drop(hanging);
}

#[tokio::test]
async fn a_broken_storage_keeps_nobody_from_answering() {
    let storage = Shelf::new();
    let (one, two) = (Instance::new(&storage), Instance::new(&storage));
    let (_keep, stopped) = watch::channel(false);
    let _followers = [one.follow(&stopped), two.follow(&stopped)];
    let before = http01("a.example", "Before");
    one.http01.present(&before).await.expect("presented");
    until("the other answers", || two.answers(&before)).await;

    storage.is_broken.store(true, Ordering::SeqCst);
    let challenge = http01("a.example", "Token");
    one.http01.present(&challenge).await.expect("presented");
    assert!(one.answers(&challenge));
    let looks = || storage.looks.load(Ordering::SeqCst);
    let before_the_change = looks();
    // A read of either may be in progress, so four ensure one of each.
    while looks() < before_the_change + 4 {
        storage.changes.notify();
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert!(two.answers(&before), "what was known is answered on");
    one.http01.clean_up(&challenge).await;
    assert!(!one.answers(&challenge));
}
