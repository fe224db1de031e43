//! What is stored, or known by a peer, is no new name.

use super::*;
use crate::config::model::Ask;
use crate::secret::Secret;

impl World {
    fn knows(&self, host: &str) -> bool {
        let requests = self.manager.on_demand().requests();
        self.runtime.block_on(requests.has_stored(&name(host)))
    }

    /// Has another issuer instead, which answers nothing.
    fn ask_nobody(&mut self) {
        let other = self.config.issuers.get("ca").cloned().expect("there");
        self.config.issuers.insert("nobody".into(), other);
        if let Some(on_demand) = &mut self.config.on_demand {
            on_demand.issuers = vec!["nobody".into()];
        }
        self.apply();
    }
}

#[test]
fn names_with_a_stored_certificate_are_known_whoever_obtained_it() {
    let mut world = World::demanding([]);
    world.obtain(HOST).expect("a certificate");
    let again = World::demanding_over(world.storage.clone(), NOW + DAY, []);
    assert!(again.knows(HOST) && !again.knows("y.shop.example"));
    world.obtain("y.shop.example").expect("a certificate");
    assert!(
        again.knows("y.shop.example"),
        "of a peer, after all was read"
    );
    world
        .issuer
        .script
        .lock()
        .expect("whole")
        .push_back(refused());
    world.obtain("z.shop.example").expect_err("refused");
    assert!(
        !again.knows("z.shop.example"),
        "a note of it is no certificate"
    );
    let late = World::demanding_over(world.storage.clone(), NOW + 91 * DAY, []);
    assert!(!late.knows(HOST), "it has ended");
    let denied = std::io::ErrorKind::PermissionDenied;
    again.storage.set_failure(Some(denied));
    assert!(!again.knows(HOST));
    again.storage.set_failure(None);
    assert!(again.knows(HOST));
}

#[test]
fn a_storage_that_hangs_takes_few_threads_and_holds_nobody_up_for_ever() {
    let world = World::demanding([]);
    world.storage.hang(true);
    let asking: Vec<_> = (0..40)
        .map(|number| {
            let requests: Requests = world.manager.on_demand().requests().clone();
            let host = name(&format!("n{number}.shop.example"));
            world
                .runtime
                .spawn(async move { requests.has_stored(&host).await })
        })
        .collect();
    for asked in asking {
        let knows = world.runtime.block_on(asked);
        assert!(!knows.expect("an answer"));
    }
    assert_eq!(world.storage.hanging(), 32);
    world.storage.hang(false);
    assert!(!world.knows(HOST), "it is asked again");
    while world.storage.hanging() > 0 {
        std::thread::yield_now();
    }
}

#[test]
fn what_an_issuer_gave_that_is_no_longer_asked_is_served_after_a_restart() {
    let mut world = World::demanding([]);
    world.obtain(HOST).expect("obtained");
    world.obtain("y.shop.example").expect("obtained");
    let mut next = World::demanding_over(world.storage.clone(), NOW + DAY, []);
    next.ask_nobody();
    assert!(next.knows(HOST));
    next.obtain("y.shop.example").expect("it is stored");
    next.walk();
    assert!(next.is_served(HOST) && next.is_served("y.shop.example"));
    assert_eq!(next.work(), 0, "until it is due");
}

#[test]
fn another_ca_in_the_place_of_the_issuer_is_asked_at_once() {
    let mut world = World::demanding([]);
    world.obtain(HOST).expect("obtained");
    if let Some(Issuer::Acme(acme)) = world.config.issuers.get_mut("ca") {
        Arc::make_mut(acme).directory = "https://other.test/directory".to_owned();
    }
    world.issuer.move_to_another();
    world.apply();
    assert!(world.is_served(HOST), "until then");
    assert_eq!(world.work(), 1);
    assert_eq!((world.orders(), world.work()), (2, 0));
    // One that is no longer configured is no reason to hurry.
    world.ask_nobody();
    world.config.issuers.shift_remove("ca");
    world.apply();
    assert!(world.is_served(HOST));
    assert_eq!(world.work(), 0);
}

#[test]
fn what_is_known_is_not_read_again() {
    let mut world = World::demanding([]);
    world.obtain(HOST).expect("obtained");
    let records = list_records(world.manager.renewals().deps()).expect("readable");
    assert_eq!(records.len(), 1);
    assert!(world.manager.look_up_records(records.clone()).is_empty());
    let mut next = World::demanding_over(world.storage.clone(), NOW, []);
    assert!(!next.manager.look_up_records(records).is_empty());
}

#[test]
fn a_name_that_the_gate_holds_back_stays_in_the_plan() {
    let mut world = World::demanding([network()]);
    let gate = {
        let map = world.manager.published().load();
        Arc::clone(map.on_demand().expect("a gate"))
    };
    let asking = Arc::clone(&gate);
    let asked = world
        .runtime
        .spawn(async move { asking.certificate(HOST, None).await });
    while !world.manager.on_demand().requests().has_new() {
        std::thread::yield_now();
    }
    world.take_up();
    world.work();
    assert!(world.runtime.block_on(asked).expect("an answer").is_none());
    assert!(!gate.allows(HOST), "not for now");
    world.manager.on_demand_mut().recheck_all();
    world.manager.tick();
    assert_eq!(world.manager.renewals().views().len(), 1);
    world.clock.advance(120);
    assert_eq!(world.work(), 1);
    assert!(world.is_served(HOST));
}

#[test]
fn some_are_answered_before_others_are_looked_up() {
    let mut world = World::demanding([]);
    let requests = world.manager.on_demand().requests().clone();
    world.runtime.block_on(async move {
        for number in 0..70 {
            let host = name(&format!("{number}.shop.example"));
            let asking = requests.obtain(&host);
            // It is asked for when it is first looked at.
            let _ = tokio::time::timeout(Duration::ZERO, asking).await;
        }
    });
    world.take_up();
    assert!(world.manager.on_demand().requests().has_new());
    assert_eq!(world.manager.renewals().views().len(), 64);
    world.take_up();
    assert!(!world.manager.on_demand().requests().has_new());
    assert_eq!(world.manager.renewals().views().len(), 70);
}

#[test]
fn where_ask_cannot_be_set_up_what_there_was_goes_on() {
    let mut world = World::demanding([]);
    world.obtain(HOST).expect("obtained");
    let ask = Ask {
        url: Some(Secret::new("https://ask.example/".to_owned())),
        timeout: Duration::from_secs(5),
        cache_allowed: Duration::from_secs(60),
        cache_refused: Duration::from_secs(60),
        ca_file: Some("/nowhere/roots.pem".into()),
    };
    if let Some(on_demand) = &mut world.config.on_demand {
        on_demand.ask = Some(ask);
    }
    for _ in 0..2 {
        let report = world.apply();
        let told: Vec<_> = report.problems.iter().map(ToString::to_string).collect();
        assert!(told.iter().any(|one| one.contains("/nowhere")), "{told:?}");
        assert!(world.is_served(HOST));
    }
    world.obtain("y.shop.example").expect("by the old gate");
    world.config.on_demand = Some(on_demand());
    let report = world.apply();
    assert!(report.problems.is_empty(), "{report:?}");
    assert!(world.is_served(HOST));
    assert_eq!(world.orders(), 2);
}
