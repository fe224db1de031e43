//! What becomes of certificates from CAs when something changes around them.

use super::scripted::{Act, World, network};
use super::*;
use crate::event::Severity;
use crate::host::Pattern;
use crate::schedule::{CertState, Failure, FailureClass};

fn names(names: &[&str]) -> Vec<Pattern> {
    let names = names.iter();
    names.map(|name| name.parse().expect("a name")).collect()
}

fn managed(hosts: &[&str], issuers: &[&str]) -> CertificateSource {
    CertificateSource::Managed {
        names: names(hosts),
        issuers: issuers.iter().map(|issuer| (*issuer).into()).collect(),
        dns: None,
        origin: origin("certificates[0]"),
    }
}

#[test]
fn a_certificate_for_more_names_replaces_the_one_at_hand_only_once_it_is_there() {
    for first in [&["a.example"][..], &["b.example", "a.example"]] {
        let mut world = World::new([Act::Issue(90 * DAY), network()]);
        if first.len() > 1 {
            world.config.certificates = [managed(first, &["ca"])].into();
        }
        world.apply();
        assert_eq!(world.work(), 1);
        let serial = world.serial().expect("served");

        let three = ["a.example", "b.example", "c.example"];
        world.config.certificates = [managed(&three, &["ca"])].into();
        assert!(world.apply().missing.is_empty(), "{first:?}");
        assert_eq!(world.serial().as_ref(), Some(&serial), "served on");
        world.work();
        world.manager.tick();
        assert_eq!(world.serial().as_ref(), Some(&serial), "the CA was away");

        // A restart makes no difference.
        let mut next = World::over(world.storage.clone(), NOW + 300, []);
        next.config.certificates = [managed(&three, &["ca"])].into();
        assert!(next.apply().missing.is_empty(), "{first:?}");
        assert_eq!(next.serial().as_ref(), Some(&serial));
        assert_eq!(next.work(), 1);
        assert_ne!(next.serial().as_ref(), Some(&serial));
        next.manager.tick();
        assert_eq!(next.manager.certificates().count(), 1, "nothing is left");
    }
}

#[test]
fn another_issuer_goes_on_with_what_is_good_for_long() {
    let mut world = World::new([]);
    world.apply();
    world.work();
    let serial = world.serial();
    let acme = world.config.issuers["ca"].clone();
    world.config.issuers.insert("other".into(), acme);
    world.config.sites = vec![Arc::new(site(
        &["a.example"],
        SiteTls::Auto(vec!["other".into()]),
    ))];
    let report = world.apply();
    assert!(report.missing.is_empty());
    assert_eq!(world.serial(), serial);
    assert_eq!(world.work(), 0, "not before it is due");
    world.manager.tick();
    assert_eq!(world.manager.certificates().count(), 1);

    // A site that asks for one issuer gets it from that one's CA.
    world.issuer.move_to_another();
    world.config.sites = vec![Arc::new(site(
        &["a.example"],
        SiteTls::Issuer("ca2".into()),
    ))];
    let acme = world.config.issuers["ca"].clone();
    world.config.issuers.insert("ca2".into(), acme);
    assert!(world.apply().missing.is_empty());
    assert_eq!(world.serial(), serial, "served until then");
    assert_eq!(world.work(), 1);
    assert_ne!(world.serial(), serial);
}

#[test]
fn the_failure_of_a_peer_counts_too() {
    let storage = MemoryStorage::default();
    let mut one = World::over(storage.clone(), NOW, [network(), network()]);
    let mut other = World::over(storage, NOW, []);
    one.apply();
    other.apply();
    one.work();
    assert_eq!(other.work(), 1);
    assert!(other.issuer.asked.lock().expect("whole").is_empty());
    assert!(matches!(
        other.state(),
        CertState::Failed { failures: 1, .. }
    ));
    // A person may all the same.
    assert!(other.manager.renewals_mut().request_renewal("a.example"));
    assert_eq!(other.work(), 1);
    assert!(other.serial().is_some());
}

#[test]
fn work_that_is_lost_is_done_again() {
    let mut world = World::new([]);
    world.apply();
    drop(world.manager.due_jobs());
    assert!(world.manager.due_jobs().is_empty(), "not at once");
    assert!(matches!(world.state(), CertState::Failed { .. }));
    world.clock.advance(3600);
    assert_eq!(world.work(), 1);
    assert!(world.serial().is_some());
}

#[test]
fn limits_put_off_and_are_no_failures() {
    let mut world = World::new([]);
    world.apply();
    world.issuer.limit(Some(NOW + 600));
    assert_eq!(world.work(), 0);
    assert_eq!(world.manager.renewals().next_due(), Some(NOW + 600));
    assert_eq!(world.state(), CertState::Missing);
    assert_eq!(world.told(), []);
    world.clock.advance(601);
    assert_eq!(world.work(), 1);
    assert!(world.serial().is_some());
}

#[test]
fn a_ca_that_has_paused_is_left_alone_until_somebody_asks() {
    let paused = Failure {
        url: Some("https://ca.test/unpause".to_owned()),
        ..Failure::new(FailureClass::Paused, "the account is paused")
    };
    let mut world = World::new([Act::Fail(paused)]);
    world.apply();
    world.work();
    let events = world.events.recent();
    let last = events.last().expect("told");
    assert_eq!(last.severity, Severity::Critical);
    assert_eq!(last.url.as_deref(), Some("https://ca.test/unpause"));
    world.clock.advance(400 * DAY);
    assert_eq!(world.work(), 0);
    assert_eq!(world.state(), CertState::Paused);
    assert!(world.manager.renewals_mut().request_renewal("a.example"));
    assert_eq!(world.work(), 1);
    assert!(world.serial().is_some());
}

#[test]
fn a_start_that_depends_on_it_asks_once_more() {
    let mut world = World::new([network()]);
    world.apply();
    world.work();
    let mut next = World::over(world.storage.clone(), NOW + 1, [network()]);
    next.config.renewal.required_at_start = true;
    next.apply();
    assert_eq!(
        next.manager.renewals().startup_status(),
        StartupStatus::Pending
    );
    assert_eq!(next.work(), 1);
    assert!(matches!(
        next.manager.renewals().startup_status(),
        StartupStatus::Failed(_)
    ));
}

#[test]
fn an_issuer_whose_account_changes_goes_on_renewing() {
    let mut world = World::new([]);
    world.apply();
    assert_eq!(world.work(), 1);
    let serial = world.serial();
    if let Some(Issuer::Acme(acme)) = world.config.issuers.get_mut("ca") {
        Arc::make_mut(acme).email = Some("ops@example.com".to_owned());
    }
    world.apply();
    assert_eq!(world.work(), 0, "it is good for long");
    world.clock.advance(70 * DAY);
    assert_eq!(world.work(), 1);
    assert_eq!(world.manager.renewals().views()[0].retry, None);
    assert_ne!(world.serial(), serial);
}
