//! Certificates that CAs are asked for, with a scripted CA.

use super::scripted::{Act, World, network};
use super::*;
use crate::event::{EventKind, Severity};
use crate::schedule::{CertState, FailureClass};

#[test]
fn what_is_missing_is_obtained_stored_and_served() {
    let mut world = World::new([]);
    let report = world.apply();
    assert_eq!(report.missing.len(), 1);
    assert!(
        report.missing[0]
            .to_string()
            .contains("waiting for its turn at ca"),
        "{report:?}"
    );
    assert_eq!(
        report.problems,
        [],
        "it is no fault that it is not there yet"
    );
    assert!(report.missing[0].is_awaited);
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
    assert_eq!(next.told(), [], "all is well");
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
    assert_eq!(world.manager.renewals().views()[0].retry, None);
}

#[test]
fn failures_are_remembered_over_a_restart() {
    let mut world = World::new([network()]);
    world.apply();
    world.work();
    let missing = world.manager.tick().missing.remove(0);
    assert!(missing.why.contains("the CA is away"), "{missing:?}");
    assert!(!missing.is_awaited, "it counts as not covered");

    let mut next = World::over(world.storage.clone(), NOW + 1, []);
    next.apply();
    assert_eq!(next.work(), 0, "a restart does not start over");
    assert!(
        next.manager.tick().missing[0]
            .why
            .contains("the CA is away")
    );
    assert!(matches!(
        next.manager.renewals().startup_status(),
        StartupStatus::Failed(_)
    ));
    // A person may.
    assert!(next.manager.renewals_mut().request_renewal("a.example"));
    assert!(!next.manager.renewals_mut().request_renewal("b.example"));
    assert_eq!(next.work(), 1);
    assert!(next.serial().is_some());
    assert_eq!(
        next.manager.renewals().startup_status(),
        StartupStatus::Complete
    );

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
    let view = &world.manager.renewals().views()[0];
    let retry = view.retry.as_ref().expect("failed");
    assert!(
        retry.message.contains("it is for other.example"),
        "{retry:?}"
    );

    world.clock.advance(DAY);
    world.work();
    assert_eq!(world.serial(), None, "expired by this clock");
    let view = &world.manager.renewals().views()[0];
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
    assert!(world.manager.renewals().views().is_empty());
    assert_eq!(world.manager.renewals().next_due(), None);
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

#[test]
fn a_storage_that_is_full_is_told_of_once_and_written_to_as_soon_as_it_can_be() {
    let mut world = World::new([]);
    world.apply();
    world
        .storage
        .set_failure(Some(std::io::ErrorKind::StorageFull));
    assert_eq!(world.work(), 1);
    let serial = world.serial().expect("served from memory");
    assert!(world.manager.tick().missing.is_empty());
    assert!(!world.manager.renewals().views()[0].is_stored);
    assert_eq!(world.work(), 0);
    let failed = (EventKind::StorageFailed, Severity::Critical);
    let told = world.told();
    assert_eq!(
        told.iter().filter(|told| **told == failed).count(),
        1,
        "{told:?}"
    );

    world.storage.set_failure(None);
    assert_eq!(world.work(), 0);
    assert!(world.manager.renewals().views()[0].is_stored);
    assert_eq!(
        world.told().last(),
        Some(&(EventKind::StorageRecovered, Severity::Info))
    );
    let mut next = World::over(world.storage.clone(), NOW, []);
    next.apply();
    assert_eq!(next.serial(), Some(serial));
}

#[test]
fn nothing_is_ordered_that_a_storage_may_have_which_cannot_be_read() {
    let mut world = World::new([network()]);
    let denied = Some(std::io::ErrorKind::PermissionDenied);
    let asked = |world: &World| world.issuer.asked.lock().expect("whole").len();
    world.storage.set_failure(denied);
    let report = world.apply();
    let why = report.missing[0].to_string();
    assert!(why.contains("cannot be read: cannot read"), "{why}");
    let unread = |world: &World| world.manager.renewals().views()[0].unread.clone();
    let shown = unread(&world).expect("the reason is shown");
    assert!(shown.starts_with("cannot read"), "{shown}");
    for _ in 0..200 {
        assert_eq!(world.work(), 0);
        let next = world.manager.next_pass().expect("it is read again");
        assert_eq!(next, world.clock.now() + 5);
        world.clock.advance(5);
        world.manager.tick();
    }
    let failed = (EventKind::StorageFailed, Severity::Critical);
    assert_eq!(world.told(), [failed], "told once");

    world.storage.set_failure(None);
    world.clock.advance(5);
    world.manager.tick();
    assert_eq!(world.manager.next_pass(), None);
    let recovered = (EventKind::StorageRecovered, Severity::Info);
    assert_eq!(world.told(), [failed, recovered]);
    assert_eq!((world.work(), asked(&world)), (1, 1));
    assert!(matches!(world.state(), CertState::Failed { .. }));
    world.manager.tick();
    assert_eq!(world.work(), 0, "a pass makes nobody forget");

    // The same where it can no longer be read.
    world.storage.set_failure(denied);
    world.clock.advance(7200);
    assert_eq!((world.work(), asked(&world)), (1, 1));
    let why = world.manager.tick().missing[0].to_string();
    assert!(why.contains("cannot be read"), "{why}");
    world.clock.advance(60);
    world.work();
    assert_eq!(asked(&world), 1);
    world.storage.set_failure(None);
    world.clock.advance(5);
    world.manager.tick();
    assert_eq!(unread(&world), None);
    assert_eq!((world.work(), asked(&world)), (1, 2));
    assert!(world.manager.renewals().views()[0].is_stored);
}

#[test]
fn what_is_served_and_soon_ends_is_renewed_whatever_the_storage_does() {
    let mut world = World::new([]);
    world.apply();
    assert_eq!(world.work(), 1);
    let first = world.serial().expect("served");
    world
        .storage
        .set_failure(Some(std::io::ErrorKind::PermissionDenied));
    // Due for days, and good for weeks.
    world.clock.advance(65 * DAY);
    world.work();
    assert_eq!(world.serial(), Some(first.clone()), "it can wait");
    world.clock.advance(12 * DAY);
    world.work();
    let second = world.serial().expect("served");
    assert_ne!(second, first);
    assert!(!world.manager.renewals().views()[0].is_stored);
    world.storage.set_failure(None);
    world.clock.advance(5);
    world.work();
    assert!(world.manager.renewals().views()[0].is_stored);
    let mut next = World::over(world.storage.clone(), world.clock.now(), []);
    next.apply();
    assert_eq!(next.serial(), Some(second));
}

#[test]
fn another_ca_under_the_same_name_is_asked_at_once() {
    let mut world = World::new([]);
    world.apply();
    world.work();
    let first = world.serial();
    if let Some(Issuer::Acme(acme)) = world.config.issuers.get_mut("ca") {
        Arc::make_mut(acme).directory = "https://other.test/directory".to_owned();
    }
    world.issuer.move_to_another();
    assert!(world.apply().missing.is_empty());
    assert_eq!(world.serial(), first, "served on");
    assert_eq!(world.work(), 1);
    assert_ne!(world.serial(), first);
    assert_eq!(world.work(), 0);
}

#[test]
fn a_site_is_left_to_the_certificate_that_is_configured_for_its_host() {
    let mut world = World::new([]);
    world.config.certificates = [CertificateSource::Managed {
        names: ["a.example", "b.example"]
            .map(|name| name.parse().expect("a name"))
            .to_vec(),
        issuers: vec!["ca".into()],
        dns: None,
        origin: origin("certificates[0]"),
    }]
    .into();
    let report = world.apply();
    assert_eq!(report.to_obtain, 1);
    assert_eq!(report.missing.len(), 1);
    assert_eq!(world.work(), 1);
    assert_eq!(
        *world.issuer.asked.lock().expect("whole"),
        [["a.example", "b.example"]]
    );
    assert!(world.manager.tick().missing.is_empty());
    assert_eq!(world.work(), 0);
}
