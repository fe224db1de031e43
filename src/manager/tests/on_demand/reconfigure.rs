//! What the configuration has certificates for takes precedence over what clients ask for, and what
//! becomes of names where it changes.

use super::*;

/// After a client has asked for a name, the configuration has it too.
fn taken_over() -> World {
    let mut world = World::demanding([]);
    world.obtain(HOST).expect("obtained");
    let own = site(&[HOST], SiteTls::Auto(vec!["ca".into()]));
    world.config.sites = vec![Arc::new(own)];
    world.apply();
    world.apply();
    world
}

#[test]
fn the_configuration_takes_over_and_gives_back_without_an_order() {
    let mut world = taken_over();
    assert!(world.is_served(HOST));
    let managed = world.manager.renewals().views();
    assert_eq!(managed.len(), 1, "{managed:?}");
    assert!(!managed[0].is_on_demand);
    world.sweep();
    assert!(world.stored("on_demand").is_empty(), "the note goes");
    assert!(!world.stored("certificates").is_empty(), "no more");
    world.config.sites.clear();
    world.apply();
    assert!(!world.is_served(HOST));
    world.obtain(HOST).expect("stored");
    assert_eq!(world.orders(), 1);
}

#[test]
fn what_another_certificate_takes_over_goes_with_its_key_once_it_is_unused() {
    let mut world = World::demanding([]);
    world.obtain(HOST).expect("obtained");
    let wildcard = site(&["*.shop.example"], SiteTls::Auto(vec!["ca".into()]));
    world.config.sites = vec![Arc::new(wildcard)];
    world.apply();
    assert_eq!(world.work(), 1);
    world.apply();
    assert!(
        world
            .manager
            .renewals()
            .views()
            .iter()
            .all(|one| !one.is_on_demand)
    );
    assert_eq!(world.sweep(), 0);
    world.walk();
    assert!(
        world
            .manager
            .renewals()
            .views()
            .iter()
            .all(|one| !one.is_on_demand)
    );
    assert_eq!(
        world.stored("on_demand").len(),
        1,
        "else nobody finds the rest"
    );
    world.clock.advance(31 * DAY);
    world.walk();
    assert_eq!(world.sweep(), 1);
    let left = world.stored("certificates");
    assert!(!left.iter().any(|key| key.contains(HOST)), "{left:?}");
    assert!(
        left.iter().any(|key| key.contains("*.shop.example")),
        "{left:?}"
    );
    assert!(world.stored("on_demand").is_empty());
}

#[test]
fn what_the_configuration_gives_back_in_time_is_left_alone() {
    let mut world = taken_over();
    world.config.sites.clear();
    world.apply();
    world.obtain(HOST).expect("stored");
    assert_eq!(world.sweep(), 0);
    assert_eq!(world.stored("on_demand").len(), 1);
}

#[test]
fn names_that_are_no_longer_allowed_are_let_go_and_come_back_without_an_order() {
    let mut world = World::demanding([]);
    world.obtain(HOST).expect("obtained");
    if let Some(on_demand) = &mut world.config.on_demand {
        on_demand.allow = vec!["*.other.example".parse().expect("a pattern")];
    }
    world.apply();
    assert!(!world.is_served(HOST));
    let not_made = world.obtain(HOST).expect_err("not allowed");
    assert!(not_made.why.contains("not allowed"), "{not_made:?}");
    world.config.on_demand = Some(on_demand());
    world.apply();
    world.obtain(HOST).expect("stored");
    assert_eq!(world.orders(), 1);
}

#[test]
fn another_list_of_issuers_goes_on_with_what_is_there() {
    let mut world = World::demanding([]);
    world.obtain(HOST).expect("obtained");
    let other = world.config.issuers.get("ca").cloned().expect("there");
    world.config.issuers.insert("other".into(), other);
    if let Some(on_demand) = &mut world.config.on_demand {
        on_demand.issuers.push("other".into());
    }
    world.apply();
    assert!(world.is_served(HOST));
    assert_eq!(world.work(), 0);
    assert_eq!(world.manager.renewals().views()[0].issuers.len(), 2);
    let Some(Issuer::Acme(_)) = world.config.issuers.get("other") else {
        panic!("configured");
    };
}
