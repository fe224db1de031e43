//! What the configuration has certificates for goes before what clients ask for.

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
    let managed = world.manager.managed_views();
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
            .managed_views()
            .iter()
            .all(|one| !one.is_on_demand)
    );
    assert_eq!(world.sweep(), 0);
    world.walk();
    assert!(
        world
            .manager
            .managed_views()
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
