//! Certificates of two CAs for one set of names.

use super::scripted::World;
use super::*;

#[test]
fn certificates_of_two_cas_for_the_same_names_wait_side_by_side() {
    let mut world = World::new([]);
    // One need for each CA, with one set of names.
    let of_second = site(&["a.example"], SiteTls::Issuer("second".into()));
    world.config.sites = vec![Arc::new(of_second)];
    let source = CertificateSource::Managed {
        names: vec!["a.example".parse().expect("a name")],
        issuers: vec!["ca".into()],
        dns: None,
        origin: origin("certificates[0]"),
    };
    world.config.certificates = vec![source].into();
    world.apply();
    world
        .storage
        .set_failure(Some(std::io::ErrorKind::StorageFull));
    assert_eq!(world.work(), 2);
    let stored = |world: &World| -> Vec<bool> {
        let managed = world.manager.renewals().views();
        managed.iter().map(|one| one.is_stored).collect()
    };
    assert_eq!(stored(&world), [false, false]);
    world.storage.set_failure(None);
    assert_eq!(world.manager.renewals().deps().flush_pending_writes(), 0);
    assert_eq!(stored(&world), [true, true]);
    for ca in ["ca.test", "second"] {
        let key = format!("certificates/{ca}/a.example.pem").parse();
        let there = world.storage.exists(&key.expect("a key"));
        assert!(there.expect("readable"), "{ca}");
    }
}
