//! What is used and wanted is kept, and what is not goes.

use super::*;

#[test]
fn what_nobody_uses_goes_from_the_map_and_the_storage() {
    let mut world = World::demanding([]);
    world.obtain(HOST).expect("obtained");
    world.obtain("y.shop.example").expect("obtained");
    world.clock.advance(29 * DAY);
    assert_eq!(world.sweep(), 0);
    let notes = world.manager.used_on_demand(&[name("y.shop.example")]);
    assert_eq!(notes.len(), 1);
    world.manager.tools().note(notes);
    let again = world.manager.used_on_demand(&[name("y.shop.example")]);
    assert_eq!(again.len(), 0, "written once a day");
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
    let notes = other.manager.used_on_demand(&[name(HOST)]);
    other.manager.tools().note(notes);
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
        assert_eq!(world.manager.managed()[0].state, CertState::Valid);
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
    assert!(event.message.contains("no longer wanted"), "{event:?}");
    assert_eq!(world.work_where(Some(false)), 0, "not asked again at once");
    assert_eq!(world.manager.watched_over().len(), 0, "its end is no alarm");
    for _ in 0..30 {
        world.clock.advance(DAY);
        world.manager.used_on_demand(&[name(HOST)]);
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
    assert_eq!(world.manager.watched_over().len(), 1);
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
