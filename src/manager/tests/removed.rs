//! Certificates whose files are removed from a directory.

use std::fs;

use super::*;

#[test]
fn a_certificate_whose_file_is_gone_for_a_moment_is_served_all_the_while() {
    let mut fixture = Fixture::new();
    let leaf = fixture.write_pair("a.example", &["a.example"]);
    let report = fixture
        .manager
        .apply(&config(vec![fixture.directory()], Vec::new()));
    assert_eq!(report.certificates, 1);
    let before = fixture.serial("a.example");
    let path = fixture.path("a.example.pem");
    fs::remove_file(&path).expect("there");
    let look = |fixture: &mut Fixture| fixture.manager.refresh_paths(std::slice::from_ref(&path));
    assert!(look(&mut fixture).is_unchanged());
    assert!(fixture.manager.refresh().is_unchanged(), "nor by a sweep");
    fixture.clock.advance(3);
    fixture.write("a.example.pem", &fixture.ca.chain(&leaf));
    assert!(look(&mut fixture).is_unchanged());
    fixture.clock.advance(60);
    assert!(fixture.manager.tick().is_unchanged());
    assert_eq!(fixture.serial("a.example"), before);
    assert_eq!(fixture.manager.next_pass(), None);

    // What has ended, and what the configuration no longer names, goes at once.
    fixture.clock.advance(400 * DAY);
    fixture.manager.tick();
    fs::remove_file(&path).expect("there");
    assert_eq!(look(&mut fixture).removed.len(), 1);
}

#[test]
fn a_removed_file_is_seen_where_a_directory_is_named_twice() {
    let mut fixture = Fixture::new();
    for name in ["a.example", "b.example"] {
        fixture.write_pair(name, &[name]);
    }
    let twice = vec![fixture.directory(), fixture.directory()];
    let report = fixture.manager.apply(&config(twice, Vec::new()));
    assert_eq!(report.certificates, 2);
    fs::remove_file(fixture.path("b.example.pem")).expect("there");
    fixture.manager.refresh();
    fixture.clock.advance(5);
    assert_eq!(fixture.manager.tick().removed.len(), 1);
    assert!(fixture.serial("a.example").is_some());
    assert_eq!(fixture.serial("b.example"), None);
}
