//! What is used and wanted is kept, and what is not goes.

use super::*;
use crate::storage::keys;

#[test]
fn what_nobody_uses_goes_from_the_map_and_the_storage() {
    let mut world = World::demanding([]);
    world.obtain(HOST).expect("obtained");
    world.obtain("y.shop.example").expect("obtained");
    world.clock.advance(29 * DAY);
    assert_eq!(world.sweep(), 0);
    assert_eq!(world.used(&["y.shop.example"]), 1);
    assert_eq!(world.used(&["y.shop.example"]), 0, "written once a day");
    world.clock.advance(2 * DAY);
    let mut told = world.events.subscribe();
    assert_eq!(world.sweep(), 1);
    let event = told.try_recv().expect("told");
    assert_eq!(event.kind, EventKind::CertificateDropped);
    assert!(!world.is_served(HOST) && world.is_served("y.shop.example"));
    for under in ["on_demand", "certificates", "retry", "orders"] {
        let left = world.stored(under);
        assert!(!left.iter().any(|key| key.contains(HOST)), "{left:?}");
    }
    // It comes again as a new one.
    world.obtain(HOST).expect("obtained");
    assert_eq!(world.orders(), 3);
}

#[test]
fn what_another_instance_uses_stays() {
    let mut one = World::demanding([]);
    one.obtain(HOST).expect("obtained");
    let mut other = World::demanding_over(one.storage.clone(), NOW, []);
    other.walk();
    for world in [&one, &other] {
        world.clock.advance(20 * DAY);
    }
    assert_eq!(other.used(&[HOST]), 1);
    one.clock.advance(15 * DAY);
    assert_eq!(one.sweep(), 1, "looked at");
    assert!(one.is_served(HOST), "and left where it is");
    assert_eq!(one.sweep(), 0);
}

#[test]
fn it_is_renewed_while_it_is_wanted_and_where_nobody_can_tell() {
    for (orders, says) in [(2, Some(true)), (2, None)] {
        let mut world = World::demanding([]);
        world.obtain(HOST).expect("obtained");
        world.clock.advance(65 * DAY);
        assert_eq!(world.work_where(says), 1);
        assert_eq!(world.orders(), orders, "{says:?}");
        assert_eq!(world.manager.renewals().views()[0].state, CertState::Valid);
    }
}

#[test]
fn what_is_no_longer_wanted_is_served_to_its_end_and_goes() {
    let mut world = World::demanding([]);
    world.obtain(HOST).expect("obtained");
    world.clock.advance(65 * DAY);
    let mut told = world.events.subscribe();
    assert_eq!(world.work_where(Some(false)), 1);
    let event = told.try_recv().expect("told");
    assert_eq!(event.kind, EventKind::CertificateDropped);
    assert!(event.message.contains("no longer allowed"), "{event:?}");
    assert_eq!(world.work_where(Some(false)), 0, "not asked again at once");
    assert_eq!(monitored(&world), 0, "its end is no alarm");
    for _ in 0..30 {
        world.clock.advance(DAY);
        world.used(&[HOST]);
        world.work_where(Some(false));
        world.sweep();
    }
    assert_eq!(world.orders(), 1);
    assert!(!world.is_served(HOST), "it has ended");
    assert!(world.stored("certificates").is_empty());
    assert!(world.stored("on_demand").is_empty());
}

#[test]
fn what_is_wanted_again_is_renewed() {
    let mut world = World::demanding([]);
    world.obtain(HOST).expect("obtained");
    world.clock.advance(65 * DAY);
    world.work_where(Some(false));
    world.clock.advance(4 * DAY);
    assert_eq!(world.work_where(Some(true)), 1);
    assert_eq!(world.orders(), 2);
    assert_eq!(monitored(&world), 1);
}

#[test]
fn nothing_new_is_made_where_nobody_can_tell_whether_it_is_wanted() {
    let mut world = World::demanding([network()]);
    world.obtain(HOST).expect_err("away");
    world.clock.advance(120);
    assert_eq!(world.work_where(None), 1);
    assert_eq!(world.orders(), 1);
    world.clock.advance(DAY / 4);
    assert_eq!(world.work_where(Some(true)), 1);
    assert!(world.is_served(HOST));
}

/// How many certificates there are whose end would be an alarm.
fn monitored(world: &World) -> usize {
    let renewals = world.manager.renewals();
    let specs = renewals.specs();
    let certs = specs
        .iter()
        .filter_map(|spec| renewals.monitored_cert(spec, world.clock.now()));
    certs.filter(|one| !one.is_dropped).count()
}

/// A world in which one name is no longer wanted, and its certificate ends tomorrow.
fn unwanted() -> World {
    let mut world = World::demanding([]);
    world.obtain(HOST).expect("obtained");
    for days in [65, 24] {
        world.clock.advance(days * DAY);
        world.used(&[HOST]);
        world.work_where(Some(false));
    }
    world
}

#[test]
fn a_certificate_that_another_instance_has_renewed_is_not_deleted_but_served() {
    let mut world = unwanted();
    let mut peer = World::demanding_over(world.storage.clone(), NOW + 89 * DAY, []);
    peer.walk();
    assert_eq!(peer.work_where(Some(true)), 1);
    world.clock.advance(2 * DAY);
    assert_eq!(world.work_where(Some(false)), 1);
    assert_ne!(world.manager.renewals().views()[0].state, CertState::Valid);
    assert_eq!(world.sweep(), 1, "looked at");
    assert!(world.is_served(HOST));
    assert_eq!(
        world.stored("certificates").len(),
        2,
        "with what is known of it"
    );
    assert_eq!(world.stored("on_demand").len(), 1);
    assert_eq!(world.manager.renewals().views()[0].state, CertState::Valid);
    world.clock.advance(65 * DAY);
    assert_eq!(world.work_where(Some(true)), 1, "it is in the plan again");
}

#[test]
fn what_is_over_is_asked_about_no_more_and_goes_once_it_can() {
    let mut world = unwanted();
    world.clock.advance(2 * DAY);
    assert_eq!(world.work_where(Some(false)), 1);
    for _ in 0..10 {
        world.clock.advance(60);
        assert_eq!(world.work_where(Some(false)), 0);
    }
    let full = Some(std::io::ErrorKind::StorageFull);
    world.storage.set_failure(full);
    assert_eq!(world.sweep(), 1);
    assert_eq!(world.sweep(), 1, "tried again");
    world.storage.set_failure(None);
    assert_eq!(world.sweep(), 1);
    assert_eq!(world.sweep(), 0);
    assert!(world.stored("certificates").is_empty());
}

#[test]
fn what_is_over_and_wanted_again_is_obtained_and_stays() {
    let mut world = unwanted();
    world.clock.advance(2 * DAY);
    world.work_where(Some(false));
    // Whoever decides on names has been asked before this.
    world.obtain(HOST).expect("obtained");
    assert_eq!(world.sweep(), 0);
    assert!(world.is_served(HOST));
    assert_eq!(world.stored("certificates").len(), 2);
}

#[test]
fn a_request_of_a_person_does_not_strand_what_is_over() {
    for removed in [true, false] {
        let mut world = unwanted();
        world.clock.advance(2 * DAY);
        world.work_where(Some(false));
        let subject = keys::subject(&[HOST.parse().expect("a pattern")]);
        assert!(world.manager.renewals_mut().request_renewal(&subject));
        if removed {
            assert_eq!(world.sweep(), 1);
            assert!(world.stored("certificates").is_empty());
        }
        // The next client gets one.
        world.obtain(HOST).expect("obtained");
        assert!(world.is_served(HOST));
    }
}

#[test]
fn a_clock_that_leaps_takes_nothing_away() {
    let mut world = World::demanding([]);
    world.obtain(HOST).expect("obtained");
    let mut hours = 0;
    let mut sweep = |world: &mut World, more| {
        hours += more;
        world.sweep_after(Duration::from_secs(hours * 3600))
    };
    sweep(&mut world, 0);
    world.clock.advance(3600);
    sweep(&mut world, 1);
    let year = 365 * DAY;
    world.clock.advance(year);
    assert_eq!(sweep(&mut world, 0), 0);
    world.walk();
    world.clock.advance(23 * 3600);
    assert_eq!(sweep(&mut world, 23), 0);
    world.clock.advance(-year);
    assert_eq!(sweep(&mut world, 0), 0);
    world.clock.advance(25 * 3600);
    assert_eq!(sweep(&mut world, 25), 0);
    assert!(world.is_served(HOST));
    assert_eq!(world.stored("certificates").len(), 2);
}

#[test]
fn every_use_is_written_down_however_many_there_are() {
    const MANY: usize = 1_100;
    let storage = MemoryStorage::default();
    let ca = TestCa::new("many");
    let hosts: Vec<_> = (0..MANY).map(|one| format!("{one}.shop.example")).collect();
    for hosts in hosts.chunks(100) {
        let names: Vec<_> = hosts.iter().map(String::as_str).collect();
        let leaf = ca.leaf_at(&names, NOW - 60, NOW + 90 * DAY);
        let pem = format!("{}{}", leaf.certificate, leaf.key);
        for host in hosts {
            let now = NOW.as_secs();
            let record = format!(r#"{{"name":"{host}","allowed":{now},"used":{now}}}"#);
            for (key, value) in [
                (format!("on_demand/{host}.json"), &record),
                (format!("certificates/ca.test/{host}.pem"), &pem),
            ] {
                let key = key.parse().expect("a key");
                storage.store(&key, value.as_bytes()).expect("stored");
            }
        }
    }
    let mut world = World::demanding_over(storage, NOW, []);
    world.walk();
    world.clock.advance(2 * DAY);
    let hosts: Vec<_> = hosts.iter().map(String::as_str).collect();
    world
        .storage
        .set_failure(Some(std::io::ErrorKind::StorageFull));
    assert_eq!(world.used(&hosts), 0);
    world.storage.set_failure(None);
    assert_eq!(
        world.used(&[]),
        MANY,
        "also what could not be written before"
    );
    assert_eq!(world.used(&hosts), 0);
}
