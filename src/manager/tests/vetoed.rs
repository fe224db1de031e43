//! A hook that objects to certificates from CAs.

use std::sync::Mutex;

use async_trait::async_trait;

use super::scripted::{Act, World};
use super::*;
use crate::event::{Event, EventKind, Severity};
use crate::host::Pattern;
use crate::renewal::ObtainingHook;
use crate::schedule::{CertState, FailureClass};

const MINUTE: i64 = 60;

/// Says what it is told to say.
#[derive(Default)]
struct Says {
    objection: Mutex<Option<String>>,
    asked: Mutex<Vec<(EventKind, Vec<String>)>>,
}

impl Says {
    fn object(&self, why: Option<&str>) {
        *self.objection.lock().expect("whole") = why.map(str::to_owned);
    }

    fn asked(&self) -> usize {
        self.asked.lock().expect("whole").len()
    }
}

#[async_trait]
impl ObtainingHook for Says {
    async fn object(&self, event: &Event, names: &[Pattern]) -> Option<String> {
        let names = names.iter().map(ToString::to_string).collect();
        self.asked.lock().expect("whole").push((event.kind, names));
        self.objection.lock().expect("whole").clone()
    }
}

fn hooked(script: impl IntoIterator<Item = Act>) -> (World, Arc<Says>) {
    let world = World::new(script);
    let hook = Arc::new(Says::default());
    let of_jobs = Arc::clone(&hook);
    world.manager.renewals().deps().hook.set(Some(of_jobs));
    (world, hook)
}

#[test]
fn no_ca_is_asked_where_a_hook_objects_and_it_is_asked_again_ever_less_often() {
    let (mut world, hook) = hooked([]);
    hook.object(Some("the change freeze lasts until Monday"));
    world.apply();
    assert_eq!(world.work(), 1);
    assert_eq!(world.issuer.asked.lock().expect("whole").len(), 0);
    let asked = hook.asked.lock().expect("whole").clone();
    assert_eq!(
        asked,
        [(
            EventKind::CertificateObtaining,
            vec!["a.example".to_owned()]
        )]
    );
    assert_eq!(
        world.told(),
        [(EventKind::CertificateVetoed, Severity::Warning)],
        "nothing is said of an order that is not made"
    );
    let event = world.events.recent().pop().expect("an event");
    let why = "the change freeze lasts until Monday";
    assert_eq!(event.reason.as_deref(), Some(why));
    assert!(event.message.contains(why), "{}", event.message);
    let view = world.manager.renewals().views().remove(0);
    let retry = view.retry.expect("it is held");
    assert_eq!((retry.class, &*retry.message), (FailureClass::Vetoed, why));
    assert!(matches!(view.state, CertState::Failed { failures: 1, .. }));

    world.clock.advance(5 * MINUTE);
    assert_eq!(world.work(), 0, "not yet");
    world.clock.advance(8 * MINUTE);
    assert_eq!((world.work(), hook.asked()), (1, 2));
    world.clock.advance(13 * MINUTE);
    assert_eq!(world.work(), 0, "less often");
    world.clock.advance(25 * MINUTE);
    hook.object(None);
    assert_eq!((world.work(), hook.asked()), (1, 3));
    assert_eq!(world.state(), CertState::Valid);
    let last_two = world.told().split_off(2);
    assert_eq!(
        last_two,
        [
            (EventKind::CertificateObtaining, Severity::Info),
            (EventKind::CertificateObtained, Severity::Info)
        ]
    );
}

#[test]
fn a_certificate_that_is_held_is_reported_more_gravely_the_sooner_it_ends() {
    let (mut world, hook) = hooked([]);
    world.apply();
    world.work();
    let serial = world.serial();
    hook.object(Some("no"));
    world.clock.advance(65 * DAY);
    world.work();
    let vetoed = EventKind::CertificateVetoed;
    assert_eq!(world.told().last(), Some(&(vetoed, Severity::Warning)));
    world.clock.advance(24 * DAY);
    world.work();
    assert_eq!(world.told().last(), Some(&(vetoed, Severity::Critical)));
    assert_eq!(world.serial(), serial, "served on");
    assert_eq!(world.issuer.asked.lock().expect("whole").len(), 1);
}

#[test]
fn a_local_ca_needs_nobodys_leave() {
    let (mut world, hook) = hooked([]);
    hook.object(Some("no"));
    world.config.issuers.insert(
        "local".into(),
        Issuer::LocalCa {
            name: "Snigate Local CA".to_owned(),
        },
    );
    world.config.sites = vec![site(&["a.example"], SiteTls::Auto(vec!["local".into()])).into()];
    world.apply();
    world.work();
    assert!(world.serial().is_some());
    assert_eq!(hook.asked(), 0);
}
