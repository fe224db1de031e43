//! Certificates that CAs are asked for, with a CA that does as it is told.

use std::collections::VecDeque;
use std::sync::Mutex;

use async_trait::async_trait;
use zeroize::Zeroizing;

use super::*;
use crate::config::model::{Acme, ChallengeType, KeyType, OrderLimit};
use crate::event::{EventKind, Severity};
use crate::issuer::{Issued, Request};
use crate::schedule::{CertState, Failure, FailureClass};

/// What the CA does next.
enum Act {
    /// Issues a certificate that lasts so many seconds from now.
    Issue(i64),
    /// Issues one for other names.
    Wrong,
    Fail(Failure),
}

/// A CA that follows a script, and issues for 90 days once that is over.
struct Scripted {
    name: Arc<str>,
    ca: TestCa,
    clock: Arc<ManualClock>,
    script: Mutex<VecDeque<Act>>,
    asked: Mutex<Vec<Vec<String>>>,
    settled: Mutex<usize>,
}

#[async_trait]
impl crate::issuer::Issuer for Scripted {
    fn name(&self) -> &Arc<str> {
        &self.name
    }

    fn ca(&self) -> &str {
        "ca.test"
    }

    async fn issue(&self, request: &Request) -> Result<Issued, Failure> {
        let names: Vec<_> = request.names.iter().map(ToString::to_string).collect();
        self.asked.lock().expect("whole").push(names.clone());
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let now = self.clock.now();
        let issue = |names: &[&str], life| {
            let leaf = self.ca.leaf_at(names, now - 60, now + life);
            Issued {
                chain: self.ca.chain(&leaf).into_bytes(),
                key: Zeroizing::new(leaf.key.into_bytes()),
            }
        };
        match self.script.lock().expect("whole").pop_front() {
            None => Ok(issue(&names, 90 * DAY)),
            Some(Act::Issue(life)) => Ok(issue(&names, life)),
            Some(Act::Wrong) => Ok(issue(&["other.example"], 90 * DAY)),
            Some(Act::Fail(failure)) => Err(failure),
        }
    }

    async fn settled(&self, _: &Request) {
        *self.settled.lock().expect("whole") += 1;
    }
}

/// A manager with one CA, `ca`, over a storage that may hold something.
struct World {
    clock: Arc<ManualClock>,
    storage: MemoryStorage,
    issuer: Arc<Scripted>,
    events: EventBus,
    manager: TlsManager,
    config: Config,
    runtime: tokio::runtime::Runtime,
}

impl World {
    fn new(script: impl IntoIterator<Item = Act>) -> Self {
        Self::over(MemoryStorage::default(), NOW, script)
    }

    fn over(storage: MemoryStorage, now: UnixTime, script: impl IntoIterator<Item = Act>) -> Self {
        let clock = Arc::new(ManualClock::at(now));
        let issuer = Arc::new(Scripted {
            name: "ca".into(),
            ca: TestCa::new("scripted"),
            clock: Arc::clone(&clock),
            script: Mutex::new(script.into_iter().collect()),
            asked: Mutex::default(),
            settled: Mutex::default(),
        });
        let events = EventBus::default();
        let of_manager = Arc::clone(&issuer);
        let manager = TlsManager::new(Setup {
            published: Arc::default(),
            storage: Arc::new(storage.clone()),
            clock: clock.clone(),
            metrics: None,
            events: events.clone(),
            make_issuer: Box::new(move |_, _| of_manager.clone()),
        });
        let acme = Acme {
            directory: "https://ca.test/directory".to_owned(),
            staging: None,
            email: None,
            challenges: vec![ChallengeType::Http01],
            profile: None,
            key_type: KeyType::P256,
            reuse_key: false,
            ca_file: None,
            eab: None,
            proxy: None,
            order_limit: OrderLimit {
                orders: 10,
                per: std::time::Duration::from_secs(10),
            },
        };
        let sites = vec![site(&["a.example"], SiteTls::Auto(vec!["ca".into()]))];
        let mut config = config(Vec::new(), sites);
        config
            .issuers
            .insert("ca".into(), Issuer::Acme(Arc::new(acme)));
        Self {
            clock,
            storage,
            issuer,
            events,
            manager: manager.expect("a manager"),
            config,
            runtime: tokio::runtime::Runtime::new().expect("a runtime"),
        }
    }

    fn apply(&mut self) -> Report {
        self.manager.apply(&self.config)
    }

    /// Works on all that is due, and returns how much that was.
    fn work(&mut self) -> usize {
        let jobs = self.manager.due(100);
        let count = jobs.len();
        let tools = self.manager.tools().clone();
        let done = self.runtime.block_on(async {
            let mut done = Vec::new();
            for job in jobs {
                done.push(job.work(&tools).await);
            }
            done
        });
        self.manager.settle(done);
        count
    }

    fn serial(&self) -> Option<String> {
        let map = self.manager.published().load();
        map.lookup("a.example").map(|set| set.by_kind[0].serial())
    }

    fn told(&self) -> Vec<(EventKind, Severity)> {
        let recent = self.events.recent();
        recent
            .iter()
            .map(|event| (event.kind, event.severity))
            .collect()
    }

    fn state(&self) -> CertState {
        self.manager.managed()[0].state
    }
}

fn network() -> Act {
    Act::Fail(Failure::new(FailureClass::Network, "the CA is away"))
}

#[test]
fn what_is_missing_is_obtained_stored_and_served() {
    let mut world = World::new([]);
    let report = world.apply();
    assert_eq!(report.missing.len(), 1);
    assert!(
        report.missing[0].to_string().contains("ca is being asked"),
        "{report:?}"
    );
    assert_eq!(
        report.problems,
        [],
        "it is no fault that it is not there yet"
    );
    assert_eq!(world.state(), CertState::Missing);

    assert_eq!(world.work(), 1);
    let serial = world.serial().expect("served");
    assert_eq!(world.state(), CertState::Valid);
    assert_eq!(*world.issuer.settled.lock().expect("whole"), 1);
    assert!(world.manager.tick().missing.is_empty());
    assert_eq!(
        world.told(),
        [
            (EventKind::CertificateObtaining, Severity::Info),
            (EventKind::CertificateObtained, Severity::Info)
        ]
    );
    assert_eq!(world.work(), 0);

    // Another start finds it, and asks nobody.
    let mut next = World::over(world.storage.clone(), NOW + DAY, []);
    assert!(next.apply().missing.is_empty());
    assert_eq!(next.serial(), Some(serial));
    assert_eq!(next.work(), 0);
    assert_eq!(
        next.told(),
        [(EventKind::CertificateLoaded, Severity::Info)]
    );
}

#[test]
fn it_is_renewed_in_its_last_third_and_the_old_one_stays_where_that_fails() {
    let mut world = World::new([Act::Issue(90 * DAY), network(), network()]);
    world.apply();
    world.work();
    let first = world.serial();
    world.clock.advance(59 * DAY);
    assert_eq!(world.work(), 0, "not yet");
    world.clock.advance(6 * DAY);
    assert_eq!(world.work(), 1);
    assert_eq!(world.serial(), first, "served on");
    assert!(matches!(
        world.state(),
        CertState::Failed { failures: 1, .. }
    ));
    assert_eq!(
        world.told().last(),
        Some(&(EventKind::CertificateFailed, Severity::Warning))
    );
    assert_eq!(world.work(), 0, "not at once");
    world.clock.advance(18 * DAY);
    assert_eq!(world.work(), 1);
    assert_eq!(
        world.told().last(),
        Some(&(EventKind::CertificateFailed, Severity::Error)),
        "in the last third of what was left"
    );
    world.clock.advance(5 * DAY);
    assert_eq!(world.work(), 1);
    assert_eq!(
        world.told().last(),
        Some(&(EventKind::CertificateRenewed, Severity::Info))
    );
    assert_ne!(world.serial(), first);
    assert_eq!(world.manager.managed()[0].retry, None);
}

#[test]
fn failures_are_remembered_over_a_restart() {
    let mut world = World::new([network()]);
    world.apply();
    world.work();
    let report = world.manager.tick();
    assert!(
        report.missing[0].to_string().contains("the CA is away"),
        "{report:?}"
    );

    let mut next = World::over(world.storage.clone(), NOW + 1, []);
    next.apply();
    assert_eq!(next.work(), 0, "a restart does not start over");
    assert!(
        next.manager.tick().missing[0]
            .why
            .contains("the CA is away")
    );
    assert!(matches!(next.manager.start_state(), Start::Failed(_)));
    // A person may.
    assert!(next.manager.request("a.example"));
    assert!(!next.manager.request("b.example"));
    assert_eq!(next.work(), 1);
    assert!(next.serial().is_some());
    assert_eq!(next.manager.start_state(), Start::Complete);

    let third = World::over(next.storage.clone(), NOW + 2, []);
    assert!(
        third
            .storage
            .list(&"retry".parse().expect("a key"))
            .expect("readable")
            .is_empty()
    );
}

#[test]
fn what_is_not_what_was_asked_for_is_neither_stored_nor_served() {
    let mut world = World::new([Act::Wrong, Act::Issue(-120)]);
    world.apply();
    world.work();
    assert_eq!(world.serial(), None);
    let view = &world.manager.managed()[0];
    let retry = view.retry.as_ref().expect("failed");
    assert!(
        retry.message.contains("it is for other.example"),
        "{retry:?}"
    );

    world.clock.advance(DAY);
    world.work();
    assert_eq!(world.serial(), None, "expired by this clock");
    let view = &world.manager.managed()[0];
    assert_eq!(
        view.retry.as_ref().map(|retry| retry.class),
        Some(FailureClass::Clock)
    );
    let stored = world.storage.list(&"certificates".parse().expect("a key"));
    assert_eq!(stored.expect("readable"), []);
}

#[test]
fn an_expired_certificate_is_served_and_said_to_be_expired() {
    let mut world = World::new([]);
    world.apply();
    world.work();
    let serial = world.serial();

    let mut next = World::over(world.storage.clone(), NOW + 100 * DAY, [network()]);
    let report = next.apply();
    assert_eq!(next.serial(), serial);
    assert_eq!(report.missing.len(), 1);
    assert!(report.missing[0].why.contains("expired"), "{report:?}");
    assert_eq!(
        next.told(),
        [(EventKind::CertificateLoaded, Severity::Critical)]
    );
    next.work();
    assert!(
        next.manager.tick().missing[0]
            .why
            .contains("the CA is away")
    );
    next.clock.advance(DAY);
    next.work();
    assert!(next.manager.tick().missing.is_empty());
    assert_ne!(next.serial(), serial);
}

#[test]
fn what_a_peer_has_obtained_is_taken_and_one_at_work_is_waited_for() {
    let storage = MemoryStorage::default();
    let mut one = World::over(storage.clone(), NOW, []);
    let mut other = World::over(storage.clone(), NOW, []);
    one.apply();
    other.apply();
    let lease = storage
        .lock(&"locks/a.example".parse().expect("a key"))
        .expect("free");
    assert_eq!(other.work(), 1);
    assert_eq!(other.state(), CertState::Missing, "put off");
    drop(lease);
    one.work();
    assert_eq!(other.work(), 0);
    other.clock.advance(6);
    assert_eq!(other.work(), 1);
    assert_eq!(other.serial(), one.serial());
    assert!(other.issuer.asked.lock().expect("whole").is_empty());
}

#[test]
fn a_need_that_goes_takes_its_certificate_along() {
    let mut world = World::new([]);
    world.apply();
    world.work();
    world.config.sites.clear();
    let report = world.apply();
    assert_eq!(report.removed.len(), 1);
    assert_eq!(world.serial(), None);
    assert!(world.manager.managed().is_empty());
    assert_eq!(world.manager.next_due(), None);
}

#[test]
fn a_clock_that_leaps_asks_each_once() {
    let mut world = World::new([]);
    world.apply();
    world.work();
    let first = world.serial();
    // Ten years ahead, while the CA's clock is right.
    let issuer = Arc::clone(&world.issuer);
    let script = |life| {
        issuer
            .script
            .lock()
            .expect("whole")
            .push_back(Act::Issue(life))
    };
    world.clock.advance(3650 * DAY);
    for _ in 0..20 {
        script(-3560 * DAY);
    }
    let mut asked = 0;
    for _ in 0..60 {
        asked += world.work();
        world.clock.advance(60);
    }
    assert!(asked <= 2, "asked {asked} times in an hour");
    assert_eq!(world.serial(), first, "nothing is deleted");
}
