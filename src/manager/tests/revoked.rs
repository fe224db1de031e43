//! What is revoked, and what takes its place, here and at other instances.

use super::scripted::{World, network};
use super::*;
use crate::config::model::Issuer;
use crate::event::{EventKind, Severity};
use crate::issuer::RevocationReason;
use crate::renewal::list_revoked;
use crate::schedule::CertState;

impl World {
    /// As a person has it done.
    fn revoke(&mut self, reason: RevocationReason) -> bool {
        let certificate = self.manager.certificates().next().expect("one is there");
        let fingerprint = certificate.fingerprint().to_string();
        let revoke = self.manager.plan_revocation(&fingerprint, reason);
        let Ok(revoke) = revoke else {
            panic!("it can be revoked")
        };
        let deps = self.manager.renewals().deps().clone();
        let done = self.runtime.block_on(revoke.run(&deps));
        done.expect("revoked");
        self.manager.replace_revoked(&revoke).expect("replaced")
    }

    fn heed(&mut self) {
        let revoked = list_revoked(self.manager.renewals().deps());
        self.manager.renewals_mut().mark_revoked(&revoked);
    }
}

#[test]
fn all_instances_serve_the_one_that_takes_its_place() {
    let mut world = World::new([]);
    world.apply();
    world.work();
    let mut peer = World::over(world.storage.clone(), NOW, []);
    peer.apply();
    let first = world.serial();
    assert_eq!(peer.serial(), first);

    assert!(world.revoke(RevocationReason::Superseded));
    assert_eq!(
        *world.issuer.revoked.lock().expect("whole"),
        [RevocationReason::Superseded]
    );
    assert!(world.manager.renewals().views()[0].is_revoked);
    assert_eq!(world.serial(), first, "served until the next is there");
    assert_eq!(
        world.told().last(),
        Some(&(EventKind::CertificateRevoked, Severity::Warning))
    );
    world.clock.advance(60);
    assert_eq!(world.work(), 1);
    let second = world.serial();
    assert_ne!(second, first);
    assert!(!world.manager.renewals().views()[0].is_revoked);
    world.heed();
    assert_eq!(world.work(), 0, "once");

    peer.clock.advance(60);
    peer.heed();
    assert_eq!(peer.work(), 1);
    assert_eq!(peer.serial(), second);
    assert_eq!(peer.issuer.asked.lock().expect("whole").len(), 0, "found");
    assert_eq!(peer.work(), 0);
}

#[test]
fn what_failed_before_a_restart_waits_on() {
    let mut world = World::new([]);
    world.apply();
    world.work();
    world.revoke(RevocationReason::CessationOfOperation);
    *world.issuer.script.lock().expect("whole") = [network()].into();
    assert_eq!(world.work(), 1);
    assert!(matches!(world.state(), CertState::Failed { .. }));

    let mut next = World::over(world.storage.clone(), NOW + 1, []);
    next.apply();
    next.heed();
    assert!(matches!(
        next.state(),
        CertState::Failed { failures: 1, .. }
    ));
    assert_eq!(next.work(), 0, "no haste by a restart");
    next.clock.advance(DAY);
    assert_eq!(next.work(), 1);
    assert_ne!(next.serial(), world.serial());
}

#[test]
fn a_compromised_key_is_kept_from_use_wherever_it_turns_up() {
    let mut world = World::new([]);
    world.apply();
    world.work();
    let first = world.serial();
    world.revoke(RevocationReason::KeyCompromise);
    assert_eq!(
        world.told().last(),
        Some(&(EventKind::CertificateRevoked, Severity::Critical))
    );
    // An order is gone on with that has the old key.
    *world.issuer.repeats.lock().expect("whole") = true;
    assert_eq!(world.work(), 1);
    assert_eq!(world.serial(), first);
    let retry = world.manager.renewals().views()[0]
        .retry
        .clone()
        .expect("failed");
    assert!(retry.message.contains("compromised"), "{retry:?}");
    *world.issuer.repeats.lock().expect("whole") = false;
    world.clock.advance(DAY);
    assert_eq!(world.work(), 1);
    assert_ne!(world.serial(), first);
    let previous = world.issuer.previous.lock().expect("whole").clone();
    assert_eq!(previous, [false; 3], "it was not offered again");
}

#[test]
fn what_is_not_ours_is_not_revoked() {
    let mut world = World::new([]);
    world.apply();
    let unknown = world
        .manager
        .plan_revocation("ab", RevocationReason::Unspecified);
    assert!(matches!(unknown, Err(ActionError::Unknown)));
    assert!(matches!(
        world.manager.acme_issuer("nobody"),
        Err(ActionError::Unknown)
    ));
    assert!(world.manager.acme_issuer("ca").is_ok());
}

/// As where the directory of the issuer has changed: another CA goes by its name.
#[test]
fn a_ca_is_not_asked_to_revoke_what_another_has_issued() {
    let mut world = World::new([]);
    world.apply();
    world.work();
    *world.issuer.moved.lock().expect("whole") = true;
    let certificate = world.manager.certificates().next().expect("one is there");
    let fingerprint = certificate.fingerprint().to_string();
    let reason = RevocationReason::Unspecified;
    let refused = world.manager.plan_revocation(&fingerprint, reason);
    let Some(ActionError::Refused(why)) = refused.err() else {
        panic!("another CA is asked")
    };
    assert!(why.contains("no longer configured"), "{why}");
}

#[test]
fn a_revoked_or_expired_certificate_is_not_said_to_be_replaced() {
    let mut world = World::new([]);
    world.apply();
    world.work();
    world.revoke(RevocationReason::Superseded);
    assert_eq!(world.work(), 1);
    world.clock.advance(400 * DAY);
    assert_eq!(world.work(), 1);
    let replaced = world.issuer.replaced.lock().expect("whole").clone();
    assert_eq!(replaced, [None, None, None]);
}

#[test]
fn the_local_ca_gives_up_what_it_can_replace() {
    let mut fixture = Fixture::new();
    let mut config = with_local_ca(config(Vec::new(), vec![site(&["a.example"], auto())]));
    assert_clean(&fixture.manager.apply(&config));
    let first = fixture.serial("a.example").expect("served");
    let root = "local_ca/root.key".parse().expect("a key");
    let sound = fixture
        .storage
        .load(&root)
        .expect("readable")
        .expect("there");
    fixture.storage.store(&root, b"").expect("writable");
    // Another name: it is opened anew.
    let issuer = Issuer::LocalCa {
        name: "Another".to_owned(),
    };
    config.issuers.insert("local".into(), issuer);
    fixture.manager.apply(&config);

    let revoke = |fixture: &mut Fixture| {
        let certificate = fixture.manager.certificates().next().expect("one");
        let fingerprint = certificate.fingerprint().to_string();
        let reason = RevocationReason::Superseded;
        let Ok(revoke) = fixture.manager.plan_revocation(&fingerprint, reason) else {
            panic!("it can be revoked")
        };
        fixture.manager.replace_revoked(&revoke)
    };
    let Err(ActionError::Failed(failure)) = revoke(&mut fixture) else {
        panic!("there is no root")
    };
    assert!(
        failure.message.contains("the current one is still served"),
        "{failure}"
    );
    assert_eq!(fixture.serial("a.example").as_ref(), Some(&first));
    fixture.manager.tick();
    assert_eq!(fixture.serial("a.example").as_ref(), Some(&first));
    let events = fixture.manager.renewals().deps().events().recent();
    assert!(
        events
            .iter()
            .all(|event| event.kind != EventKind::CertificateRevoked)
    );

    fixture.storage.store(&root, &sound).expect("writable");
    assert_eq!(revoke(&mut fixture), Ok(false));
    let second = fixture.serial("a.example").expect("served");
    assert_ne!(second, first);
    let events = fixture.manager.renewals().deps().events().recent();
    assert!(
        events
            .iter()
            .any(|event| event.kind == EventKind::CertificateRevoked)
    );
}
