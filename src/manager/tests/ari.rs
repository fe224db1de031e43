//! When to renew as the CA advises, with a scripted one.

use super::scripted::{World, network};
use super::*;
use crate::event::{Event, EventKind, Severity};
use crate::schedule::{CertState, Failure, FailureClass, RenewalInfo};
use crate::storage::keys;

const HOUR: i64 = 3600;

fn info(start: UnixTime, end: UnixTime) -> RenewalInfo {
    RenewalInfo {
        start,
        end,
        url: None,
        ask_at: None,
    }
}

/// With a certificate of 90 days that was obtained just now.
fn world() -> World {
    let mut world = World::new([]);
    world.apply();
    assert_eq!(world.work(), 1);
    world
}

fn say(world: &World, info: RenewalInfo) {
    *world.issuer.info.lock().expect("whole") = Ok(Some(info));
}

fn asked_about(world: &World) -> Vec<String> {
    world.issuer.asked_about.lock().expect("whole").clone()
}

fn advised(world: &World) -> Vec<Arc<Event>> {
    let mut events = world.events.recent();
    events.retain(|event| event.kind == EventKind::CertificateRenewalAdvised);
    events
}

#[test]
fn a_certificate_is_renewed_at_a_time_in_the_window_and_says_what_it_replaces() {
    let mut world = world();
    say(&world, info(NOW + 20 * DAY, NOW + 22 * DAY));
    assert_eq!(world.inquire(), 1);
    let first = world.id().expect("a certificate");
    assert_eq!(asked_about(&world), std::slice::from_ref(&first));
    let view = world.manager.renewals().views().remove(0);
    let drawn = view.advice.expect("there is advice").at;
    assert!(
        (NOW + 20 * DAY..=NOW + 22 * DAY).contains(&drawn),
        "{drawn}"
    );
    assert_eq!(view.next, Some(drawn));
    assert_eq!(
        world.manager.renewals().next_ari_query(),
        Some(NOW + 6 * HOUR)
    );
    assert_eq!(world.inquire(), 0, "not before it is time");
    assert_eq!(advised(&world), [], "nothing out of the ordinary");

    world.clock.advance(drawn - NOW - 1);
    world.inquire();
    assert_eq!(world.work(), 0);
    world.clock.advance(1);
    assert_eq!(world.state(), CertState::Due);
    assert_eq!(world.work(), 1);
    assert_ne!(world.id().as_ref(), Some(&first));
    let replaced = world.issuer.replaced.lock().expect("whole").clone();
    assert_eq!(replaced, [None, Some(first)]);
    let events = world.events.recent();
    let begun = events.iter().rev().nth(1).expect("an event");
    assert!(begun.message.contains("as its CA advises"), "{begun:?}");

    // The window was that of the old one.
    let view = world.manager.renewals().views().remove(0);
    assert_eq!(view.advice, None);
    assert!(view.next > Some(drawn + 50 * DAY), "{view:?}");
    assert_eq!(world.inquire(), 1, "the CA is asked about the new one");
    assert_eq!(asked_about(&world).last(), world.id().as_ref());
}

#[test]
fn advice_to_renew_later_does_not_count() {
    let mut world = world();
    let own = world.manager.renewals().views()[0].next.expect("planned");
    say(&world, info(NOW + 80 * DAY, NOW + 85 * DAY));
    world.inquire();
    assert_eq!(world.manager.renewals().views()[0].next, Some(own));
    world.clock.advance(own - NOW);
    assert_eq!(world.work(), 1);
}

#[test]
fn a_ca_that_says_now_is_obeyed_and_not_for_ever() {
    let mut world = world();
    let page = "https://ca.example/incident";
    say(
        &world,
        RenewalInfo {
            url: Some(page.to_owned()),
            ..info(NOW - 20, NOW - 10)
        },
    );
    world.inquire();
    let told = advised(&world);
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].severity, Severity::Warning, "{told:?}");
    assert_eq!(told[0].url.as_deref(), Some(page));
    assert!(told[0].message.contains("renewed now"), "{told:?}");
    assert_eq!(world.work(), 1);
    let renewed = world.id();
    for _ in 0..23 {
        world.inquire();
        assert_eq!(world.work(), 0, "no more than one a day");
        world.clock.advance(HOUR);
    }
    assert_eq!(world.id(), renewed);
    // The next process knows of it too.
    let mut next = World::over(world.storage.clone(), NOW + 23 * HOUR, []);
    *next.issuer.info.lock().expect("whole") = world.issuer.info.lock().expect("whole").clone();
    next.apply();
    next.inquire();
    assert_eq!(next.work(), 0);
    next.clock.advance(2 * HOUR);
    assert_eq!(next.work(), 1);
}

#[test]
fn instances_that_share_a_storage_ask_once() {
    let mut one = world();
    say(&one, info(NOW + 20 * DAY, NOW + 30 * DAY));
    let mut other = World::over(one.storage.clone(), NOW, []);
    other.apply();
    one.inquire();
    assert_eq!(other.inquire(), 1);
    assert_eq!(asked_about(&one).len(), 1);
    assert_eq!(asked_about(&other), Vec::<String>::new());
    let at = |world: &World| world.manager.renewals().views()[0].next;
    assert_eq!(at(&one), at(&other), "and plan the same time");

    // While one asks, another waits a moment.
    let place = keys::renewal_info("ca.test", "a.example").expect("a key");
    let asking = other
        .storage
        .try_lock(&place)
        .expect("works")
        .expect("free");
    other.clock.advance(7 * HOUR);
    assert_eq!(other.inquire(), 1);
    assert_eq!(asked_about(&other), Vec::<String>::new());
    assert_eq!(
        other.manager.renewals().next_ari_query(),
        Some(NOW + 7 * HOUR + 5)
    );
    drop(asking);
    other.clock.advance(5);
    assert_eq!(other.inquire(), 1);
    assert_eq!(asked_about(&other).len(), 1);
}

#[test]
fn what_is_stored_on_another_certificate_is_not_applied() {
    let mut world = world();
    say(&world, info(NOW - 20, NOW - 10));
    world.inquire();
    // Another certificate of the same names takes its place in the storage.
    let place = keys::certificate("ca.test", "a.example").expect("a key");
    let leaf = TestCa::new("another").leaf_at(&["a.example"], NOW - 60, NOW + 90 * DAY);
    let pem = leaf.certificate.clone() + &leaf.key;
    world.storage.store(&place, pem.as_bytes()).expect("stored");
    let mut next = World::over(world.storage.clone(), NOW + 60, []);
    next.apply();
    assert_eq!(next.inquire(), 1);
    assert_eq!(asked_about(&next), [next.id().expect("a certificate")]);
    assert_eq!(next.work(), 0, "nothing is known of it");
}

#[test]
fn a_ca_that_cannot_tell_changes_nothing() {
    let mut world = world();
    let own = world.manager.renewals().views()[0].next;
    let why = Failure::new(FailureClass::Network, "away");
    *world.issuer.info.lock().expect("whole") = Err(why);
    world.inquire();
    assert_eq!(world.manager.renewals().views()[0].next, own);
    assert_eq!(world.manager.renewals().next_ari_query(), Some(NOW + 60));
    world.clock.advance(60);
    assert_eq!(world.inquire(), 1);
    assert_eq!(world.manager.renewals().next_ari_query(), Some(NOW + 180));
    // A restart does not begin anew.
    let mut next = World::over(world.storage.clone(), NOW + 61, []);
    next.apply();
    next.inquire();
    assert_eq!(asked_about(&next), Vec::<String>::new());
    assert_eq!(next.manager.renewals().next_ari_query(), Some(NOW + 180));
}

#[test]
fn it_can_be_switched_off_and_on() {
    let mut world = world();
    let own = world.manager.renewals().views()[0].next;
    say(&world, info(NOW + 20 * DAY, NOW + 22 * DAY));
    world.inquire();
    world.config.renewal.ari = false;
    world.apply();
    assert_eq!(world.manager.renewals().views()[0].next, own);
    assert_eq!(world.manager.renewals().views()[0].advice, None);
    assert_eq!(world.manager.renewals().next_ari_query(), None);
    assert!(world.manager.renewals_mut().request_renewal("a.example"));
    assert_eq!(world.work(), 1);
    let replaced = world.issuer.replaced.lock().expect("whole").clone();
    assert_eq!(replaced, [None, None], "nor is the CA told of the old one");
    world.config.renewal.ari = true;
    world.apply();
    assert_eq!(world.inquire(), 1);
}

#[test]
fn nobody_is_asked_about_what_is_over() {
    let mut world = world();
    world.clock.advance(91 * DAY);
    assert_eq!(world.inquire(), 0);
    assert_eq!(asked_about(&world), Vec::<String>::new());
}

#[test]
fn a_renewal_on_advice_that_fails_is_tried_again_with_patience() {
    let mut world = world();
    say(&world, info(NOW - 20, NOW - 10));
    world.inquire();
    world
        .issuer
        .script
        .lock()
        .expect("whole")
        .push_back(network());
    assert_eq!(world.work(), 1);
    assert!(matches!(
        world.state(),
        CertState::Failed { failures: 1, .. }
    ));
    assert_eq!(world.work(), 0);
    world.clock.advance(HOUR);
    assert_eq!(world.work(), 1);
    assert_eq!(world.state(), CertState::Valid);
}
