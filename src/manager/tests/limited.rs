//! What a CA limits or refuses, and to whom that is left.

use super::scripted::{Act, Scripted, World, network, refused};
use super::*;
use crate::schedule::{CertState, Failure, FailureClass, Retry};
use crate::storage::keys;

const HOUR: i64 = 3600;

/// Sites for these names, each of which asks these issuers.
fn sites(world: &mut World, names: &[&str], issuers: &[&str]) {
    let issuers: Vec<Arc<str>> = issuers.iter().map(|name| (*name).into()).collect();
    let site = |name: &&str| Arc::new(site(&[name], SiteTls::Auto(issuers.clone())));
    world.config.sites = names.iter().map(site).collect();
}

fn view(world: &World, name: &str) -> ManagedView {
    let views = world.manager.renewals().views().into_iter();
    let mut views = views.filter(|view| view.names[0].to_string() == name);
    views.next().expect("it is asked for")
}

/// Why a name has no certificate.
fn why(world: &mut World, name: &str) -> String {
    let missing = world.manager.tick().missing;
    let mut missing = missing.iter().filter(|one| one.host.to_string() == name);
    missing.next().map_or_else(String::new, ToString::to_string)
}

fn asked(scripted: &Scripted) -> Vec<Vec<String>> {
    scripted.asked.lock().expect("whole").clone()
}

#[test]
fn a_limit_on_one_set_of_names_leaves_all_others_alone() {
    let mut world = World::new([]);
    sites(&mut world, &["a.example", "b.example"], &["ca"]);
    world.issuer.limit_set("a.example", NOW + 34 * HOUR);
    world.apply();
    assert_eq!(world.work(), 1);
    assert_eq!(asked(&world.issuer), [["b.example"]]);
    assert_eq!(view(&world, "b.example").state, CertState::Valid);
    // It is known, and not said, that nobody is asked for the other.
    let held = view(&world, "a.example").held.expect("held");
    assert_eq!((&*held.issuer, held.wait.until), ("ca", NOW + 34 * HOUR));
    assert_eq!(held.wait.reason.as_str(), "set");
    assert_eq!(view(&world, "a.example").next, Some(NOW + 34 * HOUR));
    let why = why(&mut world, "a.example");
    for part in [
        "exact set of names",
        "2025-09-16T10:00:00Z",
        "too many of this",
    ] {
        assert!(why.contains(part), "{part}: {why}");
    }
    assert!(!why.contains("is being asked"), "{why}");
    assert!(matches!(
        world.manager.renewals().startup_status(),
        StartupStatus::Failed(_)
    ));
    let retry = world.storage.list(&"retry".parse().expect("a key"));
    assert_eq!(retry.expect("readable"), [], "nothing has failed");

    world.clock.advance(33 * HOUR);
    assert_eq!(world.work(), 0);
    world.clock.advance(2 * HOUR);
    assert_eq!(world.work(), 1);
    assert_eq!(view(&world, "a.example").held, None);
    assert_eq!(view(&world, "a.example").state, CertState::Valid);
}

#[test]
fn a_limit_that_is_lifted_for_one_lets_all_go_on_that_it_held() {
    let mut world = World::new([]);
    sites(
        &mut world,
        &["a.example", "b.example", "c.example"],
        &["ca"],
    );
    world.issuer.limit(Some(NOW + 34 * HOUR));
    world.apply();
    assert_eq!(world.work(), 0);
    let why = why(&mut world, "c.example");
    assert!(
        why.contains("ca: the CA limits this account until"),
        "{why}"
    );
    world.issuer.limit(None);
    assert!(world.manager.renewals_mut().request_renewal("a.example"));
    assert_eq!(world.work(), 3);
}

#[test]
fn a_renewal_that_says_what_it_replaces_is_not_held_by_what_new_orders_met() {
    let mut world = World::new([]);
    sites(&mut world, &["a.example", "b.example"], &["ca"]);
    world.config.renewal.ari = true;
    sites(&mut world, &["a.example"], &["ca"]);
    world.apply();
    assert_eq!(world.work(), 1);
    world.clock.advance(65 * DAY);
    world.issuer.limit(Some(world.clock.now() + 34 * HOUR));
    sites(&mut world, &["a.example", "b.example"], &["ca"]);
    world.apply();
    assert_eq!(world.work(), 1);
    assert_eq!(asked(&world.issuer), [["a.example"], ["a.example"]]);
    assert!(view(&world, "b.example").held.is_some());
    assert_eq!(view(&world, "a.example").held, None);
}

#[test]
fn the_next_ca_is_asked_where_one_is_held_or_has_failed() {
    let mut world = World::new([]);
    sites(&mut world, &["a.example"], &["ca", "second"]);
    world.issuer.limit(Some(NOW + 34 * HOUR));
    world.apply();
    assert_eq!(world.work(), 1);
    assert!(asked(&world.issuer).is_empty());
    assert_eq!(asked(&world.second), [["a.example"]]);
    assert_eq!(view(&world, "a.example").state, CertState::Valid);
}

/// By a reload and by a restart, in the place of the first CA and beside it.
#[test]
fn failures_at_one_ca_are_nothing_to_another() {
    let paused = || {
        Act::Fail(Failure::new(
            FailureClass::Paused,
            "unpause it at the portal",
        ))
    };
    for (is_reload, issuers) in [
        (true, &["second"][..]),
        (true, &["ca", "second"]),
        (false, &["second"]),
        (false, &["ca", "second"]),
    ] {
        for act in [refused(), paused()] {
            let mut world = World::new([act]);
            world.apply();
            assert_eq!(world.work(), 1);
            assert_eq!(world.work(), 0);
            let first = view(&world, "a.example").retry.expect("failed");
            assert_eq!(first.issuer.as_deref(), Some("ca"));
            if !is_reload {
                world = World::over(world.storage.clone(), NOW + 1, []);
            }
            let before = asked(&world.issuer).len();
            sites(&mut world, &["a.example"], issuers);
            world.apply();
            assert_eq!(world.work(), 1, "{issuers:?}");
            assert_eq!(asked(&world.second).len(), 1, "{issuers:?}");
            assert_eq!(asked(&world.issuer).len(), before, "it is not its time");
            assert_eq!(view(&world, "a.example").state, CertState::Valid);
            assert_eq!(view(&world, "a.example").retry, None);
        }
    }
}

#[test]
fn another_directory_is_another_ca_over_a_restart_too() {
    let mut world = World::new([refused()]);
    world.apply();
    world.work();
    let mut same = World::over(world.storage.clone(), NOW + 1, []);
    same.apply();
    assert_eq!(same.work(), 0, "a restart does not start over");
    let mut other = World::over(world.storage.clone(), NOW + 1, []);
    other.issuer.move_to_another();
    other.apply();
    assert_eq!(other.work(), 1);
}

#[test]
fn two_needs_with_the_same_names_share_no_failures() {
    let mut world = World::new([refused()]);
    world.apply();
    world.work();
    // The site still asks the one, an entry asks the other.
    world.config.certificates = [CertificateSource::Managed {
        names: vec!["a.example".parse().expect("a name")],
        issuers: vec!["second".into()],
        dns: None,
        origin: origin("certificates[0]"),
    }]
    .into();
    sites(&mut world, &["a.example"], &[]);
    world.config.sites[0] = site(&["a.example"], SiteTls::Issuer("ca".into())).into();
    world.apply();
    assert_eq!(world.work(), 1);
    assert_eq!(asked(&world.second), [["a.example"]]);
    let failures = keys::retry("ca.test", "a.example").expect("a key");
    assert!(
        world.storage.exists(&failures).expect("readable"),
        "it has failed still"
    );
    let views = world.manager.renewals().views();
    assert_eq!(views.len(), 2);
    for view in views {
        let is_failed = view.issuers == ["ca".into()];
        assert_eq!(view.retry.is_some(), is_failed, "{:?}", view.issuers);
    }
    let next = World::over(world.storage.clone(), NOW + 1, []);
    assert!(next.storage.exists(&failures).expect("readable"));
}

#[test]
fn each_ca_of_a_list_has_its_own_time() {
    let mut world = World::new([refused()]);
    sites(&mut world, &["a.example"], &["ca", "second"]);
    world
        .second
        .script
        .lock()
        .expect("whole")
        .push_back(network());
    world.apply();
    assert_eq!(world.work(), 1);
    let next = view(&world, "a.example").next.expect("tried again");
    assert!(
        next <= NOW + 70,
        "the one that is away is asked after a minute"
    );
    world.clock.advance(70);
    assert_eq!(world.work(), 1);
    assert_eq!(
        asked(&world.issuer).len(),
        1,
        "and the one that refuses is not"
    );
    assert_eq!(asked(&world.second).len(), 2);
    assert_eq!(view(&world, "a.example").state, CertState::Valid);
}

/// As 0.1.0 has stored it.
#[test]
fn what_former_versions_kept_counts_for_the_issuer_that_it_names() {
    for (issuer, jobs) in [("ca", 0), ("gone", 1)] {
        let storage = MemoryStorage::default();
        let retry = Retry {
            failures: 3,
            last: NOW - 10,
            next: Some(NOW + 12 * HOUR),
            class: FailureClass::Refused,
            message: "no".to_owned(),
            issuer: Some(issuer.to_owned()),
            ..Retry::default()
        };
        let value = serde_json::to_vec(&retry).expect("JSON");
        let key = keys::former_retry("a.example").expect("a key");
        storage.store(&key, &value).expect("writable");
        let mut world = World::over(storage, NOW, []);
        world.apply();
        assert_eq!(world.work(), jobs, "{issuer}");
        if jobs == 0 {
            world.clock.advance(13 * HOUR);
            assert_eq!(world.work(), 1);
            assert!(!world.storage.exists(&key).expect("readable"), "it is over");
        }
    }
}

#[test]
fn a_certificate_is_found_whatever_the_order_of_its_names() {
    let entry = |names: [&str; 2]| CertificateSource::Managed {
        names: names.map(|name| name.parse().expect("a name")).to_vec(),
        issuers: vec!["ca".into()],
        dns: None,
        origin: origin("certificates[0]"),
    };
    let mut world = World::new([]);
    world.config.sites.clear();
    world.config.certificates = [entry(["a.example", "b.example"])].into();
    world.apply();
    assert_eq!(world.work(), 1);
    world.config.certificates = [entry(["b.example", "a.example"])].into();
    world.apply();
    assert_eq!(world.work(), 0, "it is the same set for a CA");

    // 0.1.0 kept it by the name that came first.
    let subject = |names: [&str; 2]| keys::subject(&names.map(|name| name.parse().expect("one")));
    let new = subject(["a.example", "b.example"]);
    let former = new.replacen("a.example", "b.example", 1);
    let storage = MemoryStorage::default();
    for kind in [keys::certificate, keys::metadata] {
        let value = world.storage.load(&kind("ca.test", &new).expect("a key"));
        let value = value.expect("readable").expect("stored");
        storage
            .store(&kind("ca.test", &former).expect("a key"), &value)
            .expect("writable");
    }
    for names in [["b.example", "a.example"], ["a.example", "b.example"]] {
        let mut next = World::over(storage.clone(), NOW + DAY, []);
        next.config.sites.clear();
        next.config.certificates = [entry(names)].into();
        next.apply();
        assert_eq!(next.work(), 0, "an upgrade orders nothing again");
        assert!(next.serial().is_some());
    }
}
