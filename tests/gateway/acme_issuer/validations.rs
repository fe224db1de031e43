//! Validations that fail, however long: a CA bears so many of a name in an hour.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use snigate::challenge::ChallengeSolver;
use snigate::clock::{Clock, ManualClock, UnixTime};
use snigate::config::model::ChallengeType;
use snigate::issuer::Issuer;
use snigate::schedule::{FAILED_VALIDATIONS, FailureClass, Lifetime, Retry};
use snigate::storage::MemoryStorage;

use super::fixture::{Fixture, Liar, WebSolver, config};
use crate::support::{Ask, CaReply, FakeCa, Features};

const NOW: UnixTime = UnixTime::from_secs(1_800_000_000);

/// The challenges that a CA has found no proof of, by order and path.
type Failed = Mutex<Vec<(usize, String)>>;

/// A CA that finds no proof of anything, an issuer that tries two types of challenge with it, and what
/// has failed.
fn without_proof(clock: &Arc<ManualClock>) -> (FakeCa, Fixture, Arc<Failed>) {
    let failed: Arc<Failed> = Arc::default();
    let seen = Arc::clone(&failed);
    let ca = FakeCa::start_mangled(Features::default(), move |ask, reply| {
        blind(ask, reply, &seen)
    });
    let mut config = config(ca.directory(), ca.ca_file());
    config.challenges = vec![ChallengeType::TlsAlpn01, ChallengeType::Http01];
    let solvers: Vec<Arc<dyn ChallengeSolver>> =
        vec![WebSolver::start(), Arc::new(Liar::default())];
    let storage = Arc::new(MemoryStorage::default());
    let fixture = Fixture::with_clock(storage, Arc::clone(clock) as _, config, solvers);
    (ca, fixture, failed)
}

/// Makes of each answer that of a CA which finds no proof.
fn blind(ask: &Ask, mut reply: CaReply, failed: &Failed) -> CaReply {
    let mut failed = failed.lock().unwrap();
    if ask.kind == "challenge" && ask.payload.is_object() {
        failed.push((ask.order, ask.path.clone()));
    }
    let Some((_, path)) = failed.iter().find(|(order, _)| *order == ask.order) else {
        return reply;
    };
    let Ok(mut body) = serde_json::from_slice::<Value>(&reply.body) else {
        return reply;
    };
    match ask.kind.as_str() {
        "orders" => body["status"] = json!("invalid"),
        "authz" => {
            body["status"] = json!("invalid");
            for challenge in body["challenges"].as_array_mut().unwrap() {
                let is_it = challenge["url"].as_str().unwrap().ends_with(path.as_str());
                challenge["status"] = json!(if is_it { "invalid" } else { "pending" });
                if is_it {
                    challenge["error"] = json!({
                        "type": "urn:ietf:params:acme:error:connection", "detail": "nobody there",
                    });
                }
            }
        }
        _ => {}
    }
    reply.body = body.to_string().into();
    reply
}

/// Tries again and again at the times that the back-off sets: never more fail within an hour than
/// the CA bears, though each attempt may try several types of challenge.
#[tokio::test(flavor = "multi_thread")]
async fn never_more_fail_in_an_hour_than_a_ca_bears() {
    let soon = Lifetime {
        not_before: NOW - 89 * 86_400,
        not_after: NOW + 86_400,
        seed: 0,
    };
    for life in [None, Some(soon)] {
        let clock = Arc::new(ManualClock::at(NOW));
        let (_ca, fixture, failed) = without_proof(&clock);
        let (mut retry, mut times): (Option<Retry>, Vec<UnixTime>) = (None, Vec::new());
        let mut rng = fastrand::Rng::with_seed(7);
        for attempt in 0..12 {
            let now = clock.now();
            let mut request = fixture.request(&["a.test"]);
            if let Some(retry) = &retry {
                request.failures = retry.failures;
                request.failed_validations = retry.failed_validations(now);
            }
            let before = failed.lock().unwrap().len();
            let failure = fixture.issuer.issue(&request).await.err().unwrap();
            assert_eq!(failure.class, FailureClass::Validation, "{failure}");
            let cost = failed.lock().unwrap().len() - before;
            assert_eq!(failure.failed_validations as usize, cost, "{attempt}");
            assert!(attempt > 0 || cost == 2, "both types are tried at first");
            times.extend(std::iter::repeat_n(now, cost));
            let next = Retry::after(retry.as_ref(), &failure, None, life.as_ref(), now, &mut rng);
            clock.advance(next.next.unwrap() - now);
            retry = Some(next);
        }
        for (place, at) in times.iter().enumerate() {
            let within = times[place..].iter().filter(|other| **other - *at <= 3600);
            let within = within.count();
            assert!(within <= FAILED_VALIDATIONS as usize, "{within}: {times:?}");
        }
    }
}

/// A person who asks again and again is obeyed, and each time costs one.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_person_asks_for_beyond_costs_one() {
    let (_ca, fixture, failed) = without_proof(&Arc::new(ManualClock::at(NOW)));
    let mut request = fixture.request(&["a.test"]);
    (request.is_asked, request.failed_validations) = (true, FAILED_VALIDATIONS + 2);
    let failure = fixture.issuer.issue(&request).await.err().unwrap();
    assert_eq!(failure.failed_validations, 1);
    assert_eq!(failed.lock().unwrap().len(), 1);
}
