//! What is revoked, and what takes its place, here and at other instances.

use super::scripted::{World, network};
use super::*;
use crate::event::{EventKind, Severity};
use crate::issuer::RevocationReason;
use crate::manager::CareError;
use crate::schedule::CertState;

impl World {
    /// As a person has it done.
    fn revoke(&mut self, reason: RevocationReason) -> bool {
        let certificate = self.manager.certificates().next().expect("one is there");
        let fingerprint = certificate.fingerprint().to_string();
        let revoke = self.manager.revocation(&fingerprint, reason);
        let Ok(revoke) = revoke else {
            panic!("it can be revoked")
        };
        let tools = self.manager.tools().clone();
        let done = self.runtime.block_on(revoke.work(&tools));
        done.expect("revoked");
        self.manager.replace_revoked(&revoke).1
    }

    fn heed(&mut self) {
        let revoked = self.manager.tools().revoked();
        self.manager.heed_revoked(&revoked);
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
    assert!(world.manager.managed()[0].is_revoked);
    assert_eq!(world.serial(), first, "served until the next is there");
    assert_eq!(
        world.told().last(),
        Some(&(EventKind::CertificateRevoked, Severity::Warning))
    );
    world.clock.advance(60);
    assert_eq!(world.work(), 1);
    let second = world.serial();
    assert_ne!(second, first);
    assert!(!world.manager.managed()[0].is_revoked);
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
    let retry = world.manager.managed()[0].retry.clone().expect("failed");
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
        .revocation("ab", RevocationReason::Unspecified);
    assert!(matches!(unknown, Err(CareError::Unknown)));
    assert!(matches!(
        world.manager.ca("nobody"),
        Err(CareError::Unknown)
    ));
    assert!(world.manager.ca("ca").is_ok());
}
